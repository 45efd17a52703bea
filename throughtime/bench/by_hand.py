"""A cell in a plain loop, as someone who knows torch or jax writes it by hand: what we are measured against.

The loop is made from the cell's graph, so that every cell has one. It does what a good hand does:

- products with x are made for all steps at once, before the loop, and their biases are added there;
- all maps of one value are one product in the step;
- where all of those take x too, its part is added to all at once, before they are split into gates.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from throughtime.cells.expression import LAYER_NORM_EPSILON, Value
from throughtime.cells.trace import CellGraph
from throughtime.kernels.reference import OPERATORS


@dataclass(frozen=True)
class Arrays:
    """What the loop needs of a library of arrays.

    operators    by their name in `throughtime.cells.expression.ARITY`.
    constant     a number as an array.
    linear       linear(a, weight, added) is a @ weight.T + added; what is added may be None.
    concatenate  arrays, one below the other.
    split        an array, cut along its last axis into parts of the given widths.
    zeros        an array of zeros of a shape.
    broadcast    an array, repeated to a shape.
    """

    operators: Mapping[str, Callable[..., Any]]
    constant: Callable[[float], Any]
    linear: Callable[[Any, Any, Any], Any]
    concatenate: Callable[[list[Any]], Any]
    split: Callable[[Any, list[int]], Sequence[Any]]
    zeros: Callable[[tuple[int, ...]], Any]
    broadcast: Callable[[Any, tuple[int, ...]], Any]


@dataclass(frozen=True)
class Products:
    """The products of one value: the maps they belong to, and what is added to all at once.

    That is either a bias, or what stands at `from_x` in `ByHand.from_x`, or nothing.
    """

    maps: tuple[str, ...]
    weight: Any
    bias: Any
    from_x: int | None


class ByHand:
    """One step of a cell; `from_x` is what x gives to it, for all steps [T, B, ...]."""

    def __init__(self, graph: CellGraph, arrays: Arrays, weights: Mapping[str, Any], x: Any) -> None:
        self.graph, self.arrays = graph, arrays
        first, (blocks, *_) = next(iter(graph.weight_shapes(1, 1).items()))
        self.hidden = weights[first].shape[0] // blocks
        self.known = {node: weights[node.name] for node in graph.nodes if node.op == "vector"} | {
            node: arrays.constant(node.number) for node in graph.nodes if node.op == "constant"
        }
        self._bias = self._blocks(weights, "bias", graph.bias_blocks)
        maps = _maps_of_each_value(graph)
        whole = [value for value, names in maps.items() if _all_take_x_and_this(graph, names)]
        self.alone = [name for name in graph.input_blocks if not any(name in maps[value] for value in whole)]
        self.from_x = self._from_x(weights, x, [*(maps[value] for value in whole), *zip(self.alone)])
        self.products = {
            value: Products(
                names,
                self._gather(weights, "weight_hh", graph.recurrent_blocks, [(n, value) for n in names]),
                self._own_bias(value, names),
                whole.index(value) if value in whole else None,
            )
            for value, names in maps.items()
        }

    def begin(self, batch: int) -> tuple[Any, ...]:
        """The states before the first step: zeros."""
        return tuple(self.arrays.zeros((batch, self.hidden)) for _ in self.graph.states)

    def step(self, from_x: Sequence[Any], state: tuple[Any, ...]) -> tuple[Any, ...]:
        """The new states; `from_x` is that of this step."""
        values = dict(self.known)
        before = dict(zip(self.graph.states, state, strict=True))
        alone = from_x[len(from_x) - len(self.alone) :]
        terms = {name: [term] for name, term in zip(self.alone, alone, strict=True)}
        for node in self.graph.nodes:
            if node.op == "state":
                values[node] = before[node.name]
            elif node.op == "map":
                first, *others = terms[node.name]
                values[node] = sum(others, first)
            elif node.op in self.arrays.operators:
                values[node] = self.arrays.operators[node.op](*(values[arg] for arg in node.args))
            if node in self.products:
                for name, term in self._multiply(values[node], self.products[node], from_x):
                    terms.setdefault(name, []).append(term)
        return tuple(
            new if new.shape == state[0].shape else self.arrays.broadcast(new, state[0].shape)
            for new in (values[output] for output in self.graph.outputs)
        )

    def _multiply(self, value: Any, products: Products, from_x: Sequence[Any]) -> list[tuple[str, Any]]:
        added = products.bias if products.from_x is None else from_x[products.from_x]
        total = self.arrays.linear(value, products.weight, added)
        return list(zip(products.maps, self._split(total, [1] * len(products.maps)), strict=True))

    def _from_x(self, weights: Mapping[str, Any], x: Any, groups: list[tuple[str, ...]]) -> Sequence[Any]:
        """One product with x, then cut into the groups of maps that are used together."""
        names = list(itertools.chain(*groups))
        if not names:
            return ()
        weight = self._gather(weights, "weight_ih", self.graph.input_blocks, names)
        return self._split(self.arrays.linear(x, weight, self._join(names)), [len(g) for g in groups])

    def _own_bias(self, value: Value, names: tuple[str, ...]) -> Any:
        """The biases of the maps that x does not carry, at the first product of each."""
        firsts = {m.name for m in self.graph.maps if m.args[0] is value}
        return self._join([name if name in firsts else None for name in names])

    def _join(self, names: Sequence[str | None]) -> Any:
        """The biases of these maps, zeros where there is none; None where none has any."""
        if not any(name in self._bias for name in names):
            return None
        zeros = self.arrays.zeros((self.hidden,))
        parts = [zeros if name is None else self._bias.get(name, zeros) for name in names]
        return self.arrays.concatenate(parts)

    def _blocks(self, weights: Mapping[str, Any], key: str, blocks: Sequence[Any]) -> dict[Any, Any]:
        """The rows of a weight by the map they belong to."""
        rows = [slice(k * self.hidden, (k + 1) * self.hidden) for k in range(len(blocks))]
        return {block: weights[key][part] for block, part in zip(blocks, rows, strict=True)}

    def _gather(self, weights: Mapping[str, Any], key: str, blocks: Sequence[Any], some: list[Any]) -> Any:
        """The rows of some blocks of a weight."""
        if list(blocks) == some:
            return weights[key]
        parts = self._blocks(weights, key, blocks)
        return self.arrays.concatenate([parts[block] for block in some])

    def _split(self, array: Any, blocks: list[int]) -> Sequence[Any]:
        return (array,) if len(blocks) == 1 else self.arrays.split(array, [n * self.hidden for n in blocks])


def _maps_of_each_value(graph: CellGraph) -> dict[Value, tuple[str, ...]]:
    maps: dict[Value, tuple[str, ...]] = {}
    for name, value in graph.recurrent_blocks:
        maps[value] = (*maps.get(value, ()), name)
    return maps


def _all_take_x_and_this(graph: CellGraph, names: tuple[str, ...]) -> bool:
    return all(len(m.args) == 2 and m.args[0].op == "x" for m in graph.maps if m.name in names)


def _linear(a: Tensor, weight: Tensor, added: Tensor | None) -> Tensor:
    if added is None or a.dim() != 2:
        return F.linear(a, weight, added)
    return torch.addmm(added, a, weight.T)


TORCH = Arrays(
    operators=OPERATORS,
    constant=torch.tensor,
    linear=_linear,
    concatenate=torch.cat,
    split=lambda array, widths: array.split(widths, -1),
    zeros=torch.zeros,
    broadcast=torch.broadcast_to,
)


def torch_loop(graph: CellGraph, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """y [T, B, H] of the cell by a loop in torch, from a state of zeros."""
    hand = ByHand(graph, TORCH, weights, x)
    state, outputs = hand.begin(x.shape[1]), []
    # Taken apart at once: an index in each step costs a gradient of the size of the whole in each step.
    steps = zip(*(part.unbind() for part in hand.from_x), strict=True) if hand.from_x else [()] * len(x)
    for from_x in steps:
        state = hand.step(from_x, state)
        outputs.append(state[0])
    return torch.stack(outputs)


def jax_scan(graph: CellGraph) -> Callable[[dict[str, Any], Any], Any]:
    """The function of weights and x [T, B, I] that gives y by `jax.lax.scan`, from a state of zeros."""
    import jax
    from jax import numpy as jnp

    def layer_norm(a: Any) -> Any:
        centred = a - a.mean(-1, keepdims=True)
        return centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + LAYER_NORM_EPSILON)

    arrays = Arrays(
        operators={
            "add": jnp.add,
            "sub": jnp.subtract,
            "mul": jnp.multiply,
            "div": jnp.divide,
            "neg": jnp.negative,
            "sigmoid": jax.nn.sigmoid,
            "tanh": jnp.tanh,
            "relu": jax.nn.relu,
            "exp": jnp.exp,
            "log": jnp.log,
            "softplus": jax.nn.softplus,
            "maximum": jnp.maximum,
            "layer_norm": layer_norm,
        },
        constant=jnp.float32,
        linear=lambda a, weight, added: a @ weight.T if added is None else a @ weight.T + added,
        concatenate=jnp.concatenate,
        split=lambda array, widths: jnp.split(array, list(itertools.accumulate(widths))[:-1], -1),
        zeros=jnp.zeros,
        broadcast=jnp.broadcast_to,
    )

    def run(weights: dict[str, Any], x: Any) -> Any:
        hand = ByHand(graph, arrays, weights, x)

        def step(state: tuple[Any, ...], from_x: Sequence[Any]) -> tuple[tuple[Any, ...], Any]:
            state = hand.step(from_x, state)
            return state, state[0]

        _, y = jax.lax.scan(step, hand.begin(x.shape[1]), tuple(hand.from_x), length=len(x))
        return y

    return run
