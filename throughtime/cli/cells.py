"""`throughtime cells [NAME]`."""

from __future__ import annotations

from typing import Annotated

from rich.table import Table
from tyro.conf import FlagCreatePairsOff, Positional, arg

from throughtime.cells.cell import Cell
from throughtime.cells.formula import as_latex, as_text
from throughtime.cells.library import CELLS, find_cell
from throughtime.cli.output import Json, parse, tables, write, write_json
from throughtime.kernels.plan import as_text as as_plan
from throughtime.kernels.schedule import schedule


def run(arguments: list[str]) -> int:
    """List or show."""
    parse(cells, "cells", arguments)
    return 0


def cells(
    name: Annotated[
        Positional[str | None], arg(help="A cell, or FILE.py:NAME; all are listed if not given.")
    ] = None,
    plan: Annotated[
        bool,
        FlagCreatePairsOff,
        arg(help="How the cell is run: products, what is kept or redone."),
    ] = False,
    json: Json = False,
) -> None:
    """The recurrences: states, gates, weights per unit (I inputs, H units), and where they come from."""
    if name is not None:
        show(find_cell(name), plan, json)
    elif json:
        write_json({"cells": [_row(cell) for cell in CELLS.values()]})
    else:
        table = Table("cell", "states", "gates", "weights per unit", "source", box=None, pad_edge=False)
        for cell in CELLS.values():
            table.add_row(*(str(value) for value in _row(cell).values()))
        tables().print(table)


def show(cell: Cell, plan: bool, json: bool) -> None:
    """The equations of one cell, as text and as LaTeX, or how it is run."""
    if plan:
        lines = as_plan(schedule(cell.graph))
        write_json({"name": cell.name, "plan": lines}) if json else write("\n".join(lines) + "\n")
        return
    text, latex = as_text(cell.graph), as_latex(cell.graph)
    if json:
        write_json(_row(cell) | {"title": cell.title, "text": text, "latex": latex})
        return
    write(f"{cell.name}: {cell.title} ({cell.source})\n\n")
    write("".join(f"  {line}\n" for line in text))
    write(f"\n{latex}\n")


def weights_per_unit(cell: Cell) -> str:
    """Weights for each hidden unit, as a sum over I inputs, H units and single numbers."""
    graph = cell.graph
    counts = [
        (len(graph.input_blocks), "I"),
        (len(graph.recurrent_blocks), "H"),
        (len(graph.bias_blocks) + len(graph.vectors), ""),
    ]
    return " + ".join(f"{'' if n == 1 and unit else n}{unit}" for n, unit in counts if n)


def _row(cell: Cell) -> dict[str, str]:
    return {
        "name": cell.name,
        "states": " ".join(cell.graph.states),
        "gates": " ".join(cell.graph.gates) or "-",
        "weights_per_unit": weights_per_unit(cell),
        "source": cell.source,
    }
