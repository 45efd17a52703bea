"""Places in the day, the week, the month and the year."""

import numpy as np
import pytest

from throughtime.data.calendar import calendar, natural_cycles, natural_season
from throughtime.errors import DataError


def times(first, step, count=30):
    return np.datetime64(first, "s") + np.timedelta64(step, "s") * np.arange(count)


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
    ],
)
def test_steps_repeat_after_what_is_longer(step, cycles, season):
    assert natural_cycles(times("2020-01-01", step)) == cycles
    assert natural_season(times("2020-01-01", step)) == season


@pytest.mark.parametrize(("months", "season"), [(1, 12), (3, 4), (12, 1), (5, 1)])
def test_months_repeat_after_a_year(months, season):
    steps = np.datetime64("2020-01", "M") + np.timedelta64(months, "M") * np.arange(30)
    assert natural_season(steps) == season
    assert natural_cycles(steps) == (["yearday"] if months < 12 else [])


def test_numbers_of_steps_have_no_calendar():
    assert natural_season(np.arange(9)) == 1 and natural_cycles(np.arange(9)) == []
    with pytest.raises(DataError, match="knows dates"):
        calendar(np.arange(9), ["hour"])
