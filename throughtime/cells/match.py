"""Whether two cells are the same computation under other names."""

from __future__ import annotations

from collections.abc import Iterator

from throughtime.cells.expression import COMMUTATIVE, Value
from throughtime.cells.trace import CellGraph

Names = dict[str, str]


def match(graph: CellGraph, template: CellGraph) -> Names | None:
    """For each map and vector of `template` the name it has in `graph`; None where they differ.

    The states must stand in the same order. Sums, products and maxima may stand in either order.
    """
    if len(graph.states) != len(template.states):
        return None
    states = dict(zip(template.states, graph.states, strict=True))
    return next(_all(template.outputs, graph.outputs, {}, states), None)


def _all(
    templates: tuple[Value, ...], values: tuple[Value, ...], names: Names, states: Names
) -> Iterator[Names]:
    """Every way in which all pairs match."""
    if len(templates) != len(values):
        return
    if not templates:
        yield names
        return
    for first in _pair(templates[0], values[0], names, states):
        yield from _all(templates[1:], values[1:], first, states)


def _pair(template: Value, value: Value, names: Names, states: Names) -> Iterator[Names]:
    if template.op != value.op:
        return
    match template.op:
        case "constant":
            if template.number != value.number:
                return
        case "state":
            if states[template.name] != value.name:
                return
        case "map" | "vector":
            known = names.get(template.name)
            if known != value.name and (known is not None or value.name in names.values()):
                return
            if template.bias != value.bias:
                return
            names = names | {template.name: value.name}
    yield from _all(template.args, value.args, names, states)
    if template.op in COMMUTATIVE or (template.op == "map" and len(template.args) == 2):
        yield from _all(template.args, value.args[::-1], names, states)
