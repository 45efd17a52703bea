"""Word vectors: each format gives the numbers that were written, for the wanted words and no others."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.data.vectors import read_vectors
from throughtime.errors import DataError

#: Words as the files have them: white space of other kinds than the space and the line end is part of one.
word = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n\ufeff "), min_size=1, max_size=5
)
numbers = st.floats(-10, 10, width=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("vectors")


def saved(folder: Path, text: str, name: str = "vectors.txt") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def refusal(path, wanted=("a",)) -> str:
    with pytest.raises(DataError) as caught:
        read_vectors(path, wanted)
    return str(caught.value)


@st.composite
def tables(draw):
    dimensions = draw(st.integers(2, 5))
    vector = st.lists(numbers, min_size=dimensions, max_size=dimensions)
    return draw(st.dictionaries(word, vector, min_size=1, max_size=6)), draw(st.data())


@settings(max_examples=80, deadline=None)
@given(tables(), st.sampled_from(["glove", "word2vec", "fastText"]))
def test_the_vectors_of_wanted_words_are_those_that_were_written(folder, drawn, form):
    table, data = drawn
    end = " \n" if form == "fastText" else "\n"
    header = "" if form == "glove" else f"{len(table)} {len(next(iter(table.values())))}\n"
    lines = [" ".join([key, *map(repr, vector)]) + end for key, vector in table.items()]
    path = saved(folder, header + "".join(lines), "vectors.vec")
    wanted = data.draw(st.lists(st.sampled_from(list(table)), min_size=1, unique=True))
    vectors = read_vectors(path, [*wanted, "not there"], lowercase_fallback=False)
    assert set(vectors.words) == set(wanted)
    assert vectors.matrix.dtype == np.float32
    assert vectors.matrix.shape == (len(wanted), vectors.dimensions)
    for key in wanted:
        np.testing.assert_array_equal(vectors.matrix[vectors.words[key]], np.float32(table[key]))
    assert vectors.coverage == len(wanted) / (len(wanted) + 1)


def test_words_may_hold_spaces(tmp_path):
    path = saved(tmp_path, ". 1 2\n. . . 3 4\nat name@domain.com 5 6\nat 7 8\n")
    vectors = read_vectors(path, ["at", ". . .", "at name@domain.com", "."])
    assert {key: vectors.matrix[row].tolist() for key, row in vectors.words.items()} == {
        "at": [7, 8],
        ". . .": [3, 4],
        "at name@domain.com": [5, 6],
        ".": [1, 2],
    }


def test_the_first_of_several_vectors_counts(tmp_path):
    vectors = read_vectors(saved(tmp_path, "a 1 2\nb 3 4\na 5 6\n", "v.txt.gz"), ["a"])
    assert vectors.matrix.tolist() == [[1, 2]]


def test_a_word_that_is_not_there_has_the_vector_of_its_lower_case(tmp_path):
    path = saved(tmp_path, "paris 1 2\nBerlin 3 4\nberlin 5 6\n")
    wanted = ["Paris", "PARIS", "Berlin", "BERLIN", "rome", "Rome"]
    vectors = read_vectors(path, wanted)
    found = {key: vectors.matrix[row].tolist() for key, row in vectors.words.items()}
    assert found == {"Paris": [1, 2], "PARIS": [1, 2], "Berlin": [3, 4], "BERLIN": [5, 6]}
    assert len(vectors.matrix) == 3
    assert vectors.coverage == 4 / 6
    exact = read_vectors(path, [*wanted, "paris"], lowercase_fallback=False)
    assert set(exact.words) == {"Berlin", "paris"}


def test_vectors_that_nothing_stands_for_are_not_kept(tmp_path):
    vectors = read_vectors(saved(tmp_path, "berlin 5 6\nBerlin 3 4\n"), ["Berlin"])
    assert vectors.matrix.tolist() == [[3, 4]]


def test_words_are_counted_once(tmp_path):
    assert read_vectors(saved(tmp_path, "a 1 2\n"), ["a", "a", "b"]).coverage == 0.5


@pytest.mark.parametrize("key", ["a", "other"])
@pytest.mark.parametrize(("line", "count"), [("{} 1 2", 2), ("{} 1 2 3 4", 4), ("{}", 0)])
@pytest.mark.parametrize("header", ["", "3 3\n"])
def test_a_line_of_other_dimensions_is_refused_with_its_number(tmp_path, key, line, count, header):
    path = saved(tmp_path, f"{header}x 1 2 3\n{line.format(key)}\na 1 2 3\n")
    assert f"line {3 if header else 2}: {count} numbers after the word, where line 1 has 3" in refusal(path)


@pytest.mark.parametrize(
    ("value", "reason"), [("1,5", "give numbers"), ("nan", "finite"), ("1e60", "finite")]
)
def test_what_is_no_finite_number_is_refused_with_its_line(tmp_path, value, reason):
    message = refusal(saved(tmp_path, f"x 1 2\na {value} 2\n"))
    assert "line 2: " in message
    assert reason in message


def test_what_holds_no_vectors_is_refused(tmp_path):
    assert "is empty: give a file of word vectors" in refusal(saved(tmp_path, ""))
    assert 'line 1: "It was the best of times" is not a word and its numbers' in refusal(
        saved(tmp_path, "It was the best of times\n")
    )
    (tmp_path / "vectors.bin").write_bytes(b"3 2\na \x00\x00\x80\x3f")
    assert "is not text" in refusal(tmp_path / "vectors.bin")


def test_none_of_the_wanted_words_is_refused(tmp_path):
    path = saved(tmp_path, "a 1 2\n")
    assert "none of the 4 words that are wanted (w, x, y, ...)" in refusal(path, [*"wxyz"])
    assert "none of the 1 words that are wanted (w)" in refusal(path, ["w"])
    assert "none of the 0 words" in refusal(path, [])
