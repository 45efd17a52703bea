"""When the rows of a table are: times read, and the even steps that series stand on."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from throughtime.data.calendar import Step, day_of_month, moved
from throughtime.data.columns import Table
from throughtime.errors import DataError

logger = logging.getLogger(__name__)

Indices = NDArray[np.int64]
#: Cells of a table that hold no number.
EMPTY = {"", "na", "n/a", "nan", "null", "none"}
#: A month without a day, and a time with parts of a second.
MONTH, PART_OF_SECOND = re.compile(r"\d{4}-\d\d"), re.compile(r"[.,]0*[1-9]")
#: A series has at most so many steps for each row, or so many in all: more are a mistake in a time.
STEPS_PER_ROW, STEPS_AT_LEAST = 100, 10_000


class Grid(NamedTuple):
    """Where the n rows of a series stand among its T steps.

    rows   [n] of the table, in the order of time.
    at     [n], the step that each is.
    times  [T].
    step   from each time to the next.
    """

    rows: Indices
    at: Indices
    times: NDArray[Any]
    step: Step | None


def read_times(table: Table, name: str) -> NDArray[Any]:
    """The times of a column: whole numbers where all are numbers, else dates, months and times of day in
    ISO 8601, to the second.

    Times with an offset from UTC become those of UTC, which a warning says. Raises `DataError`, with file and
    row, for an empty cell, what is neither, parts of a second, and times of which only some have an offset.
    """
    cells = ["" if cell is None else str(cell).strip() for cell in table.column(name)]
    for row, cell in enumerate(cells):
        if cell.lower() in EMPTY | {"nat"}:
            raise DataError(f"{table.place(row)}: {name} is empty: each row needs its time")
    if _whole(cells[0]) is None:
        return _dates(table, name, cells)
    numbers = [_whole(cell) for cell in cells]
    for row, number in enumerate(numbers):
        if number is None:
            raise DataError(
                f'{table.place(row)}: {name} is "{cells[row]}" after whole numbers: give those in all rows, '
                "or dates in all"
            )
    return np.array(numbers, np.int64)


def _whole(cell: str) -> int | None:
    """The whole number that a cell is, if it is one that 64 bits hold exactly."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else None


def _dates(table: Table, name: str, cells: Sequence[str]) -> NDArray[Any]:
    times = np.empty(len(cells), "datetime64[s]")
    zoned = 0
    for row, cell in enumerate(cells):
        said = f'{table.place(row)}: {name} is "{cell}": '
        try:
            given = datetime.fromisoformat(f"{cell}-01" if MONTH.fullmatch(cell) else cell)
            time = given if given.tzinfo is None else given.astimezone(UTC).replace(tzinfo=None)
        except (ValueError, OverflowError):
            raise DataError(f"{said}give whole numbers, or dates as 2016-07-01 13:00") from None
        if PART_OF_SECOND.search(cell):
            raise DataError(f"{said}give times to the second, without parts of one")
        zoned += given.tzinfo is not None
        if zoned not in (0, row + 1):
            raise DataError(
                f"{said}some times say how far they are from UTC and some do not: give it for all or none"
            )
        times[row] = np.datetime64(time, "s")
    if zoned:
        logger.warning("%s: the times of %s are taken in UTC", table.source, name)
    return times


def grids_of(table: Table, groups: Mapping[str, list[int]], times: NDArray[Any] | None) -> dict[str, Grid]:
    """The steps of all series, which are as long in each."""
    if times is None:
        counts = {name: np.arange(len(rows)) for name, rows in groups.items()}
        return {
            name: Grid(np.array(rows), counts[name], counts[name], np.int64(1))
            for name, rows in groups.items()
        }
    orders = {}
    for name, group in groups.items():
        rows = np.array(group)
        sort = np.argsort(times[rows], kind="stable")
        if (np.diff(sort) < 0).any():
            logger.warning("%s: rows are not in the order of time and are sorted", _of(table, name))
        orders[name] = rows[sort]
        for k in np.flatnonzero(np.diff(times[rows[sort]]).astype(np.int64) == 0)[:1] + 1:
            row = int(rows[sort][k])
            raise DataError(
                f"{table.place(row)}: {name or 'the series'} has a row of {times[row]} already: "
                "give one for each time"
            )
    unit, numbers = _units(times, list(orders.values()))
    gaps = np.concatenate([np.diff(numbers[rows]) for rows in orders.values()])
    if not len(gaps):
        return {name: Grid(rows, np.zeros(1, np.int64), times[rows], None) for name, rows in orders.items()}
    sizes, counts_of = np.unique(gaps, return_counts=True)
    size = int(sizes[counts_of.argmax()])  # the least of the most frequent
    return {name: _grid(table, name, rows, times, numbers, size, unit) for name, rows in orders.items()}


def _units(times: NDArray[Any], orders: Sequence[Indices]) -> tuple[Any, Indices]:
    """What times are counted in, and the times in it: months where all series keep to a day of these."""
    if times.dtype.kind != "M":
        return np.int64(1), times
    if all(day_of_month(times[rows]) is not None for rows in orders):
        return np.timedelta64(1, "M"), times.astype("datetime64[M]").astype(np.int64)
    return np.timedelta64(1, "s"), times.astype(np.int64)


def _grid(
    table: Table, name: str, rows: Indices, times: NDArray[Any], numbers: Indices, size: int, unit: Any
) -> Grid:
    """All steps of a series from the first to the last."""
    step, gaps = size * unit, np.diff(numbers[rows])
    at = np.concatenate([[0], np.cumsum(gaps // size)])
    total = int(at[-1]) + 1

    def say(k: int, what: str) -> DataError:
        before, after = times[rows[k]], times[rows[k + 1]]
        place = table.place(int(rows[k + 1]))
        return DataError(f"{place}: {name or 'the series'} goes from {before} to {after}, {what}")

    for k in np.flatnonzero(gaps % size)[:1]:
        raise say(k, f"no whole number of steps of {step}, as most are in this table: give even distances")
    if total > max(STEPS_PER_ROW * len(rows), STEPS_AT_LEAST):
        k = int(gaps.argmax())
        raise say(k, f"{gaps[k] // size} steps of {step}, for {len(rows)} rows in all: is the time right?")
    if total > len(rows):
        logger.warning("%s: %d steps are missing between others", _of(table, name), total - len(rows))
    return Grid(rows, at, moved(times[rows], step, np.arange(1 - total, 1)), step)


def _of(table: Table, name: str) -> str:
    return f"{table.source}, series {name}" if name else table.source
