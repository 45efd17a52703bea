"""Cells against the formulas of their papers, each written here once more, in torch and in its own way."""

import pytest
import torch
from torch.nn import functional as F

from throughtime.cells.initial import initial_weights
from throughtime.cells.library import CELLS
from throughtime.kernels import machine
from throughtime.kernels.unroll import unroll

STEPS, BATCH, INPUTS, HIDDEN = 7, 4, 3, 5

backends = pytest.mark.parametrize(
    "backend",
    [
        "reference",
        pytest.param("llvm", marks=pytest.mark.skipif(bool(machine.unsupported()), reason="no machine code")),
    ],
)


# One step of each paper: the weights as they are stored, x, the states, and out come the new states.


def parts(weight):
    """The matrices or biases that lie one below the other."""
    return weight.split(HIDDEN)


def deep_transition_rnn(w, x, h):
    U_1, U_2 = parts(w["weight_hh"])
    b_1, b_2 = parts(w["bias"])
    return (torch.tanh(torch.tanh(x @ w["weight_ih"].T + h @ U_1.T + b_1) @ U_2.T + b_2),)


def recurrent_highway(w, x, s):
    W_T, W_H = parts(w["weight_ih"])
    R, b = parts(w["weight_hh"]), parts(w["bias"])
    for layer in range(3):
        to_t, to_h = s @ R[2 * layer].T + b[2 * layer], s @ R[2 * layer + 1].T + b[2 * layer + 1]
        if layer == 0:
            to_t, to_h = to_t + x @ W_T.T, to_h + x @ W_H.T
        carry = torch.sigmoid(-to_t)
        s = s * carry + torch.tanh(to_h) * (1 - carry)
    return (s,)


def image_rnn(w, x, h, v):
    W_hh, W_ih = parts(w["weight_hh"])
    b_v = F.linear(v, W_ih)
    return torch.tanh(F.linear(x, w["weight_ih"], w["bias"]) + F.linear(h, W_hh) + b_v), v


def min_gru(w, x, h):
    z, candidate = F.linear(x, w["weight_ih"], w["bias"]).chunk(2, -1)
    return (torch.lerp(h, candidate, torch.sigmoid(z)),)


def min_lstm(w, x, h):
    f, i, candidate = F.linear(x, w["weight_ih"], w["bias"]).chunk(3, -1)
    share = torch.softmax(torch.stack([F.logsigmoid(f), F.logsigmoid(i)]), 0)
    return (share[0] * h + share[1] * candidate,)


def indrnn(w, x, h):
    return (torch.relu(F.linear(x, w["weight_ih"], w["bias"]) + h @ torch.diag(w["u"])),)


def sru(w, x, h, c):
    W_f, W_r, W, W_x = parts(w["weight_ih"])
    b_f, b_r = parts(w["bias"])
    f = torch.sigmoid(x @ W_f.T + w["v_f"] * c + b_f)
    r = torch.sigmoid(x @ W_r.T + w["v_r"] * c + b_r)
    c = f * c + (1 - f) * (x @ W.T)
    return r * c + (1 - r) * (x @ W_x.T), c


def multiplicative_lstm(w, x, h, c):
    W_mx, *W_x = parts(w["weight_ih"])
    W_mh, *W_m = parts(w["weight_hh"])
    m = (x @ W_mx.T) * (h @ W_mh.T)
    i, f, candidate, o = (
        x @ to_x.T + m @ to_m.T + b for to_x, to_m, b in zip(W_x, W_m, parts(w["bias"]), strict=True)
    )
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(candidate)
    return torch.tanh(c) * torch.sigmoid(o), c


def slstm(w, x, h, c, n, m):
    """Without the stabiliser, which is only taken out of the states that come in and go out."""
    raw = x @ w["weight_ih"].T + h @ w["weight_hh"].T + w["bias"]
    i, f, z, o = raw.chunk(4, -1)
    cell = torch.sigmoid(f) * c * torch.exp(m) + torch.exp(i) * torch.tanh(z)
    normalizer = torch.sigmoid(f) * n * torch.exp(m) + torch.exp(i)
    m = torch.max(torch.log(torch.sigmoid(f)) + m, i)
    return torch.sigmoid(o) * cell / normalizer, cell / torch.exp(m), normalizer / torch.exp(m), m


def lru(w, x, h, re, im):
    B_re, B_im, D = parts(w["weight_ih"])
    C_re, C_im = parts(w["weight_hh"])
    theta = torch.atan2(w["v"], w["u"])
    lambda_ = torch.polar(torch.exp(-torch.exp(w["nu"])), theta)
    gamma = torch.sqrt(1 - lambda_.abs() ** 2)
    B, C = torch.complex(B_re, B_im), torch.complex(C_re, -C_im)
    s = lambda_ * torch.complex(re, im) + gamma * (x.to(B.dtype) @ B.T)
    return (s @ C.T).real + x @ D.T, s.real, s.imag


PAPERS = {
    step.__name__: step
    for step in (
        deep_transition_rnn,
        recurrent_highway,
        image_rnn,
        min_gru,
        min_lstm,
        indrnn,
        sru,
        multiplicative_lstm,
        slstm,
        lru,
    )
}


