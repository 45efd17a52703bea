"""A backtest: errors forecast by forecast, and their means."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from throughtime.data.series import Series
from throughtime.data.windows import Framing, Origin, Statistics
from throughtime.heads.categorical import Loss
from throughtime.train.backtest import Backtest, spread
from throughtime.train.fan import draw_fans
from throughtime.train.forecasts import coverage, crps, point_metrics


def series(values, name="a"):
    nothing = np.zeros((len(values), 0))
    return Series(name, np.arange(len(values)), np.asarray(values, float), nothing, nothing, np.zeros(0))


def backtest(one, **options):
    framing = Framing(context=4, horizon=2, **options)
    return Backtest(framing, Statistics.fit([one]), [f"y{k}" for k in range(one.values.shape[1])])


def test_means_are_over_forecasts_and_targets():
    random = np.random.default_rng(0)
    one = series(random.normal(5, 1, (12, 2)))
    found = backtest(one, season=2)
    found.add_loss(Loss(torch.tensor(6.0), 4))
    found.add_loss(Loss(torch.tensor(2.0), 4))
    each = {"mse": [], "mase": [], "crps": [], "coverage_90": []}
    for step in (6, 8):
        point, paths = random.normal(5, 1, (2, 2)), random.normal(5, 1, (30, 2, 2))
        found.add(one, step, point, paths)
        for k in range(2):
            true, past = one.values[step : step + 2, k], one.values[:step, k]
            errors = point_metrics(true, point[:, k], past, 2)
            each["mse"].append(errors["mse"])
            each["mase"].append(errors["mase"])
            each["crps"].append(crps(true, paths[..., k]))
            each["coverage_90"].append(coverage(true, paths[..., k], 0.9))
    assert found.metrics["loss"] == 1.0
    for key, values in each.items():
        assert found.metrics[key] == pytest.approx(np.mean(values))
    deviation = one.values.std(0)
    scaled = found.metrics["mse_scaled"]
    assert 0 < scaled != found.metrics["mse"] and deviation.min() ** 2 <= found.metrics["mse"] / scaled


def test_an_error_that_is_nowhere_defined_is_left_out():
    one = series(np.stack([np.full(12, 3.0), np.arange(12.0)], 1))
    found = backtest(one)
    found.add(one, 6, np.array([[3.0, 6.0], [3.0, 8.0]]))
    assert found.metrics["mase"] == pytest.approx(0.5)  # of the second target: the first never changes
    flat = series(np.full((12, 1), 3.0))
    found = backtest(flat)
    found.add(flat, 6, np.full((2, 1), 3.0))
    assert "mase" not in found.metrics and found.metrics["mse"] == 0


def test_what_was_made_up_is_no_truth():
    values = np.arange(12.0)[:, None] ** 2
    made_up = np.isin(np.arange(12), [7])[:, None]
    one = replace(series(values), made_up=made_up)
    found = backtest(one)
    found.add(one, 6, np.array([[35.0], [1000.0]]), np.full((5, 2, 1), 36.0))
    assert found.metrics["mse"] == 1 and found.metrics["crps"] == 0
    found.add(replace(one, made_up=~made_up), 8, np.zeros((2, 1)), np.zeros((5, 2, 1)))
    assert found.metrics["mse"] == 1


def test_forecasts_for_a_figure_are_of_different_series_or_times():
    origins = [Origin(k, step) for k in range(4) for step in range(10, 15)]
    assert spread(origins, 4) == [Origin(k, 10) for k in range(4)]
    assert spread(origins[:5], 2) == [Origin(0, 10), Origin(0, 12)]
    assert spread(origins[:1], 6) == origins[:1]


def test_the_figure_has_the_past_the_fan_and_what_came():
    one = series(np.arange(12.0)[:, None])
    found = backtest(one)
    found.add(one, 6, np.array([[6.5], [7.5]]), np.linspace(5, 9, 11)[:, None, None].repeat(2, 1), show=True)
    found.add(one, 8, np.array([[6.5], [7.5]]))
    [fan] = found.fans((0.1, 0.9))
    assert fan.past.tolist() == [2, 3, 4, 5] and fan.times.tolist() == [6, 7]
    assert fan.true.tolist() == [6, 7] and fan.point.tolist() == [6.5, 7.5]
    assert fan.quantiles[0.9] == pytest.approx([8.6, 8.6])
    figure = draw_fans([fan])
    [axes] = figure.axes
    assert [line.get_label() for line in axes.lines] == ["past", "forecast", "what came"]
    assert axes.collections[0].get_label() == "10 % to 90 %"
    assert axes.get_xlabel() == "step" and axes.get_ylabel() == "y0"
