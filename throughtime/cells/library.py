"""The table of cells. A new row is listed, tested and documented without another line."""

from __future__ import annotations

import difflib

from throughtime.cells.cell import Cell
from throughtime.cells.elman import irnn, np_rnn, rnn, rnn_relu
from throughtime.cells.gru import gru, gru_reset_before, layer_norm_gru
from throughtime.cells.lstm import coupled_lstm, layer_norm_lstm, lstm, lstm_1997, peephole_lstm
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
        gru,
        gru_reset_before,
        layer_norm_gru,
    )
}


def find_cell(name: str) -> Cell:
    """The cell of the table with this name; raises `CellError` with the nearest names where none has it."""
    if name in CELLS:
        return CELLS[name]
    near = difflib.get_close_matches(name.lower(), CELLS, n=3) or CELLS
    raise CellError(
        f'there is no cell "{name}": did you mean {", ".join(near)}? ("throughtime cells" lists all)'
    )
