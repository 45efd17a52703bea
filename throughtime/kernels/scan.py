"""Recurrences that are linear in their states, at all steps at once: the scan takes log2(T) levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from throughtime.cells.expression import Value
from throughtime.cells.linearity import Part, linear_parts
from throughtime.cells.trace import CellGraph
from throughtime.kernels.steps import Steps


def refusal(graph: CellGraph, x: Tensor) -> str | None:
    """Why this backend cannot run `graph` on `x`, or None."""
    if "table" in graph.given.values():
        return "the statistics of batch norm are looked up step by step"
    parts = linear_parts(graph)
    return f"the equations are not linear in their states: {parts}" if isinstance(parts, str) else None


def run(
    graph: CellGraph,
    weights: Mapping[str, Tensor],
    x: Tensor,
    state: tuple[Tensor, ...],
    lengths: Tensor | None,
    reset: Tensor | None,
    given: Mapping[str, Tensor],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`unroll`, the states of a part at all steps from its coefficients, and these from the parts before.

    Where products of coefficients over many steps overflow, a state may be NaN that the loop finds finite.
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
    """`run`, and the `wanted` values of the graph at all steps, [T, B, H] each."""
    parts = linear_parts(graph)
    assert not isinstance(parts, str)
    steps = _LinearSteps(graph, weights, x, state, lengths, reset, given)
    for part in parts:
        steps.follow(part)
    final = tuple(steps.final(name) for name in graph.states)
    return steps.history[graph.states[0]], final, steps.seen(wanted)


class _LinearSteps(Steps):
    """Steps whose states are found part by part."""

    def follow(self, part: Part) -> None:
        """The history of the states of `part`."""
        if part.coefficients:
            rows = [_stacked([self.dense(value) for value in row], 1) for row in part.coefficients]
            coefficients = _stacked(rows, 1)
            offsets = _stacked([self.dense(value) for value in part.offsets], 1)[:, :, None]
            initial = _stacked([self.initial[name] for name in part.states], 0)[:, None]
            histories = scan(coefficients, offsets, initial, self.reset)[:, :, 0].unbind(1)
            for name, history in zip(part.states, histories, strict=True):
                self.values[self.output[name]] = self.packed(history)
        for name in part.states:
            self.history[name] = self.dense(self.output[name])

    def final(self, name: str) -> Tensor:
        """The state after the last step of each row."""
        initial, history = self.initial[name], self.history[name]
        if not len(history):
            return initial
        if self.lengths is None:
            return history[-1].clone()  # a view would keep the whole history
        last = (self.lengths - 1).clamp(min=0).expand_as(initial)[None]
        return torch.where(self.lengths > 0, history.gather(0, last)[0], initial)


def _stacked(values: list[Tensor], dim: int) -> Tensor:
    return torch.stack(values, dim) if len(values) > 1 else values[0].unsqueeze(dim)


def scan(
    coefficients: Float[Tensor, "T k k B H"],
    offsets: Float[Tensor, "T k 1 B H"],
    initial: Float[Tensor, "k 1 B H"],
    reset: Bool[Tensor, "T B"] | None = None,
) -> Float[Tensor, "T k 1 B H"]:
    """s_t = A_t s_{t-1} + b_t for each element of [B, H], s and b columns of k numbers.

    coefficients, offsets  the A_t and b_t.
    initial                s before the first step.
    reset                  where True, s_t = b_t whatever stands in s_{t-1}, NaN included.

    Memory grows with T, in the backward pass too. Gradients of any order.
    """
    if not len(offsets):
        return offsets
    states: Tensor = _Scan.apply(coefficients, offsets, initial, reset)
    return states


class _Scan(torch.autograd.Function):
    """`scan` of at least a step. Its backward is the same recurrence from the last step to the first."""

    @staticmethod
    def forward(
        ctx: Any, coefficients: Tensor, offsets: Tensor, initial: Tensor, reset: Tensor | None
    ) -> Tensor:
        states = offsets.new_empty(offsets.shape)
        flags = None if reset is None else _flags(reset)
        _solve(coefficients, offsets, initial[None], flags, states)
        ctx.save_for_backward(coefficients, initial, states, reset)
        return states

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The adjoint of s_t is that of the loss and A_{t+1}' times the adjoint of s_{t+1}."""
        coefficients, initial, states, reset = ctx.saved_tensors
        transposed = coefficients.transpose(1, 2)
        adjoint = scan(
            transposed[1:].flip(0),
            grad[:-1].flip(0),
            grad[-1],
            None if reset is None else reset[1:].flip(0),
        )
        adjoint = torch.cat([adjoint.flip(0), grad[-1:]])
        before = torch.cat([initial[None], states[:-1]])
        d_coefficients = adjoint * before.transpose(1, 2)
        d_initial = (transposed[0] * adjoint[0].transpose(0, 1)).sum(1, keepdim=True)
        if reset is not None:
            flags = _flags(reset)
            d_coefficients = torch.where(flags, 0.0, d_coefficients)
            d_initial = torch.where(flags[0], 0.0, d_initial)
        return d_coefficients, adjoint, d_initial, None


def _flags(reset: Tensor) -> Tensor:
    return reset[:, None, None, :, None]


def _solve(a: Tensor, b: Tensor, initial: Tensor, reset: Tensor | None, states: Tensor) -> None:
    """Fill `states`: every second one by the recurrence over pairs of steps, the others by a step from it.

    Two steps are one with the coefficient A_2 A_1 and the offset A_2 b_1 + b_2. No coefficient is divided
    by, so any may be zero. In all about three times the work of the loop (Blelloch 1990).
    """
    _step(a[:1], b[:1], initial, _part(reset, slice(1)), states[:1])
    if len(b) == 1:
        return
    first, second = slice(0, len(b) // 2 * 2, 2), slice(1, None, 2)
    pair_a = _product(a[second], a[first])
    pair_b = b.new_empty(b[second].shape)
    _step(a[second], b[second], b[first], _part(reset, second), pair_b)
    pair_reset = None if reset is None else reset[first] | reset[second]
    _solve(pair_a, pair_b, initial, pair_reset, states[second])
    rest = slice(2, None, 2)
    _step(a[rest], b[rest], states[1:-1:2], _part(reset, rest), states[rest])


def _step(a: Tensor, b: Tensor, before: Tensor, reset: Tensor | None, out: Tensor) -> None:
    """A s + b, or b where `reset`."""
    total = b
    for j in range(a.shape[2]):
        total = torch.addcmul(total, a[:, :, j : j + 1], before[:, j : j + 1], out=out)
    if reset is not None:
        torch.where(reset, b, out, out=out)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """A B for each element."""
    total = a[:, :, :1] * b[:, :1]
    for j in range(1, a.shape[2]):
        total = total.addcmul_(a[:, :, j : j + 1], b[:, j : j + 1])
    return total


def _part(reset: Tensor | None, steps: slice) -> Tensor | None:
    return None if reset is None else reset[steps]
