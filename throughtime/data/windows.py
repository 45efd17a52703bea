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
#: The unit of a window's values: the deviation of the training data, or of their changes from step to step;
#: or the context's mean size, its deviation, or its mean change.
Scale = Literal["global", "changes", "mean", "deviation", "step"]
#: What is forecast: the difference to the centre, to the step before, to the season before, or to where the
#: last step of the context, taken again and again, would lead.
Relative = Literal["centre", "previous", "season", "velocity"]
#: The unit of a context that never changes, as a share of its mean size; and how little is no change.
LEAST, TINY = 1e-3, 1e-6
#: The share of windows that get noise in training, where there is any.
SHAKEN = 0.25
#: What `Statistics` are of.
PARTS = ("values", "changes", "known", "past", "static")


@dataclass(frozen=True, kw_only=True)
class WindowBatch(ExampleBatch):
    """B windows of T steps: a row's context, its horizon, and padding.

    Those of positions are turned about their centre, so that they go along x when the horizon begins.

    inputs    [B, T, E]  what is known at a step before its value is.
    before    [B, 2, C]  the two values before the first step, or the first one where there are none.
    values    [B, T, C]  NaN where there is none. These three are less the centre.
    base      [B, T, C]  what a forecast is relative to, less the centre; zeros where that is the step before.
    missing   [B, T, C]  where a value was made up for one that was missing, and is no truth to learn.
    scale     [B, C]     the unit.
    centre    [B, C]     in 64 bits.
    angle     [B]        how far they were turned back, in 64 bits: 0 where values are no positions.
    contexts  [B]        steps of the context.
    """

    inputs: Float[Tensor, "B T E"]
    before: Float[Tensor, "B 2 C"]
    values: Float[Tensor, "B T C"]
    base: Float[Tensor, "B T C"]
    missing: Bool[Tensor, "B T C"]
    scale: Float[Tensor, "B C"]
    centre: Float[Tensor, "B C"]
    angle: Float[Tensor, "B"]
    contexts: Int[Tensor, "B"]

    @property
    def steps(self) -> int:
        """Steps without padding."""
        padding = self.values.shape[1] - int(self.contexts.max()) if len(self.contexts) else 0
        return int(self.contexts.sum()) + len(self.contexts) * padding

    def in_units(self, forecast: Float[Tensor, "_ H C"]) -> Floats:
        """What was forecast of each row, or several times of the only one, in the units of the data."""
        values = forecast.double()
        if self.angle.any():
            values = turn(values, self.angle)
        return np.asarray(values + self.centre[:, None])

    def turned_back(self, angle: Float[Tensor, "B"]) -> Self:
        """Positions in a plane, each window turned about its centre."""
        before, values, base = (turn(each, -angle.float()) for each in (self.before, self.values, self.base))
        return replace(self, angle=angle, before=before, values=values, base=base)

    def mirrored(self, rows: Bool[Tensor, "B"]) -> Self:
        """Some windows of positions with y negated."""
        sign = torch.ones(len(rows), 1, 2).masked_fill(rows[:, None, None], -1)
        sign[..., 0] = 1
        before, values, base = (each * sign for each in (self.before, self.values, self.base))
        return replace(self, before=before, values=values, base=base)


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
    """Mean and deviation of the training data, by part of the series, and of the changes of its values."""

    def __init__(self, parts: dict[str, Scaling]) -> None:
        self.parts = parts

    @classmethod
    def fit(cls, series: Sequence[Series]) -> Self:
        """Of all steps before the future; every series counts by its length."""
        found = {}
        for part in PARTS:
            rows = np.concatenate([_rows(one, part) for one in series])
            if not len(rows):  # as of the changes of series of one step
                rows = np.zeros((1, rows.shape[1]))
            found[part] = Scaling.of(rows, [f"{part} {k + 1}" for k in range(rows.shape[1])])
        return cls(found)

    def to_json(self) -> dict[str, Any]:
        """Everything that `from_json` needs."""
        return {name: scaling.to_json() for name, scaling in self.parts.items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """What `to_json` described; raises `RunError` where the description is damaged."""
        try:
            return cls({part: Scaling.from_json(data[part]) for part in PARTS})
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

    def batch(self, origins: Sequence[Origin], number: int = 0, shake: Shake | None = None) -> WindowBatch:
        """The windows of these origins; with `shake`, what is looked at is shaken in each."""
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
        before = self._known_at(np.maximum(first[:, None] - [2, 1], begin[:, None]), at)
        scale = self._scale(np.where(past, values, np.nan), before)
        whole = np.concatenate([before, values], 1)
        if shake is not None:
            shaken = whole + scale[:, None] * shake(*whole.shape[1:])
            whole = np.where(np.pad(past, ((0, 0), (2, 0), (0, 0)), constant_values=True), shaken, whole)
            before, values = whole[:, :2], whole[:, 2:]
        last, older, oldest = (whole[np.arange(len(whole)), contexts + k] for k in (1, 0, -1))
        centre = self._centre(np.where(past, values, np.nan))
        lagged = [self._lagged(lag, rows, at, begin) for lag in framing.lags]
        base = np.zeros_like(values)
        if framing.relative == "season":
            base = self._lagged(framing.season, rows, at, begin) - centre[:, None]
        elif framing.relative == "velocity":
            base = (last - centre)[:, None] + (rows - at[:, None] + 1)[..., None] * (last - older)[:, None]
        shown = [(each - centre[:, None]) / scale[:, None] for each in lagged]
        inputs = [*shown, self._known[inside], self._past_of(rows, at, begin)]
        own = np.log(scale / np.asarray(self.statistics.parts["values"].deviation))
        inputs.append(np.repeat(own[:, None], len(steps), 1))
        ahead = np.clip((rows - at[:, None] + 1) / framing.horizon, 0, 1)
        inputs.append(np.stack([rows >= at[:, None], ahead], -1))
        missing = self._missing[inside]
        if framing.positions:  # whose dimensions are mixed
            missing = np.broadcast_to(missing.any(-1, keepdims=True), missing.shape).copy()
        batch = WindowBatch(
            number=number,
            inputs=_tensor(np.concatenate(inputs, -1)),
            before=_tensor(before - centre[:, None]),
            values=_tensor(values - centre[:, None]),
            base=_tensor(base),
            missing=torch.from_numpy(missing),
            scale=_tensor(scale),
            centre=torch.from_numpy(centre),
            angle=torch.zeros(len(origins), dtype=torch.float64),
            contexts=torch.from_numpy(contexts),
        )
        if not framing.positions:
            return batch
        x, y = (last - oldest).T  # two steps tell a heading better than one, which may tremble
        return batch.turned_back(torch.from_numpy(np.arctan2(y, x)))

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
        parts, kind = self.statistics.parts, self.framing.scale
        deviation = np.asarray(parts["values"].deviation)
        found = np.repeat(deviation[None], len(seen), 0)
        if kind == "changes":
            found = np.repeat(np.asarray(parts["changes"].deviation)[None], len(seen), 0)
        elif kind != "global":
            size = np.nanmean(self._sizes(seen), 1)
            if kind == "deviation":
                found = np.sqrt(np.nanmean(self._sizes(seen - np.nanmean(seen, 1, keepdims=True)) ** 2, 1))
            elif kind == "step":
                steps = np.diff(np.concatenate([before[:, 1:], seen], 1), axis=1)
                found = np.nanmean(self._sizes(steps), 1)
            else:
                found = size
            # Where nothing changes, or there is one step alone, it cannot be known how much it could.
            found = np.where(found > TINY * size, found, LEAST * size)
            found[(~np.isnan(seen[..., 0])).sum(1) < 2] = deviation
        if self.framing.positions:
            found = np.broadcast_to(found.mean(1, keepdims=True), found.shape)
            found = np.maximum(found, LEAST * deviation.mean())
        return np.where(found > 0, found, deviation)

    def _sizes(self, values: Floats) -> Floats:
        """How large values are: each by itself, or of positions the root of the mean square of both."""
        if not self.framing.positions:
            return np.abs(values)
        return np.broadcast_to(np.sqrt(np.mean(values**2, -1, keepdims=True)), values.shape)


@dataclass(frozen=True)
class Shake:
    """Noise for windows, in their units, by chance.

    sizes   [B], the standard deviation in each window.
    random  draws it.
    """

    sizes: Floats
    random: np.random.Generator

    @classmethod
    def draw(cls, most: float, windows: int, random: np.random.Generator) -> Self:
        """Sizes from 0 to `most` in a part of the windows, and 0 in the others."""
        return cls(most * random.random(windows) * (random.random(windows) < SHAKEN), random)

    def __call__(self, steps: int, dimensions: int) -> Floats:
        """The noise of each window [B, steps, dimensions]."""
        return self.sizes[:, None, None] * self.random.standard_normal((len(self.sizes), steps, dimensions))


class WindowBatches:
    """Batches of `size` windows for training, in an order drawn from the seed and the epoch alone.

    Noise on what is looked at is drawn in the same way, and whether positions are mirrored. `noise` is its
    largest standard deviation, in units of the window.
    """

    def __init__(
        self, windows: Windows, origins: Sequence[Origin], size: int, seed: int, noise: float = 0.0
    ) -> None:
        self.windows, self.origins, self.size, self.seed = windows, origins, size, seed
        self.noise = noise
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
        random = np.random.default_rng([self.seed, epoch, number])
        shake = Shake.draw(self.noise, len(chosen), random) if self.noise else None
        batch = self.windows.batch([self.origins[k] for k in chosen], number, shake)
        if not self.windows.framing.positions:
            return batch
        return batch.mirrored(torch.from_numpy(random.random(len(chosen)) < 0.5))


def turn(positions: Float[Tensor, "B T 2"], angles: Float[Tensor, "B"]) -> Float[Tensor, "B T 2"]:
    """Positions in a plane, turned about 0 from x towards y."""
    cos, sin = angles.cos(), angles.sin()
    matrix = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    return positions @ matrix.mT


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


def _rows(one: Series, part: str) -> Floats:
    """The numbers of a part of a series that statistics are made of [N, C]."""
    if part == "static":
        return one.static[None]
    if part == "changes":
        return np.diff(one.values[: one.observed], axis=0)
    rows: Floats = getattr(one, part)[: one.observed]
    return rows


def _nearest(there: NDArray[np.bool_]) -> tuple[Indices, Indices]:
    """Of each number the place of the last and of the next one in its column that is there, or itself."""
    places = np.arange(len(there))[:, None]
    last = np.maximum.accumulate(np.where(there, places, 0), 0)
    following = np.minimum.accumulate(np.where(there, places, len(there))[::-1], 0)[::-1]
    return last, following


def _tensor(array: Floats) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