def drawn(cell, begun, seed):
    """Weights, x and the first state; `begun` says whether that is other than zeros."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    shapes = cell.graph.weight_shapes(INPUTS, HIDDEN)
    weights = {name: normal(*shape).mul(0.6).requires_grad_() for name, shape in shapes.items()}
    x = normal(STEPS, BATCH, INPUTS).requires_grad_()
    state = {name: normal(BATCH, HIDDEN) * begun for name in cell.states}
    if "n" in state:  # a sum of gates
        state["n"] = state["n"].abs()
    return weights, x, {name: value.requires_grad_() for name, value in state.items()}


def answer(y, final, leaves):
    """y, the final states, and the gradients of a loss that weighs each of their numbers otherwise."""
    values = torch.cat([value.flatten() for value in (y, *final)])
    loss = (values * torch.linspace(-1, 2, len(values), dtype=values.dtype)).sum() + values.square().sum()
    return [y, *final, *torch.autograd.grad(loss, leaves, materialize_grads=True)]


@backends
@pytest.mark.parametrize("begun", [False, True], ids=["from zeros", "begun"])
@pytest.mark.parametrize("name", PAPERS)
def test_values_and_gradients_are_those_of_the_paper(name, begun, backend):
    for seed in range(3):
        weights, x, state = drawn(CELLS[name], begun, seed)
        leaves = [x, *weights.values(), *(state.values() if begun else ())]
        states, ys = tuple(state.values()), []
        for x_t in x:
            states = PAPERS[name](weights, x_t, *states)
            ys.append(states[0])
        expected = answer(torch.stack(ys), states, leaves)
        y, final = unroll(CELLS[name], weights, x, tuple(state.values()), backend=backend)
        for mine, paper in zip(answer(y, final, leaves), expected, strict=True):
            torch.testing.assert_close(mine, paper, rtol=1e-10, atol=1e-10)


def test_the_image_is_seen_at_every_step_and_stays():
    weights, x, state = drawn(CELLS["image_rnn"], True, 0)
    y, (_, v) = unroll(CELLS["image_rnn"], weights, x, tuple(state.values()))
    assert torch.equal(v, state["v"])
    for t in range(STEPS):
        assert torch.autograd.grad(y[t].sum(), state["v"], retain_graph=True)[0].abs().min() > 0


# What is far from the usual.


def with_bias(cell, dtype, **bias):
    """First weights, with other biases."""
    weights = initial_weights(cell, INPUTS, HIDDEN, torch.Generator().manual_seed(0))
    blocks = [torch.full((HIDDEN,), bias.get(name, 0.0)) for name in cell.graph.bias_blocks]
    weights["bias"] = torch.cat(blocks)
    return {name: weight.to(dtype).requires_grad_() for name, weight in weights.items()}


def finite(cell, weights, x, backend):
    """The outputs, after they, the final states and all gradients were found to be finite."""
    y, final = unroll(CELLS[cell], weights, x, backend=backend)
    assert all(value.isfinite().all() for value in answer(y, final, [x, *weights.values()]))
    return y


@backends
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("i", [-1e6, -1000.0, -80.0, -60.0, 0.0, 60.0, 1000.0, 1e6])
@pytest.mark.parametrize("f", [-1e6, -1000.0, 0.0, 1000.0, 1e6])
def test_slstm_stays_below_one_whatever_its_gates_are(i, f, dtype, backend):
    weights = with_bias(CELLS["slstm"], dtype, i=i, f=f)
    x = torch.randn(40, BATCH, INPUTS, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    assert finite("slstm", weights, x, backend).abs().max() <= 1


@backends
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("size", [1e3, 1e10, 1e18])
def test_slstm_takes_large_inputs(size, dtype, backend):
    weights = with_bias(CELLS["slstm"], dtype)
    x = torch.randn(40, BATCH, INPUTS, generator=torch.Generator().manual_seed(1)).to(dtype) * size
    assert finite("slstm", weights, x.requires_grad_(), backend).abs().max() <= 1


@backends
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_slstm_forgets_an_old_input_for_a_far_greater_one(dtype, backend):
    """With an input gate of exp(1000) against exp(0) the mean is of that input alone."""
    weights = {
        name: torch.zeros(shape, dtype=dtype)
        for name, shape in CELLS["slstm"].graph.weight_shapes(2, 1).items()
    }
    weights["weight_ih"][0, 0] = weights["weight_ih"][2, 1] = 1.0  # x_0 opens the input gate, x_1 is written
    x = torch.tensor([[0.0, 0.5], [1000.0, -0.3], [0.0, 2.0]], dtype=dtype)[:, None]
    y, _ = unroll(CELLS["slstm"], weights, x, backend=backend)
    torch.testing.assert_close(y[1:].flatten(), 0.5 * torch.tanh(x[1, 0, 1]).expand(2))


@backends
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("f", "i"), [(-2000.0, -2000.0), (-2000.0, 0.0), (0.0, -2000.0), (2000.0, 2000.0)])
def test_min_lstm_has_no_nan_where_gates_round_to_zero(f, i, dtype, backend):
    weights = with_bias(CELLS["min_lstm"], dtype, f=f, i=i)
    x = torch.randn(STEPS, BATCH, INPUTS, generator=torch.Generator().manual_seed(1)).to(dtype)
    finite("min_lstm", weights, x.requires_grad_(), backend)


@backends
def test_lru_takes_in_what_keeps_its_variance_even_where_it_hardly_decays(backend):
    """gamma² = 1 - |λ|² to single precision, though 1 - |λ|² by itself would round to 0."""
    weights = {n: torch.ones(s) for n, s in CELLS["lru"].graph.weight_shapes(1, 1).items()}
    weights["nu"] = torch.tensor([-20.0], requires_grad=True)
    _, (_, re, _) = unroll(CELLS["lru"], weights, torch.ones(1, 1, 1), backend=backend)
    expected = torch.tensor(-20.0, dtype=torch.float64).exp().mul(-2).expm1().neg().sqrt().float()
    torch.testing.assert_close(re.squeeze(), expected)
    assert torch.autograd.grad(re.sum(), weights["nu"])[0].isfinite().all()
