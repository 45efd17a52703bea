"""Series read from tables of every shape, and what is said of those that are none."""

from dataclasses import replace

import numpy as np
import pytest

from throughtime.data.series import (
    Part,
    Roles,
    joined,
    next_times,
    read_long,
    read_rows,
    read_wide,
    split_time,
)
from throughtime.data.tables import read_table
from throughtime.errors import DataError


def table(folder, text, name="data.csv"):
    path = folder / name
    path.write_text(text)
    return read_table(path)


def hours(count, gone=()):
    start = np.datetime64("2024-02-28T20:00:00")
    rows = [
        f"{str(start + np.timedelta64(k, 'h')).replace('T', ' ')},{k}" for k in range(count) if k not in gone
    ]
    return "time,value\n" + "\n".join(rows) + "\n"


def test_one_series_with_dates(tmp_path):
    [found] = read_long(table(tmp_path, hours(30)), Roles(("value",), "time"))
    assert len(found) == found.observed == 30 and found.values[:, 0].tolist() == list(range(30))
    assert str(found.times[5]) == "2024-02-29T01:00:00"
    part = found.cut(4, 7)
    assert part.values[:, 0].tolist() == [4, 5, 6] and part.times[0] == found.times[4]


def test_many_series_with_what_goes_beside_them(tmp_path):
    rows = ["shop,day,sold,price,rain,size"]
    for shop, size in (("b", 3), ("a", 5)):
        for day in range(4):
            sold, rain = (str(day + size), str(day)) if day < 3 else ("", "")
            rows.append(f"{shop},{day},{sold},{10 + day},{rain},{size}")
    roles = Roles(("sold",), "day", "shop", known=("price",), past=("rain",), static=("size",))
    one, two = read_long(table(tmp_path, "\n".join(rows)), roles)
    assert (one.name, two.name) == ("b", "a") and one.static.tolist() == [3] and two.static.tolist() == [5]
    # The last step is of the future.
    assert len(one) == 4 and one.observed == 3
    assert one.known[:, 0].tolist() == [10, 11, 12, 13] and np.isnan(one.past[3, 0])


def test_a_point_of_two_dimensions(tmp_path):
    text = "frame,who,x,y\n0,1,0.5,1\n10,1,0.6,2\n10,2,5,5\n20,1,0.7,3\n20,2,6,6\n"
    one, two = read_long(table(tmp_path, text), Roles(("x", "y"), "frame", "who"))
    assert one.values.tolist() == [[0.5, 1], [0.6, 2], [0.7, 3]] and one.times.tolist() == [0, 10, 20]
    assert two.times.tolist() == [10, 20]


def test_wide_tables_have_a_column_for_each(tmp_path):
    text = "day,a,b\n1,1,4\n2,2,5\n3,3,6\n"
    one, two = read_wide(table(tmp_path, text), "day")
    assert (one.name, two.name) == ("a", "b")
    assert two.values[:, 0].tolist() == [4, 5, 6] and two.times.tolist() == [1, 2, 3]


def test_rows_may_be_series_of_different_lengths(tmp_path):
    one, two = read_rows(table(tmp_path, "id,V1,V2,V3\nH1,1,2,3\nH2,4,5,\n"))
    assert (one.name, two.name) == ("H1", "H2")
    assert one.values[:, 0].tolist() == [1, 2, 3] and two.values[:, 0].tolist() == [4, 5]


def test_months_are_even_steps(tmp_path):
    text = "month,value\n" + "\n".join(f"{1999 + k // 12}-{k % 12 + 1:02d},{k}" for k in range(30))
    [found] = read_long(table(tmp_path, text), Roles(("value",), "month"))
    assert len(found) == 30 and str(found.times[-1]) == "2001-06"


def test_rows_out_of_order_are_sorted_and_that_is_said(tmp_path, caplog):
    lines = hours(6).splitlines()
    [found] = read_long(
        table(tmp_path, "\n".join([lines[0], *reversed(lines[1:])])), Roles(("value",), "time")
    )
    assert found.values[:, 0].tolist() == list(range(6))
    assert "not in the order of time and are sorted" in caplog.text


