import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throughtime.data.columns import Places, Table
from throughtime.data.labelled import rarest, read_labels, read_texts, table_of
from throughtime.errors import DataError


def table(**values):
    rows = range(2, 2 + len(next(iter(values.values()))))
    return Table("data.csv", values, Places.counted("data.csv, line ", rows))


def test_a_row_has_one_label_whatever_it_is_made_of():
    assert read_labels(table(label=["a;b", " c ", 3, False]), "label") == [["a;b"], ["c"], ["3"], ["False"]]


@pytest.mark.parametrize("empty", ["", "  ", None])
def test_a_row_without_a_label_is_named(empty):
    with pytest.raises(DataError, match=r"data\.csv, line 3: label is empty: give each row a class"):
        read_labels(table(label=["a", empty, "b"]), "label")


def test_with_a_separator_a_row_has_any_number_of_labels():
    values = ["a;b", "", None, " a ;; c d; ", ";"]
    assert read_labels(table(label=values), "label", ";") == [["a", "b"], [], [], ["a", "c d"], []]


@given(st.lists(st.lists(st.text("abc", min_size=1), max_size=4), min_size=1))
def test_labels_that_were_joined_are_read(rows):
    assert read_labels(table(label=["||".join(row) for row in rows]), "label", "||") == rows


def test_the_rarest_label_of_a_row_is_that_of_the_fewest_rows():
    rows = [["a", "b"], ["a", "a", "c"], ["a", "a"], [], ["c", "b"], ["a", "d", "e"]]
    assert rarest(rows) == ["b", "c", "a", None, "b", "d"]
    assert rarest([["x"], ["y"], ["x"]]) == ["x", "y", "x"]


def test_texts_of_several_columns_stand_beside_each_other_in_the_order_asked_for():
    two = table(title=["On", None, "3"], body=["and off", "x", 4.5])
    assert read_texts(two, ["body", "title"]) == ["and off On", "x ", "4.5 3"]
    assert read_texts(two, ["body"]) == ["and off", "x", "4.5"]


def test_a_column_that_is_not_there_is_named_with_those_that_are():
    for read in (lambda t: read_labels(t, "lable"), lambda t: read_texts(t, ["lable"])):
        with pytest.raises(DataError, match='no column "lable", did you mean "label"'):
            read(table(label=["a"]))


def test_inputs_of_every_form_are_rows_of_the_same_table():
    rows = [{"a": 1, "b": "x"}, {"b": "y", "a": None, "more": 0}]
    found = table_of([rows[0], json.dumps(rows[1])], ["b", "a"])
    assert found.values == {"b": ["x", "y"], "a": [1, None]}
    assert found.place(1) == f"input {json.dumps(rows[1])!r}"


def test_of_a_single_column_a_text_is_itself_even_where_it_looks_like_an_object():
    texts = ["plain", "", '{"text": "no"}', "1"]
    assert table_of([*texts, {"text": "yes"}], ["text"]).column("text") == [*texts, "yes"]


def test_numbers_come_as_objects_only():
    assert table_of(['{"a": 1e3}', {"a": "2"}], ["a"], numbers=True).column("a") == [1000.0, "2"]


@pytest.mark.parametrize(
    "given", ["1.5", "[1, 2]", "a=1", '{"a": 1}', {"b": 1}, {}, '{"a": 1, "b": ', None, 7]
)
def test_what_is_no_row_is_named_with_an_example_of_one(given):
    with pytest.raises(DataError) as caught:
        table_of([{"a": 0, "b": 0}, given], ["a", "b"], numbers=True)
    assert f"input {given!r} has not the columns a, b" in str(caught.value)
    assert json.loads(str(caught.value).partition("give ")[2]) == {"a": 0.5, "b": 0.5}


def test_the_example_of_texts_is_of_texts():
    with pytest.raises(DataError, match=r'give \{"a": "text", "b": "text"\}$'):
        table_of(["some text"], ["a", "b"])
    with pytest.raises(DataError, match=r'give \{"a": "text"\}$'):
        table_of([{"b": "some text"}], ["a"])


def test_no_inputs_are_a_table_without_rows():
    assert len(table_of([], ["a"])) == 0
