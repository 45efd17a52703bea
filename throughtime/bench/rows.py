"""Rows of the benchmark: a cell at a size in a pass, compared with `reference` and then timed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

from throughtime.bench.comparison import Comparison, compare
from throughtime.bench.first_use import first_use
from throughtime.bench.problems import Problem, Size, draw, flops
from throughtime.bench.rivals import RIVALS, ours, packed
from throughtime.bench.timing import Contender, Timing, check, time_in_turns
from throughtime.cells.cell import Cell
from throughtime.errors import StoppedError, ThroughTimeError
from throughtime.kernels.unroll import explain

#: The names of the rivals in the order in which they are shown.
RIVAL_NAMES = (*RIVALS, "packed")


@dataclass(frozen=True)
class Row:
    """What one cell did at one size in one pass ("train" or "infer").

    `timings` has "ours", each rival there is, and for "packed" also "ours, packed": ours with the same
    lengths. It is empty where `error` says why nothing was timed. `first_use` has the seconds that
    machine code takes to be made, "new" and "cached".
    """

    cell: str
    size: Size
    kind: str
    flops: int
    backend: str = ""
    comparison: Comparison | None = None
    timings: dict[str, Timing] = field(default_factory=dict)
    error: str | None = None
    first_use: dict[str, float] | None = None

    @property
    def gflops(self) -> float:
        """Ours, in 10^9 operations of matrix products per second."""
        return self.flops / self.timings["ours"].median / 1e9

    @property
    def against(self) -> dict[str, float]:
        """How many times faster ours is than each rival: its time over ours."""
        return {
            name: self.timings[name].median
            / self.timings["ours, packed" if name == "packed" else "ours"].median
            for name in RIVAL_NAMES
            if name in self.timings
        }

    def as_json(self) -> dict[str, Any]:
        """The row in numbers."""
        size = self.size
        known: dict[str, Any] = {
            "cell": self.cell,
            **{"T": size.steps, "B": size.batch, "I": size.inputs, "H": size.hidden},
            "pass": self.kind,
        }
        if self.backend:
            known["backend"] = self.backend
        if self.comparison is not None:
            known["comparison"] = self.comparison.as_json()
        if self.first_use is not None:
            known["first_use"] = self.first_use
        if self.error is not None:
            return known | {"error": self.error}
        return known | {
            "gflops": self.gflops,
            "against": self.against,
            "seconds": {name: timing.median for name, timing in self.timings.items()},
            "spread": {name: timing.spread for name, timing in self.timings.items()},
        }


def measure(
    cells: Sequence[Cell],
    sizes: Sequence[Size],
    kinds: Sequence[str],
    seconds: float,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Row]:
    """A row for each cell, size and pass, as they are done; about `seconds` of timing for each.

    A backend is compared with `reference` once for each cell it runs. Where they differ, the cell is not
    timed and its rows say so. Raises `StoppedError` soon after `stopped` says so.
    """
    compared, used = cache(compare), cache(first_use)
    for cell, size, kind in itertools.product(cells, sizes, kinds):
        row = Row(cell.name, size, kind, flops(cell, size, kind))
        try:
            check(stopped)
            row = replace(row, first_use=used(cell))
            yield _measured(row, cell, compared, partial(time_in_turns, seconds=seconds, stopped=stopped))
        except StoppedError:
            raise
        except (ThroughTimeError, RuntimeError, MemoryError) as error:  # such as a size that is too large
            yield replace(row, error=" ".join(str(error).split()) or type(error).__name__)


def _measured(
    row: Row,
    cell: Cell,
    compared: Callable[[Cell, str], Comparison],
    timed: Callable[[dict[str, Contender]], dict[str, Timing]],
) -> Row:
    problem = draw(cell, row.size)
    backend = explain(cell, problem.x).backend
    comparison = compared(cell, backend)
    row = replace(row, backend=backend, comparison=comparison)
    if not comparison.ok:
        return replace(row, error=comparison.refusal)
    return replace(row, timings=timed(_contenders(problem, row.kind == "train")))


def _contenders(problem: Problem, train: bool) -> dict[str, Contender]:
    contenders = {"ours": ours(problem, train)}
    for name, make in RIVALS.items():
        rival = make(problem, train)
        if rival is not None:
            contenders[name] = rival
    if train:
        half = draw(problem.cell, problem.size, half_padded=True)
        rival = packed(half, train)
        if rival is not None:
            contenders |= {"ours, packed": ours(half, train), "packed": rival}
    return contenders
