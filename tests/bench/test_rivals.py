"""The contenders run what they say, forward or forward and back."""

import importlib.util

import pytest
import torch
from torch import nn

from throughtime.bench import rivals
from throughtime.bench.problems import Size, draw
from throughtime.bench.rivals import RIVALS, TORCH_LAYERS, loop, ours, packed, torch_layer
from throughtime.cells.library import CELLS
from throughtime.kernels.torch_layers import LAYERS
from throughtime.kernels.unroll import unroll

SIZE = Size(steps=6, batch=3, inputs=4, hidden=5)


def test_every_layer_of_torch_is_timed_by_its_module():
    assert set(TORCH_LAYERS) == {layer.name for layer in LAYERS}
    for layer in LAYERS:
        module = TORCH_LAYERS[layer.name](4, 5)
        gates = len(layer.graph.input_blocks)
        assert module.weight_ih_l0.shape == (gates * 5, 4)
    assert TORCH_LAYERS["RNN (relu)"](4, 5).mode == "RNN_RELU"


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn", "irnn"])
def test_a_cell_of_torch_has_all_rivals_and_another_does_not(name):
    assert torch_layer(draw(CELLS[name], SIZE), True) is not None
    assert packed(draw(CELLS[name], SIZE, half_padded=True), True) is not None
    assert packed(draw(CELLS[name], SIZE), True) is None
    assert torch_layer(draw(CELLS["peephole_lstm"], SIZE), True) is None
    assert packed(draw(CELLS["peephole_lstm"], SIZE, half_padded=True), True) is None


@pytest.mark.parametrize("contender", [ours, loop, torch_layer])
def test_training_gives_all_gradients_and_inference_none(contender):
    problem = draw(CELLS["lstm"], SIZE)
    y, gradients = contender(problem, True)()
    assert y.shape == problem.dy.shape
    leaves = 1 + (4 if contender is torch_layer else 3)
    assert len(gradients) == leaves and all(g.isfinite().all() and g.any() for g in gradients)
    assert contender(problem, False)().grad_fn is None


def test_ours_with_lengths_and_the_packed_layer_leave_the_padding_zero():
    problem = draw(CELLS["gru"], SIZE, half_padded=True)
    padding = torch.arange(SIZE.steps)[:, None] >= problem.lengths
    for contender in (ours, packed):
        y, (dx, *_) = contender(problem, True)()
        assert y.shape == problem.dy.shape and (y[padding] == 0).all() and y[~padding].any()
        assert (dx[padding] == 0).all() and dx[~padding].any()


def test_the_packed_layer_computes_what_unroll_does(monkeypatch):
    problem = draw(CELLS["rnn"], SIZE, half_padded=True)
    layer = nn.RNN(SIZE.inputs, SIZE.hidden)
    weights = {
        "weight_ih": layer.weight_ih_l0,
        "weight_hh": layer.weight_hh_l0,
        "bias": layer.bias_ih_l0 + layer.bias_hh_l0,
    }
    monkeypatch.setitem(TORCH_LAYERS, "RNN", lambda *sizes: layer)
    y = packed(problem, False)()
    expected, _ = unroll(problem.cell, weights, problem.x, lengths=problem.lengths, backend="reference")
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_jax_runs_the_problem_that_ours_runs():
    problem = draw(CELLS["peephole_lstm"], SIZE)
    expected, (expected_dx, *_) = ours(problem, True)()
    y, (_, dx) = RIVALS["jax"](problem, True)()
    torch.testing.assert_close(torch.tensor(y.tolist()), expected.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.tensor(dx.tolist()), expected_dx, rtol=1e-4, atol=1e-5)
    y = RIVALS["jax"](problem, False)()
    torch.testing.assert_close(torch.tensor(y.tolist()), expected.detach(), rtol=1e-4, atol=1e-5)


def test_without_jax_there_is_no_such_rival(monkeypatch):
    monkeypatch.setattr(rivals, "has_jax", lambda: False)
    assert RIVALS["jax"](draw(CELLS["lstm"], SIZE), True) is None
