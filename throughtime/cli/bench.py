"""`throughtime bench`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from tyro.conf import arg

from throughtime.cells.cell import Cell
from throughtime.cells.library import CELLS, find_cell
from throughtime.cli.output import Json, messages, parse, write_json
from throughtime.errors import ConfigError, StoppedError

if TYPE_CHECKING:
    from throughtime.bench.rows import Row


def run(arguments: list[str]) -> int:
    """Measure."""
    return parse(bench, "bench", arguments)


def bench(
    cells: Annotated[
        tuple[str, ...],
        arg(help="Cells of the table, as in lstm,gru, or yours, as in mycells.py:my_cell; all if not given."),
    ] = (),
    sizes: Annotated[
        tuple[str, ...],
        arg(help="Steps, batch, inputs and hidden units, as in 50,64,128,128; a grid of five if not given."),
    ] = (),
    passes: Annotated[
        tuple[str, ...], arg(help="train (forward and backward), infer (forward), or both.")
    ] = ("train", "infer"),
    seconds: Annotated[
        float, arg(help="Seconds of timing for each row; five rounds are made at least.")
    ] = 2.0,
    threads: Annotated[int | None, arg(help="Threads; as many as torch takes if not given.")] = None,
    output: Annotated[
        Path | None, arg(help="Folder for bench.json and the figure, bench.png and bench.svg.")
    ] = None,
    json: Json = False,
) -> int:
    """Time cells on this machine: ours beside torch's layer, a loop in torch, jax.lax.scan if jax is there,
    and, on sequences of which half is padding, torch's layer on a packed sequence. A ratio says how many
    times faster ours is. A cell that does not compute what its plain loop computes is not timed.
    """
    chosen = _cells(cells)
    kinds = _passes(passes)
    if not seconds >= 0:
        raise ConfigError(f"seconds must be 0 or more, got {seconds}")
    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be 1 or more, got {threads}")

    from throughtime.bench.machine import describe, matmul_gflops, use_threads
    from throughtime.bench.problems import GRID, Size, can_be_timed, distinct
    from throughtime.bench.report import as_json, as_line, as_table, check_folder, write_report
    from throughtime.bench.rivals import has_jax
    from throughtime.bench.rows import measure

    grid = [Size.parse(size) for size in sizes] or list(GRID)
    for cell in chosen if cells else ():
        if not can_be_timed(cell):
            raise ConfigError(f'"{cell.name}" needs the statistics of batches and is not timed by itself')
    chosen = chosen if cells else distinct(chosen)
    if output is not None:
        check_folder(output)
    if threads is not None:
        use_threads(threads)
    console = messages()
    if not has_jax():
        console.print("jax is not installed: there is no column for it")
    rows: list[Row] = []
    count = len(chosen) * len(grid) * len(kinds)
    machine = describe()
    stopped = False
    with _interrupt() as interrupted:
        try:
            machine["matmul_gflops"] = matmul_gflops()
            for number, row in enumerate(measure(chosen, grid, kinds, seconds, interrupted.is_set), 1):
                rows.append(row)
                console.print(f"{number}/{count} {as_line(row)}", soft_wrap=True, markup=False)
        except (StoppedError, KeyboardInterrupt):  # what has been measured is still worth having
            console.print(f"stopped after {len(rows)} of {count} rows")
            stopped = True
    if json:
        write_json(as_json(machine, rows))
    else:
        out = Console()
        (out if out.is_terminal else Console(width=200)).print(as_table(rows))
    if output is not None:
        write_report(output, machine, rows)
        console.print(f"written to {output}", soft_wrap=True, markup=False)
    if stopped:
        return StoppedError.exit_code
    return 1 if any(row.error is not None for row in rows) else 0


@contextmanager
def _interrupt() -> Iterator[Event]:
    """An event that the first Ctrl-C sets; the second raises `KeyboardInterrupt` as ever.

    Python drops an exception that is raised while another library calls back, as jax does when garbage is
    collected, and the first Ctrl-C would be lost.
    """
    event = Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def _cells(names: tuple[str, ...]) -> list[Cell]:
    """The cells of names separated by commas or blanks; the whole table where there is none."""
    return [find_cell(name) for name in _separate(names)] or list(CELLS.values())


def _passes(names: tuple[str, ...]) -> list[str]:
    from throughtime.bench.problems import PASSES

    given = _separate(names)
    for name in given:
        if name not in PASSES:
            raise ConfigError(f'there is no pass "{name}": there are {", ".join(PASSES)}')
    return given or [*PASSES]


def _separate(names: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(part for name in names for part in name.split(",") if part))
