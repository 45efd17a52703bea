"""Every block of Python in the documentation runs, page by page, from top to bottom.

A ```output block after a ```python block is what that block prints. A comment `<!-- no-test: reason -->`
on the line above a block leaves it out.
"""

import contextlib
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(
    r"(?P<skip>^ *<!-- no-test: .+ -->\n)?"
    r"^ *```python\b.*\n(?P<code>(?:.*\n)*?)^ *```$"
    r"(?:\s*^ *```output\n(?P<output>(?:.*\n)*?)^ *```$)?",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A block of Python, the line it begins on, and what it prints if the page says so."""

    code: str
    line: int
    output: str | None


def blocks(text: str) -> Iterator[Block]:
    for found in BLOCK.finditer(text):
        if not found["skip"]:
            line = text.count("\n", 0, found.start("code")) + 1
            output = found["output"] and dedent(found["output"])
            yield Block(dedent(found["code"]), line, output)


PAGES = {
    str(path.relative_to(ROOT)): found
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if (found := list(blocks(path.read_text(encoding="utf-8"))))
}


def run_page(name: str, found: list[Block]) -> None:
    """Run the blocks in one namespace; an error shows the line of the page."""
    namespace = {"__name__": "__main__"}
    for block in found:
        code = compile("\n" * (block.line - 1) + block.code, name, "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        if block.output is not None:
            assert printed.getvalue() == block.output, f"{name}, line {block.line}: prints something else"


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")], ids=lambda path: path.name
)
def test_links_lead_somewhere_and_nothing_is_left_to_fill_in(path: Path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (path.parent / target).exists(), target
    assert not re.search(r"TODO|FIXME|XXX|RESULT_|QUIET_", text)


@pytest.mark.parametrize("name", PAGES)
def test_page_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run_page(name, PAGES[name])


def test_documentation_builds(tmp_path: Path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


PAGE = """
```python
print("one")
```

```output
one
```

```console
$ throughtime demo
```

<!-- no-test: needs a trained run -->
```python
left_out()
```

```python
two = 2
```
"""


def test_blocks_are_found():
    expected = [Block('print("one")\n', 3, "one\n"), Block("two = 2\n", 20, None)]
    assert list(blocks(PAGE)) == expected
    assert list(blocks(indent(PAGE, "    "))) == expected


def test_output_is_compared():
    with pytest.raises(AssertionError, match=r"page, line 3: prints something else"):
        run_page("page", list(blocks(PAGE.replace("one\n```\n\n```console", "two\n```\n\n```console"))))


def test_error_shows_the_line_of_the_page():
    with pytest.raises(ZeroDivisionError) as caught:
        run_page("page", list(blocks(PAGE.replace("two = 2", "two = 1 / 0"))))
    assert caught.traceback[-1].lineno + 1 == 20
