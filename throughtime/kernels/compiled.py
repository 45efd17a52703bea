"""The backend "llvm": machine code made from equations, as operators that torch can differentiate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from throughtime.cells.trace import CellGraph
from throughtime.errors import KernelError
from throughtime.kernels import machine

DTYPES = frozenset({torch.float32, torch.float64})


def refusal(graph: CellGraph, x: Tensor) -> str | None:
    """Why this backend cannot run `graph` on `x`, or None."""
    if x.device.type != "cpu":
        return f"machine code runs on the processor, and x is on {x.device}"
    if x.dtype not in DTYPES:
        return f"machine code computes in float32 and float64, and x is {x.dtype}"
    if x.numel() == 0:
        return "machine code does not take an empty sequence or batch"
    return _unsupported()


def _unsupported() -> str | None:
    return machine.unsupported()


# What `torch.compiler.assume_constant_result` does, without the second that importing torch._dynamo takes.
_unsupported._dynamo_marked_constant = True  # type: ignore[attr-defined]


def run(
    graph: CellGraph,
    weights: Mapping[str, Tensor],
    x: Tensor,
    state: tuple[Tensor, ...],
    lengths: Tensor | None,
    reset: Tensor | None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`unroll` by machine code made for `graph`."""
    inputs = [weights[name] for name in graph.weights]
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *state, *inputs))
    if wanted or not _plain(x, *state, *inputs):
        operator = torch.ops.throughtime.unroll.default
        outputs = operator(graph.text, x, list(state), inputs, lengths, reset, wanted)
    else:  # the same without the cost of an operator, which counts where a step is all there is
        outputs = _unroll(graph.text, x, state, inputs, lengths, reset, keep=False)
    return outputs[0], tuple(outputs[1 : 1 + len(state)])


def _plain(*tensors: Tensor) -> bool:
    """Whether nobody watches or replaces operators: no compiler, tracer, mode, or kind of tensor."""
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and torch._C._len_torch_dispatch_stack() == 0
        and forward_ad._current_level < 0
        and all(type(tensor) in {Tensor, Parameter} for tensor in tensors)
    )


def _unroll(
    cell: str,
    x: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    reset: Tensor | None,
    keep: bool,
) -> list[Tensor]:
    """y, the final states, and, to `keep` for the backward pass, what `kept_shapes` says."""
    from throughtime.kernels.passes import Problem, forward  # they need llvmlite

    return forward(Problem(cell, x, state, weights, lengths, reset), keep)


def _unroll_fake(
    cell: str,
    x: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    reset: Tensor | None,
    keep: bool,
) -> list[Tensor]:
    from throughtime.kernels.passes import kept_shapes

    steps, batch = x.shape[:2]
    hidden = state[0].shape[1]
    outputs = [x.new_empty(steps, batch, hidden), *(x.new_empty(value.shape) for value in state)]
    return outputs + ([x.new_empty(s) for s in kept_shapes(cell, steps * batch, hidden)] if keep else [])


def _unroll_backward(
    cell: str,
    x: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    reset: Tensor | None,
    kept: Sequence[Tensor],
    y: Tensor,
    adjoints: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor]:
    """The gradients of x, the initial states and the weights; an empty tensor for one not `wanted`."""
    from throughtime.kernels.passes import Problem, backward

    return backward(Problem(cell, x, state, weights, lengths, reset), kept, y, adjoints, wanted)


def _unroll_backward_fake(
    cell: str,
    x: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    reset: Tensor | None,
    kept: Sequence[Tensor],
    y: Tensor,
    adjoints: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor]:
    inputs = (x, *state, *weights)
    return [
        value.new_empty(value.shape) if want else value.new_empty(0)
        for value, want in zip(inputs, wanted, strict=True)
    ]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    cell, x, state, weights, lengths, reset, keep = inputs
    if not keep:
        raise KernelError(
            "this recurrence was exported or traced without gradients and has nothing to compute them "
            "from: export it with gradients, or call it under torch.no_grad()"
        )
    ctx.set_materialize_grads(False)
    ctx.cell, ctx.states, ctx.weights = cell, len(state), len(weights)
    ctx.wanted = [t.requires_grad for t in (x, *state, *weights)]
    kept = output[1 + len(state) :]
    ctx.save_for_backward(x, *state, *weights, lengths, reset, output[0], *kept)


def _backward(ctx: Any, adjoints: list[Tensor | None]) -> tuple[Any, ...]:
    x, *rest = ctx.saved_tensors
    state, rest = rest[: ctx.states], rest[ctx.states :]
    weights, (lengths, reset, y, *kept) = rest[: ctx.weights], rest[ctx.weights :]
    given = list(adjoints[: 1 + ctx.states])
    gradients = torch.ops.throughtime.unroll_backward.default(
        ctx.cell, x, state, weights, lengths, reset, kept, y, given, ctx.wanted
    )
    found = [gradient if want else None for gradient, want in zip(gradients, ctx.wanted, strict=True)]
    return None, found[0], found[1 : 1 + ctx.states], found[1 + ctx.states :], None, None, None


def _refuse_second_derivative(ctx: Any, adjoints: Any) -> Any:
    raise KernelError(
        'the backend "llvm" has no second derivative: compute it with backend="reference", '
        "which has every order"
    )


def _define(
    name: str, compute: Callable[..., Any], fake: Callable[..., Any], setup: Any, backward: Any
) -> None:
    """Make an operator of a function with types. `torch.library.custom_op` adds checks to each call."""
    qualified = f"throughtime::{name}"
    torch.library.define(qualified, torch.library.infer_schema(compute, mutates_args=()))
    torch.library.impl(qualified, "CPU", compute)
    torch.library.register_fake(qualified, fake)
    torch.library.register_autograd(qualified, backward, setup_context=setup)


_define("unroll", _unroll, _unroll_fake, _setup, _backward)
_define(
    "unroll_backward",
    _unroll_backward,
    _unroll_backward_fake,
    lambda ctx, inputs, output: None,
    _refuse_second_derivative,
)
