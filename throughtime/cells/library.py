"""The table of cells. A new row is listed, tested and documented without another line."""

from __future__ import annotations

import difflib
import runpy
from pathlib import Path

from throughtime.cells.cell import Cell
from throughtime.cells.conditioned import image_rnn, multiplicative_lstm
from throughtime.cells.deep import deep_transition_rnn, recurrent_highway
from throughtime.cells.elman import irnn, np_rnn, rnn, rnn_relu
from throughtime.cells.exponential import slstm
from throughtime.cells.gru import gru, gru_reset_before, layer_norm_gru
from throughtime.cells.independent import indrnn, sru
from throughtime.cells.linear import lru, min_gru, min_lstm
from throughtime.cells.lstm import (
    batch_norm_lstm,
    coupled_lstm,
    layer_norm_lstm,
    lstm,
    lstm_1997,
    peephole_lstm,
)
from throughtime.errors import CellError

CELLS: dict[str, Cell] = {
    row.name: row
    for row in (
        rnn,
        rnn_relu,
        irnn,
        np_rnn,
        lstm,
        lstm_1997,
        peephole_lstm,
        coupled_lstm,
        layer_norm_lstm,
        batch_norm_lstm,
        gru,
        gru_reset_before,
        layer_norm_gru,
        deep_transition_rnn,
        recurrent_highway,
        image_rnn,
        min_gru,
        min_lstm,
        indrnn,
        sru,
        multiplicative_lstm,
        slstm,
        lru,
    )
}


def find_cell(name: str) -> Cell:
    """The cell of the table with this name, or the one that "FILE.py:NAME" defines.

    Raises `CellError` with the nearest names where none has it. The file is run; raises `CellError` where
    it does not exist, cannot be run, or has no such cell.
    """
    if not isinstance(name, str):
        raise CellError(f"{name!r} is not a cell: give one, its name in the table, or FILE.py:NAME")
    if name in CELLS:
        return CELLS[name]
    if ":" in name or name.endswith(".py"):
        return _load_cell(name)
    near = difflib.get_close_matches(name.lower(), CELLS, n=3) or CELLS
    raise CellError(
        f'there is no cell "{name}": did you mean {", ".join(near)}? '
        '("throughtime cells" lists all; FILE.py:NAME names one of your own)'
    )


def _load_cell(place: str) -> Cell:
    file, _, name = place.rpartition(":")
    if not file or not name:
        raise CellError(f'"{place}" names no cell: give the file and the cell, as in mycells.py:my_cell')
    path = Path(file)
    if not path.is_file():
        raise CellError(f"{file} is not a file: give the file and the cell, as in mycells.py:my_cell")
    try:
        values = runpy.run_path(file, run_name=path.stem)
    except CellError:
        raise
    except (Exception, SystemExit) as error:
        raise CellError(f"{file} cannot be run: {type(error).__name__}: {error}") from error
    found = values.get(name)
    if isinstance(found, Cell):
        return found
    cells = ", ".join(key for key, value in values.items() if isinstance(value, Cell)) or "none"
    what = f"has no {name}" if name not in values else f"defines {name} as {type(found).__name__}, not a cell"
    raise CellError(f"{file} {what}: its cells are {cells}")
