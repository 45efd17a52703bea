"""Recurrences over time as a figure: rolled, with loops, and unrolled, with a column for each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from throughtime.insight.drawing import LETTERS, LINE, Point, arrow, box, canvas, circle, write
from throughtime.nn.recurrent import Recurrent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALL = str.maketrans("0123456789-t", "₀₁₂₃₄₅₆₇₈₉₋ₜ")
#: Inches of a box, of a box of one of two directions, and between rows of boxes.
WIDTH, HALF, HEIGHT, DOWN = 1.7, 1.35, 0.62, 1.05
#: Inches between columns, in one direction and in two, and how far from the middle each of two stands.
ACROSS, ASIDE = (2.5, 3.3), 0.72
#: Inches around everything, for a title, between two chains, and beside a rolled one.
MARGIN, TITLE, APART, ROLLED = 0.4, 0.6, 0.5, 0.6
#: Letters of a cell's name in a line.
NAME = 12


@dataclass(frozen=True)
class Chain:
    """A recurrence with what is below and above it at each step.

    name     what is read at each step: "x", "y".
    below    what makes vectors of it, the lowest first.
    above    what makes answers of the output.
    once     the answer is one of the whole row, from the outputs of "all" steps, the "last", or both "ends".
    attends  whether each step looks at a memory, that of the chain before if there is one.
    """

    name: str
    layer: Recurrent
    below: tuple[str, ...]
    above: tuple[str, ...]
    once: Literal["", "all", "last", "ends"] = ""
    attends: bool = False

    def width(self, columns: int) -> float:
        """Inches of so many columns; a rolled one has room for its loops."""
        return ACROSS[self.layer.bidirectional] * columns + 2 * ROLLED * (columns == 1)


def draw_chains(chains: Sequence[Chain], steps: int) -> Figure:
    """All chains from left to right, on the left rolled and then unrolled over so many steps."""
    rolled, unrolled = (
        sum(chain.width(columns) for chain in chains) + APART * (len(chains) - 1) for columns in (1, steps)
    )
    width = rolled + unrolled + APART + 2 * MARGIN
    figure, panel = canvas(width, 1.0)
    sides = (MARGIN, 1, "rolled"), (MARGIN + rolled + APART, steps, f"unrolled over {steps} steps")
    height = TITLE + max(_draw_side(panel, chains, left, columns) for left, columns, _ in sides)
    for left, _, title in sides:
        write(panel, (left, height - TITLE / 2), title, size=LETTERS + 3, ha="left")
    figure.set_size_inches(width, height)
    panel.set_ylim(0, height)
    return figure


def _draw_side(panel: Axes, chains: Sequence[Chain], left: float, columns: int) -> float:
    """Draw all chains, and tell how high they are."""
    before: _Drawn | None = None
    height = 0.0
    for chain in chains:
        drawn = _Drawn(panel, chain, left, columns)
        drawn.draw(before)
        before, left = drawn, left + chain.width(columns) + APART
        height = max(height, drawn.y + HEIGHT / 2 + MARGIN)
    return height


def _label(name: str, units: int, way: str = "") -> str:
    """What stands in the box of a layer; a long name in two lines."""
    places = [k + 1 for k, letter in enumerate(name) if letter == "_"]
    if len(name) > NAME and places:
        middle = min(places, key=lambda k: abs(k - len(name) / 2))
        name = f"{name[:middle]}\n{name[middle:]}"
    return f"{way}{name}\n{units} units"


class _Drawn:
    """A chain in the making: where its columns are, and how high it has grown."""

    def __init__(self, panel: Axes, chain: Chain, left: float, columns: int) -> None:
        self.panel, self.chain, self.columns = panel, chain, columns
        self.across = [left + chain.width(columns) * (t + 0.5) / columns for t in range(columns)]
        self.y = MARGIN + HEIGHT / 2
        #: Half the height of what stands on top.
        self.half = HEIGHT / 2
        #: The rows of layers that read from the beginning.
        self.layers: list[float] = []

    def draw(self, before: _Drawn | None) -> None:
        """All of it, behind the chain that it goes on from."""
        chain = self.chain
        for t, x in enumerate(self.across):
            box(self.panel, (x, self.y), self._name(t, before is not None), "given", 0.8, HEIGHT)
        for label in chain.below:
            self._row(label, "learned")
        for index, cell in enumerate(chain.layer.cells):
            add = self._both if chain.layer.bidirectional else self._one
            add(
                cell.name,
                chain.layer.hidden_sizes[index],
                ", ".join(cell.states),
                self._aligned(before, index),
            )
        if before is not None:
            self._begin_from(before)
        if chain.attends:
            self._attend(before)
        for k, label in enumerate(chain.above):
            (self._answer if chain.once else self._row)(label, "state", *[k == 0] * bool(chain.once))

    def _name(self, t: int, said: bool) -> str:
        """What is read at a column: of what is said, what was said at the step before."""
        step = str(t + 1 - said) if self.columns > 1 else "t-1" if said else "t"
        return f"{self.chain.name}{step}".translate(SMALL)

    def _aligned(self, before: _Drawn | None, index: int) -> float:
        """The height of a layer: beside the one whose states begin it, or on what is below."""
        beside = before.layers[index] if before is not None and index < len(before.layers) else 0.0
        return max(self.y + DOWN, beside)

    def _row(self, label: str, kind: str, y: float | None = None) -> None:
        """A box at each step, on what was there."""
        above = self.y + DOWN if y is None else y
        for x in self.across:
            box(self.panel, (x, above), label, kind, WIDTH, HEIGHT)
            self._up((x, self.y), (x, above))
        self.y, self.half = above, HEIGHT / 2

    def _answer(self, label: str, kind: str, first: bool) -> None:
        """A box at the last step alone, on what was there at the steps that it reads."""
        above, last = self.y + DOWN, self.across[-1]
        box(self.panel, (last, above), label, kind, WIDTH, HEIGHT)
        read = {"all": self.across, "last": [last], "ends": [self.across[0], last]}[self.chain.once or "last"]
        for x in read if first else [last]:
            self._up((x, self.y), (last if x == last else last - WIDTH / 2 + 0.2, above))
        self.y, self.half = above, HEIGHT / 2

    def _one(self, name: str, units: int, states: str, y: float) -> None:
        """A layer in one direction."""
        self._row(_label(name, units), "map", y)
        self.layers.append(self.y)
        self._through_time(self.across, self.y, WIDTH, states)

    def _both(self, name: str, units: int, states: str, y: float) -> None:
        """A layer in two directions: each step is read by both, whose outputs are joined."""
        high, joined = y + DOWN, y + 1.85 * DOWN
        merged = {"concat": "‖", "sum": "+", "mean": "mean"}[self.chain.layer.merge]
        for x in self.across:
            for side, row, way in ((-ASIDE, y, "→ "), (ASIDE, high, "← ")):
                box(self.panel, (x + side, row), _label(name, units, way), "map", HALF, HEIGHT)
                self._up((x, self.y), (x + side, row))
                arrow(self.panel, (x + side, row + HEIGHT / 2), (x + side * 0.25, joined - 0.18))
            circle(self.panel, (x, joined), merged)
        for side, row, turned in ((-ASIDE, y, False), (ASIDE, high, True)):
            self._through_time([x + side for x in self.across], row, HALF, states, turned)
        self.layers.append(y)
        self.y, self.half = joined, 0.22

    def _through_time(
        self, across: Sequence[float], y: float, width: float, states: str, turned: bool = False
    ) -> None:
        """The states from step to step, or, rolled, in a loop."""
        if len(across) == 1:
            self._loop(across[0], y, width, states, turned)
        for x, after in pairwise(across):
            ends = (x + width / 2, y), (after - width / 2, y)
            arrow(self.panel, *(reversed(ends) if turned else ends))
            write(self.panel, ((x + after) / 2, y + 0.16), states, size=LETTERS - 1)

    def _loop(self, x: float, y: float, width: float, states: str, turned: bool) -> None:
        side = -1 if x < self.across[0] else 1
        edge, beyond = x + side * width / 2, x + side * (width / 2 + 0.2)
        self.panel.plot([edge, beyond, beyond], [y + 0.12, y + 0.12, y - 0.12], color=LINE, linewidth=1.4)
        arrow(self.panel, (beyond, y - 0.12), (edge, y - 0.12))
        delayed = f"{states}\n{'t+1' if turned else 't-1'}"
        write(self.panel, (beyond + side * 0.06, y), delayed, LETTERS - 2, ha="left" if side > 0 else "right")

    def _begin_from(self, before: _Drawn) -> None:
        """The states that the chain before ends in begin this one."""
        if before.chain.layer.layers != self.chain.layer.layers:
            return
        way = HALF / 2 - ASIDE if before.chain.layer.bidirectional else WIDTH / 2
        for there, here, cell in zip(before.layers, self.layers, self.chain.layer.cells, strict=True):
            end = self.across[0] - WIDTH / 2
            arrow(self.panel, (before.across[-1] + way, there), (end, here), linestyle="--")
            write(self.panel, (end - 0.3, here + 0.16), ", ".join(cell.states), size=LETTERS - 1)

    def _attend(self, before: _Drawn | None) -> None:
        """A line with all steps of a memory, from which each step takes what it looks for."""
        line = max(self.y + HEIGHT / 2, before.y + before.half if before is not None else 0.0) + 0.3
        begins = before.across[0] if before is not None else self.across[0] - WIDTH / 2
        for x in before.across if before is not None else ():
            arrow(self.panel, (x, before.y + before.half if before is not None else 0.0), (x, line))
        self.panel.plot([begins - 0.2, self.across[-1] - 0.45], [line] * 2, color=LINE, linewidth=3)
        write(self.panel, (begins - 0.2, line + 0.16), "memory", size=LETTERS - 1, ha="left")
        above = line + 0.3 + HEIGHT / 2
        for x in self.across:
            box(self.panel, (x, above), "attention", "map", WIDTH, HEIGHT)
            arrow(self.panel, (x - 0.45, line), (x - 0.45, above - HEIGHT / 2))
            arrow(self.panel, (x + 0.2, self.y + self.half), (x + 0.2, above - HEIGHT / 2))
        self.y, self.half = above, HEIGHT / 2

    def _up(self, below: Point, above: Point) -> None:
        """From the top of what stands below to the bottom of what stands above it."""
        arrow(self.panel, (below[0], below[1] + self.half), (above[0], above[1] - HEIGHT / 2))
