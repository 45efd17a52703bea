"""The view of gates: shares that are known beforehand."""

import math

import pytest
import torch
from subjects import Batch, Sum, linear, minimal_gated, subject_of

from throughtime.errors import ConfigError
from throughtime.insight.gates import Options, look
from throughtime.insight.view import Subject


def biased(**biases):
    """An LSTM without weights: each gate is the activation of its bias at every step."""
    subject = subject_of("lstm", hidden=4)
    layer = subject.model.recurrence
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        rows = dict(zip("ifgo", layer.bias_l0.view(4, 4), strict=True))
        for name, values in biases.items():
            rows[name].copy_(torch.tensor(values))
    return subject


def test_shares_are_those_of_the_biases():
    view = look(biased(f=[9.0, 9.0, -9.0, 0.0], g=[9.0, -9.0, 0.0, 0.0]), Options())
    rows = {row["gate"]: row for row in view.rows}
    assert list(rows) == [f"recurrence.0.{gate}" for gate in "ifgo"]
    forget, candidate, out = (rows[f"recurrence.0.{gate}"] for gate in "fgo")
    assert (forget["shut"], forget["open"], forget["between"]) == pytest.approx((0.25, 0.5, 0.25))
    assert forget["mean"] == pytest.approx(torch.tensor([9.0, 9.0, -9.0, 0.0]).sigmoid().mean().item())
    assert forget["constant_units"] == 3
    assert (candidate["shut"], candidate["open"], candidate["below"]) == pytest.approx((0.25, 0.25, -0.9))
    assert (out["shut"], out["open"], out["mean"]) == pytest.approx((0, 0, 0.5))
    assert "recurrence.0.f is the most saturated: 25% below 0.1, 50% above 0.9" in view.lines[0]


def test_padding_is_not_counted():
    whole = subject_of("gru", rows=2, steps=6)
    short = Batch(whole.batch.x, whole.batch.targets, torch.tensor([6, 2]))
    padded = {row["gate"]: row["mean"] for row in look(Subject(whole.model, short), Options()).rows}
    parts = [
        look(Subject(whole.model, Batch(x[None], torch.zeros(1, len(x)))), Options()).rows
        for x in (whole.batch.x[0], whole.batch.x[1, :2])
    ]
    for long, two in zip(*parts, strict=True):
        assert padded[long["gate"]] == pytest.approx((6 * long["mean"] + 2 * two["mean"]) / 8)


def test_a_cell_of_ones_own_and_both_directions():
    view = look(subject_of(minimal_gated, bidirectional=True), Options(gate="z"))
    assert [(row["gate"], row["operator"]) for row in view.rows] == [
        ("recurrence.0.z", "sigmoid"),
        ("recurrence.0.n", "tanh"),
        ("recurrence.0.reverse.z", "sigmoid"),
        ("recurrence.0.reverse.n", "tanh"),
    ]
    maps = view.figures["gates-over-input"]()
    panels = [axes for axes in maps.axes if axes.get_images()]
    assert len(panels) == 2
    assert [tick.get_text() for tick in panels[-1].get_xticklabels()] == list("abcdef")


def test_the_heat_map_shows_the_gate():
    subject = biased(f=[2.0, -2.0, 0.0, 1.0])
    figure = look(subject, Options(gate="f", row=1)).figures["gates-over-input"]()
    [shown] = [axes.get_images()[0].get_array() for axes in figure.axes if axes.get_images()]
    expected = torch.tensor([-2.0, 0.0, 1.0, 2.0]).sigmoid()
    assert torch.allclose(torch.tensor(shown.data).float(), expected[:, None].expand(4, 6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(gate="q"), "there is no gate q in layer 0: there are recurrence.0.i, recurrence.0.f"),
        (Options(layer=3), "there is no gate  ?in layer 3|in layer 3: there are"),
        (Options(row=2), "there is no row 2: the batch has 2, numbered from 0"),
    ],
)
def test_what_is_not_there_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        look(subject_of("lstm"), options)


def test_a_cell_without_gates_is_refused():
    with pytest.raises(ConfigError, match="the cells of this model have no gates"):
        look(Subject(Sum(linear).double(), subject_of("rnn").batch), Options())


def test_what_has_no_bounds_is_not_shut_or_open():
    rows = {row["gate"]: row for row in look(subject_of("gru"), Options()).rows}
    assert rows["recurrence.0.m"]["operator"] == "map"
    assert math.isnan(rows["recurrence.0.m"]["shut"]) and math.isnan(rows["recurrence.0.m"]["constant_units"])
    assert 0 <= rows["recurrence.0.z"]["shut"] <= 1


def test_nothing_saturated_is_said():
    assert look(biased(), Options()).lines == [
        "No gate is saturated: fewer than 5 % of its values are near an end."
    ]
