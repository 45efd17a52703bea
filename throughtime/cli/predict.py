"""`throughtime predict RUN [INPUT]`."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from throughtime.cli.language import readable
from throughtime.cli.output import Json, messages, write, write_json
from throughtime.cli.using import RunFirst, parse_with_search
from throughtime.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Inputs that are computed side by side.
ROWS = 64


@dataclass(frozen=True)
class Predict:
    """Use a trained model: on one input, on a file, or, with -, on each line that comes in."""

    run: RunFirst
    input: Annotated[Positional[str | None], arg(help="The input; - reads lines from standard input.")] = None
    file: Annotated[Path | None, arg(help="Each line, or row of a table, of this file is an input.")] = None
    plot: Annotated[Path | None, arg(help="Draw the picture of the one input into this file.")] = None
    json: Json = False


def run(arguments: list[str]) -> int:
    """Predict."""
    command, task = parse_with_search(Predict, "predict", arguments)
    if (command.input is None) == (command.file is None):
        raise ConfigError("give an input, or --file FILE, or - for the lines of standard input")
    if command.plot is not None and command.input in (None, "-"):
        raise ConfigError("--plot draws the picture of one input: give it in the command")
    if command.file is not None:
        answers = task.predict(task.inputs(command.file), ROWS)
    elif command.input == "-":
        answers = chain.from_iterable(map(task.answer, _arriving()))
    else:
        answers = iter(task.answer([readable(command.input)]))
    for answer in answers:
        if command.plot is not None:
            draw_into(command.plot, partial(task.draw, answer))
        if command.json:
            write_json(answer)
        else:
            write(task.show(answer) + "\n")
    return 0


def draw_into(path: Path, draw: Callable[[], Figure]) -> None:
    """Draw a figure into a file, and say so; raises `ConfigError` where its name is not that of a picture."""
    from matplotlib.figure import Figure

    from throughtime.train.curves import save_figure

    kind = path.suffix.removeprefix(".").lower() or "png"
    if kind not in Figure().canvas.get_supported_filetypes():
        raise ConfigError(f'{path} ends in "{path.suffix}", which is no picture: give .png, .svg or .pdf')
    save_figure(draw(), path)
    messages().print(f"drawn: {path}", soft_wrap=True, markup=False)


def _arriving() -> Iterator[list[str]]:
    """The lines of standard input, in groups of those that are there: none waits for the next."""
    if sys.stdin is None:
        raise ConfigError("standard input is closed: give it lines, or an input in the command")
    lines: queue.Queue[str | None] = queue.Queue(maxsize=4 * ROWS)
    # Not sys.stdin itself: Python aborts where it ends while a thread waits in that.
    stdin = open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: SIM115

    def read() -> None:
        for line in stdin:
            lines.put(line.decode("utf-8", "replace").rstrip("\r\n"))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    line = lines.get()
    while line is not None:
        group = [line]
        while len(group) < ROWS and not lines.empty() and (line := lines.get()) is not None:
            group.append(line)
        yield group
        if line is not None:
            line = lines.get()
