"""The values of a cell's graph at all steps at once, from the states at every step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from throughtime.cells.expression import GIVEN, Value
from throughtime.cells.trace import CellGraph
from throughtime.kernels.reference import OPERATORS


class Steps:
    """The values of a graph at all steps that rows have, [T, B, H], or [N, H] where lengths leave out some.

    `history` holds the states after each step, [T, B, H], zero at steps that a row does not have. A state
    must be in it before a value is asked for that depends on it. `values` holds what is known.
    """

    def __init__(
        self,
        graph: CellGraph,
        weights: Mapping[str, Tensor],
        x: Tensor,
        state: tuple[Tensor, ...],
        lengths: Tensor | None,
        reset: Tensor | None,
        given: Mapping[str, Tensor],
    ) -> None:
        self.graph, self.weights, self.reset, self.given = graph, weights, reset, given
        self.shape = (len(x), *state[0].shape)
        self.initial = dict(zip(graph.states, state, strict=True))
        self.output = dict(zip(graph.states, graph.outputs, strict=True))
        self.lengths = None if lengths is None else lengths.to(x.device)[:, None]
        self.rows = None if self.lengths is None else _rows_with_a_step(self.lengths[:, 0], len(x))
        self.x = self.packed(x)
        self.history: dict[str, Tensor] = {}
        self.values: dict[Value, Tensor] = {}

    def packed(self, values: Tensor) -> Tensor:
        """Those of [T, B, ...] that belong to steps that rows have."""
        return values if self.rows is None else values.flatten(0, 1).index_select(0, self.rows)

    def dense(self, node: Value) -> Tensor:
        """The value of `node` as [T, B, H], zero at steps that a row does not have."""
        value = self._value(node)
        if self.rows is None:
            return value.expand(self.shape)
        steps, batch, hidden = self.shape
        value = value.expand(len(self.rows), hidden)
        return value.new_zeros(steps * batch, hidden).index_copy(0, self.rows, value).view(self.shape)

    @torch.no_grad()
    def seen(self, wanted: Mapping[str, Value]) -> dict[str, Tensor]:
        """The `wanted` values as they are looked at: `dense`, without gradients, in the precision of x."""
        with torch.autocast(self.x.device.type, enabled=False):
            return {name: self.dense(node).detach() for name, node in wanted.items()}

    def _value(self, node: Value) -> Tensor:
        needed: set[Value] = set()
        waiting = [node]
        while waiting:
            each = waiting.pop()
            if each not in self.values and each not in needed:
                needed.add(each)
                waiting.extend(each.args)
        for each in sorted(needed, key=lambda each: each.serial):
            self.values[each] = self._computed(each)
        return self.values[node]

    def _computed(self, node: Value) -> Tensor:
        """The value of `node` from those of its arguments."""
        match node.op:
            case "x":
                return self.x
            case "constant":
                return self.x.new_full((), node.number)
            case "vector":
                return self.weights[node.name]
            case "state":
                return self.packed(self._before(node.name))
            case "map":
                return self._map(node)
            case "table":
                return self.packed(self.given[node.name][self.given["step"]])
            case op if op in GIVEN:
                return self.packed(self.given[node.name].expand(self.shape))
        return OPERATORS[node.op](*(self.values[arg] for arg in node.args))

    def _before(self, name: str) -> Tensor:
        """The state before each step."""
        before = torch.cat([self.initial[name][None], self.history[name]])[:-1]
        return before if self.reset is None else torch.where(self.reset[..., None], 0.0, before)

    def _map(self, node: Value) -> Tensor:
        bias = self._block("bias", self.graph.bias_blocks.index(node.name)) if node.bias else None
        total = F.linear(self.values[node.args[0]], self._weight(node, node.args[0]), bias)
        for arg in node.args[1:]:
            total = total + F.linear(self.values[arg], self._weight(node, arg))
        return total

    def _weight(self, node: Value, arg: Value) -> Tensor:
        """What the map `node` multiplies `arg` by."""
        if arg.op == "x":
            return self._block("weight_ih", self.graph.input_blocks.index(node.name))
        return self._block("weight_hh", self.graph.recurrent_blocks.index((node.name, arg)))

    def _block(self, name: str, index: int) -> Tensor:
        hidden = self.shape[2]
        return self.weights[name][index * hidden : (index + 1) * hidden]


def _rows_with_a_step(lengths: Tensor, steps: int) -> Tensor:
    """Where [T * B] has a step, in order."""
    return (torch.arange(steps, device=lengths.device)[:, None] < lengths).flatten().nonzero().flatten()
