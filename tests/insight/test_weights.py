"""The view weights: matrices with known eigenvalues and singular values."""

import math

import pytest
import torch

from throughtime.cells.cell import cell
from throughtime.cells.expression import sigmoid, tanh
from throughtime.errors import ConfigError
from throughtime.insight.figures import style
from throughtime.insight.view import Subject
from throughtime.insight.weights import Options, look
from throughtime.models.classifier import make_classifier
from throughtime.nn.recurrent import Recurrent


@cell(state="h c")
def gated(x, s, w):
    """Two states, a gate, and a map of a gate."""
    r = sigmoid(w.r(x, s.c))
    return tanh(w.n(x, s.h, r * s.h, bias=False)), r * w.v


def rows_of(model, **options):
    return {row["weight"]: row for row in look(Subject(model, None), Options(**options)).rows}


def test_a_rotation_and_a_diagonal_have_the_values_that_they_must_have():
    layer = Recurrent("rnn", 2, 2)
    with torch.no_grad():
        layer.weight_hh_l0.copy_(1.5 * torch.tensor([[0.6, -0.8], [0.8, 0.6]]))
        layer.weight_ih_l0.copy_(torch.diag(torch.tensor([4.0, 0.5])))
        layer.bias_l0.copy_(torch.tensor([3.0, 0.0]))
    shown = look(Subject(layer, None), Options())
    inputs, states, bias = shown.rows
    assert [row["weight"] for row in shown.rows] == ["weight_ih_l0 W_xh", "weight_hh_l0 W_hh", "bias_l0 b_h"]
    assert states["radius"] == pytest.approx(1.5) and states["condition"] == pytest.approx(1)
    assert (states["largest"], states["smallest"]) == pytest.approx((1.5, 1.5))
    assert states["norm"] == pytest.approx(1.5 * math.sqrt(2))
    assert (inputs["largest"], inputs["smallest"], inputs["condition"]) == pytest.approx((4, 0.5, 8))
    assert inputs["radius"] == "" and inputs["near_zero"] == 0.5
    assert (bias["mean"], bias["deviation"], bias["largest"]) == (1.5, 1.5, "")
    assert "1 have a spectral radius above 1; the largest is 1.5" in shown.lines[1]
    with torch.no_grad():
        layer.weight_hh_l0.zero_()
    assert rows_of(layer)["weight_hh_l0 W_hh"]["condition"] == math.inf


def test_maps_that_share_a_matrix_are_taken_apart():
    layer = Recurrent(gated, 3, 4, layers=2, bidirectional=True)
    rows = rows_of(layer)
    assert list(rows)[:7] == [
        "weight_ih_l0 W_xr", "weight_ih_l0 W_xn", "weight_hh_l0 W_cr", "weight_hh_l0 W_hn",
        "weight_hh_l0 W_·n", "bias_l0 b_r", "v_l0",
    ]  # fmt: skip
    assert rows["weight_ih_l0 W_xn"]["shape"] == "4x3"
    own = layer.weight_hh_l1_reverse.detach()[4:8].double()
    found = rows["weight_hh_l1_reverse W_hn"]
    assert found["radius"] == pytest.approx(torch.linalg.eigvals(own).abs().max().item())
    assert found["smallest"] == pytest.approx(torch.linalg.matrix_norm(own, -2).item())


def test_each_direction_of_each_layer_can_be_drawn():
    model = make_classifier("recurrent", 3, words=9, hidden=4, cell="lstm", layers=2, bidirectional=True)
    for options in (
        Options(), Options(layer=1, reverse=True), Options(recurrence="encoder.recurrence", near_zero=0.0)
    ):  # fmt: skip
        shown = look(Subject(model, None), options)
        with style():
            eigenvalues, spectra = (
                shown.figures[n]() for n in ("weights-eigenvalues", "weights-singular-values")
            )
        assert [p.get_title().split(":")[0] for p in eigenvalues.axes] == ["W_hi", "W_hf", "W_hg", "W_ho"]
        assert [len(panel.get_legend().get_texts()) for panel in spectra.axes] == [4, 4]


def test_cells_without_matrices_of_states_and_models_without_recurrence():
    linear = Recurrent("min_gru", 3, 4)
    assert look(Subject(linear, None), Options()).figures.keys() == {"weights-singular-values"}
    forward = make_classifier("feed-forward", 2, columns=3, hidden=5)
    shown = look(Subject(forward, None), Options())
    assert len(shown.lines) == 1 and len(shown.rows) == 4
    with style():
        assert shown.figures["weights-singular-values"]().axes


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(near_zero=1.0), r"--near-zero must lie in \[0, 1\), got 1.0"),
        (Options(recurrence="decoder"), 'there is no recurrence "decoder": there are encoder.recurrence'),
        (Options(layer=1), "has no layer 1: it has 1, numbered from 0, in one direction"),
        (Options(reverse=True), "has no layer 0 in reverse"),
    ],
)
def test_what_is_not_there_is_refused(options, says):
    model = make_classifier("recurrent", 2, words=9, hidden=4)
    with pytest.raises(ConfigError, match=says):
        look(Subject(model, None), options)
