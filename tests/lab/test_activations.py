"""The derivatives of activations, against their closed forms."""

from itertools import pairwise

import pytest
import torch

from throughtime.cells.initial import glorot, orthogonal
from throughtime.lab import activations


@pytest.fixture(scope="module")
def finding():
    return activations.run(0)


def left(finding, name):
    return [row["left"] for row in finding.rows if row["activation"] == name]


@pytest.mark.parametrize(
    ("name", "closed_form"),
    [
        ("tanh", lambda a: 1 / a.cosh() ** 2),
        ("sigmoid", lambda a: 1 / (2 + a.exp() + (-a).exp())),
        ("ReLU", lambda a: (a > 0).double()),
    ],
)
def test_derivatives_in_closed_form(name, closed_form):
    a = torch.linspace(-5, 5, 201, dtype=torch.float64)
    torch.testing.assert_close(
        activations.derivative(activations.ACTIVATIONS[name], a), closed_form(a), rtol=1e-10, atol=1e-15
    )


def test_slopes_are_those_of_the_recurrence_the_last_step_first():
    """dh_T/dh_0 = D_T W ... D_1 W with D_t the diagonal of the slopes, by autograd through the recurrence."""
    generator = torch.Generator().manual_seed(5)
    w = orthogonal(activations.UNITS, activations.UNITS, generator).double()
    u = 2 * glorot(activations.UNITS, activations.FEATURES, generator).double()
    x = torch.randn(activations.STEPS, activations.ROWS, activations.FEATURES, generator=generator).double()
    start = torch.zeros(activations.ROWS, activations.UNITS, dtype=torch.float64, requires_grad=True)
    h = start
    for x_t in x:
        h = torch.tanh(h @ w.T + x_t @ u.T)
    (expected,) = torch.autograd.grad(h[:, 0].sum(), start)
    back = torch.zeros_like(h)
    back[:, 0] = 1
    for slopes in activations.slopes_of(torch.tanh, 5, 2.0):
        back = (back * slopes) @ w
    torch.testing.assert_close(back, expected, rtol=1e-9, atol=1e-30)


def test_an_activation_with_a_constant_slope():
    slopes = activations.slopes_of(lambda a: 0.5 * a, 0)
    assert slopes.shape == (activations.STEPS, activations.ROWS, activations.UNITS)
    assert (slopes == 0.5).all()


def test_what_held(finding):
    assert [claim.held for claim in finding.claims] == ["yes", "yes", "in part", "yes"]


def test_products_keep_their_bounds(finding):
    assert all(value <= 0.25**t for t, value in enumerate(left(finding, "sigmoid"), start=1))
    for name in activations.ACTIVATIONS:
        values = left(finding, name)
        assert len(values) == activations.STEPS
        assert all(later <= earlier for earlier, later in pairwise(values))
    assert left(finding, "sigmoid")[-1] < 1e-20 * left(finding, "tanh")[-1]


def test_a_wrong_derivative_does_not_hold(monkeypatch):
    monkeypatch.setitem(activations.ACTIVATIONS, "tanh", lambda a: torch.tanh(1.01 * a))
    assert activations.run(0).claims[0].held == "no"


def test_the_same_seed_gives_the_same_numbers(finding):
    assert activations.run(0).rows == finding.rows
    assert activations.run(1).rows != finding.rows
    finding.draw()
