"""Series: numbers at even distances in time, one or many of them, with what goes beside them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from throughtime.data.columns import Table
from throughtime.errors import DataError

logger = logging.getLogger(__name__)

#: What is done with a number that is missing.
Missing = Literal["refuse", "interpolate", "previous", "zero"]
Floats = NDArray[np.float64]
#: Cells of a table that hold no number.
EMPTY = {"", "na", "n/a", "nan", "null", "none"}


@dataclass(frozen=True)
class Roles:
    """Which columns of a table are what.

    targets  the numbers to forecast: a point of so many dimensions.
    time     when: numbers of steps, or dates and times of day as ISO 8601. Without it rows follow each other.
    series   whose they are; one series without it.
    known    numbers that are known before they happen, as a price or a holiday.
    past     numbers that are known once they have happened.
    static   numbers of the series that do not change.
    """

    targets: tuple[str, ...]
    time: str | None = None
    series: str | None = None
    known: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    static: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All of them."""
        named = [name for name in (self.time, self.series) if name is not None]
        return (*named, *self.targets, *self.known, *self.past, *self.static)


@dataclass(frozen=True, eq=False)
class Series:
    """T steps of one series. The last may be of the future: their targets are NaN, and only `known` is not.

    times   [T] of datetime64[s], or whole numbers.
    values  [T, C], the targets.
    known   [T, K].
    past    [T, P].
    static  [S].
    place   where it came from.
    """

    name: str
    times: NDArray[Any]
    values: Floats
    known: Floats
    past: Floats
    static: Floats
    place: str = ""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def observed(self) -> int:
        """How many steps there are before the future."""
        some = np.flatnonzero(~np.isnan(self.values).all(1))
        return int(some[-1]) + 1 if len(some) else 0

    def cut(self, start: int, stop: int) -> Series:
        """The steps from `start` to before `stop`."""
        part = slice(start, stop)
        return replace(
            self,
            times=self.times[part],
            values=self.values[part],
            known=self.known[part],
            past=self.past[part],
        )


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
            sha.update(json.dumps([one.name, start, str(one.times[:1]), list(one.values.shape)]).encode())
            for numbers in (one.times, one.values, one.known, one.past, one.static):
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

    Raises `DataError` where one has no beginning, or begins at another time than the next step.
    """
    known: dict[str, Series] = {}
    for one in before:
        if known.setdefault(one.name, one) is not one:
            raise DataError(f'{one.place}: there are two series "{one.name}", and either could go on')
    found, starts = [], []
    for rest in after:
        if rest.name not in known:
            raise DataError(f'{rest.place}: there is no series "{rest.name}" that it could go on with')
        begin = known[rest.name]
        begin = begin.cut(0, begin.observed)
        due = next_times(begin.times, 1)[0]
        counted_anew = rest.times.dtype.kind != "M" and rest.times[0] == 0
        if rest.times[0] != due and not counted_anew:
            raise DataError(
                f"{rest.place}: {rest.name or 'the series'} should go on at {due}, "
                f"and begins at {rest.times[0]}"
            )
        parts = ("values", "known", "past")
        both: dict[str, Any] = {p: np.concatenate([getattr(begin, p), getattr(rest, p)]) for p in parts}
        times = np.concatenate([begin.times, next_times(begin.times, len(rest))])
        found.append(replace(begin, times=times, **both))
        starts.append(len(begin))
    return Part(found, starts)


def next_times(times: NDArray[Any], count: int) -> NDArray[Any]:
    """The times of so many steps after the last; a series of one step is taken to have steps of 1."""
    step = times[-1] - times[-2] if len(times) > 1 else np.ones(1, times.dtype.str.replace("M8", "m8"))[0]
    following: NDArray[Any] = times[-1] + step * np.arange(1, count + 1)
    return following


def read_long(table: Table, roles: Roles, missing: Missing = "refuse") -> list[Series]:
    """The series of a table with a row for each step of each.

    Rows of a series are put in the order of time, which a warning says where they were not. Steps that are
    missing between others are filled in as steps without numbers. `missing` says what becomes of numbers that
    are missing before the last one: "refuse" raises `DataError`, "interpolate" draws a line between those
    before and after, "previous" repeats the one before, and "zero" is 0.

    Raises `DataError`, with file and row, for what is no number, an infinite one, two rows of one time, and
    times at uneven distances.
    """
    names = [""] * len(table) if roles.series is None else [str(v) for v in table.column(roles.series)]
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        groups.setdefault(name, []).append(row)
    times = None if roles.time is None else read_times(table, roles.time)
    numbers = {
        part: np.stack(
            [np.zeros(len(table)), *(read_cells(table, name) for name in getattr(roles, part))], 1
        )[:, 1:]
        for part in ("targets", "known", "past", "static")
    }
    series = []
    for name, rows in groups.items():
        order = np.array(rows)
        if times is not None:
            sort = np.argsort(times[order], kind="stable")
            if (np.diff(sort) < 0).any():
                logger.warning("%s: rows are not in the order of time and are sorted", _of(table, name))
            order = order[sort]
        series.append(_even(table, name, order, times, numbers))
    return [_filled(one, roles, missing) for one in series]


def read_cells(table: Table, name: str) -> Floats:
    """The numbers of a column, NaN where a cell is empty; raises `DataError` for what is no number."""
    values = np.empty(len(table))
    for row, cell in enumerate(table.column(name)):
        try:
            values[row] = np.nan if cell is None or str(cell).strip().lower() in EMPTY else float(cell)
        except (TypeError, ValueError):
            raise DataError(f"{table.place(row)}: {name} is {cell!r}, which is no number") from None
        if np.isinf(values[row]):
            raise DataError(f"{table.place(row)}: {name} is {cell!r}: give finite numbers")
    return values


def read_times(table: Table, name: str) -> NDArray[Any]:
    """The times of a column: whole numbers where all are numbers, else dates."""
    cells = [str(cell).strip() for cell in table.column(name)]
    try:
        numbers = np.array([float(cell) for cell in cells])
        if (numbers == np.round(numbers)).all():
            return numbers.astype(np.int64)
    except ValueError:
        pass
    times = np.empty(len(cells), "datetime64[s]")
    for row, cell in enumerate(cells):
        try:
            times[row] = np.datetime64(cell.replace(" ", "T"), "s")
        except ValueError:
            raise DataError(
                f'{table.place(row)}: {name} is "{cell}": give whole numbers, or dates as 2016-07-01 13:00'
            ) from None
    return times


def read_wide(table: Table, time: str | None, missing: Missing = "refuse") -> list[Series]:
    """The series of a table with a column for each: all columns but that of the time."""
    columns = [name for name in table.columns if name != time]
    found = []
    for name in columns:
        part = Table(
            table.source, {n: table.column(n) for n in {name, *([time] if time else [])}}, table.places
        )
        [one] = read_long(part, Roles((name,), time), missing)
        found.append(replace(one, name=name))
    return found


def read_rows(table: Table, missing: Missing = "refuse") -> list[Series]:
    """The series of a table with a row for each: its name, and its numbers in order, nothing behind them."""
    name, *columns = table.columns
    numbers = np.stack([read_cells(table, column) for column in columns], 1)
    found = []
    for row, title in enumerate(table.column(name)):
        length = int(np.flatnonzero(~np.isnan(numbers[row]))[-1:].sum()) + 1
        values = numbers[row, :length, None]
        nothing = np.zeros((length, 0))
        one = Series(str(title), np.arange(length), values, nothing, nothing, np.zeros(0), table.place(row))
        found.append(_filled(one, Roles((name,)), missing))
    return found


def _even(
    table: Table, name: str, rows: NDArray[np.int64], times: NDArray[Any] | None, numbers: dict[str, Floats]
) -> Series:
    """The series of these rows, which are in order, with all steps from the first to the last."""
    at = np.arange(len(rows)) if times is None else _units(times[rows])
    gaps = np.diff(at).astype(np.int64)
    step = int(np.median(gaps)) if len(gaps) else 1
    for k in np.flatnonzero(gaps == 0)[:1] + 1:
        raise DataError(
            f"{table.place(int(rows[k]))}: {_of(table, name)} has a row of {at[k]} already: "
            "give one for each time"
        )
    for k in np.flatnonzero(gaps % step)[:1] + 1:
        raise DataError(
            f"{table.place(int(rows[k]))}: from {at[k - 1]} to {at[k]} is no whole number of steps of "
            f"{step}, as most others are: give even distances"
        )
    places = np.concatenate([[0], np.cumsum(gaps // step)])
    total = int(places[-1]) + 1
    if total > len(rows):
        logger.warning("%s: %d steps are missing between others", _of(table, name), total - len(rows))

    def spread(values: Floats) -> Floats:
        whole = np.full((total, values.shape[1]), np.nan)
        whole[places] = values[rows]
        return whole

    static = numbers["static"][rows]
    if len(static) and (static != static[:1]).any():
        raise DataError(f"{_of(table, name)}: a static column changes from row to row: it is the same in all")
    return Series(
        name,
        at[0] + np.arange(total) * step,
        spread(numbers["targets"]),
        spread(numbers["known"]),
        spread(numbers["past"]),
        static[0] if len(static) else np.zeros(0),
        table.place(int(rows[0])),
    )


def _units(times: NDArray[Any]) -> NDArray[Any]:
    """Dates in months where all are of the same day of a month, which have no even distances in seconds."""
    if times.dtype.kind != "M" or len(times) < 2:
        return times
    months = times.astype("datetime64[M]")
    rest = times - months
    return months if (rest == rest[0]).all() else times


def _filled(series: Series, roles: Roles, missing: Missing) -> Series:
    """The series without numbers that are missing before its last one."""
    end = series.observed
    parts = {"values": end, "past": end, "known": len(series)}
    filled = {}
    for part, stop in parts.items():
        numbers = getattr(series, part).copy()
        gone = np.isnan(numbers[:stop])
        if gone.any() and missing == "refuse":
            step = int(np.flatnonzero(gone.any(1))[0])
            raise DataError(
                f"{series.place}: {int(gone.sum())} numbers are missing in "
                f"{series.name or 'the series'}, the first at {series.times[step]}: "
                "give --missing interpolate, previous or zero"
            )
        for column in numbers[:stop].T:
            _fill(column, missing)
        filled[part] = numbers
    return replace(series, **filled)


def _fill(column: Floats, missing: Missing) -> None:
    """Put numbers in place of NaN; before the first number there is that."""
    gone = np.isnan(column)
    if not gone.any():
        return
    there = np.flatnonzero(~gone)
    if missing == "zero" or not len(there):
        column[gone] = 0
    elif missing == "interpolate":
        column[gone] = np.interp(np.flatnonzero(gone), there, column[there])
    else:
        last = np.maximum.accumulate(np.where(gone, -1, np.arange(len(column))))
        column[gone] = column[np.where(last < 0, there[0], last)[gone]]


def _of(table: Table, name: str) -> str:
    return f"{table.source}, series {name}" if name else table.source
