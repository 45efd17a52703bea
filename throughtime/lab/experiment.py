"""What an experiment is: a claim, what was measured, whether it held, a table and a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from throughtime.cells.library import find_cell
from throughtime.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Claim(NamedTuple):
    """A claim, what was measured of it, and whether it held."""

    claim: str
    measured: str
    held: Literal["yes", "in part", "no"]


class Finding(NamedTuple):
    """What an experiment found.

    claims  each with its measurement.
    rows    the numbers behind the figure, as rows of a table.
    draw    draws the figure.
    """

    claims: Sequence[Claim]
    rows: Sequence[dict[str, Any]]
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Experiment:
    """An experiment by its name, and the file that does it.

    `throughtime.lab.NAME` has `run(seed, cells)`, or `run(seed)` where `cells` names none. It takes less than
    two minutes on two cores, and the same seed gives the same numbers on the same machine.

    title   what it is about, in a line.
    source  who claimed it.
    cells   those it is run with unless others are named; none where it is about no cell in particular.
    """

    name: str
    title: str
    source: str
    cells: tuple[str, ...] = ()

    def run(self, seed: int = 0, cells: Sequence[str] = ()) -> Finding:
        """Do it, with other cells than its own if they are named, in the table or as FILE.py:NAME.

        Raises `ConfigError` for cells where it takes none, `CellError` for one that is not found.
        """
        if cells and not self.cells:
            raise ConfigError(f'the experiment "{self.name}" takes no --cells: leave them out')
        experiment: Callable[..., Finding] = import_module(
            f"throughtime.lab.{self.name.replace('-', '_')}"
        ).run
        if not self.cells:
            return experiment(seed)
        return experiment(seed, [find_cell(name) for name in cells or self.cells])


def held(good: bool, part: bool = False) -> Literal["yes", "in part", "no"]:
    """Whether a claim held: altogether, else in part or not at all."""
    return "yes" if good else "in part" if part else "no"
