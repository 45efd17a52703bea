"""The view of Jacobians: linear recurrences whose numbers are known, and autograd for the others."""

import math

import pytest
import torch
from subjects import Batch, linear, minimal_gated, subject_of
from torch.autograd.functional import jacobian

from throughtime.errors import ConfigError
from throughtime.insight.jacobian import Options, look, lyapunov, paths, singular_values, step_jacobians
from throughtime.insight.view import Subject

DIAGONAL = torch.diag(torch.tensor([1.1, 0.9, 0.5], dtype=torch.float64))


def diagonal(steps=21):
    subject = subject_of(linear, steps=steps)
    with torch.no_grad():
        subject.model.recurrence.weight_hh_l0.copy_(DIAGONAL)
    return subject


def test_a_linear_recurrence_is_its_matrix():
    view = look(diagonal(), Options())
    [row] = view.rows
    assert row["radius W_hh"] == pytest.approx(1.1)
    assert row["lyapunov"] == pytest.approx(math.log(1.1), abs=0.02)
    assert row["σ at 10"] == pytest.approx(1.1**10)
    assert row["σ at 20"] == pytest.approx(1.1**20)
    assert math.isnan(row["σ at 50"])
    assert view.details["singular_values"]["recurrence.0"][10] == pytest.approx(
        (1.1**10, 0.9**10, 0.5**10), rel=1e-9
    )
    assert "grows by 1.09 a step" in view.lines[0]


@pytest.mark.parametrize("cell", ["lstm", "gru", "peephole_lstm", "slstm", minimal_gated])
@pytest.mark.parametrize("reverse", [False, True])
def test_each_step_is_that_of_autograd(cell, reverse):
    subject = subject_of(cell, steps=4, layers=2, bidirectional=True)
    path = paths(subject, 1)["recurrence.1.reverse" if reverse else "recurrence.1"]
    found = step_jacobians(path)
    assert len(found) == 3
    layer, place, driven = path.layer, path.place, path.driven

    def step(values, t):
        states = [state[t - 1] for state in path.states]
        for k, value in zip(driven, values.chunk(len(driven)), strict=True):
            states[k] = value
        after = layer.step_layer(path.x[t : t + 1], tuple(state[None] for state in states), *place)
        return torch.cat([after[k][0] for k in driven])

    for t in (1, 3):
        before = torch.cat([path.states[k][t - 1] for k in driven])
        expected = jacobian(lambda values, t=t: step(values, t), before)
        torch.testing.assert_close(found[t - 1], expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(
            step(before, t), torch.cat([path.states[k][t] for k in driven]), rtol=1e-10, atol=1e-12
        )


def test_products_far_apart_neither_overflow_nor_end_in_zero():
    values = singular_values([1e-20 * torch.eye(2, dtype=torch.float64)] * 15)
    assert values[15] == pytest.approx((1e-300,) * 3, rel=1e-6)
    assert singular_values([torch.zeros(2, 2, dtype=torch.float64)])[1] == (0.0, 0.0, 0.0)


def test_lyapunov_exponents_are_the_logarithms_of_the_factors():
    exponents = lyapunov([DIAGONAL] * 300)
    assert exponents == pytest.approx([math.log(1.1), math.log(0.9), math.log(0.5)], abs=0.01)


def test_a_step_before_which_the_row_begins_anew_has_no_jacobian():
    path = paths(subject_of("lstm", steps=5), 0)["recurrence.0"]
    path = path._replace(reset=torch.tensor([True, False, True, False, False]))
    found = step_jacobians(path)
    assert [bool((each != 0).any()) for each in found] == [True, False, True, True]


def test_what_explodes_is_infinite_and_no_error():
    assert singular_values([1e20 * torch.eye(2, dtype=torch.float64)] * 20)[20] == (math.inf,) * 3


def test_weights_that_are_not_finite_are_named():
    subject = diagonal()
    with torch.no_grad():
        subject.model.recurrence.weight_hh_l0[0, 0] = math.nan
    with pytest.raises(ConfigError, match=r"1 of the 9 numbers of recurrence.weight_hh_l0 are NaN"):
        look(subject, Options())


def test_padding_is_no_step():
    subject = subject_of("gru", rows=2, steps=6)
    batch = Batch(subject.batch.x, subject.batch.targets, torch.tensor([6, 3]))
    assert len(paths(Subject(subject.model, batch), 1)["recurrence.0"].x) == 3


def test_what_cannot_be_looked_at_is_refused():
    subject = subject_of("gru", rows=2, steps=6)
    with pytest.raises(ConfigError, match="there is no row 5: the batch has 2"):
        look(subject, Options(row=5))
    batch = Batch(subject.batch.x, subject.batch.targets, torch.tensor([6, 1]))
    with pytest.raises(ConfigError, match="row 1 has 1 steps, and a Jacobian lies between two"):
        look(Subject(subject.model, batch), Options(row=1))


def test_the_figure_has_a_panel_for_each_layer():
    figure = look(subject_of("lstm", layers=2), Options()).figures["jacobian"]()
    assert [axes.get_title() for axes in figure.axes] == ["recurrence.0", "recurrence.1"]
    assert [line.get_label() for line in figure.axes[0].lines] == ["largest", "median", "smallest"]
