"""torch's own LSTM, GRU and RNN, for the cells that are the same computation (oneDNN, cuDNN)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import _VF, Tensor

from throughtime.cells.elman import rnn, rnn_relu
from throughtime.cells.gru import gru
from throughtime.cells.lstm import lstm
from throughtime.cells.match import Names, match
from throughtime.cells.trace import CellGraph
from throughtime.kernels.compiled import TRANSFORMED, transformed


@dataclass(frozen=True)
class Layer:
    """A layer of torch and the cell it computes."""

    name: str
    graph: CellGraph
    function: Callable[..., tuple[Tensor, ...]]


LAYERS = (
    Layer("LSTM", lstm.graph, _VF.lstm),
    Layer("GRU", gru.graph, _VF.gru),
    Layer("RNN", rnn.graph, _VF.rnn_tanh),
    Layer("RNN (relu)", rnn_relu.graph, _VF.rnn_relu),
)


@cache
def find_layer(graph: CellGraph) -> tuple[Layer, Names] | None:
    """The layer of torch that computes `graph`, and the name in `graph` of each of its maps."""
    for layer in LAYERS:
        names = match(graph, layer.graph)
        if names is not None:
            return layer, names
    return None


def refusal(graph: CellGraph, x: Tensor) -> str | None:
    """Why this backend cannot run `graph` on `x`, or None."""
    if find_layer(graph) is None:
        return "the equations are not those of torch's LSTM, GRU or RNN"
    if transformed():
        return TRANSFORMED
    if x.numel() == 0:
        return "torch's layers do not take an empty sequence or batch"
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
    """`unroll` by torch's layer, cut where a row is reset and packed where lengths differ."""
    found = find_layer(graph)
    assert found is not None
    layer, names = found
    flat = _torch_weights(graph, layer.graph, names, weights, x)
    cuts = [0, *_reset_steps(reset), len(x)]
    outputs = []
    for start, stop in itertools.pairwise(cuts):
        if reset is not None:
            state = tuple(torch.where(reset[start][:, None], 0.0, value) for value in state)
        left = None if lengths is None else (lengths - start).clamp(0, stop - start)
        y, state = _segment(layer, flat, x[start:stop], state, left)
        outputs.append(y)
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)), state


def _reset_steps(reset: Tensor | None) -> list[int]:
    if reset is None:
        return []
    return [t for t in reset.any(1).nonzero().flatten().tolist() if t > 0]


def _torch_weights(
    graph: CellGraph, template: CellGraph, names: Names, weights: Mapping[str, Tensor], x: Tensor
) -> list[Tensor]:
    """weight_ih, weight_hh, bias_ih, bias_hh in torch's order of the gates.

    torch adds two biases; the map of x carries ours and the other is zero, save where torch's GRU keeps
    the product of the state apart: its bias is then bias_hh.
    """
    flat = []
    for key, mine, theirs in (
        ("weight_ih", graph.input_blocks, template.input_blocks),
        (
            "weight_hh",
            [name for name, _ in graph.recurrent_blocks],
            [n for n, _ in template.recurrent_blocks],
        ),
    ):
        wanted = [names[name] for name in theirs]
        weight = weights[key]
        if wanted != list(mine):
            blocks = dict(zip(mine, weight.chunk(len(mine)), strict=True))
            weight = torch.cat([blocks[name] for name in wanted])
        flat.append(weight)
    biases = dict(zip(graph.bias_blocks, weights["bias"].chunk(len(graph.bias_blocks)), strict=True))
    zero = torch.zeros_like(next(iter(biases.values())))
    inputs = [names[name] for name in template.input_blocks]
    recurrent = [names[name] for name, _ in template.recurrent_blocks]
    bias_ih = torch.cat([biases[name] for name in inputs])
    bias_hh = torch.cat([zero if name in inputs else biases[name] for name in recurrent])
    return [*flat, bias_ih, bias_hh]


def _segment(
    layer: Layer, flat: list[Tensor], x: Tensor, state: tuple[Tensor, ...], lengths: Tensor | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One run of torch's layer, without resets. Rows of length 0 are run for a step and then put back."""
    options = (True, 1, 0.0, torch.is_grad_enabled(), False)
    before = tuple(value[None].contiguous() for value in state)
    if lengths is None:
        y, *after = layer.function(
            x.contiguous(), before if len(before) > 1 else before[0], flat, *options, False
        )
        return y, tuple(value[0] for value in after)
    active = (torch.arange(len(x))[:, None] < lengths.cpu())[..., None].to(x.device)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.where(active, x, 0.0), lengths.cpu().clamp(min=1), enforce_sorted=False
    )
    assert packed.sorted_indices is not None and packed.unsorted_indices is not None
    order, back = packed.sorted_indices, packed.unsorted_indices
    before = tuple(value.index_select(1, order) for value in before)
    data, *after = layer.function(
        packed.data, packed.batch_sizes, before if len(before) > 1 else before[0], flat, *options
    )
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(packed._replace(data=data), total_length=len(x))
    some = (lengths > 0).to(x.device)[:, None]
    finals = tuple(
        torch.where(some, value.index_select(1, back)[0], old)
        for value, old in zip(after, state, strict=True)
    )
    return torch.where(active, y, 0.0), finals
