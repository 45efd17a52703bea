"""`throughtime inspect RUN VIEW`."""

from __future__ import annotations

import dataclasses
import json as json_library
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from throughtime.cli.language import readable, warn_of_unknown
from throughtime.cli.output import Json, messages, parse, table, tables, write, write_json
from throughtime.errors import ConfigError, DataError
from throughtime.insight.table import VIEWS, find_view
from throughtime.storage import finite
from throughtime.storage import write as write_file

if TYPE_CHECKING:
    from throughtime.insight.view import Subject, View

ADVICE = "make room, or give another folder with --out"
#: Rows of a table that are shown; the file has all.
MOST_ROWS = 40


@dataclass(frozen=True)
class Common:
    """What every view takes beside its own options."""

    run: Annotated[Positional[Path], arg(help="Folder of a run.")]
    text: Annotated[str | None, arg(help="Look at the model while it reads this text.")] = None
    file: Annotated[
        tuple[Path, ...],
        arg(help="Look at it on such data as it was trained on; else on the run's own validation data."),
    ] = ()
    out: Annotated[
        Path | None, arg(help="Folder for figures (PNG, SVG), pages and numbers; RUN/inspect if not given.")
    ] = None
    json: Json = False


def run(arguments: list[str]) -> int:
    """Show a view of a run, or list the views."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        width = max(map(len, VIEWS))
        rows = "".join(f"  {name:{width}}  {summary}\n" for name, summary in VIEWS.items())
        write(
            f"usage: throughtime inspect RUN VIEW [options]\n\nviews:\n{rows}\n"
            '"throughtime inspect RUN VIEW --help" shows the options of a view.\n'
        )
        return 0
    if len(arguments) < 2 or arguments[1].startswith("-"):
        raise ConfigError(
            f"say what to look at: throughtime inspect {arguments[0]} VIEW, of {', '.join(VIEWS)}"
        )
    name = arguments[1]
    view = find_view(name)
    flat: Any = Annotated[view.Options, arg(name="")]
    steps: Any = Annotated[int, arg(help="Most tokens of a text that are read.")]
    fields = [
        ("steps", steps, dataclasses.field(default=view.STEPS)),
        ("options", flat, dataclasses.field(default=view.Options())),
    ]
    made = dataclasses.make_dataclass("Command", fields, bases=(Common,), frozen=True)
    made.__doc__ = VIEWS[name]
    command = parse(made, f"inspect RUN {name}", [arguments[0], *arguments[2:]])
    inspect(command, name, view)
    return 0


def inspect(command: Any, name: str, view: ModuleType) -> None:
    """Look, say what was seen, and leave figures, pages and numbers in a folder."""
    from throughtime.insight.figures import save

    shown: View = view.look(_subject(command), command.options)
    folder = command.out or command.run / "inspect"
    files = [file for figure, draw in shown.figures.items() for file in save(draw, folder / figure)]
    report = {"view": name, "run": str(command.run), "lines": list(shown.lines), "rows": list(shown.rows)}
    report = finite(report | dict(shown.details))
    texts = {f"{page}.html": text for page, text in shown.pages.items()}
    texts[f"{name}.json"] = json_library.dumps(report, ensure_ascii=False, indent=1, default=str)
    for file, text in texts.items():
        write_file(folder / file, partial(Path.write_text, data=text, encoding="utf-8"), ADVICE)
        files.append(folder / file)
    if command.json:
        write_json(report | {"files": list(map(str, files))})
    else:
        write("".join(f"{line}\n" for line in shown.lines))
        if shown.rows:
            tables().print(table(shown.rows[:MOST_ROWS]))
        if len(shown.rows) > MOST_ROWS:
            write(f"... and {len(shown.rows) - MOST_ROWS} more in {folder / name}.json\n")
    messages().print(", ".join(map(str, files)), soft_wrap=True, markup=False)


def _subject(command: Any) -> Subject:
    """The model of a run, and the input that it is looked at with."""
    from throughtime.insight.view import Subject
    from throughtime.tasks.table import load
    from throughtime.train.run import Run

    if command.steps < 1:
        raise ConfigError(f"--steps must be 1 or more, got {command.steps}")
    if command.text is not None and command.file:
        raise ConfigError("give --text or --file, not both")
    task, answered = load(command.run), False
    if command.text is not None:
        text = readable(command.text)
        if hasattr(task, "unknown"):
            warn_of_unknown(task, text)
        batch = task.looked_at_text(text)
        answered = task.answers_texts
    else:
        part = task.open(command.file) if command.file else _validation_data(task, command.run)
        batch = task.looked_at(part, command.steps)
    inputs, outputs = task.names_of(batch)
    records = Run.open(command.run).read_metrics()
    return Subject(task.model, batch, inputs, outputs, records, task.class_names(), answered)


def _validation_data(task: Any, folder: Path) -> Any:
    """What a run was validated on, if it is still where it was."""
    try:
        return type(task).read(task.config).valid
    except DataError as error:
        raise DataError(
            f"{folder} cannot be looked at on its own data ({error}): give --text or --file"
        ) from None
