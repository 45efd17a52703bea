"""torch's own layers: an oracle for the cells they compute, and a backend for every cell that is one."""

import pytest
import torch

from throughtime.cells.cell import cell
from throughtime.cells.expression import relu, sigmoid, tanh
from throughtime.cells.library import CELLS
from throughtime.kernels import torch_layers
from throughtime.kernels.torch_layers import find_layer
from throughtime.kernels.unroll import BACKENDS, unroll

STEPS, BATCH, INPUTS, HIDDEN = 9, 4, 3, 5
ORACLES = {
    "rnn": torch.nn.RNN,
    "rnn_relu": lambda *sizes, **options: torch.nn.RNN(*sizes, nonlinearity="relu", **options),
    "lstm": torch.nn.LSTM,
    "gru": torch.nn.GRU,
}
ABLE = [
    name
    for name, module in BACKENDS.items()
    if all(module.refusal(CELLS[cell].graph, torch.ones(1, 1, 1)) is None for cell in ORACLES)
]


def weights_of(layer):
    """Our weights from torch's layer. Its two biases are one, save for n and m of the GRU."""
    ours = {"weight_ih": layer.weight_ih_l0, "weight_hh": layer.weight_hh_l0}
    from_x, from_h = layer.bias_ih_l0, layer.bias_hh_l0
    if layer.mode == "GRU":
        both = from_x + from_h
        return ours | {"bias": torch.cat([both[: 2 * HIDDEN], from_x[2 * HIDDEN :], from_h[2 * HIDDEN :]])}
    return ours | {"bias": from_x + from_h}


@pytest.mark.parametrize("backend", ABLE)
@pytest.mark.parametrize("name", ORACLES)
def test_outputs_finals_and_gradients_are_those_of_torchs_layer(name, backend):
    torch.manual_seed(0)
    layer = ORACLES[name](INPUTS, HIDDEN, dtype=torch.float64)
    x = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64, requires_grad=True)
    state = tuple(
        torch.randn(BATCH, HIDDEN, dtype=torch.float64, requires_grad=True) for _ in CELLS[name].states
    )
    leaves = [x, *state, *layer.parameters()]

    before = tuple(value[None] for value in state)
    theirs, after = layer(x, before if len(before) > 1 else before[0])
    after = tuple(value[0] for value in (after if isinstance(after, tuple) else (after,)))
    ours, final = unroll(CELLS[name], weights_of(layer), x, state, backend=backend)

    def gradients(y, states):
        loss = (y * torch.arange(y.numel()).view_as(y)).sum() + sum(s.square().sum() for s in states)
        return torch.autograd.grad(loss, leaves)

    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(final, after, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients(ours, final), gradients(theirs, after), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ORACLES)
def test_float32_is_torchs_layer_to_rounding(name):
    """In float32 and without gradients torch may take another kernel than in float64."""
    torch.manual_seed(0)
    layer = ORACLES[name](INPUTS, HIDDEN)
    x = torch.randn(STEPS, BATCH, INPUTS)
    with torch.no_grad():
        theirs, _ = layer(x)
        for backend in ABLE:
            ours, _ = unroll(CELLS[name], weights_of(layer), x, backend=backend)
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@cell(state="a b")
def my_lstm(x, s, w):
    """An LSTM with other names, its gates in another order, its sums and products turned round."""
    out = sigmoid(w.out(s.a, x))
    new = tanh(w.new(s.a, x))
    keep = sigmoid(w.keep(x, s.a))
    take = sigmoid(w.take(x, s.a))
    memory = new * take + s.b * keep
    return tanh(memory) * out, memory


@cell(state="h")
def my_gru(x, s, w):
    """A GRU with its product of the state first and its gates in another order."""
    old = w.old(s.h)
    keep = sigmoid(w.keep(x, s.h))
    drop = sigmoid(w.drop(x, s.h))
    new = tanh(old * drop + w.new(x))
    return s.h * keep + new * (1 - keep)


@cell(state="h c")
def almost_lstm(x, s, w):
    """An LSTM but for the relu of its output."""
    i, f, o = sigmoid(w.i(x, s.h)), sigmoid(w.f(x, s.h)), sigmoid(w.o(x, s.h))
    c = f * s.c + i * tanh(w.g(x, s.h))
    return o * relu(c), c


@pytest.mark.parametrize(("mine", "layer"), [(my_lstm, "LSTM"), (my_gru, "GRU")])
def test_a_users_own_cell_runs_on_the_layer_that_it_is(draw, mine, layer):
    found, _ = find_layer(mine.graph)
    assert found.name == layer
    problem = draw(mine, STEPS, BATCH, INPUTS, HIDDEN)
    lengths, reset = torch.tensor([STEPS, 0, 4, 1]), torch.zeros(STEPS, BATCH, dtype=torch.bool)
    reset[3, 2] = reset[5, 0] = True
    by_layer, by_equations = (
        problem.answer(problem.run(backend, lengths, reset)) for backend in ("torch", "reference")
    )
    torch.testing.assert_close(by_layer, by_equations, rtol=1e-12, atol=1e-12)


def test_a_cell_nearly_an_lstm_is_left_to_others():
    assert find_layer(almost_lstm.graph) is None
    assert "not those of torch's LSTM, GRU or RNN" in torch_layers.refusal(
        almost_lstm.graph, torch.ones(1, 1, 1)
    )


@pytest.mark.parametrize("name", ["irnn", "np_rnn"])
def test_variants_run_on_the_layer_of_their_equations(name):
    found, _ = find_layer(CELLS[name].graph)
    assert found.name == "RNN (relu)"


@pytest.mark.parametrize("shape", [(0, 2, 3), (3, 0, 3)])
def test_the_empty_is_refused(shape):
    assert "empty" in torch_layers.refusal(CELLS["lstm"].graph, torch.ones(shape))
