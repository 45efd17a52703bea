"""What a calendar says of times: places in the day, the week, the year, and how steps go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from throughtime.errors import DataError

Cycle = Literal["hour", "weekday", "monthday", "yearday"]
#: From one time to the next: a whole number, or seconds, or months.
Step = np.int64 | np.timedelta64
DAY = np.timedelta64(86400, "s")


def calendar(times: NDArray[Any], cycles: Sequence[Cycle]) -> Float[NDArray[np.float64], "T F"]:
    """sin 2πp and cos 2πp for each cycle, p in [0, 1) the place in the day, the week, the month or the year.

    "hour" is the place in the day, to the second. Raises `DataError` for times that are no dates.
    """
    if cycles and times.dtype.kind != "M":
        raise DataError("a calendar knows dates, and the times of these series are numbers of steps")
    angles = np.stack([np.zeros(len(times)), *(2 * np.pi * _PLACES[each](times) for each in cycles)], 1)[
        :, 1:
    ]
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(len(times), -1)


def natural_cycles(step: Step | None) -> list[Cycle]:
    """The cycles that steps of this size have several places in."""
    if not isinstance(step, np.timedelta64):
        return []
    if in_months(step):
        return ["yearday"] if step < np.timedelta64(12, "M") else []
    limits = {"hour": DAY, "weekday": 7 * DAY, "monthday": 28 * DAY, "yearday": 365 * DAY}
    return [each for each in get_args(Cycle) if step < limits[each]]


def natural_season(step: Step | None) -> int:
    """The steps after which series usually repeat, the first of a day, a week, a year (52 weeks; 12 months)
    that is several whole steps; else 1.
    """
    if not isinstance(step, np.timedelta64):
        return 1
    for length in [np.timedelta64(12, "M")] if in_months(step) else [DAY, 7 * DAY, 364 * DAY]:
        if step < length and int(length / step) * step == length:
            return int(length / step)
    return 1


def in_months(step: Step | None) -> bool:
    """Whether a step is so many months, which are not all as long."""
    return isinstance(step, np.timedelta64) and np.datetime_data(step.dtype)[0] == "M"


def day_of_month(times: NDArray[Any]) -> int | None:
    """The day that all are of, at one time of day; None where there is none.

    Months that are too short have their last one; it is 31 where all are the last of their months.
    """
    months, days = times.astype("datetime64[M]"), times.astype("datetime64[D]")
    number, last = (days - months.astype("datetime64[D]")).astype(int) + 1, _lengths(months)
    day = 31 if (number == last).all() else int(number.max())
    same = (times - days == times[0] - days[0]).all() and (number == np.minimum(day, last)).all()
    return day if same else None


def moved(times: NDArray[Any], step: Step, numbers: NDArray[np.int64]) -> NDArray[Any]:
    """The times so many steps after the last or, below 0, before it; months keep to their day."""
    if not in_months(step):
        return np.asarray(times[-1] + step * numbers)
    months = times[-1].astype("datetime64[M]") + step * numbers
    day = day_of_month(times)
    assert day is not None
    days = months.astype("datetime64[D]") + np.minimum(day, _lengths(months)) - 1
    return np.asarray(days + (times[-1] - times[-1].astype("datetime64[D]")))


def _lengths(months: NDArray[Any]) -> NDArray[np.int64]:
    """The days of each month."""
    return np.asarray(((months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")).astype(int))


def _day(times: NDArray[Any]) -> NDArray[np.float64]:
    return (times - times.astype("datetime64[D]")) / DAY


def _week(times: NDArray[Any]) -> NDArray[np.float64]:
    days = (times.astype("datetime64[D]").astype(np.int64) + 3) % 7  # 1970 began on a Thursday
    return days / 7


def _month(times: NDArray[Any]) -> NDArray[np.float64]:
    return _share(times, "M")


def _year(times: NDArray[Any]) -> NDArray[np.float64]:
    return _share(times, "Y")


def _share(times: NDArray[Any], unit: str) -> NDArray[np.float64]:
    begin = times.astype(f"datetime64[{unit}]")
    first, last = (each.astype("datetime64[D]") for each in (begin, begin + 1))
    share: NDArray[np.float64] = (times.astype("datetime64[D]") - first) / (last - first)
    return share


_PLACES: dict[str, Callable[[NDArray[Any]], NDArray[np.float64]]] = {
    "hour": _day,
    "weekday": _week,
    "monthday": _month,
    "yearday": _year,
}
