"""The backward step of a cell, derived symbolically from the graph of its forward step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from throughtime.cells.algebra import Algebra
from throughtime.cells.expression import Value
from throughtime.cells.trace import CellGraph

#: The operators that only derivatives have. `row_mean` is the mean over the units of a row, at each of
#: them; `layer_norm_scale` is 1 / sqrt(variance + epsilon) of a row, at each of its units.
DERIVED_ARITY = {
    "row_mean": 1,
    "layer_norm_scale": 1,
    "relu_backward": 2,
    "softplus_backward": 3,
    "maximum_backward": 3,
}


@dataclass(frozen=True, eq=False)
class Gradient:
    """What the backward step computes from the adjoints of the new states.

    An adjoint of a value is the derivative of the loss with respect to it. Nodes of the forward graph
    stand for their values. The other leaves are `adjoint`, that of a new state, by `name`. The node
    `transposed` is the sum over its arguments of W' d, with W the block of `weight_hh` in `blocks`.

    states   for each state of the step before, its adjoint.
    maps     for each affine map by name, the adjoint of its value: the outer product with the value it
             multiplies is the gradient of its weights, and itself that of its bias.
    vectors  for each learned vector by name, its adjoint in this row and step.
    probes   for each probe by name, its adjoint.
    """

    states: tuple[Value, ...]
    maps: dict[str, Value]
    vectors: dict[str, Value]
    probes: dict[str, Value]


def gradient(graph: CellGraph) -> Gradient:
    """The backward step of `graph` by reverse accumulation: from the outputs back, a rule per operator."""
    algebra = Algebra()
    parts: dict[Value, list[Value]] = defaultdict(list)
    through: dict[Value, list[tuple[int, Value]]] = defaultdict(list)
    block = {place: index for index, place in enumerate(graph.recurrent_blocks)}
    adjoints: dict[Value, Value] = {}
    for name, output in zip(graph.states, graph.outputs, strict=True):
        parts[output].append(algebra.leaf("adjoint", name))
    for node in reversed(graph.nodes):
        if node in through:
            blocks, deltas = zip(*sorted(through[node], key=lambda entry: entry[0]), strict=True)
            parts[node].append(algebra.product("transposed", deltas, blocks))
        if not parts[node]:
            continue
        adjoint = parts[node][0]
        for part in parts[node][1:]:
            adjoint = algebra.add(adjoint, part)
        adjoints[node] = adjoint
        if node.op == "map":
            for arg in node.args:
                if arg.op != "x":
                    through[arg].append((block[node.name, arg], adjoint))
        elif node.op in _RULES:
            for arg, part in zip(node.args, _RULES[node.op](algebra, adjoint, node, *node.args), strict=True):
                if arg.op != "constant":
                    parts[arg].append(part)
    zero = algebra.constant(0.0)
    states = {node.name: adjoints[node] for node in graph.nodes if node.op == "state"}
    return Gradient(
        states=tuple(states.get(name, zero) for name in graph.states),
        maps={node.name: adjoints[node] for node in graph.maps},
        vectors={node.name: adjoints[node] for node in graph.nodes if node.op == "vector"},
        probes={node.name: adjoints[node] for node in graph.nodes if node.op == "probe"},
    )


Parts = tuple[Value, ...]


def _sigmoid(m: Algebra, d: Value, y: Value, a: Value) -> Parts:
    return (m.mul(d, m.mul(y, m.sub(m.constant(1.0), y))),)


def _tanh(m: Algebra, d: Value, y: Value, a: Value) -> Parts:
    return (m.mul(d, m.sub(m.constant(1.0), m.mul(y, y))),)


def _div(m: Algebra, d: Value, y: Value, a: Value, b: Value) -> Parts:
    quotient = m.div(d, b)
    return quotient, m.neg(m.mul(quotient, y))


def _layer_norm(m: Algebra, d: Value, y: Value, a: Value) -> Parts:
    """With y = (a - mean) s: s (d - mean(d) - y mean(d y))."""
    centred = m.sub(m.sub(d, m.make("row_mean", d)), m.mul(y, m.make("row_mean", m.mul(d, y))))
    return (m.mul(m.make("layer_norm_scale", a), centred),)


def _maximum(m: Algebra, d: Value, y: Value, a: Value, b: Value) -> Parts:
    """Where a = b each gets half, as in torch."""
    return m.make("maximum_backward", d, a, b), m.make("maximum_backward", d, b, a)


#: For each operator: from the algebra, the adjoint d of the node y and y's arguments, their adjoints.
_RULES: dict[str, Callable[..., Parts]] = {
    "add": lambda m, d, y, a, b: (d, d),
    "sub": lambda m, d, y, a, b: (d, m.neg(d)),
    "mul": lambda m, d, y, a, b: (m.mul(d, b), m.mul(d, a)),
    "div": _div,
    "neg": lambda m, d, y, a: (m.neg(d),),
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "relu": lambda m, d, y, a: (m.make("relu_backward", d, y),),
    "exp": lambda m, d, y, a: (m.mul(d, y),),
    "log": lambda m, d, y, a: (m.div(d, a),),
    "softplus": lambda m, d, y, a: (m.make("softplus_backward", d, a, m.make("sigmoid", a)),),
    "maximum": _maximum,
    "layer_norm": _layer_norm,
}
