"""The forecaster: teacher forcing, recursion and direct forecasts agree with what they are defined as."""

from functools import partial

import numpy as np
import pytest
import torch

from throughtime.data.series import Series
from throughtime.data.windows import Framing, Origin, Statistics, Windows
from throughtime.errors import ConfigError
from throughtime.heads.density import Gaussian, Mixture, Quantiles, StudentT
from throughtime.models.forecaster import Forecaster

HORIZON = 5


def batch(relative="centre", lengths=(30, 9)):
    random = np.random.default_rng(0)
    framing = Framing(context=7, horizon=HORIZON, lags=(4,), season=4, relative=relative)
    some = []
    for length in lengths:
        nothing = np.zeros((length, 0))
        values = random.normal(5, 2, (length, 2))
        some.append(Series("", np.arange(length), values, nothing, nothing, np.zeros(0)))
    statistics = Statistics.fit(some)
    windows = Windows(some, framing, statistics)
    return windows.batch([Origin(0, 20), Origin(1, 4)]), framing.width(statistics)


def make(width, head=Gaussian, **options):
    torch.manual_seed(0)
    return Forecaster(width, 2, HORIZON, head=head, hidden=8, **options)


@pytest.mark.parametrize(
    ("relative", "horizons"),
    [(a, "recursive") for a in ("centre", "season", "previous")]
    + [(a, "direct") for a in ("centre", "season")],
)
def test_the_loss_is_that_of_each_step_after_the_true_ones(relative, horizons):
    data, width = batch(relative)
    model = make(width, horizons=horizons, previous=relative == "previous").eval()
    total = 0.0
    for row in range(2):
        length = int(data.contexts[row])
        whole = torch.cat([data.before[row], data.values[row]])
        state, cost = None, 0.0
        for t in range(length + HORIZON):
            last, older, scale = whole[t + 1], whole[t], data.scale[row]
            shown = torch.cat([last / scale, (last - older) / scale])
            if horizons == "direct" and t >= length:
                shown = torch.zeros_like(shown)
            x = torch.cat([data.inputs[row, t], shown])
            features, state = model.recurrence.step(x[None], state)
            if t >= length:
                base = last if relative == "previous" else data.base[row, t]
                cost += model.head.nats(features, whole[t + 2][None], base[None], scale[None])
        total += cost
    loss = model.loss(data)
    torch.testing.assert_close(loss.total, total[0])
    assert loss.count == 2 * HORIZON


def test_what_was_made_up_costs_nothing_and_is_read():
    data, width = batch()
    model = make(width).eval()
    length = int(data.contexts[0])
    missing = data.missing.clone()
    missing[0, length + 1] = True
    some = type(data)(**(vars(data) | {"missing": missing}))
    loss, whole = model.loss(some), model.loss(data)
    assert loss.count == whole.count - 1
    y, _ = model.recurrence(model._inputs(data), lengths=data.contexts + HORIZON)
    args = (each[:1, length + 1] for each in (y, data.values, data.base))
    cost = model.head.nats(*args, data.scale[:1])
    torch.testing.assert_close(whole.total - loss.total, cost[0])


@pytest.mark.parametrize("relative", ["centre", "season", "previous"])
def test_a_recursive_forecast_reads_its_own_values(relative):
    data, width = batch(relative)
    model = make(width, previous=relative == "previous").eval()
    points = model.points(data)
    # Put where the true values stood, they are what teacher forcing would say.
    values = data.values.clone()
    for row in range(2):
        length = int(data.contexts[row])
        values[row, length : length + HORIZON] = points[row]
    data = type(data)(**(vars(data) | {"values": values}))
    again = model.points(data)
    torch.testing.assert_close(again, points)
    y, _ = model.recurrence(model._inputs(data), lengths=data.contexts + HORIZON)
    places = model._places(data)
    rows = torch.arange(2)[:, None]
    previous = torch.cat([data.before[:, 1:], values], 1)[rows, places]
    base = previous if relative == "previous" else data.base[rows, places]
    scale = data.scale[:, None].expand_as(base)
    features = y[rows, places]
    forced = model.head.point(features.flatten(0, 1), base.flatten(0, 1), scale.flatten(0, 1))
    torch.testing.assert_close(forced.view(points.shape), points)


@pytest.mark.parametrize("horizons", ["recursive", "direct"])
@pytest.mark.parametrize("head", [Gaussian, StudentT, Quantiles, partial(Mixture, components=2)])
def test_a_forecast_reads_no_value_of_its_horizon(horizons, head):
    data, width = batch()
    model = make(width, head, horizons=horizons).eval()
    values = data.values.clone()
    for row in range(2):
        values[row, int(data.contexts[row]) :] = torch.nan
    blind = type(data)(**(vars(data) | {"values": values}))
    assert torch.equal(model.points(data), model.points(blind))
    one = type(data)(**{k: v[:1] if isinstance(v, torch.Tensor) else v for k, v in vars(blind).items()})
    first, second = (model.paths(one, 3, torch.Generator().manual_seed(7)) for _ in range(2))
    assert first.shape == (3, HORIZON, 2) and torch.equal(first, second)
    assert first.isfinite().all() and not torch.equal(first[0], first[1])
    torch.testing.assert_close(model.points(one), model.points(blind)[:1])


def test_many_paths_have_the_mean_of_a_direct_forecast():
    data, width = batch()
    model = make(width, horizons="direct").eval()
    one = type(data)(**{k: v[:1] if isinstance(v, torch.Tensor) else v for k, v in vars(data).items()})
    paths = model.paths(one, 20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(paths.mean(0), model.points(one)[0], rtol=0, atol=0.1)


def test_every_parameter_learns_and_scheduled_sampling_reads_what_was_drawn():
    data, width = batch()
    model = make(width, scheduled_sampling=1.0)
    model.loss(data).total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    torch.manual_seed(0)
    one = model.loss(data).total
    torch.manual_seed(1)
    assert not torch.equal(one, model.loss(data).total)
    assert torch.equal(model.eval().loss(data).total, make(width).eval().loss(data).total)
    # Without any draw it is teacher forcing, step by step.
    forced = make(width, scheduled_sampling=1e-9).train().loss(data).total
    torch.testing.assert_close(forced, make(width).loss(data).total)


@pytest.mark.parametrize("options", [{"previous": True}, {"scheduled_sampling": 0.5}])
def test_a_direct_forecast_reads_no_step_before(options):
    with pytest.raises(ConfigError, match="does not read the step before"):
        make(4, horizons="direct", **options)
