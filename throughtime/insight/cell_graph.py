"""The graph of a cell as a figure: in layers from the old states and the input to the new states."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from throughtime.cells.cell import Cell
from throughtime.cells.expression import ACTIVATIONS, Value
from throughtime.cells.formula import as_text
from throughtime.cells.trace import CellGraph
from throughtime.insight.drawing import LINE, arrow, box, canvas, circle, circle_width, width_of, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SYMBOLS = {"add": "+", "sub": "−", "mul": "⊙", "div": "÷", "neg": "−", "sigmoid": "σ", "maximum": "max"}
SYMBOLS |= {"layer_norm": "LN", "vector": "", "table": "table"}
#: Inches between levels, between the nodes of a level, and of a line of the equations.
GAP, DOWN, EQUATION = 0.65, 0.7, 0.27
#: Inches at both sides, and of the head of an arrow.
MARGIN, HEAD = 0.25, 0.2
#: Passes over the levels that put nodes near what they hang together with.
PASSES = 12


@dataclass(eq=False)
class Node:
    """A box of the figure, or, without a label, a place that a long arrow passes.

    kind   "given" (x, old states), "learned" (vectors), "map", "op", "state" (new ones) or "".
    """

    label: str = ""
    kind: str = ""
    level: int = 0
    below: list[Node] = field(default_factory=list)
    y: float = 0.0


def draw_cell(cell: Cell) -> Figure:
    """The graph of one step of a cell, and its equations below it.

    A map with the activation that nothing else reads it through is one box, "f: σ(W_xf x + W_hf h + b)" being
    the gate f; other operators are circles, with the numbers that they take.
    """
    levels = _ordered(_levels(_nodes(cell.graph)))
    equations = as_text(cell.graph)
    height, below = DOWN * max(map(len, levels)), EQUATION * (len(equations) + 1)
    width = max(7.0, _columns(levels)[-1][1] + MARGIN, 0.5 + 0.1 * max(map(len, equations)))
    figure, panel = canvas(width, height + below + 0.5)
    write(panel, (width / 2, height + below + 0.3), f"{cell.name}: one step", size=14)
    _draw(panel, levels, below + height / 2)
    for k, equation in enumerate(equations):
        write(panel, (0.3, below - EQUATION * (k + 0.5)), equation, family="monospace", ha="left")
    return figure


def _nodes(graph: CellGraph) -> list[Node]:
    """The boxes, arguments first; a gate is one with its map."""
    shown: dict[Value, Node] = {}
    gate_of = {graph.maps[k]: name for k, name in enumerate(each.name for each in graph.maps)}
    fused = {
        node.args[0]
        for node in graph.nodes
        if node.op in ACTIVATIONS and node.args[0].op == "map" and len(graph.users[node.args[0]]) == 1
    }
    for node in graph.nodes:
        if node.op == "constant" or node in fused:
            continue
        args = node.args[0].args if node.args and node.args[0] in fused else node.args
        made = Node(*_label(node, fused, gate_of), below=[shown[arg] for arg in args if arg in shown])
        shown[node] = made
    outputs = [
        Node(f"{name}ₜ", "state", below=[shown[out]])
        for name, out in zip(graph.states, graph.outputs, strict=True)
    ]
    return [*shown.values(), *outputs]


def _label(node: Value, fused: set[Value], names: dict[Value, str]) -> tuple[str, str]:
    """What stands in a box, and its kind."""
    if node.op == "x":
        return "xₜ", "given"
    if node.op == "state":
        return f"{node.name}ₜ₋₁", "given"
    if node.op == "vector":
        return node.name, "learned"
    if node.op == "map":
        return f"{node.name}: W·", "map"
    symbol = SYMBOLS.get(node.op, node.op)
    if node.args and node.args[0] in fused:
        return f"{names[node.args[0]]}: {symbol}(W·)", "map"
    numbers = [f"{arg.number:g}" if arg.op == "constant" else "" for arg in node.args]
    if not any(numbers):
        return symbol, "op"
    return f"{numbers[0]} {symbol} {numbers[-1] if len(numbers) > 1 else ''}".strip(), "op"


def _levels(nodes: list[Node]) -> list[list[Node]]:
    """Nodes from left to right, each behind all that it takes, with places for arrows that pass levels."""
    for node in nodes:
        node.level = max((each.level + 1 for each in node.below), default=0)
    last = max(node.level for node in nodes)
    for node in nodes:
        if node.kind == "state":
            node.level = last
        if node.kind == "learned":  # a vector stands right before what takes it
            node.level = min(each.level for each in nodes if node in each.below) - 1
    levels: list[list[Node]] = [[] for _ in range(last + 1)]
    passing: dict[tuple[Node, int], Node] = {}
    for node in nodes:
        levels[node.level].append(node)
        for k, below in enumerate(node.below):
            node.below[k] = _passed(below, node.level - 1, levels, passing)
    return levels


def _passed(node: Node, level: int, levels: list[list[Node]], passing: dict[tuple[Node, int], Node]) -> Node:
    """What stands for a node at a later level: itself, or a place on the way from it."""
    if node.level >= level:
        return node
    if (node, level) not in passing:
        before = _passed(node, level - 1, levels, passing)
        passing[node, level] = Node(level=level, below=[before])
        levels[level].append(passing[node, level])
    return passing[node, level]


def _ordered(levels: list[list[Node]]) -> list[list[Node]]:
    """Each level in the order of the mean place of what its nodes hang together with, forwards and back."""
    above: dict[Node, list[Node]] = {node: [] for level in levels for node in level}
    for node in above:
        for each in node.below:
            above[each].append(node)
    _place(levels)
    for k in range(PASSES):
        for level in levels if k % 2 == 0 else reversed(levels):
            means = {node: _mean(node, node.below if k % 2 == 0 else above[node]) for node in level}
            level.sort(key=means.__getitem__)
            _place([level])
    return levels


def _mean(node: Node, near: list[Node]) -> float:
    """The depth at which a node would hang together best with those near it."""
    return -sum(each.y for each in near) / len(near) if near else -node.y


def _place(levels: list[list[Node]]) -> None:
    """Put the nodes of each level below each other, around the middle."""
    for level in levels:
        for k, node in enumerate(level):
            node.y = DOWN * ((len(level) - 1) / 2 - k)


def _draw(panel: Axes, levels: list[list[Node]], top: float) -> None:
    """The levels from left to right, `top` being the height of the middle."""
    columns = _columns(levels)
    for level, (left, right) in zip(levels, columns, strict=True):
        for node in level:
            place = ((left + right) / 2, top + node.y)
            if node.kind == "op":
                circle(panel, place, node.label)
            elif node.label:
                box(panel, place, node.label, node.kind)
            for below in node.below:
                _connect(panel, columns, below, node, top)


def _connect(panel: Axes, columns: list[tuple[float, float]], start: Node, stop: Node, top: float) -> None:
    """A line that turns between levels alone, so that it never passes behind a box."""
    (left, right), (next_left, next_right) = columns[start.level], columns[stop.level]
    edge = (left + right + _width(start)) / 2 if start.label else left
    points = [(edge, top + start.y), (right, top + start.y), (next_left, top + stop.y)]
    end = (next_left + next_right - _width(stop)) / 2
    if not stop.label or end - next_left > HEAD:
        points.append((end if stop.label else next_right, top + stop.y))
    else:
        points[-1] = (end, top + stop.y)
    for (x, y), (to_x, to_y) in pairwise(points[: len(points) - bool(stop.label)]):
        panel.plot([x, to_x], [y, to_y], color=LINE, linewidth=1.4, zorder=2, solid_capstyle="round")
    if stop.label:
        arrow(panel, points[-2], points[-1])


def _width(node: Node) -> float:
    if node.kind == "op":
        return circle_width(node.label)
    return width_of(node.label) if node.label else 0.0


def _columns(levels: list[list[Node]]) -> list[tuple[float, float]]:
    """Where each level begins and ends."""
    found, edge = [], MARGIN
    for level in levels:
        width = max(map(_width, level))
        found.append((edge, edge + width))
        edge += width + GAP
    return found
