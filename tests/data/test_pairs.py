"""Pairs: from parallel files and from tables, with what is empty left out and what does not fit refused."""

import gzip
import logging
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from throughtime.data.pairs import read_pairs
from throughtime.errors import DataError

sides = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\r\ufeff"), max_size=9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("pairs")


def saved(folder: Path, text: str, name: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def refusal(paths, input=None, target=None) -> str:
    with pytest.raises(DataError) as caught:
        read_pairs(paths, input, target)
    return str(caught.value)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(sides, sides), max_size=6))
@example([("a\u2028b", "c\x85d")])
def test_line_by_line_one_file_is_the_target_of_the_other(folder, lines):
    lines = [("first", "second"), *lines]
    first, second = (
        saved(folder, "".join(f"{line[k]}\n" for line in lines), name)
        for k, name in enumerate(("a.en", "a.de.gz"))
    )
    pairs = read_pairs([first, second])
    full = [k for k, (a, b) in enumerate(lines) if a.strip() and b.strip()]
    assert pairs.sources == [lines[k][0].strip() for k in full]
    assert pairs.targets == [lines[k][1].strip() for k in full]
    assert [pairs.places[k] for k in range(len(pairs))] == [
        f"{first} and {second}, line {k + 1}" for k in full
    ]


def test_two_columns_of_tables_are_pairs(tmp_path):
    first = saved(tmp_path, "Go.\tVa !\tby me\nRun!\tCours\u202f!\tby me\n", "fra.txt")
    second = saved(tmp_path, "Hi.\tSalut !\tby me\n", "more.tsv")
    pairs = read_pairs([first, second], "2", "1")
    assert pairs.sources == ["Va !", "Cours\u202f!", "Salut !"]
    assert pairs.targets == ["Go.", "Run!", "Hi."]
    assert [pairs.places[k] for k in range(3)] == [
        f"{first}, line 1",
        f"{first}, line 2",
        f"{second}, line 1",
    ]


def test_numbers_are_written_as_texts(tmp_path):
    path = saved(tmp_path, '{"a": 12, "b": " twelve\\n"}\n{"a": 0.5, "b": "half"}', "a.jsonl")
    assert read_pairs([path], "a", "b").sources == ["12", "0.5"]
    assert read_pairs([str(path)], "a", "b").targets == ["twelve", "half"]


@pytest.mark.parametrize("value", ['["a"]', "true", '{"b": 1}'])
def test_a_value_that_is_no_text_is_refused(tmp_path, value):
    path = saved(tmp_path, '{"a": "x", "b": "y"}\n{"a": "x", "b": %s}' % value, "a.jsonl")  # noqa: UP031
    assert 'a.jsonl, line 2: "b" is ' in (message := refusal([path], "a", "b"))
    assert "give a text" in message


def test_pairs_with_an_empty_side_are_left_out_and_counted_once(tmp_path, caplog):
    lines = ['{"a": "1", "b": "2"}', '{"a": "3"}', '{"a": " ", "b": "4"}', '{"a": "5", "b": "6"}']
    path = saved(tmp_path, "\n".join(lines), "a.jsonl")
    with caplog.at_level(logging.WARNING):
        pairs = read_pairs([path], "a", "b")
    assert (pairs.sources, pairs.targets) == (["1", "5"], ["2", "6"])
    assert pairs.places[1] == f"{path}, line 4"
    (record,) = caplog.records
    assert f"2 of 4 pairs have an empty side and are left out, the first of them {path}, line 2" in (
        record.getMessage()
    )


def test_nothing_is_said_where_every_pair_is_full(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        read_pairs([saved(tmp_path, "a\nb\n", "a"), saved(tmp_path, "c\nd", "b")])
    assert not caplog.records


def test_no_full_pair_is_refused(tmp_path):
    paths = [saved(tmp_path, "a\n\n", "a"), saved(tmp_path, "\nb\n", "b")]
    assert "none of the 2 pairs has a text on both sides" in refusal(paths)


def test_parallel_files_of_different_lengths_are_refused(tmp_path):
    first, second = saved(tmp_path, "a\nb\nc\n", "a.en"), saved(tmp_path, "d\nlast one\n", "a.de")
    for paths, counts in (
        ([first, second], f"{first} has 3 lines and {second} has 2"),
        ([second, first], f"{second} has 2 lines and {first} has 3"),
    ):
        message = refusal(paths)
        assert counts in message
        assert f'the last line of {second} is "last one"' in message
    empty = saved(tmp_path, "", "b.de")
    assert f"{empty} is empty" in refusal([first, empty])


def test_files_and_columns_that_do_not_go_together_are_refused(tmp_path):
    path = saved(tmp_path, "a,b\n1,2\n", "a.csv")
    assert "1 files and no columns: give two parallel files" in refusal([path])
    assert "input is a, and the other column has no name" in refusal([path], input="a")
    assert "target is b, and the other column has no name" in refusal([path], target="b")
    assert 'no column "c": there are "a", "b"' in refusal([path], "a", "c")


def test_the_digest_is_that_of_the_pairs(tmp_path):
    table = read_pairs([saved(tmp_path, "a,b\n1,2\n3,4\n", "a.csv")], "a", "b")
    lines = read_pairs([saved(tmp_path, "1\n3\n", "a"), saved(tmp_path, "2\n4\n", "b.gz")])
    assert table.digest == lines.digest
    saved(tmp_path, "a,b\n1,2\n3,5\n", "b.csv")
    others = [
        read_pairs([tmp_path / "b.csv"], "a", "b"),
        table.select([0]),
        table.select([1, 0]),
        read_pairs([tmp_path / "a.csv"], "b", "a"),
    ]
    assert len({table.digest, *(other.digest for other in others)}) == 5


def test_pairs_are_selected_with_their_places(tmp_path):
    path = saved(tmp_path, "a,b\n1,2\n3,4\n5,6\n", "a.csv")
    pairs = read_pairs([path], "a", "b").select([2, 0])
    assert (pairs.sources, pairs.targets) == (["5", "1"], ["6", "2"])
    assert [pairs.places[k] for k in range(len(pairs))] == [f"{path}, line 4", f"{path}, line 2"]
