"""Windows of series as numbers: a context to look at, and the horizon behind it that is forecast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from throughtime.data.batches import ExampleBatch
from throughtime.data.calendar import Cycle, calendar
from throughtime.data.scaling import Scaling
from throughtime.data.series import Floats, Part, Series
from throughtime.errors import DataError, RunError

Indices = NDArray[np.int64]
#: What a window's values are counted from: the training data's mean, 0, the context's mean or last value.
Centre = Literal["global", "zero", "mean", "last"]
#: The unit of a window's values: the training data's deviation; or the context's mean size, its deviation, or
#: its mean change from step to step.
Scale = Literal["global", "mean", "deviation", "step"]
#: What is forecast: the difference to the centre, to the step before, to the season before, or to where the
#: last step of the context, taken again and again, would lead.
Relative = Literal["centre", "previous", "season", "velocity"]
#: The unit of a context that never changes, as a share of its mean size; and how little is no change.
LEAST, TINY = 1e-3, 1e-6


@dataclass(frozen=True, kw_only=True)
class WindowBatch(ExampleBatch):
    """B windows of T steps: a row's context, its horizon, and padding.

    inputs    [B, T, E]  what is known at a step before its value is.
    before    [B, 2, C]  the two values before the first step, or the first one where there are none.
    values    [B, T, C]  NaN where there is none. These three are less the centre.
    base      [B, T, C]  what a forecast is relative to, less the centre; zeros where that is the step before.
    missing   [B, T, C]  where a value was made up for one that was missing, and is no truth to learn.
    scale     [B, C]     the unit.
    centre    [B, C]     in 64 bits.
    contexts  [B]        steps of the context.
    """

    inputs: Float[Tensor, "B T E"]
    before: Float[Tensor, "B 2 C"]
    values: Float[Tensor, "B T C"]
    base: Float[Tensor, "B T C"]
    missing: Bool[Tensor, "B T C"]
    scale: Float[Tensor, "B C"]
    centre: Float[Tensor, "B C"]
    contexts: Int[Tensor, "B"]

    @property
    def steps(self) -> int:
        """Steps without padding."""
        padding = self.values.shape[1] - int(self.contexts.max()) if len(self.contexts) else 0
        return int(self.contexts.sum()) + len(self.contexts) * padding


class Origin(NamedTuple):
    """Where a forecast begins: `step` of series number `series`."""

    series: int
    step: int


@dataclass(frozen=True)
class Framing:
    """How windows are cut.

    context   the most steps that are looked at.
    horizon   the steps that are forecast.
    lags      how many steps earlier the values are that are shown beside each step. In the horizon the lag is
              as many times as long as it takes to stand before it.
    season    steps after which the series repeat, or 1.
    cycles    what is said of dates.
    positions whether the dimensions are those of a place, which has one unit for all of them.
    """

    context: int
    horizon: int
    lags: tuple[int, ...] = ()
    season: int = 1
    cycles: tuple[Cycle, ...] = ()
    centre: Centre = "mean"
    scale: Scale = "deviation"
    relative: Relative = "centre"
    positions: bool = False

    def width(self, statistics: Statistics) -> int:
        """Numbers that are known at a step before its value is."""
        sizes = {part: len(scaling.mean) for part, scaling in statistics.parts.items()}
        shown = sizes["values"] * (len(self.lags) + 1) + 2 * len(self.cycles)
        return shown + sizes["known"] + sizes["past"] + sizes["static"] + 2


class Statistics:
    """Mean and deviation of the training data, by part of the series."""

    def __init__(self, parts: dict[str, Scaling]) -> None:
        self.parts = parts

    @classmethod
    def fit(cls, series: Sequence[Series]) -> Self:
        """Of all steps before the future; every series counts by its length."""
        found = {}
        for part in ("values", "known", "past", "static"):
            rows = np.concatenate(
                [
                    one.static[None] if part == "static" else getattr(one, part)[: one.observed]
                    for one in series
                ]
            )
            found[part] = Scaling.of(rows, [f"{part} {k + 1}" for k in range(rows.shape[1])])
        return cls(found)

    def to_json(self) -> dict[str, Any]:
        """Everything that `from_json` needs."""
        return {name: scaling.to_json() for name, scaling in self.parts.items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """What `to_json` described; raises `RunError` where the description is damaged."""
        try:
            return cls(
                {part: Scaling.from_json(data[part]) for part in ("values", "known", "past", "static")}
            )
        except (KeyError, TypeError) as error:
            raise RunError(f"the description of the series is damaged: {error}") from None


class Windows:
    """All windows of some series, as numbers.

    Nothing at or after a window's origin is in its inputs, centre and scale, but for what is known before it
    happens.
    """

    def __init__(self, series: Sequence[Series], framing: Framing, statistics: Statistics) -> None:
        self.series, self.framing, self.statistics = series, framing, statistics
        self.ends = np.cumsum([len(one) for one in series])
        self.begins = self.ends - [len(one) for one in series]
        parts = statistics.parts
        self.values = np.concatenate([one.values for one in series])
        self._missing = np.concatenate([one.made_up for one in series])
        self._last, self._next = _nearest(~self._missing)
        self._past = np.concatenate([parts["past"].encode(one.past) for one in series])
        self._known = np.concatenate([self._known_of(one) for one in series])

    def batch(self, origins: Sequence[Origin], number: int = 0) -> WindowBatch:
        """The windows of these origins."""
        framing = self.framing
        begin, end = self.begins[[o.series for o in origins]], self.ends[[o.series for o in origins]]
        at = begin + [o.step for o in origins]
        contexts = np.minimum(at - begin, framing.context)
        first = at - contexts
        steps = np.arange(contexts.max() + framing.horizon)
        rows = first[:, None] + steps  # of each step, its place in the arrays; behind the end is padding
        inside = np.minimum(rows, end[:, None] - 1)
        real = rows < np.minimum(at + framing.horizon, end)[:, None]
        values = np.where(real[..., None], self.values[inside], np.nan)
        past = (rows < at[:, None])[..., None]
        values = np.where(past, self._known_at(inside, at), values)
        seen = np.where(past, values, np.nan)
        before = self._known_at(np.maximum(first[:, None] - [2, 1], begin[:, None]), at)
        centre, scale = self._centre(seen), self._scale(seen, before)
        lagged = [self._lagged(lag, rows, at, begin) for lag in framing.lags]
        base = np.zeros_like(values)
        if framing.relative == "season":
            base = self._lagged(framing.season, rows, at, begin) - centre[:, None]
        elif framing.relative == "velocity":
            older, last = np.moveaxis(
                self._known_at(np.maximum(at[:, None] - [2, 1], begin[:, None]), at), 1, 0
            )
            base = (last - centre)[:, None] + (rows - at[:, None] + 1)[..., None] * (last - older)[:, None]
        shown = [(each - centre[:, None]) / scale[:, None] for each in lagged]
        inputs = [*shown, self._known[inside], self._past_of(rows, at, begin)]
        own = np.log(scale / np.asarray(self.statistics.parts["values"].deviation))
        inputs.append(np.repeat(own[:, None], len(steps), 1))
        ahead = np.clip((rows - at[:, None] + 1) / framing.horizon, 0, 1)
        inputs.append(np.stack([rows >= at[:, None], ahead], -1))
        return WindowBatch(
            number=number,
            inputs=_tensor(np.concatenate(inputs, -1)),
            before=_tensor(before - centre[:, None]),
            values=_tensor(values - centre[:, None]),
            base=_tensor(base),
            missing=torch.from_numpy(self._missing[inside]),
            scale=_tensor(scale),
            centre=torch.from_numpy(centre),
            contexts=torch.from_numpy(contexts),
        )

    def _known_of(self, one: Series) -> Floats:
        parts = self.statistics.parts
        static = np.repeat(parts["static"].encode(one.static[None]), len(one), 0)
        return np.concatenate(
            [parts["known"].encode(one.known), static, calendar(one.times, self.framing.cycles)], 1
        )

    def _past_of(self, rows: Indices, at: Indices, begin: Indices) -> Floats:
        """What was known after the step before; zeros in the horizon and before the first step."""
        there = (rows - 1 < at[:, None]) & (rows - 1 >= begin[:, None])
        return np.where(there[..., None], self._past[np.where(there, rows - 1, 0)], 0)

    def _lagged(self, lag: int, rows: Indices, at: Indices, begin: Indices) -> Floats:
        """The values a lag, or several, before each step: the first value where the series is not so old."""
        ahead = np.maximum(rows - at[:, None] + 1, 1)
        return self._known_at(np.maximum(rows - lag * -(-ahead // lag), begin[:, None]), at)

    def _known_at(self, rows: Indices, at: Indices) -> Floats:
        """The values of steps as they are known at the origin.

        What was made up between two values, the second of which is not known yet, is the first of them.
        """
        if not self._missing.any():
            return self.values[rows]
        held = np.take_along_axis(self.values, self._last, 0)
        return np.where(self._next[rows] >= at[:, None, None], held[rows], self.values[rows])

    def _centre(self, seen: Floats) -> Floats:
        kind = self.framing.centre
        if kind == "last":
            count = (~np.isnan(seen[..., 0])).sum(1)
            return np.asarray(seen[np.arange(len(seen)), count - 1])
        if kind == "mean":
            return np.asarray(np.nanmean(seen, 1))
        mean = np.asarray(self.statistics.parts["values"].mean)
        return np.repeat((mean if kind == "global" else 0 * mean)[None], len(seen), 0)

    def _scale(self, seen: Floats, before: Floats) -> Floats:
        deviation = np.asarray(self.statistics.parts["values"].deviation)
        found = np.repeat(deviation[None], len(seen), 0)
        if (kind := self.framing.scale) != "global":
            size = np.nanmean(np.abs(seen), 1)
            if kind == "deviation":
                found = np.nanstd(seen, 1)
            elif kind == "step":
                steps = np.diff(np.concatenate([before[:, 1:], seen], 1), axis=1)
                found = np.nanmean(np.abs(steps), 1)
            else:
                found = size
            # Where nothing changes, or there is one step alone, it cannot be known how much it could.
            found = np.where(found > TINY * size, found, LEAST * size)
            found[(~np.isnan(seen[..., 0])).sum(1) < 2] = deviation
        if self.framing.positions:
            found = np.broadcast_to(found.mean(1, keepdims=True), found.shape)
            found = np.maximum(found, LEAST * deviation.mean())
        return np.where(found > 0, found, deviation)


class WindowBatches:
    """Batches of `size` windows for training, in an order drawn from the seed and the epoch alone.

    Positions are turned by angles that are drawn in the same way.
    """

    def __init__(self, windows: Windows, origins: Sequence[Origin], size: int, seed: int) -> None:
        self.windows, self.origins, self.size, self.seed = windows, origins, size, seed
        self._drawn: tuple[int, Indices] | None = None

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.origins) // self.size)

    def batch(self, number: int, epoch: int) -> WindowBatch:
        """Batch `number` of an epoch."""
        if self._drawn is None or self._drawn[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.origins))
            self._drawn = (epoch, order)
        chosen = self._drawn[1][number * self.size : (number + 1) * self.size]
        batch = self.windows.batch([self.origins[k] for k in chosen], number)
        if not self.windows.framing.positions:
            return batch
        random = np.random.default_rng([self.seed, epoch, number])
        return turned(batch, _tensor(random.uniform(0, 2 * np.pi, len(chosen))))


def turned(batch: WindowBatch, angles: Float[Tensor, "B"]) -> WindowBatch:
    """Windows of positions in a plane, each turned about its centre; they have no lags."""
    cos, sin = angles.cos(), angles.sin()
    matrix = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    turn = {name: getattr(batch, name) @ matrix.mT for name in ("before", "values", "base")}
    return replace(batch, **turn)


def origins_of(part: Part, context: int, horizon: int, stride: int = 1) -> list[Origin]:
    """Every so many steps an origin with a whole context before it and a whole horizon behind it."""
    return [
        Origin(k, step)
        for k, (one, start) in enumerate(zip(part.series, part.starts, strict=True))
        for step in range(max(start, context), one.observed - horizon + 1, stride)
    ]


def with_future(series: Series, horizon: int) -> Series:
    """A series up to `horizon` steps after the last that was observed.

    Raises `DataError` where nothing was observed, or a column that is known before has no numbers there.
    """
    now, end = series.observed, series.observed + horizon
    name = series.name or "the series"
    if now == 0:
        raise DataError(f"{series.place}: {name} has no values to look at")
    if series.known.shape[1] and (len(series) < end or np.isnan(series.known[now:end]).any()):
        raise DataError(
            f"{series.place}: {name} needs numbers of what is known before for the {horizon} steps after "
            f"{series.times[now - 1]}: give rows with the targets left empty"
        )
    return series.longer(max(end - len(series), 0)).cut(0, end)


def grouped(origins: Sequence[Origin], rows: int) -> Iterator[list[int]]:
    """The numbers of all origins, so many at a time."""
    return (list(range(k, min(k + rows, len(origins)))) for k in range(0, len(origins), rows))


def _nearest(there: NDArray[np.bool_]) -> tuple[Indices, Indices]:
    """Of each number the place of the last and of the next one in its column that is there, or itself."""
    places = np.arange(len(there))[:, None]
    last = np.maximum.accumulate(np.where(there, places, 0), 0)
    following = np.minimum.accumulate(np.where(there, places, len(there))[::-1], 0)[::-1]
    return last, following


def _tensor(array: Floats) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
