"""What is left of a gradient, against closed forms and a product of Jacobians written out by hand."""

import pytest
import torch

from throughtime.cells.cell import cell
from throughtime.cells.elman import rnn
from throughtime.cells.expression import tanh
from throughtime.cells.initial import initial_weights
from throughtime.cells.library import CELLS
from throughtime.lab import vanishing


@cell(state="h")
def linear(x, s, w):
    """Linear."""
    return w.h(x, s.h)


@cell(state="h")
def forgetful(x, s, w):
    """No memory."""
    return tanh(w.h(x))


@cell(state="h c")
def leaky(x, s, w):
    """The carried state is the second, and loses a tenth at each step."""
    c = 0.9 * s.c + w.c(x)
    return tanh(c), c


@pytest.fixture(scope="module")
def finding():
    return vanishing.run(0, [CELLS[name] for name in ("rnn", "irnn", "lstm", "gru")])


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_a_linear_cell_keeps_the_power_of_its_orthogonal_matrix(factor):
    left = vanishing.gradient_left(linear, 3, factor)["h"]
    torch.testing.assert_close(
        torch.tensor(left, dtype=torch.float64),
        factor ** torch.arange(vanishing.FURTHEST + 1, dtype=torch.float64),
        rtol=1e-5,
        atol=0.0,
    )


def test_the_vanilla_rnn_by_its_jacobians():
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(vanishing.ROWS, vanishing.FURTHEST + 1, vanishing.FEATURES, generator=generator).double()
    back = torch.randn(vanishing.ROWS, vanishing.UNITS, generator=generator).double()
    weights = initial_weights(rnn, vanishing.FEATURES, vanishing.UNITS, generator)
    u, w = weights["weight_ih"].double(), weights["weight_hh"].double()
    states = [torch.zeros(vanishing.ROWS, vanishing.UNITS, dtype=torch.float64)]
    for t in range(x.shape[1]):
        states.append(torch.tanh(x[:, t] @ u.T + states[-1] @ w.T))
    expected, whole = [], back.norm()
    for h in reversed(states[1:]):
        expected.append(float(back.norm() / whole))
        back = (back * (1 - h**2)) @ w
    assert vanishing.gradient_left(rnn, 7)["h"] == pytest.approx(expected, rel=1e-9)


def test_every_carried_state_is_measured_and_no_other():
    assert list(vanishing.gradient_left(CELLS["lstm"], 0)) == ["h", "c"]
    assert list(vanishing.gradient_left(CELLS["sru"], 0)) == ["c"]
    assert vanishing.gradient_left(forgetful, 0) == {}
    left = vanishing.gradient_left(leaky, 0)["c"]
    assert left[50] / left[20] == pytest.approx(0.9**30)


def test_decay_of_a_geometric_sequence():
    rate, straight = vanishing.decay([3 * 0.8**t for t in range(30)])
    assert rate == pytest.approx(0.8)
    assert straight == pytest.approx(1.0)
    rate, straight = vanishing.decay([1.0, 1e-6, 1.0, 1e-6, 1.0, 1e-6])
    assert straight < 0.5


def test_what_held(finding):
    assert [claim.held for claim in finding.claims] == ["yes", "yes", "in part", "in part", "in part"]


def test_the_table_has_what_the_claims_say(finding):
    left = {row["what"]: row["left"] for row in finding.rows if row["distance"] == 50}
    assert left["rnn, h"] == left["rnn, ‖W‖ = 1"]
    assert left["rnn, ‖W‖ = 0.5"] < 0.5**50 < left["rnn, ‖W‖ = 1"] < left["rnn, ‖W‖ = 1.5"]
    assert left["lstm, c"] > 100 * left["rnn, h"] > 1000 * left["gru, h"]
    assert f"{left['lstm, c']:.1e}" in finding.claims[3].measured


def test_the_same_seed_gives_the_same_numbers(finding):
    again = vanishing.gradient_left(CELLS["lstm"], 0)["c"]
    assert [row["left"] for row in finding.rows if row["what"] == "lstm, c"] == again
    assert vanishing.gradient_left(CELLS["lstm"], 1)["c"] != again


def test_cells_of_a_user():
    finding = vanishing.run(0, [leaky, forgetful])
    assert len(finding.claims) == 4  # none begins as the identity
    assert {row["what"] for row in finding.rows if "‖" not in row["what"]} == {"leaky, c"}
    assert finding.claims[3].held == "yes"
    finding.draw()
