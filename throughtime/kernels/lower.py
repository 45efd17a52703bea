"""A cell's step and its backward step in the operations of a machine: products, means and arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from throughtime.cells.algebra import Algebra
from throughtime.cells.expression import GIVEN, Value
from throughtime.cells.gradient import gradient
from throughtime.cells.trace import CellGraph

#: What is read and not computed. `projection` is the product of a map with x, made for all steps at
#: once; `output_adjoint` is the derivative of the loss by y.
LEAVES = GIVEN | {"state", "vector", "bias", "projection", "constant", "adjoint", "output_adjoint"}
#: Leaves and operators that only the backward step has.
BACKWARD = frozenset(
    {"adjoint", "output_adjoint", "transposed", "relu_backward", "softplus_backward", "maximum_backward"}
)


@dataclass(frozen=True, eq=False)
class Lowered:
    """One step forward and one step back over shared nodes.

    Besides the elementwise operators the nodes are the leaves of `LEAVES`; `product` and `transposed`,
    sums of products with blocks of weight_hh; `row_mean`; and `inverse_root`, 1 / sqrt(a + epsilon).

    of        each node of the graph as it is here.
    named     the value of each map as "a_" and its name, and each gate, by name.
    outputs   the new states.
    operands  the multiplied value of each block of weight_hh.
    states    the adjoints of the states before.
    maps      the adjoint of each map by name.
    vectors   the adjoint of each learned vector by name.
    probes    the adjoint of each probe by name.
    """

    graph: CellGraph
    of: dict[Value, Value]
    named: dict[str, Value]
    outputs: tuple[Value, ...]
    operands: tuple[Value, ...]
    states: tuple[Value, ...]
    maps: dict[str, Value]
    vectors: dict[str, Value]
    probes: dict[str, Value]


def lower(graph: CellGraph) -> Lowered:
    """`graph` and its gradient, lowered and simplified together."""
    lowering, backward = _Lowering(graph), gradient(graph)
    return Lowered(
        graph,
        of=lowering.known,
        named={f"a_{affine.name}": lowering(affine) for affine in graph.maps}
        | {name: lowering(gate) for name, gate in graph.gates.items() if gate.op != "map"},
        outputs=tuple(lowering(output) for output in graph.outputs),
        operands=tuple(lowering(operand) for _, operand in graph.recurrent_blocks),
        states=tuple(lowering(adjoint) for adjoint in backward.states),
        maps={name: lowering(adjoint) for name, adjoint in backward.maps.items()},
        vectors={name: lowering(adjoint) for name, adjoint in backward.vectors.items()},
        probes={name: lowering(adjoint) for name, adjoint in backward.probes.items()},
    )


class _Lowering:
    def __init__(self, graph: CellGraph) -> None:
        self.graph, self.algebra = graph, Algebra()
        self.known: dict[Value, Value] = {}
        self.block = {place: index for index, place in enumerate(graph.recurrent_blocks)}

    def __call__(self, root: Value) -> Value:
        waiting = [root]  # a stack of our own: equations may be deeper than Python's
        while waiting:
            node = waiting[-1]
            missing = [arg for arg in node.args if arg.op != "x" and arg not in self.known]
            if missing:
                waiting.extend(missing)
            else:
                self.known[waiting.pop()] = self._lowered(node)
        return self.known[root]

    def _lowered(self, node: Value) -> Value:
        algebra = self.algebra
        args = tuple(self.known[arg] for arg in node.args if arg.op != "x")
        match node.op:
            case "constant":
                return algebra.constant(node.number)
            case "state" | "vector" | "row_mask" | "step_mask" | "probe" | "table":
                return algebra.leaf(node.op, node.name)
            case "adjoint":
                carried = algebra.leaf("adjoint", node.name)
                if node.name == self.graph.states[0]:
                    return algebra.add(carried, algebra.leaf("output_adjoint", node.name))
                return carried
            case "map":
                return self._map(node)
            case "layer_norm":
                return algebra.mul(self._centred(args[0]), self._scale(args[0]))
            case "layer_norm_scale":
                return self._scale(args[0])
            case "row_mean":
                return self._mean(args[0])
            case "transposed":
                return algebra.product("transposed", args, node.blocks)
        return algebra.make(node.op, *args)

    def _map(self, node: Value) -> Value:
        operands = tuple(arg for arg in node.args if arg.op != "x")
        terms = []
        if len(operands) < len(node.args):
            terms.append(self.algebra.leaf("projection", node.name))
        if operands:
            blocks = tuple(self.block[node.name, operand] for operand in operands)
            values = tuple(self.known[operand] for operand in operands)
            terms.append(self.algebra.product("product", values, blocks))
        if node.bias:
            terms.append(self.algebra.leaf("bias", node.name))
        total = terms[0]
        for term in terms[1:]:
            total = self.algebra.add(total, term)
        return total

    def _mean(self, a: Value) -> Value:
        return a if a.op in {"row_mean", "constant"} else self.algebra.make("row_mean", a)

    def _centred(self, a: Value) -> Value:
        return self.algebra.sub(a, self._mean(a))

    def _scale(self, a: Value) -> Value:
        centred = self._centred(a)
        return self.algebra.make("inverse_root", self._mean(self.algebra.mul(centred, centred)))


def row_values(values: Iterable[Value]) -> frozenset[Value]:
    """Those of `values`, which stand behind their arguments, that are one number for each row."""
    rows: set[Value] = set()
    for node in values:
        of_rows = node.args and node.op not in {"product", "transposed"}
        if node.op == "row_mean" or (
            of_rows
            and any(arg in rows for arg in node.args)
            and all(arg in rows or arg.op == "constant" for arg in node.args)
        ):
            rows.add(node)
    return frozenset(rows)


def backward_values(values: Iterable[Value]) -> frozenset[Value]:
    """Those of `values`, which stand behind their arguments, that only the backward step can know."""
    found: set[Value] = set()
    for node in values:
        if node.op in BACKWARD or any(arg in found for arg in node.args):
            found.add(node)
    return frozenset(found)


def postorder(roots: tuple[Value, ...], stop: frozenset[Value] = frozenset()) -> list[Value]:
    """Every value that `roots` need, arguments first, without what only the values of `stop` need."""
    found: dict[Value, None] = {}
    waiting = list(reversed(roots))
    while waiting:
        node = waiting[-1]
        missing = [] if node in stop else [arg for arg in reversed(node.args) if arg not in found]
        if node in found or not missing:
            found[waiting.pop()] = None
        else:
            waiting.extend(missing)
    return list(found)
