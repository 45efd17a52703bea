"""Cells made of cells: regularised, or observed, by a change to their equations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from throughtime.cells.cell import Cell
from throughtime.cells.expression import Value
from throughtime.cells.trace import CellGraph, ordered


def recurrent_dropout(cell: Cell) -> Cell:
    """`cell` with a mask on each value that a recurrent matrix multiplies (Gal & Ghahramani 2016).

    W s becomes W (m ⊙ s), with m a `row_mask` "dropout 0" (the next value's is "dropout 1"): one for all
    steps of a row, and for all maps of the value. A state that is used without a matrix is left whole.
    """
    masks: dict[Value, Value] = {}

    def operand(value: Value) -> Value:
        if value not in masks:
            masks[value] = value * Value("row_mask", name=f"dropout {len(masks)}")
        return masks[value]

    return _rewritten(cell, operand=operand)


def zoneout(cell: Cell, rates: Mapping[str, float]) -> Cell:
    """`cell` in training with zoneout on the states that `rates` names (Krueger et al. 2016).

    s_t = z ⊙ s_{t-1} + (1 - z) ⊙ s'_t, with s'_t what the cell makes of its states and z a `step_mask`
    "zoneout h" that is 1 where a unit keeps its value. The output has a mask of its own and the other
    states share one, "zoneout c" by the first of them: together they may hold one quantity, as a number
    and its scale.
    """
    others = next((name for name in cell.states[1:] if name in rates), "")

    def new(name: str, old: Value, new: Value) -> Value:
        mask = name if name == cell.states[0] else others
        return _mixed(Value("step_mask", name=f"zoneout {mask}"), old, new)

    return _rewritten(cell, new=new, on=rates)


def expected_zoneout(cell: Cell, rates: Mapping[str, float]) -> Cell:
    """`cell` in use, after training with `zoneout`: each mask stands at its mean, the rate of the state."""
    return _rewritten(
        cell, new=lambda name, old, new: _mixed(Value("constant", number=rates[name]), old, new), on=rates
    )


def _mixed(share: Value, old: Value, new: Value) -> Value:
    return share * old + (1 - share) * new


@lru_cache(maxsize=256)
def learned_begin(cell: Cell) -> Cell:
    """`cell` whose driven states begin anew with learned vectors "initial h" in place of zeros.

    s_{t-1} becomes s_{t-1} + r_t ⊙ v, with v the vector and r a `step_mask` "reset" that is 1 at the steps
    before which the kernel has set the states of a row to zero. Zoneout comes before it, that it may keep v.
    """
    mask = Value("step_mask", name="reset")

    def old(state: Value) -> Value:
        driven = state.name in cell.graph.driven
        return state + mask * Value("vector", name=f"initial {state.name}") if driven else state

    return _rewritten(cell, old=old)


@lru_cache(maxsize=256)
def probed(cell: Cell, states: tuple[str, ...]) -> Cell:
    """`cell` with a `probe` "probe h" added to each new state h of `states`, wherever the step uses it.

    Run with probes of zeros nothing changes, and the gradient of the probe at step t is dL/dh_t, which
    comes from the output of step t, from other states that it goes into, and through all steps after it.
    """
    graph = cell.graph
    probes = {name: Value("probe", name=f"probe {name}") for name in graph.states if name in states}
    known: dict[Value, Value] = {}
    for node in graph.nodes:
        known[node] = Value(
            node.op, tuple(known[arg] for arg in node.args), node.name, node.number, node.bias
        )
        for name, output in zip(graph.states, graph.outputs, strict=True):
            if name in probes and output is node and node.op != "state":
                known[node] = known[node] + probes[name]
    outputs = tuple(
        known[output] + probes[name] if name in probes and output.op == "state" else known[output]
        for name, output in zip(graph.states, graph.outputs, strict=True)
    )
    return cell.computing(CellGraph(graph.states, outputs, ordered(outputs)))


def batch_statistics(cell: Cell) -> Cell:
    """`cell` in training: `batch_norm` by the mean and variance of the rows that have the step.

    The node `batch_norm` of a value and the two tables "mean" and "variance" changes these on its way, by
    a tenth towards the batch (only the backend "reference" has it).
    """
    graph = cell.graph
    known: dict[Value, Value] = {}
    for node in graph.nodes:
        args = tuple(known[arg] for arg in node.args)
        if node.op == "mul" and node.args[1].op == "table":
            name = node.args[1].name.removeprefix("scale ")
            tables = (args[0].args[1], Value("table", name=f"variance {name}"))
            known[node] = Value("batch_norm", (args[0].args[0], *tables), name)
        else:
            known[node] = Value(node.op, args, node.name, node.number, node.bias)
    outputs = tuple(known[output] for output in graph.outputs)
    return cell.computing(CellGraph(graph.states, outputs, ordered(outputs)))


def _keep(value: Value) -> Value:
    return value


def _rewritten(
    cell: Cell,
    old: Callable[[Value], Value] = _keep,
    operand: Callable[[Value], Value] = _keep,
    new: Callable[[str, Value, Value], Value] | None = None,
    on: Mapping[str, float] | tuple[str, ...] = (),
) -> Cell:
    """`cell` with some of its values replaced.

    A state before the step by `old(state)`, a multiplied value by `operand(value)`, and the new value of a
    state of `on` by `new(name, its old value, its new value)`.
    """
    graph = cell.graph
    known: dict[Value, Value] = {}
    before: dict[str, Value] = {}
    for node in graph.nodes:
        args = tuple(known[arg] for arg in node.args)
        if node.op == "map":
            args = tuple(arg if arg.op == "x" else operand(arg) for arg in args)
        known[node] = Value(node.op, args, node.name, node.number, node.bias)
        if node.op == "state":
            known[node] = before[node.name] = old(known[node])
    outputs = [known[output] for output in graph.outputs]
    for index, name in enumerate(graph.states):
        if new is not None and name in on:
            was = before[name] if name in before else Value("state", name=name)
            outputs[index] = new(name, was, outputs[index])
    return cell.computing(CellGraph(graph.states, tuple(outputs), ordered(tuple(outputs))))
