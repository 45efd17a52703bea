"""Passages where a pattern of units is on."""

import pytest
import torch
from subjects import linear, subject_of
from test_neurons import capitals

from throughtime.errors import ConfigError
from throughtime.insight.states import Options, Passage, find_passages, look
from throughtime.insight.view import Subject


def test_runs_are_found_the_fullest_and_longest_first():
    level = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.8, 0.0, 1.0], dtype=torch.float64)
    whole = [slice(0, 7)]
    assert find_passages(level, 0.8, whole) == [Passage(1, 3, 1.0), Passage(6, 7, 1.0), Passage(4, 5, 0.8)]
    assert find_passages(torch.zeros(3), 0.5, [slice(0, 3)]) == []
    assert find_passages(torch.ones(3), 0.5, [slice(0, 3)]) == [Passage(0, 3, 1.0)]


def test_no_passage_goes_from_one_row_to_the_next():
    found = find_passages(torch.ones(5), 0.5, [slice(0, 3), slice(3, 5)])
    assert found == [Passage(0, 3, 1.0), Passage(3, 5, 1.0)]


def test_a_unit_that_is_on_at_capitals_finds_them():
    view = look(capitals(), Options(units=(1,), threshold=0.5))
    assert [row["passage"] for row in view.rows[:4]] == ["KING", "FOOL", "KING", "FOOL"]
    assert {row["passage"] for row in view.rows} == {"KING", "FOOL", "I", "N"}
    assert "1 units of inner.recurrence.0.h make the pattern: 1." in view.lines


def test_a_passage_finds_its_like():
    view = look(capitals(), Options(like="FOOL", threshold=0.5))
    assert view.details["units"] == [1]
    assert {"KING", "FOOL"} <= {row["passage"] for row in view.rows}
    first = view.rows[0]
    assert (first["start"], first["before"], first["after"][:5]) == (0, "", ":⏎It␣")


def test_words_are_found_by_their_text():
    subject = capitals("KIN git ism", 1)
    words = Subject(subject.model, subject.batch, [["The", "KING", "FOOL", "it", "is", *["so"] * 6]])
    view = look(words, Options(like="The KING FOOL", threshold=0.5))  # the first three letters of "KING"
    assert view.details["units"] == [1]
    with pytest.raises(ConfigError, match='"FOOL KING" does not stand in the text that was read'):
        look(words, Options(like="FOOL KING"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(), "give a passage, --like"),
        (Options(like="KING", units=(1,)), "give a passage, --like"),
        (Options(units=(9,)), "there is no unit 9: there are 3, numbered from 0"),
        (Options(units=(1,), state="x"), 'there is no state "x": there are inner.recurrence.0.h'),
        (Options(units=(1,), share=0.0), "--share must lie in 0 to 1, got 0"),
        (Options(like="so"), "no unit is above 0.3 all through"),
        (Options(like="nowhere"), '"nowhere" does not stand in the text'),
    ],
)
def test_what_cannot_be_found_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        look(capitals(), options)


def test_the_page_escapes_the_text():
    subject = capitals("<B> and & " * 20)
    assert "&lt;" in look(subject, Options(units=(1,), threshold=0.5)).pages["states"]


def test_nothing_found_is_said():
    view = look(subject_of(linear), Options(units=(0,), threshold=99.0))
    assert view.rows == []
    assert "0 passages of 12 tokens" in view.lines[1]
