"""How fast a cell runs beside what else would run it: torch's layer, a loop in torch, `jax.lax.scan`."""

from throughtime.bench.comparison import Comparison, compare
from throughtime.bench.problems import GRID, PASSES, Size
from throughtime.bench.rows import Row, measure

__all__ = [
    "GRID",
    "PASSES",
    "Comparison",
    "Row",
    "Size",
    "compare",
    "measure",
]
