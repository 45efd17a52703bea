"""Forecasts that need no model, and how good a forecast is."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from throughtime.errors import ShapeError

Floats = NDArray[np.float64]


def naive(past: Float[Floats, "T"], horizon: int, season: int = 1) -> Float[Floats, "H"]:
    """What was last, over and over; with a `season` of so many steps the last season (seasonal naive)."""
    if not len(past):
        raise ShapeError("a naive forecast repeats the past, and there is none")
    last = past[-min(season, len(past)) :]
    return np.resize(last, horizon)


def naive2(past: Float[Floats, "T"], horizon: int, season: int) -> Float[Floats, "H"]:
    """The naive forecast of what is left without the season, and the season again (Makridakis et al. 2018).

    The season is taken out by multiplicative decomposition, if the autocorrelation at its length differs
    from 0 with a confidence of 90 %, there are three seasons, and all values are positive.
    """
    seasonal = past.min() > 0 and is_seasonal(past, season)
    factors = seasonal_factors(past, season) if seasonal else np.ones(max(season, 1))
    steps = np.arange(len(past) - 1, len(past) + horizon) % len(factors)
    forecast: Floats = past[-1] / factors[steps[0]] * factors[steps[1:]]
    return forecast


def is_seasonal(past: Float[Floats, "T"], season: int) -> bool:
    """|r_m| > 1.645 sqrt((1 + 2 Σ_{k<m} r_k²) / T), r_k the autocorrelation at lag k, m the season.

    Lags up to 10 log10 T are looked at, as the statistical language R does.
    """
    count = len(past)
    if season < 2 or count < 3 * season or season > 10 * np.log10(count):
        return False
    centred = past - past.mean()
    variance = (centred**2).sum()
    if variance == 0:
        return False
    r = np.array([(centred[k:] * centred[: count - k]).sum() for k in range(1, season + 1)]) / variance
    limit = 1.645 * np.sqrt((1 + 2 * (r[:-1] ** 2).sum()) / count)
    return bool(abs(r[-1]) > limit)


def seasonal_factors(past: Float[Floats, "T"], season: int) -> Float[Floats, "season"]:
    """How many times its trend a series is at each step of the season, the first step first; the mean is 1.

    The trend is the mean over a season round each step, its two ends counted half where the season is even.
    """
    weights = np.ones(season) if season % 2 else np.r_[0.5, np.ones(season - 1), 0.5]
    trend = np.convolve(past, weights / season, mode="valid")
    start = len(weights) // 2
    ratio = past[start : start + len(trend)] / trend
    at = (start + np.arange(len(ratio))) % season
    factors = np.array([ratio[at == k].mean() for k in range(season)])
    normed: Floats = factors / factors.mean()
    return normed


def point_metrics(
    true: Float[Floats, "H"], forecast: Float[Floats, "H"], past: Float[Floats, "T"], season: int = 1
) -> dict[str, float]:
    """Errors of one forecast: mse, mae, smape (percent) and mase.

        smape = 200 mean |y - f| / (|y| + |f|)        mase = mean |y - f| / mean |past_t - past_{t - m}|

    m is the season (Hyndman & Koehler 2006; Makridakis et al. 2018). A term 0 / 0 of smape is 0, and mase of
    a past that repeats itself exactly is NaN.
    """
    error, size = np.abs(true - forecast), np.abs(true) + np.abs(forecast)
    repeated = np.abs(past[season:] - past[:-season]) if len(past) > season else np.zeros(1)
    usual = repeated.mean()
    return {
        "mse": float((error**2).mean()),
        "mae": float(error.mean()),
        "smape": float(200 * np.divide(error, size, where=size > 0, out=np.zeros_like(error)).mean()),
        "mase": float(error.mean() / usual) if usual > 0 else float("nan"),
    }


def crps(true: Float[Floats, "H"], samples: Float[Floats, "N H"]) -> float:
    """The continuous ranked probability score of a forecast by N samples, the mean over its steps.

        E |X - y| - E |X - X'| / 2,

    the second by all pairs of different samples (Gneiting & Raftery 2007): in the units of y, and of a single
    sample the absolute error.
    """
    count = len(samples)
    spread = np.zeros(samples.shape[1])
    if count > 1:
        ordered = np.sort(samples, 0)
        ranks = 2 * np.arange(count) - count + 1
        spread = (ranks[:, None] * ordered).sum(0) * 2 / (count * (count - 1))
    return float((np.abs(samples - true).mean(0) - spread / 2).mean())


def coverage(true: Float[Floats, "H"], samples: Float[Floats, "N H"], share: float) -> float:
    """The share of steps whose value is within the central interval that should hold `share` of them."""
    low, high = np.quantile(samples, [(1 - share) / 2, (1 + share) / 2], axis=0)
    return float(((true >= low) & (true <= high)).mean())


def constant_velocity(past: Float[Floats, "T"], horizon: int) -> Float[Floats, "H"]:
    """The last step taken again and again."""
    step = past[-1] - past[-2] if len(past) > 1 else 0.0
    forecast: Floats = past[-1] + step * np.arange(1, horizon + 1)
    return forecast


def linear(past: Float[Floats, "T"], horizon: int) -> Float[Floats, "H"]:
    """The line through the past of least squares, gone on with."""
    if len(past) < 2:
        return naive(past, horizon)
    slope, start = np.polyfit(np.arange(len(past)), past, 1)
    forecast: Floats = start + slope * np.arange(len(past), len(past) + horizon)
    return forecast


def displacement(true: Float[Floats, "H C"], forecast: Float[Floats, "H C"]) -> dict[str, float]:
    """How far a path is from the true one: the mean over its steps (ade), and at the last one (fde)."""
    distance = np.linalg.norm(true - forecast, axis=-1)
    return {"ade": float(distance.mean()), "fde": float(distance[-1])}
