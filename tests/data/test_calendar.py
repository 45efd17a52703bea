"""Places in the day, the week, the month and the year."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from throughtime.data.calendar import calendar, day_of_month, moved, natural_cycles, natural_season
from throughtime.errors import DataError


def test_the_places_of_a_known_moment():
    # 2024-02-29 was a Thursday, the 29th of 29 days and the 60th of 366.
    moment = np.array([np.datetime64("2024-02-29T06:00", "s")])
    expected = {"hour": 6 / 24, "weekday": 3 / 7, "monthday": 28 / 29, "yearday": 59 / 366}
    for cycle, place in expected.items():
        found = calendar(moment, [cycle])[0]
        assert found == pytest.approx([np.sin(2 * np.pi * place), np.cos(2 * np.pi * place)])
    assert calendar(moment, list(expected)).shape == (1, 8)
    assert calendar(moment, []).shape == (1, 0)


@pytest.mark.parametrize(
    ("step", "cycles", "season"),
    [
        (900, ["hour", "weekday", "monthday", "yearday"], 96),
        (3600, ["hour", "weekday", "monthday", "yearday"], 24),
        (86400, ["weekday", "monthday", "yearday"], 7),
        (7 * 86400, ["monthday", "yearday"], 52),
        (7 * 3600, ["hour", "weekday", "monthday", "yearday"], 24),
        (5 * 3600, ["hour", "weekday", "monthday", "yearday"], 1),
        (2 * 86400, ["weekday", "monthday", "yearday"], 182),
        (400 * 86400, [], 1),
    ],
)
def test_steps_repeat_after_the_first_cycle_that_they_divide(step, cycles, season):
    assert natural_cycles(np.timedelta64(step, "s")) == cycles
    assert natural_season(np.timedelta64(step, "s")) == season


@pytest.mark.parametrize(("months", "season"), [(1, 12), (3, 4), (12, 1), (5, 1), (24, 1)])
def test_months_repeat_after_a_year(months, season):
    step = np.timedelta64(months, "M")
    assert natural_season(step) == season
    assert natural_cycles(step) == (["yearday"] if months < 12 else [])


@pytest.mark.parametrize("step", [np.int64(1), np.int64(3600), None])
def test_numbers_of_steps_have_no_calendar(step):
    assert natural_season(step) == 1 and natural_cycles(step) == []
    with pytest.raises(DataError, match="knows dates"):
        calendar(np.arange(9), ["hour"])


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (("2024-01-31", "2024-02-29", "2023-02-28"), 31),
        (("2024-01-30", "2024-02-29"), 30),
        (("2024-01-15", "2024-03-15"), 15),
        (("2024-01-15", "2024-03-14"), None),
        (("2024-01-15T00:00:00", "2024-03-15T01:00:00"), None),
        (("2024-02-29",), 31),
    ],
)
def test_the_day_that_months_keep_to(days, expected):
    assert day_of_month(np.array(days, "M8[s]")) == expected


@given(st.integers(1, 31), st.integers(0, 86399), st.integers(-30, 30), st.integers(1, 13))
def test_months_that_go_on_keep_to_their_day(day, second, first, step):
    months = np.datetime64("2024-01", "M") + first + step * np.arange(26)
    last = ((months + 1).astype("M8[D]") - 1).astype("M8[D]")
    days = np.minimum(months.astype("M8[D]") + day - 1, last)
    times = days.astype("M8[s]") + np.timedelta64(second, "s")
    if day_of_month(times[:13]) == day:  # a month as long as that is among them
        found = moved(times[:13], np.timedelta64(step, "M"), np.arange(-12, 14))
        assert (found == times).all()
