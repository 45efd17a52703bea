"""Scaling: mean 0, deviation 1, and a clear error for what is no number."""

import numpy as np
import pytest

from throughtime.data.columns import Places, Table
from throughtime.data.scaling import Scaling, read_numbers
from throughtime.errors import DataError, RunError


def table(**values):
    count = len(next(iter(values.values())))
    return Table("data.csv", values, Places.counted("data.csv, line ", range(2, count + 2)))


def test_columns_are_brought_to_one_scale_and_a_constant_one_to_zero():
    given = table(a=["1", "2", "3"], b=[5.0, 5.0, 5.0])
    scaling = Scaling.fit(given, ["a", "b"])
    scaled = scaling.encode(read_numbers(given, ["a", "b"]))
    assert np.allclose(scaled, [[-1.2247449, 0], [0, 0], [1.2247449, 0]])
    again = Scaling.from_json(scaling.to_json())
    assert np.array_equal(again.encode(read_numbers(given, ["a", "b"])), scaled)


def test_a_column_may_hold_lists_of_numbers():
    given = table(a=[1.0, 3.0], v=[[0.0, 5], [2.0, 5]])
    assert read_numbers(given, ["v", "a"]).tolist() == [[0, 5, 1], [2, 5, 3]]
    scaling = Scaling.fit(given, ["v", "a"])
    assert scaling.encode(read_numbers(given, ["v", "a"])).tolist() == [[-1, 0, -1], [1, 0, 1]]
    with pytest.raises(DataError, match=r"line 3: 1 numbers where data.csv, line 2 has 2"):
        read_numbers(table(v=[[0.0, 5], [2.0]]), ["v"])
    with pytest.raises(DataError, match="2 numbers in a row, and the model reads 3"):
        scaling.encode(np.zeros((1, 2)))


def test_a_constant_that_rounding_leaves_a_deviation_is_constant():
    scaling = Scaling.fit(table(a=[0.1] * 25), ["a"])
    assert scaling.encode(np.array([[0.1], [0.2]])) == pytest.approx(np.array([[0.0], [0.1]]), abs=1e-6)


@pytest.mark.parametrize("value", ["", "n/a", None, "nan", "inf"])
def test_what_is_no_finite_number_is_named_with_its_row(value):
    with pytest.raises(DataError, match=r"data.csv, line 3: a is .*no finite number"):
        read_numbers(table(a=["1", value]), ["a"])


def test_a_damaged_description_is_named():
    with pytest.raises(RunError, match="damaged"):
        Scaling.from_json({})
