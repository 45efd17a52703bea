"""Forecasts without a model, and measures of forecasts, by hand and by their definitions."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from throughtime.errors import ShapeError
from throughtime.train.forecasts import (
    constant_velocity,
    coverage,
    crps,
    displacement,
    is_seasonal,
    linear,
    naive,
    naive2,
    point_metrics,
    seasonal_factors,
)

DATA = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[3] / "shared" / "data")) / "series"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")


def test_what_was_last_comes_again():
    past = np.array([5.0, 1, 2, 3])
    assert naive(past, 3).tolist() == [3, 3, 3]
    assert naive(past, 5, season=3).tolist() == [1, 2, 3, 1, 2]
    assert naive(past[:2], 3, season=3).tolist() == [5, 1, 5]
    with pytest.raises(ShapeError, match="there is none"):
        naive(past[:0], 3)


@given(st.integers(2, 9), st.integers(0, 1000))
def test_factors_of_a_season_without_a_trend_are_found(season, seed):
    factors = np.random.default_rng(seed).uniform(0.5, 2, season)
    factors /= factors.mean()
    past = 7 * np.resize(factors, 5 * season + 3)
    np.testing.assert_allclose(seasonal_factors(past, season), factors)
    if is_seasonal(past, season):
        np.testing.assert_allclose(naive2(past, 11, season), 7 * np.resize(factors, 5 * season + 14)[-11:])


def test_noise_and_short_or_constant_series_have_no_season():
    noise = np.random.default_rng(3).normal(size=200) + 10
    assert not is_seasonal(noise, 7) and not is_seasonal(np.ones(100), 4)
    wave = 10 + np.sin(np.arange(200) * 2 * np.pi / 7)
    assert is_seasonal(wave, 7) and not is_seasonal(wave[:20], 7) and not is_seasonal(wave, 1)
    assert naive2(noise, 3, 7).tolist() == [noise[-1]] * 3


def test_errors_by_hand():
    metrics = point_metrics(np.array([1.0, 3.0]), np.array([2.0, 1.0]), np.array([1.0, 2, 4]), 1)
    assert metrics == pytest.approx(
        {"mse": 5 / 2, "mae": 3 / 2, "smape": 100 * (1 / 3 + 2 / 4), "mase": 1.5 / 1.5}
    )
    still = point_metrics(np.zeros(2), np.zeros(2), np.ones(4), 1)
    assert still["smape"] == 0 and np.isnan(still["mase"])


@given(st.integers(1, 6), st.integers(0, 100))
def test_crps_is_its_definition(count, seed):
    random = np.random.default_rng(seed)
    true, samples = random.normal(size=3), random.normal(size=(count, 3))
    pairs = [np.abs(a - b) for k, a in enumerate(samples) for b in samples[:k]]
    spread = np.mean(pairs, 0) if pairs else np.zeros(3)
    expected = (np.abs(samples - true).mean(0) - spread / 2).mean()
    assert crps(true, samples) == pytest.approx(expected)


def test_coverage_counts_what_is_within():
    samples = np.linspace(0, 1, 101)[:, None].repeat(4, 1)
    assert coverage(np.array([0.05, 0.5, 0.95, 0.2]), samples, 0.8) == 0.5


@needs_data
def test_naive2_is_that_of_the_reference():
    inputs, outputs = (
        np.genfromtxt(DATA / "naive2_r_reference" / f"r_naive_2_{part}.csv", delimiter=",", skip_header=1)
        for part in ("inputs", "outputs")
    )
    for past, expected in zip(inputs, outputs, strict=True):
        np.testing.assert_array_equal(naive2(past, len(expected), 7), expected)


@needs_data
def test_naive2_reaches_the_published_errors_of_m4_hourly():
    past, future = (
        [
            np.array([float(cell) for cell in line.replace('"', "").split(",")[1:] if cell])
            for line in (DATA / "m4" / f"Hourly-{part}.csv").read_text().splitlines()[1:]
        ]
        for part in ("train", "test")
    )
    errors = [point_metrics(y, naive2(x, 48, 24), x, 24) for x, y in zip(past, future, strict=True)]
    assert np.mean([e["smape"] for e in errors]) == pytest.approx(18.383, abs=5e-4)
    assert np.mean([e["mase"] for e in errors]) == pytest.approx(2.395, abs=5e-4)


def test_naive2_takes_no_season_out_of_what_is_not_positive():
    past = np.tile([0.0, 1, 3, 2, 1, 1], 10)
    assert naive2(past, 8, 6).tolist() == naive(past, 8).tolist()
    assert naive2(past + 1, 8, 6) == pytest.approx(naive(past + 1, 8, 6))


def test_a_line_goes_on_by_its_last_step_or_as_a_whole():
    past = np.array([0.0, 2.0, 2.0, 4.0])
    assert constant_velocity(past, 3).tolist() == [6, 8, 10]
    slope = 1.2  # of the least squares line 0.2 + 1.2 t
    assert linear(past, 2) == pytest.approx([0.2 + slope * 4, 0.2 + slope * 5])
    assert constant_velocity(past[:1], 2).tolist() == linear(past[:1], 2).tolist() == [0, 0]


def test_displacement_is_euclidean():
    true, forecast = np.zeros((2, 2)), np.array([[3.0, 4.0], [0.0, 1.0]])
    assert displacement(true, forecast) == {"ade": 3.0, "fde": 1.0}
