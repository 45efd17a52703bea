"""The figure of forecasts: the past, the fan of quantiles, and what came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from numpy.typing import NDArray

from throughtime.data.windows import Framing

if TYPE_CHECKING:
    from throughtime.train.backtest import Forecast

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fan:
    """A forecast of one number.

    quantiles  by level; true  what came, if it is known.
    """

    title: str
    target: str
    past_times: NDArray[Any]
    past: Floats
    times: NDArray[Any]
    point: Floats
    quantiles: Mapping[float, Floats]
    true: Floats | None = None

    @classmethod
    def of_forecast(
        cls, forecast: Forecast, column: int, target: str, levels: Sequence[float], framing: Framing
    ) -> Fan:
        """The fan of one target of a forecast that was measured."""
        series, step = forecast.series, forecast.step
        past = slice(max(step - min(framing.context, 4 * framing.horizon), 0), step)
        ahead = slice(step, step + framing.horizon)
        paths = forecast.paths
        quantiles = {} if paths is None else {q: np.quantile(paths[..., column], q, axis=0) for q in levels}
        return cls(
            series.name,
            target,
            series.times[past],
            series.values[past, column],
            series.times[ahead],
            forecast.point[:, column],
            quantiles,
            series.values[ahead, column],
        )

    @classmethod
    def of_answer(cls, answer: Mapping[str, Any], target: str) -> Fan:
        """The fan of one target of a prediction, as the task answers it."""
        values = answer["forecast"][target]
        return cls(
            answer["series"],
            target,
            _times(answer["past"]["times"]),
            np.array(answer["past"]["values"][target]),
            _times(answer["times"]),
            np.array(values["point"]),
            {float(level): np.array(found) for level, found in values.items() if level != "point"},
        )


def draw_fans(fans: Sequence[Fan]) -> Figure:
    """A panel for each forecast."""
    columns = min(len(fans), 2)
    rows = -(-len(fans) // columns)
    figure = Figure(figsize=(1 + 5.5 * columns, 1 + 2.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for fan, axes in zip(fans, panels, strict=False):
        axes.plot(fan.past_times, fan.past, color="0.45", lw=1, label="past")
        levels = sorted(fan.quantiles)
        pairs = zip(levels[: len(levels) // 2], reversed(levels), strict=False)
        for low, high in pairs:
            label = f"{100 * low:.3g} % to {100 * high:.3g} %"
            axes.fill_between(
                fan.times,
                fan.quantiles[low],
                fan.quantiles[high],
                color="tab:blue",
                alpha=0.2,
                lw=0,
                label=label,
            )
        axes.plot(fan.times, fan.point, color="tab:blue", lw=1.5, label="forecast")
        if fan.true is not None:
            axes.plot(fan.times, fan.true, color="black", lw=1, ls="--", label="what came")
        if fan.times.dtype.kind == "M":
            locator = AutoDateLocator(maxticks=12)
            axes.xaxis.set_major_locator(locator)
            axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.set_title(fan.title, fontsize="medium", parse_math=False)
        axes.set_ylabel(fan.target, parse_math=False)
        axes.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    for axes in figure.axes[len(fans) :]:
        axes.set_visible(False)
    for axes in figure.axes[: len(fans)][-columns:]:
        axes.set_xlabel("time" if fans[0].times.dtype.kind == "M" else "step")
    return figure


def _times(texts: Sequence[str]) -> NDArray[Any]:
    try:
        return np.array([int(text) for text in texts])
    except ValueError:
        return np.array(texts, dtype="datetime64[s]")
