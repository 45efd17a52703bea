"""The plain loop over time in torch: the truth that every other backend is held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from throughtime.cells.expression import GIVEN, LAYER_NORM_EPSILON, Value
from throughtime.cells.trace import CellGraph

OPERATORS: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "neg": torch.neg,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "exp": torch.exp,
    "log": torch.log,
    "softplus": F.softplus,
    "maximum": torch.maximum,
    "layer_norm": lambda a: F.layer_norm(a, a.shape[-1:], eps=LAYER_NORM_EPSILON),
}


#: The share of a batch in the running statistics of batch norm.
MOMENTUM = 0.1


def refusal(graph: CellGraph, x: Tensor) -> str | None:
    """Why this backend cannot run `graph` on `x`: it always can."""
    return None


def run(
    graph: CellGraph,
    weights: Mapping[str, Tensor],
    x: Tensor,
    state: tuple[Tensor, ...],
    lengths: Tensor | None,
    reset: Tensor | None,
    given: Mapping[str, Tensor],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`unroll` by its definition: any device, any floating type, any order of derivative.

    A step is computed for the rows that have it and for no others, so that what stands in the padding,
    NaN included, reaches no value and no gradient.
    """
    y, final, _ = run_watched(graph, weights, x, state, lengths, reset, given, {})
    return y, final


def run_watched(
    graph: CellGraph,
    weights: Mapping[str, Tensor],
    x: Tensor,
    state: tuple[Tensor, ...],
    lengths: Tensor | None,
    reset: Tensor | None,
    given: Mapping[str, Tensor],
    wanted: Mapping[str, Value],
) -> tuple[Tensor, tuple[Tensor, ...], dict[str, Tensor]]:
    """`run`, and the `wanted` values of the graph at all steps, [T, B, H] each, zero where there is none."""
    active = None
    if lengths is not None:
        active = torch.arange(len(x), device=x.device)[:, None] < lengths.to(x.device)
        x = torch.where(active[..., None], x, 0.0)
    step = _Step(graph, weights, x, given)
    outputs = []
    seen = {name: x.new_zeros(len(x), *state[0].shape) for name in wanted}
    for t in range(len(x)):
        if reset is not None:
            state = tuple(torch.where(reset[t][:, None], 0.0, value) for value in state)
        if active is None:
            rows: Tensor | slice = slice(None)
            state = step(t, rows, state)
            outputs.append(state[0])
        else:
            rows = active[t].nonzero().flatten()
            new = step(t, rows, tuple(value[rows] for value in state))
            state = tuple(old.index_copy(0, rows, n) for old, n in zip(state, new, strict=True))
            outputs.append(torch.zeros_like(state[0]).index_copy(0, rows, new[0]))
        for name, node in wanted.items():
            seen[name][t, rows] = step.values[node].detach()
    return (torch.stack(outputs) if outputs else x.new_zeros(0, *state[0].shape)), state, seen


class _Step:
    """One step of a graph: products of x are made for all steps at once, then looked up.

    `values` holds what the last step computed, of the rows that had it.
    """

    def __init__(
        self, graph: CellGraph, weights: Mapping[str, Tensor], x: Tensor, given: Mapping[str, Tensor]
    ) -> None:
        self.graph, self.given = graph, given
        self.values: dict[Value, Tensor] = {}
        self.constants = {
            node: x.new_tensor(node.number) for node in graph.nodes if node.op == "constant"
        } | {node: weights[node.name] for node in graph.nodes if node.op == "vector"}
        self.bias = self._blocks(weights, "bias", graph.bias_blocks)
        self.from_x: dict[str, Tensor] = {}
        if graph.input_blocks:
            products = F.linear(x, weights["weight_ih"]).chunk(len(graph.input_blocks), -1)
            self.from_x = dict(zip(graph.input_blocks, products, strict=True))
        self.recurrent = self._by_operand(weights)

    @staticmethod
    def _blocks(weights: Mapping[str, Tensor], name: str, blocks: tuple[str, ...]) -> dict[str, Tensor]:
        return dict(zip(blocks, weights[name].chunk(len(blocks)), strict=True)) if blocks else {}

    def _by_operand(self, weights: Mapping[str, Tensor]) -> dict[Value, tuple[list[str], Tensor]]:
        """For each multiplied value the maps that take it and their rows, for one product each."""
        blocks = self.graph.recurrent_blocks
        rows = weights["weight_hh"].chunk(len(blocks)) if blocks else ()
        gathered: dict[Value, tuple[list[str], list[Tensor]]] = {}
        for (name, operand), block in zip(blocks, rows, strict=True):
            names, parts = gathered.setdefault(operand, ([], []))
            names.append(name)
            parts.append(block)
        return {
            operand: (names, weights["weight_hh"] if len(names) == len(blocks) else torch.cat(parts))
            for operand, (names, parts) in gathered.items()
        }

    def __call__(self, t: int, rows: Tensor | slice, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The new states of `rows` at step t; `state` holds those rows alone."""
        self.values = values = dict(self.constants)
        products: dict[tuple[str, Value], Tensor] = {}
        before = dict(zip(self.graph.states, state, strict=True))
        for node in self.graph.nodes:
            if node.op == "state":
                values[node] = before[node.name]
            elif node.op == "row_mask":
                values[node] = self.given[node.name][rows]
            elif node.op == "table":
                values[node] = self.given[node.name][self.given["step"][t, rows]]
            elif node.op == "batch_norm":
                values[node] = self._batch_norm(node, self.given["step"][t, rows], values)
            elif node.op in GIVEN:
                values[node] = self.given[node.name][t, rows]
            elif node.op == "map":
                values[node] = self._map(node, t, rows, products)
            elif node.op in OPERATORS:
                values[node] = OPERATORS[node.op](*(values[arg] for arg in node.args))
            if node in self.recurrent:
                names, weight = self.recurrent[node]
                parts = F.linear(values[node], weight).chunk(len(names), -1)
                products |= {(name, node): part for name, part in zip(names, parts, strict=True)}
        return tuple(values[output].expand_as(state[0]) for output in self.graph.outputs)

    def _batch_norm(self, node: Value, steps: Tensor, values: dict[Value, Tensor]) -> Tensor:
        """The rows of this step normalised by their own statistics, which the running ones move towards.

        A single row has none, and takes the running ones.
        """
        a, mean, variance = (values[arg] for arg in node.args)
        if len(a) > 1:
            variance, mean = torch.var_mean(a, 0, correction=0)
            unbiased = variance.detach() * (len(a) / (len(a) - 1))
            for table, new in zip(node.args[1:], (mean.detach(), unbiased), strict=True):
                running = self.given[table.name]
                at = steps.unique()
                running[at] = torch.lerp(running[at], new.expand(len(at), -1), MOMENTUM)
        return (a - mean) * torch.rsqrt(variance + LAYER_NORM_EPSILON)

    def _map(
        self, node: Value, t: int, rows: Tensor | slice, products: dict[tuple[str, Value], Tensor]
    ) -> Tensor:
        terms = [
            self.from_x[node.name][t, rows] if arg.op == "x" else products[node.name, arg]
            for arg in node.args
        ]
        if node.bias:
            terms.append(self.bias[node.name])
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total
