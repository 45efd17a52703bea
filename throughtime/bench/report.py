"""The rows as a table, as JSON, and as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from throughtime.bench.figure import draw_figure
from throughtime.bench.rows import RIVAL_NAMES, Row
from throughtime.storage import storage_errors, write

ADVICE = "give another folder with --output"


def as_json(machine: dict[str, str | int | float], rows: Sequence[Row]) -> dict[str, Any]:
    """The result in numbers."""
    return {"machine": machine, "rows": [row.as_json() for row in rows]}


def as_table(rows: Sequence[Row]) -> Table:
    """Milliseconds, GFLOP/s, and how many times faster ours is than each rival there is a column for."""
    rivals = [name for name in RIVAL_NAMES if any(name in row.timings for row in rows)]
    table = Table("cell", "T, B, I, H", "pass", "backend", box=None, pad_edge=False)
    for name in ("ms", "±", "GFLOP/s", *rivals):
        table.add_column(name, justify="right")
    for row in rows:
        named = [escape(row.cell), str(row.size).replace(",", ", "), row.kind, row.backend]
        if row.error is not None:
            table.add_row(*named, "not timed")
            continue
        ours, against = row.timings["ours"], row.against
        table.add_row(
            *named,
            f"{ours.median * 1e3:.2f}",
            f"{ours.spread:.0%}",
            _gflops(row),
            *(f"{against[name]:.2f}" if name in against else "-" for name in rivals),
        )
    return table


def as_line(row: Row) -> str:
    """A row as one line of progress."""
    named = f"{row.cell} {row.size} {row.kind}"
    if row.error is not None:
        return f"{named}: not timed: {row.error}"
    ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in row.against.items())
    return f"{named}: {row.timings['ours'].median * 1e3:.2f} ms, {_gflops(row)} GFLOP/s; against {ratios}"


def check_folder(folder: Path) -> None:
    """Make the folder, and see before anything is measured that it can be written."""
    with storage_errors(folder, ADVICE):
        folder.mkdir(parents=True, exist_ok=True)
    write(folder / "bench.tmp", lambda path: path.touch(), ADVICE)
    (folder / "bench.tmp").unlink()


def write_report(folder: Path, machine: dict[str, str | int | float], rows: Sequence[Row]) -> None:
    """Write bench.json and, where something was timed, bench.png and bench.svg."""
    text = json.dumps(as_json(machine, rows), indent=2) + "\n"
    write(folder / "bench.json", lambda path: path.write_text(text, encoding="utf-8"), ADVICE)
    timed = [row for row in rows if row.error is None]
    if timed:
        figure = draw_figure(machine, timed)
        for kind in ("png", "svg"):
            write(folder / f"bench.{kind}", partial(figure.savefig, format=kind), ADVICE)


def _gflops(row: Row) -> str:
    return f"{row.gflops:.0f}" if row.gflops >= 10 else f"{row.gflops:.2g}"
