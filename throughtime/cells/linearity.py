"""Which states of a cell are linear recurrences, and their coefficients, derived from its graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from throughtime.cells.algebra import Algebra
from throughtime.cells.expression import Value
from throughtime.cells.trace import CellGraph
from throughtime.errors import CellError


@dataclass(frozen=True, eq=False)
class Part:
    """States that depend on one another over time: new_i = offsets_i + sum_j coefficients_ij state_j.

    Everything is elementwise, and neither coefficients nor offsets depend on the states of the part;
    they may depend on those of the parts before it. A state that does not depend on itself is a part
    alone: it has no coefficients, and its offset is its new value.
    """

    states: tuple[str, ...]
    coefficients: tuple[tuple[Value, ...], ...]
    offsets: tuple[Value, ...]


@lru_cache(maxsize=256)
def linear_parts(graph: CellGraph) -> tuple[Part, ...] | str:
    """The states of `graph` in parts, each after those it depends on; or why a part is not linear."""
    algebra = Algebra()
    try:
        return tuple(_part(graph, algebra, states) for states in _coupled(graph))
    except CellError as error:
        return str(error)


def _coupled(graph: CellGraph) -> list[tuple[str, ...]]:
    """The states, those together that depend on each other, after the ones they depend on."""
    reads = _reads(graph)
    reached = {name: _reached(name, reads) for name in graph.states}
    parts = {
        tuple(other for other in graph.states if other in reached[name] and name in reached[other])
        for name in graph.states
    }
    order = sorted(graph.states, key=lambda name: len(reached[name]))
    return sorted(parts, key=lambda part: order.index(part[0]))


def _reads(graph: CellGraph) -> dict[str, set[str]]:
    """For each state, those of the step before that its new value is computed from."""
    below: dict[Value, set[str]] = {}
    for node in graph.nodes:
        below[node] = {node.name} if node.op == "state" else set().union(*(below[arg] for arg in node.args))
    return {name: below[output] for name, output in zip(graph.states, graph.outputs, strict=True)}


def _reached(name: str, reads: dict[str, set[str]]) -> set[str]:
    """The state itself and all that it depends on, however far back."""
    reached, waiting = {name}, [name]
    while waiting:
        new = reads[waiting.pop()] - reached
        reached |= new
        waiting.extend(new)
    return reached


def _part(graph: CellGraph, algebra: Algebra, states: tuple[str, ...]) -> Part:
    output = dict(zip(graph.states, graph.outputs, strict=True))
    forms = _forms(graph, algebra, states)
    new = [forms[output[name]] for name in states]
    if not any(form.coefficients for form in new):
        return Part(states, (), tuple(output[name] for name in states))
    zero = algebra.constant(0.0)
    return Part(
        states,
        tuple(tuple(form.coefficients.get(name, zero) for name in states) for form in new),
        tuple(zero if form.offset is None else form.offset for form in new),
    )


@dataclass(frozen=True)
class _Affine:
    """offset + sum_j coefficients_j state_j; None is an offset of zero."""

    offset: Value | None
    coefficients: dict[str, Value] = field(default_factory=dict)


def _forms(graph: CellGraph, algebra: Algebra, states: tuple[str, ...]) -> dict[Value, _Affine]:
    """Each node that the new values of `states` need, as an affine function of `states`."""
    ends = [output for name, output in zip(graph.states, graph.outputs, strict=True) if name in states]
    needed: set[Value] = set()
    while ends:
        node = ends.pop()
        if node not in needed:
            needed.add(node)
            ends.extend(node.args)
    forms: dict[Value, _Affine] = {}
    for node in graph.nodes:
        if node in needed:
            forms[node] = _form(algebra, node, states, tuple(forms[arg] for arg in node.args))
    return forms


def _form(algebra: Algebra, node: Value, states: tuple[str, ...], args: tuple[_Affine, ...]) -> _Affine:
    if node.op == "state" and node.name in states:
        return _Affine(None, {node.name: algebra.constant(1.0)})
    if not any(arg.coefficients for arg in args):
        return _Affine(node)
    match node.op, args:
        case "add", (a, b):
            return _sum(algebra, a, b)
        case "sub", (a, b):
            return _sum(algebra, a, _scaled(algebra, "mul", b, algebra.constant(-1.0)))
        case "neg", (a,):
            return _scaled(algebra, "mul", a, algebra.constant(-1.0))
        case "mul" | "div", (a, _Affine(Value() as scale, {}) as b) if not b.coefficients:
            return _scaled(algebra, node.op, a, scale)
        case "mul", (_Affine(Value() as scale, {}) as a, b) if not a.coefficients:
            return _scaled(algebra, "mul", b, scale)
    read = dict.fromkeys(name for arg in args for name in arg.coefficients)
    which = f"{'states' if len(read) > 1 else 'state'} {', '.join(read)}"
    if node.op == "map":
        raise CellError(f'the map "{node.name}" mixes the units of the {which}')
    raise CellError(f'the operator "{node.op}" is not linear in the {which}')


def _sum(algebra: Algebra, a: _Affine, b: _Affine) -> _Affine:
    coefficients = dict(a.coefficients)
    for name, value in b.coefficients.items():
        coefficients[name] = algebra.add(coefficients[name], value) if name in coefficients else value
    if a.offset is None or b.offset is None:
        return _Affine(b.offset if a.offset is None else a.offset, coefficients)
    return _Affine(algebra.add(a.offset, b.offset), coefficients)


def _scaled(algebra: Algebra, op: str, a: _Affine, scale: Value) -> _Affine:
    return _Affine(
        None if a.offset is None else algebra.make(op, a.offset, scale),
        {name: algebra.make(op, value, scale) for name, value in a.coefficients.items()},
    )
