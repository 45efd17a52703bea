"""Series: numbers at even distances in time, one or many of them, with what goes beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from throughtime.data.calendar import Step, moved
from throughtime.errors import DataError

Floats = NDArray[np.float64]
#: The step of times that count.
ONE = np.int64(1)


@dataclass(frozen=True, eq=False)
class Series:
    """T steps of one series. The last may be of the future: their targets are NaN, and only `known` is not.

    times    [T] of datetime64[s], or whole numbers.
    values   [T, C], the targets.
    known    [T, K].
    past     [T, P].
    static   [S].
    place    where it came from.
    step     from each time to the next: a whole number, seconds or months; None where nothing tells.
    counted  whether the times were not given, and count the steps from 0.
    made_up  [T, C], whether a target was missing and something stands for it; nowhere if not given.
    """

    name: str
    times: NDArray[Any]
    values: Floats
    known: Floats
    past: Floats
    static: Floats
    place: str = ""
    step: Step | None = ONE
    counted: bool = False
    made_up: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((), np.bool_))

    def __post_init__(self) -> None:
        object.__setattr__(self, "made_up", np.broadcast_to(self.made_up, self.values.shape))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def observed(self) -> int:
        """How many steps there are before the future: to the last with a target."""
        some = np.flatnonzero(~np.isnan(self.values).all(1))
        return int(some[-1]) + 1 if len(some) else 0

    def cut(self, start: int, stop: int) -> Series:
        """The steps from `start` to before `stop`."""
        parts = ("times", "values", "known", "past", "made_up")
        return replace(self, **{part: getattr(self, part)[start:stop] for part in parts})

    def next_times(self, count: int) -> NDArray[Any]:
        """The times of so many steps after the last; raises `DataError` where the step is not known."""
        if self.step is None:
            raise DataError(
                f"{self.place}: {self.name or 'the series'} is of one row, as are all, which does not say "
                "when the next is: give two or more"
            )
        return moved(self.times, self.step, np.arange(1, count + 1))

    def longer(self, count: int) -> Series:
        """The series with so many steps of the future behind it, of which nothing is known."""
        if not count:
            return self
        parts: dict[str, Any] = {
            part: np.pad(getattr(self, part), ((0, count), (0, 0)), constant_values=value)
            for part, value in {"values": np.nan, "known": np.nan, "past": np.nan, "made_up": False}.items()
        }
        return replace(self, times=np.concatenate([self.times, self.next_times(count)]), **parts)


@dataclass(frozen=True, eq=False)
class Part:
    """Series, and from which step on each is to be forecast; what comes before is there to be looked at."""

    series: list[Series]
    starts: list[int]

    def __len__(self) -> int:
        return len(self.series)

    def select(self, rows: Sequence[int]) -> Part:
        """These series, in this order."""
        return Part([self.series[row] for row in rows], [self.starts[row] for row in rows])

    @property
    def digest(self) -> str:
        """The same for the same names, times and numbers only."""
        sha = hashlib.sha256()
        for one, start in zip(self.series, self.starts, strict=True):
            sha.update(
                json.dumps(
                    [one.name, start, str(one.times[:1]), str(one.step), list(one.values.shape)]
                ).encode()
            )
            for numbers in (one.times, one.values, one.known, one.past, one.static, one.made_up):
                sha.update(np.ascontiguousarray(numbers).tobytes())
        return sha.hexdigest()


def split_time(series: Sequence[Series], share: float, steps: int | None = None) -> tuple[Part, Part]:
    """The beginnings of all series, and the series with the rest to be forecast: the last `share` of their
    observed steps, or the last so many `steps`. Raises `DataError` where a beginning would be empty.
    """
    cuts = [
        one.observed - (max(round(share * one.observed), 1) if steps is None else steps) for one in series
    ]
    for one, cut in zip(series, cuts, strict=True):
        if cut < 1:
            raise DataError(
                f"{one.place}: {one.name or 'the series'} has {one.observed} steps, too few to keep the "
                f"last {one.observed - cut} apart: give fewer, or split by series"
            )
    begun = [one.cut(0, cut) for one, cut in zip(series, cuts, strict=True)]
    whole = [one.cut(0, one.observed) for one in series]
    return Part(begun, [0] * len(begun)), Part(whole, cuts)


def joined(before: Sequence[Series], after: Sequence[Series]) -> Part:
    """The series `before`, each gone on with in `after` by the one of its name, which is to be forecast.

    Times that were not given begin again at 0 in `after`. Raises `DataError` where a series has no beginning,
    where its times are not those of the next steps, and where the beginnings are repeated.
    """
    known: dict[str, Series] = {}
    for one in before:
        if known.setdefault(one.name, one) is not one:
            raise DataError(f'{one.place}: there are two series "{one.name}", and either could go on')
    found, starts, repeats = [], [], []
    for rest in after:
        if rest.name not in known:
            raise DataError(f'{rest.place}: there is no series "{rest.name}" that it could go on with')
        begin = known[rest.name]
        begin = begin.cut(0, begin.observed)
        times = _times_behind(begin, rest)
        parts = ("values", "known", "past", "made_up")
        both: dict[str, Any] = {p: np.concatenate([getattr(begin, p), getattr(rest, p)]) for p in parts}
        found.append(replace(begin, times=np.concatenate([begin.times, times]), **both))
        starts.append(len(begin))
        repeats.append(rest.counted and np.array_equal(rest.values[: len(begin)], begin.values))
    # One constant or short series may well go on as it began: all of them do not.
    if repeats and all(repeats) and any(np.ptp(one.values, 0).any() for one in before):
        raise DataError(
            f"{after[0].place}: the series here begin with the values that they are to go on from: give only "
            "the steps that come after those"
        )
    return Part(found, starts)


def _times_behind(begin: Series, rest: Series) -> NDArray[Any]:
    """The times of `rest`, which must be those of the next steps."""
    name = rest.name or "the series"
    if not len(begin):
        raise DataError(f"{begin.place}: {name} has no values that {rest.place} could go on from")
    due = begin.next_times(len(rest))
    expected = np.arange(len(rest)) if begin.counted and rest.counted else due
    if expected.dtype.kind != rest.times.dtype.kind:
        raise DataError(f"{rest.place}: {name} should go on at {due[0]}, and begins at {rest.times[0]}")
    for k in np.flatnonzero(rest.times != expected)[:1]:
        if not rest.counted and rest.times[0] <= begin.times[-1]:
            raise DataError(
                f"{rest.place}: {name} begins at {rest.times[0]}, and what it goes on from ends at "
                f"{begin.times[-1]}: give only the steps after that"
            )
        what = "begins" if k == 0 else "goes on"
        raise DataError(f"{rest.place}: {name} should go on at {expected[k]}, and {what} at {rest.times[k]}")
    return due
