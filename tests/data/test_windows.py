"""Windows: what they show is what was known, and nothing of the future."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from throughtime.data.series import Part, Series
from throughtime.data.windows import (
    Framing,
    Origin,
    Shake,
    Statistics,
    WindowBatches,
    Windows,
    origins_of,
    with_future,
)
from throughtime.errors import DataError

FRAMING = Framing(context=6, horizon=4, lags=(3, 5), season=5, relative="season")


def series(length=40, targets=2, known=1, past=1, static=1, seed=0, name="a"):
    random = np.random.default_rng(seed)
    return Series(
        name,
        np.arange(length),
        random.normal(10, 3, (length, targets)),
        random.normal(size=(length, known)),
        random.normal(size=(length, past)),
        random.normal(size=static),
        "data.csv, line 2",
    )


def windows(some, framing=FRAMING):
    return Windows(some, framing, Statistics.fit(some))


def test_a_window_holds_the_values_lags_and_base_of_its_steps():
    one = series()
    batch = windows([one]).batch([Origin(0, 20)])
    y, centre, scale = one.values, batch.centre.numpy()[0], batch.scale.numpy()[0]
    assert centre == pytest.approx(y[14:20].mean(0)) and scale == pytest.approx(y[14:20].std(0))
    assert batch.contexts.tolist() == [6]
    np.testing.assert_allclose(batch.values[0].numpy() + centre, y[14:24], rtol=1e-6)
    np.testing.assert_allclose(batch.before[0].numpy() + centre, y[12:14], rtol=1e-6)
    # In the horizon, steps 20 to 23, a lag of 3 must twice be taken for the last, a lag of 5 never.
    lag = [11, 12, 13, 14, 15, 16, 17, 18, 19, 17]
    season = [9, 10, 11, 12, 13, 14, 15, 16, 17, 18]
    shown = batch.inputs[0].numpy()
    np.testing.assert_allclose(shown[:, :2] * scale + centre, y[lag], rtol=1e-5)
    np.testing.assert_allclose(shown[:, 2:4] * scale + centre, y[season], rtol=1e-5)
    np.testing.assert_allclose(batch.base[0].numpy() + centre, y[season], rtol=1e-5)
    assert shown[:, -2].tolist() == [0] * 6 + [1] * 4
    assert shown[:, -1].tolist() == pytest.approx([0] * 6 + [0.25, 0.5, 0.75, 1])
    past = windows([one])._past
    np.testing.assert_allclose(shown[:7, 6], past[13:20, 0], rtol=1e-6)
    assert not shown[7:, 6].any()
    assert shown.shape[-1] == FRAMING.width(Statistics.fit([one]))


@given(
    step=st.integers(6, 36),
    centre=st.sampled_from(["global", "zero", "mean", "last"]),
    scale=st.sampled_from(["global", "mean", "deviation", "step"]),
    relative=st.sampled_from(["centre", "previous", "season", "velocity"]),
    lags=st.lists(st.integers(1, 12), max_size=3).map(tuple),
)
def test_the_future_changes_no_input(step, centre, scale, relative, lags):
    framing = replace(FRAMING, centre=centre, scale=scale, relative=relative, lags=lags)
    one = series()
    values, past = one.values.copy(), one.past.copy()
    values[step:] += 1000
    past[step:] -= 1000
    other = replace(one, values=values, past=past)
    statistics = Statistics.fit([one.cut(0, 6)])
    a, b = (Windows([each], framing, statistics).batch([Origin(0, step)]) for each in (one, other))
    for name in ("inputs", "before", "base", "scale", "centre", "contexts"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    ahead = slice(int(a.contexts), None)
    assert torch.equal(a.values[:, : int(a.contexts)], b.values[:, : int(a.contexts)])
    assert not torch.equal(a.values[:, ahead], b.values[:, ahead])
    # And the past does change them, so that there is something to find.
    earlier = one.values.copy()
    earlier[step - 1] += 1000
    c = Windows([replace(one, values=earlier)], framing, statistics).batch([Origin(0, step)])
    assert not torch.equal(a.values, c.values)


@pytest.mark.parametrize("relative", ["season", "velocity"])
def test_what_was_made_up_by_the_future_is_held_until_the_future_is_there(relative):
    """Steps 17 to 19 and 21 are missing, and drawn on a line to the values behind them."""
    one = series(targets=1)
    framing = replace(FRAMING, relative=relative)

    def made(value):
        values = one.values.copy()
        values[20], values[22] = value, value
        for gap in ([17, 18, 19], [21]):
            ends = [gap[0] - 1, gap[-1] + 1]
            values[gap, 0] = np.interp(gap, ends, values[ends, 0])
        return replace(one, values=values, made_up=np.isin(np.arange(40), [17, 18, 19, 21])[:, None])

    a, b = (Windows([made(value)], framing, Statistics.fit([one])) for value in (1.0, 500.0))
    for step in (18, 19, 20):
        one_batch, other = a.batch([Origin(0, step)]), b.batch([Origin(0, step)])
        for name in ("inputs", "before", "base", "scale", "centre"):
            assert torch.equal(getattr(one_batch, name), getattr(other, name)), (step, name)
        held = one_batch.values[0, :6].numpy() + one_batch.centre.numpy()[0]
        np.testing.assert_allclose(held[17 - step :], one.values[[16] * (step - 17)], rtol=1e-6)
    later = a.batch([Origin(0, 21)])
    np.testing.assert_allclose(
        later.values[0, 2:5].numpy() + later.centre.numpy()[0], made(1.0).values[17:20], rtol=1e-5
    )
    assert later.missing[0, :, 0].nonzero()[:, 0].tolist() == [2, 3, 4, 6]


def test_a_forecast_may_be_relative_to_the_last_step_taken_again():
    one = series()
    batch = windows([one], replace(FRAMING, relative="velocity")).batch([Origin(0, 20)])
    steps = np.arange(1, 5)[:, None]
    expected = one.values[19] + steps * (one.values[19] - one.values[18])
    np.testing.assert_allclose(batch.base[0, 6:].numpy() + batch.centre[0].numpy(), expected, rtol=1e-5)


def test_a_window_does_not_depend_on_the_others():
    some = [series(), series(9, seed=1, name="b")]
    made = windows(some)
    together = made.batch([Origin(0, 30), Origin(1, 3), Origin(1, 5)])
    alone = made.batch([Origin(1, 3)])
    assert together.contexts.tolist() == [6, 3, 5]
    steps = int(alone.values.shape[1])
    assert torch.equal(together.inputs[1, :steps], alone.inputs[0])
    assert torch.equal(together.base[1, :steps], alone.base[0])
    assert together.values[1, :steps].isfinite().all() and together.values[1, steps:].isnan().all()
    assert torch.equal(together.scale[1], alone.scale[0])
    assert together.steps == 6 + 3 + 5 + 3 * 4


@pytest.mark.parametrize("scale", ["mean", "deviation", "step"])
def test_a_constant_context_has_a_unit(scale):
    some = [replace(series(), values=np.full((40, 2), level)) for level in (0.0, 7.0)] + [series()]
    batch = windows(some, replace(FRAMING, scale=scale)).batch([Origin(0, 20), Origin(1, 20)])
    assert (batch.scale > 0).all() and batch.inputs.isfinite().all()
    if scale != "mean":
        assert batch.scale[1].tolist() == pytest.approx([0.007, 0.007])


@pytest.mark.parametrize("scale", ["deviation", "step"])
def test_the_unit_is_that_of_the_changes_however_large_the_numbers(scale):
    one = series(targets=1)
    high = replace(one, values=one.values + 1e5)
    framing = replace(FRAMING, scale=scale)
    low, up = (windows([each], framing).batch([Origin(0, 20)]) for each in (one, high))
    torch.testing.assert_close(low.scale, up.scale)
    torch.testing.assert_close(low.values, up.values, rtol=0, atol=1e-4)
    short = windows([one], framing).batch([Origin(0, 1)])
    assert short.scale[0, 0].item() == pytest.approx(one.values.std())


def test_the_unit_may_be_that_of_all_changes():
    some = [series(), series(9, seed=1, name="b"), series(1, name="c")]
    batch = windows(some, replace(FRAMING, scale="changes")).batch([Origin(0, 20), Origin(1, 3)])
    changes = np.concatenate([np.diff(each.values, axis=0) for each in some])
    np.testing.assert_allclose(batch.scale.numpy(), [changes.std(0)] * 2, rtol=1e-5)


def test_origins_have_a_whole_context_and_horizon():
    part = Part([series(), series(9, name="b")], [0, 0])
    assert origins_of(part, 6, 4) == [Origin(0, step) for step in range(6, 37)]
    assert origins_of(Part(part.series, [30, 0]), 6, 4, stride=4) == [Origin(0, 30), Origin(0, 34)]


def test_an_epoch_has_each_window_once_and_its_order_is_drawn_from_the_seed():
    one = series()
    made = windows([one])
    origins = origins_of(Part([one], [0]), 6, 4)
    batches = WindowBatches(made, origins, 8, seed=1)
    seen = [batches.batch(k, 3).centre for k in range(len(batches))]
    assert len(batches) == 4
    whole = made.batch(origins).centre
    assert torch.equal(torch.cat(seen).sort(0).values, whole.sort(0).values)
    again = WindowBatches(made, origins, 8, seed=1)
    assert torch.equal(again.batch(2, 3).values, batches.batch(2, 3).values)
    assert not torch.equal(again.batch(2, 4).centre, seen[2])


def test_noise_is_on_what_is_looked_at_alone():
    one = series()
    framing = replace(FRAMING, centre="last", relative="velocity", scale="changes", lags=())
    made = windows([one], framing)
    origins = [Origin(0, step) for step in range(10, 30)]
    plain = made.batch(origins)
    shaken = made.batch(origins, 0, Shake(np.full(20, 0.5), np.random.default_rng(0)))
    assert torch.equal(shaken.scale, plain.scale)
    whole, before = (
        torch.cat([each.before, each.values], 1) + each.centre[:, None] for each in (shaken, plain)
    )
    off = (whole - before) / plain.scale[:, None]
    assert off[:, :8].std().item() == pytest.approx(0.5, abs=0.06) and off[:, :8].unique().numel() > 300
    torch.testing.assert_close(off[:, 8:], torch.zeros(20, 4, 2, dtype=off.dtype), atol=1e-5, rtol=0)
    # The centre is the last value that is shown, and the base goes on from the last two.
    torch.testing.assert_close(shaken.values[:, 5], torch.zeros(20, 2))
    torch.testing.assert_close(shaken.base[:, 6:9], -torch.arange(1, 4)[:, None] * shaken.values[:, 4:5])


def test_training_shakes_some_windows_and_measuring_none():
    one = series()
    made, origins = windows([one], replace(FRAMING, lags=())), [Origin(0, 20)] * 400
    plain = made.batch(origins[:1]).values[0]
    drawn = WindowBatches(made, origins, 400, 0, noise=0.3)
    moved = (drawn.batch(0, 0).values != plain).any(-1).any(-1)
    assert 0.15 < moved.float().mean() < 0.35
    assert torch.equal(drawn.batch(0, 1).values, drawn.batch(0, 1).values)
    assert not (WindowBatches(made, origins, 400, 0).batch(0, 0).values != plain).any()


def test_positions_go_along_x_and_come_back():
    framing = replace(FRAMING, positions=True, lags=(), relative="velocity", centre="last", scale="step")
    one = series()
    angle = 0.7
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    other = replace(one, values=one.values @ matrix.T + [30, -5])
    origins = [Origin(0, 20), Origin(0, 21)]
    batch, same = (Windows([each], framing, Statistics.fit([one])).batch(origins) for each in (one, other))
    assert torch.equal(batch.scale[:, 0], batch.scale[:, 1])
    for name in ("values", "before", "base", "scale"):
        torch.testing.assert_close(
            getattr(batch, name), getattr(same, name), equal_nan=True, rtol=1e-4, atol=1e-4
        )
    torch.testing.assert_close(same.angle - batch.angle, torch.full((2,), angle, dtype=torch.float64))
    two = batch.values[:, 5] - batch.values[:, 3]
    assert (two[:, 0] > 0).all() and two[:, 1].abs().max() < 1e-5
    np.testing.assert_allclose(same.in_units(same.values)[0, :10], other.values[14:24], rtol=1e-5)


def test_positions_are_mirrored_in_training():
    framing = replace(FRAMING, positions=True, lags=(), relative="velocity", centre="last", scale="step")
    made = windows([series()], framing)
    plain = made.batch([Origin(0, 20)])
    drawn = WindowBatches(made, [Origin(0, 20)] * 40, 40, 0).batch(0, 0)
    as_they_are = (drawn.values == plain.values).all(-1).all(-1)
    mirrored = (drawn.values == plain.values * torch.tensor([1, -1])).all(-1).all(-1)
    assert (as_they_are ^ mirrored).all() and 10 < mirrored.sum() < 30
    assert torch.equal(drawn.base[mirrored][0], plain.base[0] * torch.tensor([1, -1]))


def test_the_future_needs_what_is_known_before():
    one = series(known=0)
    longer = with_future(one, 4)
    assert len(longer) == 44 and longer.observed == 40
    assert longer.times[-1] == 43
    with pytest.raises(DataError, match="needs numbers of what is known before for the 4 steps after 39"):
        with_future(series(), 4)
    some = series()
    values = some.values.copy()
    values[36:] = np.nan
    assert with_future(replace(some, values=values), 4).observed == 36
    with pytest.raises(DataError, match="no values to look at"):
        with_future(replace(one, values=one.values * np.nan), 4)
