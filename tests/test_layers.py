"""What may import what: the folders in their order, and nothing heavy before it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "throughtime"
HEAVY = {"torch", "lightning", "pytorch_lightning"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


def imported_by(code: str, *arguments: str) -> set[str]:
    """The top-level names of all modules that a new interpreter imports to run `code`."""
    done = run("-X", "importtime", "-c", code, *arguments)
    times, other = [], []
    for line in done.stderr.splitlines():
        (times if line.startswith("import time:") else other).append(line)
    assert done.returncode == 0, "\n".join([done.stdout, *other])
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in times}


def test_left_never_imports_right():
    command = "from importlinter.cli import lint_imports_command as lint; lint()"
    done = run("-c", command, "--no-cache", "--no-logo")
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_folder_of_code_is_a_package():
    """The check above passes over a folder without `__init__.py`."""
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert PACKAGE in folders
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("import throughtime", ()),
        ("from throughtime.cli.main import main; raise SystemExit(main())", ("--help",)),
    ],
    ids=["import throughtime", "throughtime --help"],
)
def test_starts_without_heavy_imports(code: str, arguments: tuple[str, ...]):
    names = imported_by(code, *arguments)
    assert "throughtime" in names
    assert names & HEAVY == set()
