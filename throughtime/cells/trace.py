"""Run the equations of a cell once on symbols: the result is its graph."""

from __future__ import annotations

import json
import linecache
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import CodeType
from typing import Any

from throughtime.cells.expression import ACTIVATIONS, GIVEN, Value, as_value
from throughtime.errors import CellError

RESERVED = frozenset({"weight_ih", "weight_hh", "bias"})


@dataclass(frozen=True, eq=False)
class CellGraph:
    """What a cell computes in one step.

    `states` names the states, `outputs` holds their new values in the same order, and `nodes` is every
    value the outputs need, arguments first. The first output is what the cell shows as y.

    The weights are stored as torch stores them, one block of hidden_size rows for each product:
    `weight_ih` for the maps that take x, `weight_hh` for products of anything else, `bias` for the maps
    that have one; blocks in the order in which the equations first call the maps. Learned vectors stand
    under their own names.
    """

    states: tuple[str, ...]
    outputs: tuple[Value, ...]
    nodes: tuple[Value, ...]

    @cached_property
    def text(self) -> str:
        """The graph as a line of JSON, the same for the same equations; `from_text` reads it."""
        index = {node: position for position, node in enumerate(self.nodes)}
        nodes = [
            [node.op, [index[arg] for arg in node.args], node.name, node.number, node.bias]
            for node in self.nodes
        ]
        return json.dumps([self.states, [index[output] for output in self.outputs], nodes])

    @classmethod
    def from_text(cls, text: str) -> CellGraph:
        """The graph that `text` gives."""
        states, outputs, rows = json.loads(text)
        nodes: list[Value] = []
        for op, args, name, number, bias in rows:
            nodes.append(Value(op, tuple(nodes[arg] for arg in args), name, number, bias))
        return cls(tuple(states), tuple(nodes[output] for output in outputs), tuple(nodes))

    @cached_property
    def maps(self) -> tuple[Value, ...]:
        """The affine maps, in the order of their first call."""
        return tuple(node for node in self.nodes if node.op == "map")

    @cached_property
    def input_blocks(self) -> tuple[str, ...]:
        """The map of each block of `weight_ih`."""
        return tuple(m.name for m in self.maps if any(arg.op == "x" for arg in m.args))

    @cached_property
    def recurrent_blocks(self) -> tuple[tuple[str, Value], ...]:
        """The map and the multiplied value of each block of `weight_hh`."""
        return tuple((m.name, arg) for m in self.maps for arg in m.args if arg.op != "x")

    @cached_property
    def bias_blocks(self) -> tuple[str, ...]:
        """The map of each block of `bias`."""
        return tuple(m.name for m in self.maps if m.bias)

    @cached_property
    def vectors(self) -> tuple[str, ...]:
        """The names of the learned vectors."""
        return tuple(node.name for node in self.nodes if node.op == "vector")

    @cached_property
    def given(self) -> dict[str, str]:
        """What a step is given besides x, the states and the weights: the kind of each by its name.

        That is its operator, or "steps" for the row of the tables that each step of a row reads.
        """
        given = {node.name: node.op for node in self.nodes if node.op in GIVEN}
        return given | ({"step": "steps"} if "table" in given.values() else {})

    def given_shapes(self, steps: int, batch: int, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """The name and shape of everything that is given; tables may have any number of rows, shown as -1."""
        shapes: dict[str, tuple[int, ...]] = {
            "row_mask": (batch, hidden_size),
            "table": (-1, hidden_size),
            "steps": (steps, batch),
        }
        return {name: shapes.get(kind, (steps, batch, hidden_size)) for name, kind in self.given.items()}

    @cached_property
    def driven(self) -> tuple[str, ...]:
        """The states whose new value a map goes into: all but counters and what is carried unchanged."""
        reached: set[Value] = set()
        for node in self.nodes:
            if node.op == "map" or any(arg in reached for arg in node.args):
                reached.add(node)
        return tuple(
            name for name, output in zip(self.states, self.outputs, strict=True) if output in reached
        )

    def weight_shapes(self, input_size: int, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """The name and shape of every weight."""
        shapes: dict[str, tuple[int, ...]] = {}
        if self.input_blocks:
            shapes["weight_ih"] = (len(self.input_blocks) * hidden_size, input_size)
        if self.recurrent_blocks:
            shapes["weight_hh"] = (len(self.recurrent_blocks) * hidden_size, hidden_size)
        if self.bias_blocks:
            shapes["bias"] = (len(self.bias_blocks) * hidden_size,)
        return shapes | dict.fromkeys(self.vectors, (hidden_size,))

    @cached_property
    def weights(self) -> tuple[str, ...]:
        """The names of all weights, in the order of `weight_shapes`."""
        return tuple(self.weight_shapes(1, 1))

    @cached_property
    def users(self) -> dict[Value, list[Value]]:
        """For each node, the nodes that take it as an argument."""
        users: dict[Value, list[Value]] = {node: [] for node in self.nodes}
        for node in self.nodes:
            for arg in node.args:
                users[arg].append(node)
        return users

    @cached_property
    def gates(self) -> dict[str, Value]:
        """The named quantities of a step: for each map, the activation it leads to.

        Following the only use of a map upwards finds its activation, as `sigmoid(w.i(x, s.h))` is the
        gate i. Where the way forks or ends before that, or another map already named the activation,
        the map itself is the quantity. A new state keeps the name of the state.
        """
        gates: dict[str, Value] = {}
        for affine in self.maps:
            node = affine
            while node.op not in ACTIVATIONS and node not in self.outputs and len(self.users[node]) == 1:
                node = self.users[node][0]
            if node.op not in ACTIVATIONS or node in gates.values():
                node = affine
            if node not in self.outputs:
                gates[affine.name] = node
        return gates

    @cached_property
    def quantities(self) -> dict[str, Value]:
        """Everything in a step that has a name: the new states, the gates, and the value of each map.

        A state and a gate have their own names, but a gate that is called as a state is has a tilde behind,
        as in formulas; the value of the map i, which becomes the gate i, is "a_i".
        """
        found = dict(zip(self.states, self.outputs, strict=True))
        for name, node in (*self.gates.items(), *((f"a_{each.name}", each) for each in self.maps)):
            while name in found:
                name += "~"
            found[name] = node
        return found


class _Weight(Value):
    """`w.name`: called it is an affine map, used as it is it is a learned vector."""

    maps: dict[str, Value]

    def __call__(self, *operands: Any, bias: bool = True) -> Value:
        args = sorted((as_value(operand) for operand in operands), key=lambda arg: arg.op != "x")
        if not args:
            raise CellError(f"w.{self.name}() multiplies nothing: give it x, a state, or a value")
        if any(arg.op == "constant" for arg in args):
            raise CellError(f"w.{self.name} is given a number: a map takes x, states and values")
        if len(set(args)) < len(args):
            raise CellError(f"w.{self.name} is given the same value twice")
        if self.name in self.maps:
            raise CellError(f'the name "{self.name}" is used twice: each map has its own weights and name')
        self.maps[self.name] = Value("map", tuple(args), name=self.name, bias=bias)
        return self.maps[self.name]


class _Weights:
    def __init__(self, equations: Callable[..., Any]) -> None:
        self._code = equations.__code__
        self._lines: dict[str, int] = {}
        self._maps: dict[str, Value] = {}
        self._made: dict[str, _Weight] = {}

    def __getattr__(self, name: str) -> _Weight:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in RESERVED:
            raise CellError(f'"{name}" is the name of a whole weight matrix: choose another')
        if name not in self._made:
            self._made[name] = _Weight("vector", name=name)
            self._made[name].maps = self._maps
            self._lines[name] = _line_of(self._code)
        return self._made[name]

    def place(self, name: str) -> str:
        """Where the equations first name a weight."""
        return _place(self._code, self._lines[name])


class _States:
    def __init__(self, names: tuple[str, ...]) -> None:
        self._values = {name: Value("state", name=name) for name in names}

    def __getattr__(self, name: str) -> Value:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in self._values:
            raise CellError(f"there is no state {name!r}: the states are {', '.join(self._values)}")
        return self._values[name]


def trace(name: str, states: tuple[str, ...], equations: Callable[..., Any]) -> CellGraph:
    """The graph of `equations(x, s, w)`.

    Raises `CellError`, with the line of the equation, for an operator that is not supported, a wrong
    number of new states, a name used twice, or no weight at all.
    """
    weights, x = _Weights(equations), Value("x")
    try:
        returned = equations(x, _States(states), weights)
    except (CellError, TypeError, AttributeError) as error:
        raise CellError(f'cell "{name}"{_where(error, equations)}: {error}') from error
    outputs = returned if isinstance(returned, tuple | list) else (returned,)
    if len(outputs) != len(states) or not all(isinstance(output, Value) for output in outputs):
        raise CellError(
            f'cell "{name}"{_last(equations)} has {len(states)} states ({", ".join(states)}) but its '
            f"equations return {len(outputs)} values "
            f"({', '.join(type(output).__name__ for output in outputs)}): "
            "return the new value of each state, in their order"
        )
    _check_counter(name, states, tuple(outputs))
    if any(output.op in {"x", "vector", "constant"} for output in outputs):
        raise CellError(f'cell "{name}"{_last(equations)} returns a state that no equation computes')
    graph = CellGraph(states, tuple(outputs), ordered(tuple(outputs)))
    _check_names(name, graph, weights)
    return graph


def _check_counter(name: str, states: tuple[str, ...], outputs: tuple[Value, ...]) -> None:
    """A cell with tables counts its steps, and each of them is used once."""
    tables = [node.name for node in ordered(outputs) if node.op == "table"]
    if not tables:
        return
    if len(set(tables)) < len(tables):
        twice = next(table for table in tables if tables.count(table) > 1)
        raise CellError(
            f'cell "{name}" uses the name "{twice.partition(" ")[2]}" for two batch_norm: each has '
            "statistics, and a name, of its own"
        )
    new = dict(zip(states, outputs, strict=True)).get("t")
    counts = new is not None and new.op == "add" and {arg.op for arg in new.args} == {"state", "constant"}
    if not counts or {(arg.name, arg.number) for arg in new.args} != {("t", 0.0), ("", 1.0)}:  # type: ignore[union-attr]
        raise CellError(
            f'cell "{name}" uses batch_norm, whose statistics are those of a step: it needs a state t '
            "that becomes s.t + 1"
        )


def _check_names(name: str, graph: CellGraph, weights: _Weights) -> None:
    called = weights._maps
    if both := set(graph.vectors) & set(called):
        raise CellError(
            f'cell "{name}"{weights.place(min(both))}: "{min(both)}" is called as a map and used as a '
            "vector: give each its own name"
        )
    if unused := set(called) - {m.name for m in graph.maps}:
        raise CellError(
            f'cell "{name}"{weights.place(min(unused))}: the map "{min(unused)}" has no effect on the '
            "new states"
        )
    if not graph.maps and not graph.vectors:
        raise CellError(f'cell "{name}" has no weights: let x into it through a map, as in w.i(x)')


def ordered(outputs: tuple[Value, ...]) -> tuple[Value, ...]:
    """Every node the outputs need, in the order in which the equations made them."""
    needed: set[Value] = set()
    waiting = list(outputs)
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting.extend(node.args)
    return tuple(sorted(needed, key=lambda node: node.serial))


def _where(error: Exception, equations: Callable[..., Any]) -> str:
    """The place in the equations where `error` arose."""
    code = equations.__code__
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_code is code:
            return _place(code, line)
    return ""


def _last(equations: Callable[..., Any]) -> str:
    """The place of the last line of the equations, which returns the new states."""
    code = equations.__code__
    return _place(code, max(line for *_, line in code.co_lines() if line is not None)) + ","


def _line_of(code: CodeType) -> int:
    """The line of `code` that is being run."""
    return next(line for frame, line in traceback.walk_stack(None) if frame.f_code is code)


def _place(code: CodeType, line: int) -> str:
    text = linecache.getline(code.co_filename, line).strip()
    return f', line {line} of {code.co_filename}, "{text}"'
