"""Series read from tables of every shape, and what is said of those that are none."""

from dataclasses import replace

import numpy as np
import pytest

from throughtime.data.series import Part, Series, joined, split_time
from throughtime.data.series_tables import (
    Roles,
    read_long,
    read_rows,
    read_wide,
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
    assert len(found) == 30 and str(found.times[-1]) == "2001-06-01T00:00:00"
    assert found.step == np.timedelta64(1, "M")


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
    with pytest.raises(
        DataError, match=r"2 numbers are missing .* first at 2024-02-28T22:00:00: .* train with --m"
    ):
        read_long(table(tmp_path, text), roles)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("t,v\n1,1\n2,x\n", r"data\.csv, line 3: v is 'x', which is no number"),
        ("t,v\n1,1\n2,inf\n", r"line 3: v is 'inf': give finite numbers"),
        ("t,v\n1,1\n2,2\n2,3\n", r"line 4: .* has a row of 2 already"),
        ("t,v\n1,1\n3,2\n5,3\n6,4\n", r"line 5: the series goes from 5 to 6, no whole number of steps of 2"),
        ("t,v\n2020-01-01,1\nyesterday,2\n", r'line 3: t is "yesterday": give whole numbers, or dates'),
    ],
)
def test_what_is_no_series_is_named_with_its_line(tmp_path, text, said):
    with pytest.raises(DataError, match=said):
        read_long(table(tmp_path, text), Roles(("v",), "t"))


def test_what_does_not_change_may_not_change(tmp_path):
    with pytest.raises(DataError, match=r"line 3: k of a is 2, and 1 before: a static column"):
        read_long(table(tmp_path, "s,v,k\na,1,1\na,2,2\n"), Roles(("v",), None, "s", static=("k",)))


@pytest.mark.parametrize("cells", [("", ""), ("1", "")])
def test_what_does_not_change_may_not_be_missing(tmp_path, cells):
    text = f"s,v,k\nb,1,1\na,1,{cells[0]}\na,2,{cells[1]}\n"
    line = 3 if cells[0] == "" else 4
    with pytest.raises(DataError, match=rf"line {line}: k is empty: a static column has a number"):
        read_long(table(tmp_path, text), Roles(("v",), None, "s", static=("k",)))


# What is made up


@pytest.mark.parametrize("missing", ["interpolate", "previous"])
def test_what_is_made_up_is_marked_and_stays_so(tmp_path, missing):
    text = hours(8, gone=(2,)).replace(",4\n", ",\n").replace(",7\n", ",\n")
    [found] = read_long(table(tmp_path, text), Roles(("value",), "time"), missing)
    made_up = [False, False, True, False, True, False, False, False]
    assert found.made_up[:, 0].tolist() == made_up and found.observed == 7
    assert found.cut(1, 5).made_up[:, 0].tolist() == made_up[1:5]
    assert found.cut(0, 7).longer(2).made_up[:, 0].tolist() == [*made_up[:7], False, False]
    [whole] = joined([found.cut(0, 4)], [found.cut(4, 7)]).series
    assert whole.made_up[:, 0].tolist() == made_up[:7]


def test_a_zero_for_what_is_missing_is_no_guess(tmp_path):
    [found] = read_long(table(tmp_path, hours(8, gone=(2,))), Roles(("value",), "time"), "zero")
    assert found.values[2] == 0 and not found.made_up.any()


def test_an_end_that_is_ragged_is_made_up(tmp_path):
    text = "a,b\n1,1\n2,2\n3,\n4,\n"
    roles = Roles(("a", "b"))
    [found] = read_long(table(tmp_path, text), roles, "previous")
    assert found.values[:, 1].tolist() == [1, 2, 2, 2] and found.observed == 4
    assert found.made_up.tolist() == [[False, False], [False, False], [False, True], [False, True]]
    with pytest.raises(DataError, match=r"line 4: 2 numbers are missing"):
        read_long(table(tmp_path, text), roles)


@pytest.mark.parametrize("missing", ["refuse", "interpolate", "zero"])
def test_a_series_begins_with_all_targets(tmp_path, caplog, missing):
    text = "t,s,a,b\n1,x,,1\n2,x,2,\n3,x,3,3\n4,x,4,4\n2,y,1,1\n"
    one, other = read_long(table(tmp_path, text), Roles(("a", "b"), "t", "s"), missing)
    assert one.times.tolist() == [3, 4] and one.values.tolist() == [[3, 3], [4, 4]]
    assert not one.made_up.any() and one.place.endswith("line 4") and len(other) == 1
    assert "2 steps before the first with all targets are left out, of 1 series" in caplog.text


