"""What a recurrence computes: its equations, and nothing else."""

from throughtime.cells.cell import Cell, Initial, cell
from throughtime.cells.expression import (
    batch_norm,
    exp,
    layer_norm,
    log,
    maximum,
    relu,
    sigmoid,
    softplus,
    tanh,
)
from throughtime.cells.library import CELLS, find_cell
from throughtime.cells.trace import CellGraph

__all__ = [
    "CELLS",
    "Cell",
    "CellGraph",
    "Initial",
    "batch_norm",
    "cell",
    "exp",
    "find_cell",
    "layer_norm",
    "log",
    "maximum",
    "relu",
    "sigmoid",
    "softplus",
    "tanh",
]
