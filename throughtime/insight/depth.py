"""How deep recurrences are: the number of nonlinear layers that a path passes, per step and at one step."""

from __future__ import annotations

from collections.abc import Sequence

from throughtime.cells.cell import Cell
from throughtime.cells.expression import ACTIVATIONS, Value
from throughtime.cells.trace import CellGraph
from throughtime.nn.recurrent import Recurrent

#: What makes of a map a nonlinear layer.
NONLINEAR = ACTIVATIONS | {"maximum"}
#: No path.
NONE = float("-inf")


def step_depths(graph: CellGraph) -> dict[str, dict[str, float]]:
    """The most nonlinear layers from x, and from each old state, to each new state; `NONE` without a path.

    A nonlinear layer is a map and the first nonlinearity behind it: sigmoid(w.i(x, s.h)) is one, and so is
    o * tanh(c) of what came through a map. A map without a nonlinearity before the next map or the end of
    the step is none, nor is a nonlinearity of what no map has made since, nor a product or a sum.
    """
    sources: dict[str, Value] = {node.name or "x": node for node in graph.nodes if node.op in {"x", "state"}}
    found = {}
    for name in ("x", *graph.states):
        reached = _longest(graph, sources.get(name))
        found[name] = {s: max(reached[out]) for s, out in zip(graph.states, graph.outputs, strict=True)}
    return found


def _longest(graph: CellGraph, source: Value | None) -> dict[Value, tuple[float, float]]:
    """For each node the most layers on a way to it whose last map has its nonlinearity, and has it not."""
    found: dict[Value, tuple[float, float]] = {}
    for node in graph.nodes:
        done = max((found[arg][0] for arg in node.args), default=NONE)
        open_ = max((found[arg][1] for arg in node.args), default=NONE)
        if node is source:
            done = 0.0
        elif node.op == "map":
            done, open_ = NONE, max(done, open_)
        elif node.op in NONLINEAR:
            done, open_ = max(done, open_ + 1), NONE
        found[node] = done, open_
    return found


def recurrent_depth(cells: Sequence[Cell]) -> float:
    """d_r of a stack of cells: nonlinear layers per step on the longest path through time.

    That is lim_{T → ∞} D(T) / T with D(T) the nonlinear layers on the longest path over T steps, which is the
    largest mean over the cycles of the graph: length through number of steps (Zhang et al. 2016). What a
    layer feeds the next does not come back, so that all cycles are within layers. 0 where every state is made
    of the states before it without a map and a nonlinearity.
    """
    return max(_cycle_mean(cell.graph) for cell in cells)


def _cycle_mean(graph: CellGraph) -> float:
    """The largest mean of a cycle: of simple ones, which have no more steps than there are states."""
    depths, states = step_depths(graph), graph.states
    reach = {(a, b): depths[a][b] for a in states for b in states}
    best = 0.0
    for steps in range(1, len(states) + 1):
        best = max(best, *(reach[s, s] / steps for s in states))
        reach = {(a, b): max(reach[a, c] + depths[c][b] for c in states) for a in states for b in states}
    return best


def feed_forward_depth(layer: Recurrent) -> float:
    """d_f of a stack: max over paths of l - σ d_r.

    l is the number of nonlinear layers of a path from an input to an output of the last layer, and σ the
    steps that it takes (Zhang et al. 2016); mostly it is the longest path within one step. Residual
    connections pass no layer, highway connections pass their gate. Of two directions it is that of one alone:
    from layer to layer a path could change directions and never end.
    """
    rate, total = recurrent_depth(layer.cells), 0.0
    for index, cell in enumerate(layer.cells):
        depths, states = step_depths(cell.graph), cell.graph.states
        reached = {s: total + depths["x"][s] for s in states}
        for _ in states:
            later = {s: max(reached[a] + depths[a][s] - rate for a in states) for s in states}
            reached = {s: max(reached[s], later[s]) for s in states}
        beside = NONE
        if index and layer.connection is not None:
            beside = total + (layer.connection == "highway")
        total = max(reached[states[0]], beside)
    return total