def test_series_without_numbers_are_left_out(tmp_path, caplog):
    [found] = read_wide(table(tmp_path, "a,b\n1,\n2,\n"), None)
    assert found.name == "a"
    assert "1 of 2 series have no step with all targets and are left out, the first is b" in caplog.text
    with pytest.raises(DataError, match="no series has a step with all targets"):
        read_rows(table(tmp_path, "id,V1\na,\nb,\n"))


# Times


def long(folder, rows, missing="refuse"):
    return read_long(table(folder, "t,s,v\n" + "\n".join(rows) + "\n"), Roles(("v",), "t", "s"), missing)


def test_all_series_of_a_table_have_one_step(tmp_path, caplog):
    rows = [f"{2 * k},a,{k}" for k in range(4)] + ["0,b,1", "4,b,2", "7,c,1"]
    found = long(tmp_path, rows, "interpolate")
    assert [one.step for one in found] == [2, 2, 2]
    assert found[1].values[:, 0].tolist() == [1, 1.5, 2]
    assert found[2].next_times(2).tolist() == [9, 11]
    with pytest.raises(DataError, match=r"line 7: b goes from 0 to 3, no whole number of steps of 2"):
        long(tmp_path, [*rows[:5], "3,b,2"])


def test_the_step_is_the_most_frequent_and_the_least_of_those(tmp_path):
    times = [0, 1, 2, 4, 6, 9]  # 1 and 2 twice; the median is 2
    [found] = long(tmp_path, [f"{time},a,1" for time in times], "zero")
    assert found.step == 1 and len(found) == 10


def test_one_row_alone_has_no_next_time(tmp_path):
    [found] = long(tmp_path, ["2024-01-01,a,1"])
    assert found.step is None
    with pytest.raises(DataError, match=r"line 2: a is of one row, .* give two or more"):
        found.next_times(1)


@pytest.mark.parametrize(
    ("dates", "following"),
    [
        (("2024-01-31", "2024-02-29", "2024-03-31"), "2024-04-30T00:00:00"),
        (("2024-01-30 06:00", "2024-02-29 06:00", "2024-03-30 06:00"), "2024-04-30T06:00:00"),
        (("2024-10-15", "2024-11-15", "2024-12-15"), "2025-01-15T00:00:00"),
        (("2023-06-30", "2023-09-30", "2023-12-31"), "2024-03-31T00:00:00"),
    ],
)
def test_months_keep_to_their_day(tmp_path, dates, following):
    [found] = long(tmp_path, [f"{date},a,1" for date in dates])
    assert len(found) == 3 and [str(time)[:10] for time in found.times] == [date[:10] for date in dates]
    assert str(found.next_times(1)[0]) == following


def test_times_with_an_offset_are_those_of_utc(tmp_path, caplog):
    [found] = long(tmp_path, ["2024-03-31T01:00+01:00,a,1", "2024-03-31T03:00+02:00,a,2"])
    assert found.times.astype(str).tolist() == ["2024-03-31T00:00:00", "2024-03-31T01:00:00"]
    assert caplog.text.count("the times of t are taken in UTC") == 1


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (("2024-01-01", ""), "line 3: t is empty"),
        (("1", ""), "line 3: t is empty"),
        (("2024-01-01", "NaT"), "line 3: t is empty"),
        (("2024-01-01", "today"), 'line 3: t is "today": give whole numbers, or dates'),
        (("now", "now"), 'line 2: t is "now": give whole numbers, or dates'),
        (("2024-01-01 00:00:00.25", "2024-01-02"), 'line 2: t is ".*25": give times to the second'),
        (("2024-01-01", "2024-01-01T00:00:01.0000000001"), "line 3: .* without parts of one"),
        (("2024-01-01T00Z", "2024-01-02"), "line 3: .*: some times say how far they are from UTC"),
        (("1", "2024-01-01"), 'line 3: t is "2024-01-01" after whole numbers'),
        (("1", "1e300"), 'line 3: t is "1e300" after whole numbers'),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_time_is_named_with_its_line(tmp_path, cells, said):
    with pytest.raises(DataError, match=said):
        long(tmp_path, [f"{cell},a,1" for cell in cells])


def test_a_time_far_from_all_others_is_named(tmp_path):
    with pytest.raises(
        DataError, match=rf"line 5: a goes from 2 to {10**12}, 999999999998 steps of 1, for 4"
    ):
        long(tmp_path, [f"{time},a,1" for time in (0, 1, 2, 10**12)])


