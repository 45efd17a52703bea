"""The contenders: ours, torch's layer, a torch loop, jax's scan, and torch's layer on a packed sequence.

Each function takes a problem and whether it is trained on, and gives what is to be timed: a run forward
and, when training, back to the gradients of x and of all weights, given that of y. None says that this
cell or this machine has no such rival.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from throughtime.bench.by_hand import jax_scan, torch_loop
from throughtime.bench.problems import Problem
from throughtime.bench.timing import Contender
from throughtime.kernels.torch_layers import find_layer
from throughtime.kernels.unroll import unroll

#: The layers of torch by their names in `throughtime.kernels.torch_layers.LAYERS`.
TORCH_LAYERS: dict[str, Callable[..., nn.RNNBase]] = {
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
    "RNN": nn.RNN,
    "RNN (relu)": partial(nn.RNN, nonlinearity="relu"),
}


def ours(problem: Problem, train: bool) -> Contender:
    """`unroll` with the backend it chooses."""

    def forward() -> Tensor:
        return unroll(problem.cell, problem.weights, problem.x, lengths=problem.lengths)[0]

    return _contender(forward, problem.leaves, problem.dy, train)


def torch_layer(problem: Problem, train: bool) -> Contender | None:
    """torch's own layer, where it computes the cell."""
    layer = _layer(problem)
    if layer is None:
        return None
    return _contender(lambda: layer(problem.x)[0], [problem.x, *layer.parameters()], problem.dy, train)


def packed(problem: Problem, train: bool) -> Contender | None:
    """torch's own layer on a packed sequence, with the packing before it and the padding after it."""
    layer, lengths = _layer(problem), problem.lengths
    if layer is None or lengths is None:
        return None

    def forward() -> Tensor:
        sequence = pack_padded_sequence(problem.x, lengths, enforce_sorted=False)
        return pad_packed_sequence(layer(sequence)[0], total_length=problem.size.steps)[0]

    return _contender(forward, [problem.x, *layer.parameters()], problem.dy, train)


def loop(problem: Problem, train: bool) -> Contender:
    """The equations in a loop in torch."""
    return _contender(
        lambda: torch_loop(problem.cell.graph, problem.weights, problem.x), problem.leaves, problem.dy, train
    )


def jax(problem: Problem, train: bool) -> Contender | None:
    """The equations in `jax.lax.scan` on the processor, compiled; training gives y beside the gradients."""
    if not has_jax():
        return None
    import jax

    place = jax.devices("cpu")[0]

    def put(tensor: Tensor) -> jax.Array:
        return jax.device_put(tensor.detach().numpy(), place)

    weights = {name: put(weight) for name, weight in problem.weights.items()}
    x, dy = put(problem.x), put(problem.dy)
    run = jax_scan(problem.cell.graph)

    def forward_and_back(weights: dict[str, jax.Array], x: jax.Array, dy: jax.Array) -> object:
        y, back = jax.vjp(run, weights, x)
        return y, back(dy)

    if train:
        compiled = jax.jit(forward_and_back)
        return lambda: jax.block_until_ready(compiled(weights, x, dy))
    inference = jax.jit(run)
    return lambda: jax.block_until_ready(inference(weights, x))


#: What ours is timed against on full batches.
RIVALS: dict[str, Callable[[Problem, bool], Contender | None]] = {
    "torch": torch_layer,
    "loop": loop,
    "jax": jax,
}


def has_jax() -> bool:
    """Whether jax is installed."""
    return importlib.util.find_spec("jax") is not None


def _layer(problem: Problem) -> nn.RNNBase | None:
    found = find_layer(problem.cell.graph)
    return None if found is None else TORCH_LAYERS[found[0].name](problem.size.inputs, problem.size.hidden)


def _contender(forward: Callable[[], Tensor], leaves: list[Tensor], dy: Tensor, train: bool) -> Contender:
    def training() -> object:
        y = forward()
        return y, torch.autograd.grad(y, leaves, dy)

    def inference() -> object:
        with torch.no_grad():
            return forward()

    return training if train else inference
