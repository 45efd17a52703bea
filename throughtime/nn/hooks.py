"""Looking on while a recurrence runs: at quantities inside its steps, and at gradients by its states."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from throughtime.cells.cell import Cell
from throughtime.cells.transform import probed
from throughtime.errors import ShapeError
from throughtime.kernels.unroll import Watch, explain, unroll
from throughtime.nn.time import reverse

#: What can be looked at beside the quantities of a cell: what a layer reads, and where its rows begin anew.
OUTSIDE = ("x", "reset")


@dataclass(frozen=True)
class StateHook:
    """What `Recurrent.register_state_hook` was asked for."""

    hook: Callable[..., Any]
    index: int
    state: str
    step: int | None
    per_call: bool = False

    def begin(self) -> StateHook:
        """The hook of one forward pass."""
        return replace(self, hook=self.hook(), per_call=False) if self.per_call else self

    def check(self, steps: int) -> None:
        """Raise `ShapeError` where a sequence has no such step."""
        if self.step is not None and not -steps <= self.step < steps:
            raise ShapeError(f"a hook waits for step {self.step}, and the sequence has {steps}")

    def call(self, gradient: Float[Tensor, "T B H"], lengths: Tensor | None, turned: bool) -> None:
        """Show the hook the steps it wants, in the order of x."""
        if turned:
            gradient = reverse(gradient, lengths)
        if self.step is None:
            self.hook(gradient.transpose(0, 1))
        else:
            self.hook(gradient[self.step])


@dataclass(frozen=True)
class QuantityHook:
    """What `Recurrent.register_quantity_hook` was asked for."""

    hook: Callable[[dict[str, Tensor], Tensor | None], object]
    index: int
    names: Collection[str]

    def call(self, seen: dict[str, Tensor], lengths: Tensor | None, turned: bool) -> None:
        """Show the hook what it wants, [B, T, H] each, in the order of x, and the lengths of rows."""
        shown = {name: reverse(seen[name], lengths) if turned else seen[name] for name in self.names}
        self.hook({name: value.transpose(0, 1) for name, value in shown.items()}, lengths)


Hook = StateHook | QuantityHook


def unroll_seen(
    hooks: Sequence[Hook],
    turned: bool,
    cell: Cell,
    weights: Mapping[str, Tensor],
    x: Float[Tensor, "T B I"],
    state: tuple[Tensor, ...],
    lengths: Tensor | None,
    reset: Tensor | None,
    backend: str,
    checkpoint_every: int | Literal["auto"] | None,
    given: Mapping[str, Tensor],
) -> tuple[Float[Tensor, "T B H"], tuple[Tensor, ...]]:
    """`unroll` while `hooks` look on; `turned` says that x runs backwards in time.

    Gradients come from probes, which are added to the states. A layer of torch takes none: behind it, the
    backward pass runs the recurrence again, with probes, from the gradients that came to its outputs.
    """
    of_states = [hook for hook in hooks if isinstance(hook, StateHook)] if torch.is_grad_enabled() else []
    for hook in of_states:
        hook.check(len(x))
    of_states = [hook.begin() for hook in of_states]
    looking = [hook for hook in hooks if isinstance(hook, QuantityHook)]
    watch = _watch(looking, x, lengths, reset, turned)
    probe = partial(_with_probes, of_states, cell, x, state[0].shape[1], given, lengths, turned)
    rest = (x, state, lengths, reset, backend, checkpoint_every)
    if not of_states:
        return unroll(cell, weights, *rest, given, watch)
    if explain(cell, x, backend).backend != "torch":
        cell, given = probe()
        return unroll(cell, weights, *rest, given, watch)
    y, final = unroll(cell, weights, *rest, given, watch)
    constant = {name: weight.detach() for name, weight in weights.items()}
    begin = tuple(value.detach() for value in state)

    def again(adjoints: Sequence[Tensor]) -> None:
        cell, given = probe()
        y, final = unroll(cell, constant, x.detach(), begin, lengths, reset, "auto", checkpoint_every, given)
        torch.autograd.backward((y, *final), adjoints)

    wanted = torch.zeros((), requires_grad=True)  # for a recurrence whose weights are frozen
    y, *finals = _Behind.apply(again, wanted, y, *final)
    return y, tuple(finals)


def _watch(
    hooks: Sequence[QuantityHook], x: Tensor, lengths: Tensor | None, reset: Tensor | None, turned: bool
) -> Watch | None:
    """One that looks for all `hooks`."""

    def show(seen: dict[str, Tensor]) -> None:
        begins = x.new_zeros(*x.shape[:2], 1) if reset is None else reset[..., None].to(x.dtype)
        for hook in hooks:
            hook.call({"x": x.detach(), "reset": begins, **seen}, lengths, turned)

    names = dict.fromkeys(name for hook in hooks for name in hook.names if name not in OUTSIDE)
    return Watch(tuple(names), show) if hooks else None


def _with_probes(
    hooks: Sequence[StateHook],
    cell: Cell,
    x: Tensor,
    units: int,
    given: Mapping[str, Tensor],
    lengths: Tensor | None,
    turned: bool,
) -> tuple[Cell, dict[str, Tensor]]:
    """The cell with a probe on each state of `hooks`, and what it is given, with probes that call them."""
    made = probed(cell, tuple(dict.fromkeys(hook.state for hook in hooks)))
    probes = {
        name: x.new_full((*x.shape[:2], units), -0.0, requires_grad=True)  # a + -0.0 is a in every bit
        for name, kind in made.graph.given.items()
        if kind == "probe"
    }
    for hook in hooks:
        probes[f"probe {hook.state}"].register_hook(partial(hook.call, lengths=lengths, turned=turned))
    return made, {**given, **probes}


class _Behind(torch.autograd.Function):
    """Passes values on as they are; in the backward pass `again` is called with their gradients."""

    @staticmethod
    def forward(
        ctx: Any, again: Callable[[Sequence[Tensor]], None], wanted: Tensor, *values: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.again = again
        return tuple(value.clone() for value in values)

    @staticmethod
    def backward(ctx: Any, *adjoints: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients as they are."""
        with torch.enable_grad():
            ctx.again(adjoints)
        return None, None, *adjoints
