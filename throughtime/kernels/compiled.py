"""The backend "llvm": machine code made from equations, as operators that torch can differentiate."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from throughtime.cells.expression import Value
from throughtime.cells.trace import CellGraph
from throughtime.errors import KernelError
from throughtime.kernels import machine
from throughtime.kernels.steps import Steps

DTYPES = frozenset({torch.float32, torch.float64})
#: The kinds of tensors for which no one else's operators stand in.
PLAIN = frozenset({Tensor, Parameter})


def refusal(graph: CellGraph, x: Tensor) -> str | None:
    """Why this backend cannot run `graph` on `x`, or None."""
    if x.device.type != "cpu":
        return f"machine code runs on the processor, and x is on {x.device}"
    if x.dtype not in DTYPES:
        return f"machine code computes in float32 and float64, and x is {x.dtype}"
    if x.numel() == 0:
        return "machine code does not take an empty sequence or batch"
    if transformed():
        return TRANSFORMED
    if any(node.op == "batch_norm" for node in graph.nodes):
        return "the statistics of a batch join its rows, which machine code runs apart"
    return _unsupported()


#: Why an operator of ours, or of a library under torch, cannot be used then.
TRANSFORMED = "torch.func and forward derivatives need operators that torch knows"


def transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is at work."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.maybe_current_level() is not None or forward_ad._current_level >= 0


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
    given: Mapping[str, Tensor],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`unroll` by machine code made for `graph`."""
    outputs = _outputs(graph, weights, x, state, lengths, reset, given, keep=False)
    return outputs[0], tuple(outputs[1 : 1 + len(state)])


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
    """`run`, and the `wanted` values of the graph at all steps, [T, B, H] each.

    They come from what is kept for a backward pass; what is not kept is computed again, at all steps at once.
    """
    from throughtime.kernels.passes import kept_values

    problem = (graph, weights, x, state, lengths, reset, given)
    if not wanted:
        return *run(*problem), {}
    outputs = _outputs(*problem, keep=len(x) > 1)
    whole = outputs
    if len(outputs) == 1 + len(state):  # a single step has code of its own, which keeps nothing
        with torch.no_grad():
            whole = _outputs(*problem, keep=True)
    steps = Steps(*problem)
    history, values = kept_values(graph, x, lengths, whole)
    steps.history |= history
    steps.values |= {node: steps.packed(value) for node, value in values.items()}
    return outputs[0], tuple(outputs[1 : 1 + len(state)]), steps.seen(wanted)


def _outputs(
    graph: CellGraph,
    weights: Mapping[str, Tensor],
    x: Tensor,
    state: tuple[Tensor, ...],
    lengths: Tensor | None,
    reset: Tensor | None,
    given: Mapping[str, Tensor],
    keep: bool,
) -> list[Tensor]:
    """y, the final states, and what is kept: where gradients are wanted, and to `keep` it always."""
    inputs, extra = [weights[name] for name in graph.weights], [given[name] for name in graph.given]
    tensors = (x, *state, *inputs, *extra)
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    if wanted or not _plain(*tensors):
        operator = torch.ops.throughtime.unroll.default
        made: list[Tensor] = operator(
            graph.text, x, list(state), inputs, lengths, reset, extra, wanted or keep
        )
        return made
    # the same without the cost of an operator, which counts where a step is all there is
    return _unroll(graph.text, x, state, inputs, lengths, reset, extra, keep)


def step_again(
    graph: CellGraph,
    weights: Mapping[str, Tensor],
    x: Tensor,
    state: tuple[Tensor, ...],
    given: Mapping[str, Tensor],
) -> tuple[Tensor, tuple[Tensor, ...]] | None:
    """`run` for one step without gradients, if `unroll` has passed one of the same shapes before; else None.

    It needs none of the checks then, and what they cost counts where a step is all there is.
    """
    if not _plain() or machine.unsupported() or type(state) is not tuple or len(given) != len(graph.given):
        return None
    if "step" in given:  # its numbers are checked at every call
        return None
    inputs: list[Any] = [weights.get(name) for name in graph.weights]
    extra: list[Any] = [given.get(name) for name in graph.given] if given else []
    recorded = torch.is_grad_enabled()
    for tensor in (x, *state, *inputs, *extra):
        if type(tensor) not in PLAIN or not tensor.is_cpu or (recorded and tensor.requires_grad):
            return None
    outputs = _stream().again(graph.text, x, state, inputs, extra)
    return None if outputs is None else (outputs[0], tuple(outputs[1:]))


