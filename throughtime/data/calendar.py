"""What a calendar says of times: places in the day, the week, the year, as points of a circle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from throughtime.errors import DataError

Cycle = Literal["hour", "weekday", "monthday", "yearday"]
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


def natural_cycles(times: NDArray[Any]) -> list[Cycle]:
    """The cycles that steps of this size have several places in."""
    if times.dtype.kind != "M" or len(times) < 2:
        return []
    if times.dtype == np.dtype("datetime64[M]"):
        return ["yearday"] if times[1] - times[0] < np.timedelta64(12, "M") else []
    step = times[1] - times[0]
    limits = {"hour": DAY, "weekday": 7 * DAY, "monthday": 28 * DAY, "yearday": 365 * DAY}
    return [each for each in get_args(Cycle) if step < limits[each]]


def natural_season(times: NDArray[Any]) -> int:
    """The steps after which series of such times usually repeat: a day, a week of days, a year; else 1."""
    if times.dtype.kind != "M" or len(times) < 2:
        return 1
    step = times[1] - times[0]
    if times.dtype == np.dtype("datetime64[M]"):
        months = int(step.astype(np.int64))
        return 12 // months if 12 % months == 0 else 1
    for cycle, length in ((DAY, DAY), (7 * DAY, 7 * DAY), (365 * DAY, 364 * DAY)):
        if step < cycle:
            return round(length / step)
    return 1


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
