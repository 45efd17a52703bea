"""The plain loop: held to the published equations, written out here, and to numerical gradients."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from throughtime.cells.cell import cell
from throughtime.cells.expression import (
    ARITY,
    exp,
    layer_norm,
    log,
    maximum,
    relu,
    sigmoid,
    softplus,
    tanh,
)
from throughtime.cells.library import CELLS
from throughtime.kernels.reference import OPERATORS
from throughtime.kernels.unroll import unroll

STEPS, BATCH, INPUTS, HIDDEN = 8, 3, 4, 5


# The published equations, one step each: W multiplies x, U the hidden state, b are the biases.


def gru_reset_before(x, h, W, U, b):
    z = torch.sigmoid(x @ W["z"].T + h @ U["z"].T + b["z"])
    r = torch.sigmoid(x @ W["r"].T + h @ U["r"].T + b["r"])
    n = torch.tanh(x @ W["n"].T + (r * h) @ U["n"].T + b["n"])
    return ((1 - z) * n + z * h,)


def peephole_lstm(x, h, c, W, U, b, p_i, p_f, p_o):
    i = torch.sigmoid(x @ W["i"].T + h @ U["i"].T + p_i * c + b["i"])
    f = torch.sigmoid(x @ W["f"].T + h @ U["f"].T + p_f * c + b["f"])
    c = f * c + i * torch.tanh(x @ W["g"].T + h @ U["g"].T + b["g"])
    o = torch.sigmoid(x @ W["o"].T + h @ U["o"].T + p_o * c + b["o"])
    return o * torch.tanh(c), c


def coupled_lstm(x, h, c, W, U, b):
    f = torch.sigmoid(x @ W["f"].T + h @ U["f"].T + b["f"])
    c = f * c + (1 - f) * torch.tanh(x @ W["g"].T + h @ U["g"].T + b["g"])
    o = torch.sigmoid(x @ W["o"].T + h @ U["o"].T + b["o"])
    return o * torch.tanh(c), c


def lstm_1997(x, h, c, W, U, b):
    i = torch.sigmoid(x @ W["i"].T + h @ U["i"].T + b["i"])
    c = c + i * torch.tanh(x @ W["g"].T + h @ U["g"].T + b["g"])
    o = torch.sigmoid(x @ W["o"].T + h @ U["o"].T + b["o"])
    return o * torch.tanh(c), c


def normalised(a):
    centred = a - a.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5)


def layer_norm_lstm(x, h, c, W, U, b, **v):
    i, f, g, o = (
        v[f"gain_{k}"] * normalised(x @ W[k].T + h @ U[k].T) + v[f"shift_{k}"] for k in ("i", "f", "g", "o")
    )
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(v["gain_c"] * normalised(c) + v["shift_c"]), c


def layer_norm_gru(x, h, W, U, b, **v):
    r, z = (
        torch.sigmoid(v[f"gain_{k}"] * normalised(x @ W[k].T + h @ U[k].T) + v[f"shift_{k}"])
        for k in ("r", "z")
    )
    m = v["gain_m"] * normalised(h @ U["m"].T) + v["shift_m"]
    n = torch.tanh(v["gain_n"] * normalised(x @ W["n"].T) + v["shift_n"] + r * m)
    return ((1 - z) * n + z * h,)


@dataclass(frozen=True)
class Published:
    """A step as the paper writes it, and the order of the blocks in weight_ih, weight_hh and bias."""

    step: Callable[..., tuple[torch.Tensor, ...]]
    inputs: str
    recurrent: str
    bias: str = ""


PUBLISHED = {
    "gru_reset_before": Published(gru_reset_before, "zrn", "zrn", "zrn"),
    "peephole_lstm": Published(peephole_lstm, "ifgo", "ifgo", "ifgo"),
    "coupled_lstm": Published(coupled_lstm, "fgo", "fgo", "fgo"),
    "lstm_1997": Published(lstm_1997, "igo", "igo", "igo"),
    "layer_norm_lstm": Published(layer_norm_lstm, "ifgo", "ifgo"),
    "layer_norm_gru": Published(layer_norm_gru, "rzn", "rzm"),
}


def loop(step, x, state, **arguments):
    outputs = []
    for x_t in x:
        state = step(x_t, *state, **arguments)
        outputs.append(state[0])
    return torch.stack(outputs), state


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_cell_computes_its_published_equations(draw, name):
    published, problem = PUBLISHED[name], draw(CELLS[name], STEPS, BATCH, INPUTS, HIDDEN)
    vectors = dict(problem.weights)
    W = dict(zip(published.inputs, vectors.pop("weight_ih").split(HIDDEN), strict=True))
    U = dict(zip(published.recurrent, vectors.pop("weight_hh").split(HIDDEN), strict=True))
    b = dict(zip(published.bias, vectors.pop("bias").split(HIDDEN), strict=True)) if published.bias else {}
    expected = loop(published.step, problem.x, problem.state, W=W, U=U, b=b, **vectors)
    torch.testing.assert_close(
        problem.answer(problem.run("reference")), problem.answer(expected), rtol=1e-12, atol=1e-12
    )


def test_every_operator_computes_what_its_name_says(draw):
    @cell(state="h")
    def every_operator(x, s, w):
        a, b = w.a(x, s.h), w.b(x, s.h)
        quotient = (2 - a) / (1 + exp(-b))
        return layer_norm(maximum(softplus(a), tanh(b)) * sigmoid(b) + relu(a) - log(1 + quotient * quotient))

    problem = draw(every_operator, STEPS, BATCH, INPUTS, HIDDEN)

    def step(x, h):
        both = (
            x @ problem.weights["weight_ih"].T + h @ problem.weights["weight_hh"].T + problem.weights["bias"]
        )
        a, b = both.split(HIDDEN, -1)
        s = 1 / (1 + torch.exp(-b))
        t = (torch.exp(2 * b) - 1) / (torch.exp(2 * b) + 1)
        larger = torch.stack([torch.log(1 + torch.exp(a)), t]).amax(0)
        return (normalised(larger * s + a.clamp(min=0) - torch.log(1 + ((2 - a) * s) ** 2)),)

    expected = loop(step, problem.x, problem.state)
    torch.testing.assert_close(
        problem.answer(problem.run("reference")), problem.answer(expected), rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("name", [name for name, count in ARITY.items() if count == 2])
@pytest.mark.parametrize("place", [0, 1])
def test_an_operator_of_two_lets_nan_through_from_either(name, place):
    operands = [torch.ones(3, 4), torch.ones(3, 4)]
    operands[place][1] = float("nan")
    assert OPERATORS[name](*operands)[1].isnan().all()


@pytest.mark.parametrize("name", [name for name, count in ARITY.items() if count == 1])
def test_an_operator_of_one_lets_nan_through(name):
    operand = torch.ones(3, 4)
    operand[1] = float("nan")
    assert OPERATORS[name](operand)[1].isnan().all()


def test_products_of_values_made_in_the_step_and_of_vectors(draw):
    """Three stages; one map of two hidden values; one of a learned vector; one weight_ih only."""

    @cell(state="h c")
    def stages(x, s, w):
        a = tanh(w.a(s.c, s.h))
        b = sigmoid(w.b(a * s.h, x, bias=False))
        c = s.c + b * w.d(w.v, bias=False)
        return tanh(w.h(c, a)), c

    problem = draw(stages, STEPS, BATCH, INPUTS, HIDDEN)
    weights = problem.weights
    U = dict(zip(["ac", "ah", "b", "d", "hc", "ha"], weights["weight_hh"].split(HIDDEN), strict=True))
    bias_a, bias_h = weights["bias"].split(HIDDEN)

    def step(x, h, c):
        a = torch.tanh(c @ U["ac"].T + h @ U["ah"].T + bias_a)
        b = torch.sigmoid(x @ weights["weight_ih"].T + (a * h) @ U["b"].T)
        c = c + b * (U["d"] @ weights["v"])
        return torch.tanh(c @ U["hc"].T + a @ U["ha"].T + bias_h), c

    expected = loop(step, problem.x, problem.state)
    torch.testing.assert_close(
        problem.answer(problem.run("reference")), problem.answer(expected), rtol=1e-12, atol=1e-12
    )


def test_a_state_that_depends_on_weights_alone_still_has_a_row_for_each_of_the_batch(draw):
    @cell(state="h c")
    def constant(x, s, w):
        return tanh(w.h(x, s.c)), sigmoid(w.v)

    problem = draw(constant, STEPS, BATCH, INPUTS, HIDDEN)
    expected = torch.sigmoid(problem.weights["v"])
    y, (_, c) = problem.run("reference")
    assert y.shape == (STEPS, BATCH, HIDDEN)
    torch.testing.assert_close(c, expected.expand(BATCH, HIDDEN))
    _, (_, c) = problem.run("reference", torch.tensor([STEPS, 2, 0]))
    torch.testing.assert_close(c[:2], expected.expand(2, HIDDEN))
    assert torch.equal(c[2], problem.state[1][2])


def flat_unroll(problem, lengths, reset):
    """`unroll` as a function of the leaves alone, as gradcheck wants it."""
    names, states = list(problem.weights), len(problem.state)

    def function(x, *others):
        weights = dict(zip(names, others[states:], strict=True))
        y, final = unroll(
            problem.cell, weights, x, others[:states], lengths, reset, "reference", given=problem.given
        )
        return y, *final

    return function, tuple(problem.leaves.values())


LENGTHS = torch.tensor([3, 1, 0])
RESET = torch.tensor([[False, True, True], [True, False, False], [False, True, False]])


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_gradients_are_those_of_finite_differences(draw, cell):
    assert gradcheck(*flat_unroll(draw(cell, 3, 3, 2, 2, seed=1), LENGTHS, RESET))


@pytest.mark.parametrize("name", ["gru_reset_before", "layer_norm_lstm"])
def test_second_derivatives_are_those_of_finite_differences(draw, name):
    assert gradgradcheck(*flat_unroll(draw(CELLS[name], 3, 3, 1, 2, seed=1), LENGTHS, RESET), fast_mode=True)