@cache
def _stream() -> ModuleType:
    """The module, which needs llvmlite."""
    from throughtime.kernels import stream

    return stream


def _plain(*tensors: Tensor) -> bool:
    """Whether nobody watches or replaces operators: no compiler, tracer, mode, or kind of tensor."""
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and torch._C._len_torch_dispatch_stack() == 0
        and not transformed()
        and PLAIN.issuperset(map(type, tensors))
    )


def _unroll(
    cell: str,
    x: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    reset: Tensor | None,
    given: Sequence[Tensor],
    keep: bool,
) -> list[Tensor]:
    """y, the final states, and, to `keep` for the backward pass, what `kept_shapes` says."""
    from throughtime.kernels.passes import Problem, forward  # they need llvmlite

    if len(x) == 1 and lengths is None and reset is None and not keep:
        return _stream().step(cell, x, state, weights, given)
    return forward(Problem(cell, x, state, weights, lengths, reset, given), keep)


def _unroll_fake(
    cell: str,
    x: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    reset: Tensor | None,
    given: Sequence[Tensor],
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
    given: Sequence[Tensor],
    kept: Sequence[Tensor],
    y: Tensor,
    adjoints: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor]:
    """The gradients of x, the initial states, the weights and what is given; empty for one not `wanted`."""
    from throughtime.kernels.passes import Problem, backward

    problem = Problem(cell, x, state, weights, lengths, reset, given)
    return backward(problem, kept, y, adjoints, wanted)


def _unroll_backward_fake(
    cell: str,
    x: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    reset: Tensor | None,
    given: Sequence[Tensor],
    kept: Sequence[Tensor],
    y: Tensor,
    adjoints: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor]:
    inputs = (x, *state, *weights, *given)
    return [x.new_empty(value.shape if want else 0) for value, want in zip(inputs, wanted, strict=True)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    cell, x, state, weights, lengths, reset, given, keep = inputs
    if not keep:
        raise KernelError(
            "this recurrence was exported or traced without gradients and has nothing to compute them "
            "from: export it with gradients, or call it under torch.no_grad()"
        )
    ctx.set_materialize_grads(False)
    ctx.cell = cell
    ctx.counts = 1, len(state), len(weights), len(given)
    ctx.wanted = [t.requires_grad for t in (x, *state, *weights, *given)]
    kept = output[1 + len(state) :]
    ctx.save_for_backward(x, *state, *weights, *given, lengths, reset, output[0], *kept)


def _backward(ctx: Any, adjoints: list[Tensor | None]) -> tuple[Any, ...]:
    (x,), state, weights, given, (lengths, reset, y, *kept) = _split(ctx.saved_tensors, ctx.counts)
    adjoints = list(adjoints[: 1 + len(state)])
    gradients = torch.ops.throughtime.unroll_backward.default(
        ctx.cell, x, state, weights, lengths, reset, given, kept, y, adjoints, ctx.wanted
    )
    found = [gradient if want else None for gradient, want in zip(gradients, ctx.wanted, strict=True)]
    (by_x,), by_state, by_weights, by_given, _ = _split(found, ctx.counts)
    return None, by_x, by_state, by_weights, None, None, by_given, None


def _split(values: Sequence[Any], counts: Sequence[int]) -> list[list[Any]]:
    """Cut into parts of so many values each, and what is left."""
    ends = [0, *itertools.accumulate(counts), len(values)]
    return [list(values[start:stop]) for start, stop in itertools.pairwise(ends)]


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