@pytest.mark.parametrize(
    ("missing", "expected"),
    [("interpolate", [0, 1, 2, 3, 4, 5]), ("previous", [0, 1, 1, 1, 4, 5]), ("zero", [0, 1, 0, 0, 4, 5])],
)
def test_steps_and_numbers_that_are_missing_are_filled_as_asked(tmp_path, caplog, missing, expected):
    text = hours(6, gone=(2,)).replace(",3\n", ",\n")
    roles = Roles(("value",), "time")
    [found] = read_long(table(tmp_path, text), roles, missing)
    assert found.values[:, 0].tolist() == expected
    assert "1 steps are missing between others" in caplog.text
    with pytest.raises(DataError, match=r"2 numbers are missing .* first at 2024-02-28T22:00:00: give --m"):
        read_long(table(tmp_path, text), roles)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("t,v\n1,1\n2,x\n", r"data\.csv, line 3: v is 'x', which is no number"),
        ("t,v\n1,1\n2,inf\n", r"line 3: v is 'inf': give finite numbers"),
        ("t,v\n1,1\n2,2\n2,3\n", r"line 4: .* has a row of 2 already"),
        ("t,v\n1,1\n3,2\n5,3\n6,4\n", r"line 5: from 5 to 6 is no whole number of steps of 2"),
        ("t,v\n2020-01-01,1\nyesterday,2\n", r'line 3: t is "yesterday": give whole numbers, or dates'),
    ],
)
def test_what_is_no_series_is_named_with_its_line(tmp_path, text, said):
    with pytest.raises(DataError, match=said):
        read_long(table(tmp_path, text), Roles(("v",), "t"))


def test_what_does_not_change_may_not_change(tmp_path):
    with pytest.raises(DataError, match="series a: a static column changes"):
        read_long(table(tmp_path, "s,v,k\na,1,1\na,2,2\n"), Roles(("v",), None, "s", static=("k",)))


def two(tmp_path, more=""):
    return read_long(table(tmp_path, hours(20) + more), Roles(("value",), "time"))


def test_the_end_of_each_series_is_kept_apart_and_its_past_stays_visible(tmp_path):
    begun, kept = split_time(two(tmp_path), 0.25)
    assert (len(begun.series[0]), begun.starts) == (15, [0])
    assert (len(kept.series[0]), kept.starts) == (20, [15])
    assert split_time(two(tmp_path), 0.25, steps=3)[1].starts == [17]
    with pytest.raises(DataError, match="has 20 steps, too few to keep the last 20 apart"):
        split_time(two(tmp_path), 0.25, steps=20)


def test_a_series_goes_on_in_another_file_at_the_next_step(tmp_path):
    [whole] = two(tmp_path)
    begin, rest = whole.cut(0, 12), whole.cut(12, 20)
    part = joined([begin], [rest])
    assert part.starts == [12] and part.digest == Part([whole], [12]).digest
    counted = replace(rest, times=np.arange(8))
    with pytest.raises(DataError, match="should go on at 2024-02-29T08:00:00, and begins at"):
        joined([begin], [rest.cut(1, 8)])
    numbered = replace(begin, times=np.arange(12))
    assert joined([numbered], [counted]).series[0].times.tolist() == list(range(20))


def test_the_digest_is_that_of_names_times_and_numbers(tmp_path):
    [one] = two(tmp_path)
    same = Part([replace(one, place="elsewhere")], [0])
    assert Part([one], [0]).digest == same.digest
    others = [
        Part([one], [1]),
        Part([replace(one, name="b")], [0]),
        Part([replace(one, values=one.values + 1e-9)], [0]),
        Part([replace(one, times=one.times + np.timedelta64(1, "s"))], [0]),
        Part([one, one], [0, 0]),
    ]
    assert len({part.digest for part in [same, *others]}) == 6


def test_times_go_on_by_the_last_step():
    assert next_times(np.array([3, 5]), 3).tolist() == [7, 9, 11]
    months = np.array(["2024-11", "2024-12"], "datetime64[M]")
    assert next_times(months, 2).astype(str).tolist() == ["2025-01", "2025-02"]
    assert next_times(np.array([4]), 2).tolist() == [5, 6]
    assert next_times(months[:1], 1).astype(str).tolist() == ["2024-12"]
