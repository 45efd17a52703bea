"""A rolling backtest: forecasts made again and again, each from what was known then, beside simple ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from throughtime.data.series import Series
from throughtime.data.windows import Framing, Origin, Statistics
from throughtime.heads.categorical import Loss
from throughtime.train.fan import Fan
from throughtime.train.forecasts import (
    constant_velocity,
    coverage,
    crps,
    displacement,
    linear,
    naive,
    naive2,
    point_metrics,
)
from throughtime.train.metrics import Metrics

Floats = NDArray[np.float64]
#: The intervals whose coverage is measured, as shares of what they should hold.
INTERVALS = (0.5, 0.9)
#: Of how many futures the best is taken, as is usual for trajectories.
BEST_OF = 20


class Forecast(NamedTuple):
    """What was forecast from `step` of a series on, and N futures of it, if any were drawn."""

    series: Series
    step: int
    point: Float[Floats, "H C"]
    paths: Float[Floats, "N H C"] | None


class Backtest:
    """The errors of all forecasts, each counting the same; mase of those whose past does not repeat itself.

    mse, mae, smape (percent) and mase are means over steps and targets; mse_scaled and mae_scaled are those
    of values over the deviation of the training data; crps and the coverage of intervals are those of the
    futures. For positions also ade and fde, the mean distance of the path and that of its last step, and
    ade_best_of_20, of the best of 20 futures (Alahi et al. 2016; Gupta et al. 2018).
    """

    def __init__(self, framing: Framing, statistics: Statistics, targets: Sequence[str]) -> None:
        self.framing, self.targets = framing, targets
        self.deviation = np.asarray(statistics.parts["values"].deviation)
        self._nats, self._count = 0.0, 0
        self._errors: dict[str, list[Metrics]] = {}
        self.shown: list[Forecast] = []

    def add_loss(self, loss: Loss) -> None:
        """What some windows cost."""
        self._nats, self._count = self._nats + loss.total.item(), self._count + loss.count

    def add(
        self, series: Series, step: int, point: Floats, paths: Floats | None = None, show: bool = False
    ) -> None:
        """A forecast of the steps from `step` on, which is kept for the figure if it is to `show`."""
        horizon, context = self.framing.horizon, self.framing.context
        true, past = series.values[step : step + horizon], series.values[:step]
        true = np.where(series.made_up[step : step + horizon], np.nan, true)
        if show:
            self.shown.append(Forecast(series, step, point, paths))
        if np.isnan(true).all():
            return
        self._errors.setdefault("model", []).append(
            self._of_point(true, point, past) | ({} if paths is None else self._of_paths(true, paths))
        )
        if paths is not None:
            for name, simple in self._simple().items():
                columns = [simple(past[:, k], past[-context:, k], horizon) for k in range(past.shape[1])]
                found = self._of_point(true, np.stack(columns, 1), past)
                self._errors.setdefault(name, []).append(found)

    @property
    def metrics(self) -> Metrics:
        """Means over all forecasts, and the loss in nats per step."""
        return {"loss": self._nats / max(self._count, 1)} | self._mean("model")

    def rows(self) -> list[dict[str, Any]]:
        """The same errors of the model and of forecasts without one."""
        means = {name: self._mean(name) for name in self._errors}
        kept = [key for key in means["model"] if all(key in each for each in means.values())]
        return [{"forecast": name} | {key: mean[key] for key in kept} for name, mean in means.items()]

    def fans(self, levels: Sequence[float]) -> list[Fan]:
        """The forecasts that were to be shown, target by target."""
        return [
            Fan.of_forecast(each, k, name, levels, self.framing)
            for each in self.shown
            for k, name in enumerate(self.targets)
        ]

    def _simple(self) -> Mapping[str, Callable[[Floats, Floats, int], Floats]]:
        """Forecasts without a model, from the past and the end of it that the model looks at."""
        season = self.framing.season
        if self.framing.positions:
            return {
                "naive": lambda past, context, horizon: naive(past, horizon),
                "constant velocity": lambda past, context, horizon: constant_velocity(past, horizon),
                "linear": lambda past, context, horizon: linear(context, horizon),
            }
        return {
            "naive": lambda past, context, horizon: naive(past, horizon),
            "seasonal naive": lambda past, context, horizon: naive(past, horizon, season),
            "Naive2": lambda past, context, horizon: naive2(past, horizon, season),
        }

    def _of_point(self, true: Floats, point: Floats, past: Floats) -> Metrics:
        """Errors over the steps whose value is known, and of a path over whole ones."""
        there = ~np.isnan(true)
        by_target = [
            point_metrics(true[rows, k], point[rows, k], past[:, k], self.framing.season)
            for k, rows in enumerate(there.T)
            if rows.any()
        ]
        found = {key: _mean([each[key] for each in by_target]) for key in by_target[0]}
        scaled = ((true - point) / self.deviation)[there]
        found |= {"mse_scaled": float((scaled**2).mean()), "mae_scaled": float(np.abs(scaled).mean())}
        return displacement(true, point) | found if self.framing.positions and there.all() else found

    def _of_paths(self, true: Floats, paths: Floats) -> Metrics:
        there = ~np.isnan(true)
        known = [(true[rows, k], paths[:, rows, k]) for k, rows in enumerate(there.T) if rows.any()]
        found = {"crps": _mean([crps(*each) for each in known])}
        for share in INTERVALS:
            covered = [coverage(*each, share) for each in known]
            found[f"coverage_{share:.0%}".rstrip("%")] = _mean(covered)
        if self.framing.positions and there.all():
            some = paths[:BEST_OF]
            found[f"ade_best_of_{len(some)}"] = min(displacement(true, path)["ade"] for path in some)
        return found

    def _mean(self, name: str) -> Metrics:
        """Means over the forecasts; an error that is nowhere defined is left out."""
        errors = self._errors.get(name, [])
        keys = dict.fromkeys(key for each in errors for key in each)
        means = {key: _mean([each[key] for each in errors if key in each]) for key in keys}
        return {key: mean for key, mean in means.items() if not np.isnan(mean)}


def spread(origins: Sequence[Origin], most: int) -> list[Origin]:
    """So many origins for a figure: of as many series as there are, else of different times."""
    first = {origin.series: origin for origin in reversed(origins)}
    some = list(first.values())[::-1] if len(first) >= most else origins
    return list(some[:: max(len(some) // most, 1)][:most])


def _mean(values: Sequence[float]) -> float:
    """The mean of those that are defined; NaN where none is."""
    there = [value for value in values if not np.isnan(value)]
    return float(np.mean(there)) if there else float("nan")
