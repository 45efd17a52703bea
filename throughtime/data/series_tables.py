"""Series read from tables: a row for each step, a column for each series, or a row for each."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from throughtime.data.columns import Table
from throughtime.data.series import Floats, Series
from throughtime.data.series_times import EMPTY, Grid, Indices, grids_of, read_times
from throughtime.errors import DataError

logger = logging.getLogger(__name__)

#: What is done with a number that is missing.
Missing = Literal["refuse", "interpolate", "previous", "zero"]


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


class Raw(NamedTuple):
    """A series with numbers missing, and of each step the row of the table that it, or the next, is of."""

    series: Series
    rows: Indices


def read_long(table: Table, roles: Roles, missing: Missing = "refuse") -> list[Series]:
    """The series of a table with a row for each step of each.

    The step is the most frequent distance of times, in all series together; months are of one length. Rows of
    a series are put in the order of time, which a warning says where they were not. Steps that are missing
    between others are filled in as steps without numbers. A series begins with its first step that has all
    targets, and is left out where there is none; a warning says how often. `missing` says what becomes of
    numbers that are missing from there to the last: "refuse" raises `DataError`, "interpolate" draws a line
    between those before and after, "previous" repeats the one before, and "zero" is 0.

    Raises `DataError`, with file and row, for what is no number, an infinite one, two rows of one time, times
    at uneven distances or far from all others, and static numbers that are missing or change.
    """
    times = None if roles.time is None else read_times(table, roles.time)
    numbers = {part: _columns(table, getattr(roles, part)) for part in ("targets", "known", "past", "static")}
    grids = grids_of(table, _groups(table, roles.series), times)
    found = []
    for name, grid in grids.items():
        _check_static(table, name, roles.static, numbers["static"], grid.rows)
        found.append(_raw(table, name, grid, numbers, counted=times is None))
    return _filled(table, found, missing)


def read_wide(table: Table, time: str | None, missing: Missing = "refuse") -> list[Series]:
    """The series of a table with a column for each: all columns but that of the time."""
    columns = [name for name in table.columns if name != time]
    if not columns:
        raise DataError(f"{table.source} has no column but that of the time: give one for each series")
    times = None if time is None else read_times(table, time)
    [grid] = grids_of(table, {"": list(range(len(table)))}, times).values()
    none = np.zeros((len(table), 0))
    others = {"known": none, "past": none, "static": none}
    found = [
        _raw(table, name, grid, {"targets": _columns(table, [name]), **others}, counted=times is None)
        for name in columns
    ]
    return _filled(table, found, missing)


def read_rows(table: Table, missing: Missing = "refuse") -> list[Series]:
    """The series of a table with a row for each: its name, and its numbers in order, nothing behind them."""
    title, *columns = table.columns
    if not columns:
        raise DataError(f"{table.source} has no column but that of the names: give numbers behind them")
    numbers = _columns(table, columns)
    found = []
    for name, rows in _groups(table, title).items():
        if len(rows) > 1:
            raise DataError(
                f'{table.place(rows[1])}: {title} is "{name}", as on {table.place(rows[0])}: give each '
                "series a name of its own"
            )
        [row] = rows
        length = int(np.flatnonzero(~np.isnan(numbers[row]))[-1:].sum()) + 1
        values, nothing = numbers[row, :length, None], np.zeros((length, 0))
        place = table.place(row)
        one = Series(name, np.arange(length), values, nothing, nothing, np.zeros(0), place, counted=True)
        found.append(Raw(one, np.full(length, row)))
    return _filled(table, found, missing)


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


def _columns(table: Table, names: Sequence[str]) -> Floats:
    """The numbers of some columns, a row for each row."""
    return np.array([read_cells(table, name) for name in names]).reshape(len(names), len(table)).T


def _groups(table: Table, column: str | None) -> dict[str, list[int]]:
    """The rows of each series."""
    if column is None:
        return {"": list(range(len(table)))}
    groups: dict[str, list[int]] = {}
    for row, cell in enumerate(table.column(column)):
        if cell is None or cell != cell or not str(cell).strip():
            raise DataError(f"{table.place(row)}: {column} is empty: it says which series the row is of")
        groups.setdefault(str(cell), []).append(row)
    return groups


def _check_static(table: Table, name: str, columns: Sequence[str], numbers: Floats, rows: Indices) -> None:
    """Raise `DataError` where a static number of a series is missing or changes."""
    for column, values in zip(columns, numbers[rows].T, strict=True):
        for k in np.flatnonzero(np.isnan(values))[:1]:
            raise DataError(
                f"{table.place(int(rows[k]))}: {column} is empty: a static column has a number in all rows"
            )
        for k in np.flatnonzero(values != values[0])[:1]:
            raise DataError(
                f"{table.place(int(rows[k]))}: {column} of {name or 'the series'} is {values[k]:g}, "
                f"and {values[0]:g} before: a static column is the same in all rows of a series"
            )


def _raw(table: Table, name: str, grid: Grid, numbers: Mapping[str, Floats], counted: bool) -> Raw:
    """A series with NaN in the steps that have no row."""
    total = len(grid.times)

    def spread(values: Floats) -> Floats:
        whole = np.full((total, values.shape[1]), np.nan)
        whole[grid.at] = values[grid.rows]
        return whole

    series = Series(
        name,
        grid.times,
        spread(numbers["targets"]),
        spread(numbers["known"]),
        spread(numbers["past"]),
        numbers["static"][grid.rows[0]],
        table.place(int(grid.rows[0])),
        step=grid.step,
        counted=counted,
    )
    return Raw(series, grid.rows[np.searchsorted(grid.at, np.arange(total))])


def _filled(table: Table, found: Sequence[Raw], missing: Missing) -> list[Series]:
    """The series from their first step with all targets, without numbers missing before the last."""
    whole = [~np.isnan(raw.series.values).any(1) for raw in found]
    empty = [raw.series for raw, there in zip(found, whole, strict=True) if not there.any()]
    if len(empty) == len(found):
        raise DataError(f"{table.source}: no series has a step with all targets: give numbers to forecast")
    if empty:
        logger.warning(
            "%s: %d of %d series have no step with all targets and are left out, the first is %s (%s)",
            table.source,
            len(empty),
            len(found),
            empty[0].name,
            empty[0].place,
        )
    begins = [int(there.argmax()) for there in whole]
    if any(begins):
        logger.warning(
            "%s: %d steps before the first with all targets are left out, of %d series",
            table.source,
            sum(begins),
            np.count_nonzero(begins),
        )
    return [
        _filled_one(table, Raw(raw.series.cut(begin, len(raw.series)), raw.rows[begin:]), missing)
        for raw, there, begin in zip(found, whole, begins, strict=True)
        if there.any()
    ]


def _filled_one(table: Table, raw: Raw, missing: Missing) -> Series:
    series = raw.series
    end = series.observed
    parts = {"values": end, "past": end, "known": len(series)}
    filled = {}
    for part, stop in parts.items():
        numbers = getattr(series, part).copy()
        gone = np.isnan(numbers[:stop])
        if gone.any() and missing == "refuse":
            step = int(np.flatnonzero(gone.any(1))[0])
            raise DataError(
                f"{table.place(int(raw.rows[step]))}: {int(gone.sum())} numbers are missing in "
                f"{series.name or 'the series'}, the first at {series.times[step]}: "
                "give them, or train with --missing interpolate, previous or zero"
            )
        for column in numbers[:stop].T:
            _fill(column, missing)
        filled[part] = numbers
    made_up = np.isnan(series.values) & ~np.isnan(filled["values"]) & (missing != "zero")
    return replace(series, made_up=made_up, place=table.place(int(raw.rows[0])), **filled)


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