def test_the_line_at_fault_is_named(tmp_path):
    with pytest.raises(DataError, match=r"line 5: 1 numbers are missing in b, the first at 1: .* train with"):
        long(tmp_path, ["0,a,1", "0,b,1", "2,b,1", "1,b,", "1,a,1"])


# Names, and tables that are none


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (
            lambda t: read_long(t, Roles(("v",), None, "s")),
            "s,v\na,1\n,2\n",
            "line 3: s is empty: it says whi",
        ),
        (read_rows, "id,V1\na,1\nb,2\na,3\n", r'line 4: id is "a", as on .*line 2'),
        (read_rows, "id,V1\n,1\n", "line 2: id is empty"),
        (read_rows, "id\na\n", "has no column but that of the names"),
        (lambda t: read_wide(t, "day"), "day\n1\n", "has no column but that of the time"),
    ],
)
def test_tables_without_names_or_numbers_are_refused(tmp_path, read, text, said):
    with pytest.raises(DataError, match=said):
        read(table(tmp_path, text))


def test_wide_tables_have_their_times_read_once(tmp_path, caplog):
    read_wide(table(tmp_path, "day,a,b\n2,1,4\n1,2,5\n"), "day")
    assert caplog.text.count("are sorted") == 1


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
    with pytest.raises(DataError, match="should go on at 2024-02-29T08:00:00, and begins at"):
        joined([begin], [rest.cut(1, 8)])
    uneven = replace(rest, times=np.concatenate([rest.times[:1], rest.times[1:] + np.timedelta64(1, "h")]))
    with pytest.raises(DataError, match="go on at 2024-02-29T09:00:00, and goes on at 2024-02-29T10:00:00"):
        joined([begin], [uneven])
    with pytest.raises(DataError, match="should go on at 2024-02-29T08:00:00, and begins at 0"):
        joined([begin], [replace(rest, times=np.arange(8), step=1)])
    with pytest.raises(
        DataError, match=r"begins at 2024-02-28T20:00:00, and .* ends at .*: give only the st"
    ):
        joined([begin], [whole])
    with pytest.raises(DataError, match=r"has no values that .* could go on from"):
        joined([replace(begin, values=begin.values * np.nan)], [rest])


def test_only_times_that_were_not_given_begin_anew(tmp_path):
    begin = read_rows(table(tmp_path, "id,a,b,c\nx,1,2,3\ny,5,5,\n", "one.csv"))
    rest = read_rows(table(tmp_path, "id,a,b\nx,4,5\ny,5,5\n", "two.csv"))
    part = joined(begin, rest)
    assert [one.times.tolist() for one in part.series] == [[0, 1, 2, 3, 4], [0, 1, 2, 3]]
    whole = read_rows(table(tmp_path, "id,a,b,c,d\nx,1,2,3,4\ny,5,5,5,\n", "three.csv"))
    with pytest.raises(
        DataError, match=r"three\.csv, line 2: the series here begin with the values that they"
    ):
        joined(begin, whole)
    given = [replace(one, counted=False) for one in (begin[0], rest[0])]
    with pytest.raises(DataError, match="begins at 0, and what it goes on from ends at 2"):
        joined(given[:1], given[1:])


def test_the_digest_is_that_of_names_times_and_numbers(tmp_path):
    [one] = two(tmp_path)
    same = Part([replace(one, place="elsewhere")], [0])
    assert Part([one], [0]).digest == same.digest
    others = [
        Part([one], [1]),
        Part([replace(one, name="b")], [0]),
        Part([replace(one, values=one.values + 1e-9)], [0]),
        Part([replace(one, made_up=one.values == 3)], [0]),
        Part([replace(one, step=np.timedelta64(2, "h"))], [0]),
        Part([replace(one, times=one.times + np.timedelta64(1, "s"))], [0]),
        Part([one, one], [0, 0]),
    ]
    assert len({part.digest for part in [same, *others]}) == 8


def test_times_go_on_by_the_step():
    nothing = np.zeros((2, 0))
    one = Series("", np.array([3, 5]), np.ones((2, 1)), nothing, nothing, np.zeros(0), step=np.int64(2))
    assert one.next_times(3).tolist() == [7, 9, 11] and one.cut(0, 1).next_times(1).tolist() == [5]
    longer = one.longer(2)
    assert longer.times.tolist() == [3, 5, 7, 9] and longer.observed == 2 and longer.known.shape == (4, 0)
    dates = replace(one, times=np.array(["2024-11-01", "2024-12-01"], "M8[s]"), step=np.timedelta64(1, "M"))
    assert dates.next_times(2).astype("M8[D]").astype(str).tolist() == ["2025-01-01", "2025-02-01"]
