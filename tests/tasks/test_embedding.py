"""Vectors in files, and the nearest of them."""

import numpy as np
import pytest
from pyarrow.parquet import read_table

from throughtime.data.conll import read_conll
from throughtime.errors import ConfigError
from throughtime.tasks.embedding import check_format, nearest_rows, plain, save_vectors

VECTORS = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)


def test_npy_holds_the_vectors(tmp_path):
    save_vectors(tmp_path / "new" / "v.npy", ["a", "b", "c"], VECTORS)
    read = np.load(tmp_path / "new" / "v.npy", allow_pickle=False)
    assert read.dtype == np.float32 and (read == VECTORS).all()


def test_parquet_holds_the_inputs_too(tmp_path):
    rows = [{"x": 1.5, "y": 2.0}, {"x": 0.0, "y": 1.0}, {"x": 9.0, "y": -1.0}]
    for inputs in (["a", "", 'ä "ß"\n'], rows):
        save_vectors(tmp_path / "v.parquet", inputs, VECTORS)
        table = read_table(tmp_path / "v.parquet")
        assert table.column_names == ["input", "vector"]
        assert table["input"].to_pylist() == inputs
        assert (np.array(table["vector"].to_pylist(), np.float32) == VECTORS).all()


def test_inputs_of_several_types_are_written_as_texts(tmp_path):
    save_vectors(tmp_path / "v.parquet", [{"text": 5}, {"text": "abc"}, {"text": None}], VECTORS)
    assert read_table(tmp_path / "v.parquet")["input"].to_pylist() == ["5", "abc", "None"]


def test_a_sentence_in_columns_is_written_as_its_words(tmp_path):
    (tmp_path / "s.conll").write_text("the\tD\ncat\tN\n\n")
    [sentence] = read_conll(tmp_path / "s.conll")
    assert plain(sentence) == "the cat" == plain(["the", "cat"])
    save_vectors(tmp_path / "v.parquet", [sentence], VECTORS[:1])
    assert read_table(tmp_path / "v.parquet")["input"].to_pylist() == ["the cat"]


def test_a_row_of_one_column_is_its_text():
    assert plain({"text": "red house"}) == "red house"
    assert plain({"text": "red", "more": "house"}) == {"text": "red", "more": "house"}


@pytest.mark.parametrize("name", ["v.csv", "v", "v.npz"])
def test_other_formats_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=f"{name} ends in neither"):
        check_format(tmp_path / name)
    with pytest.raises(ConfigError, match=f"{name} ends in neither"):
        save_vectors(tmp_path / name, ["a"], VECTORS[:1])
    assert not list(tmp_path.iterdir())


def test_the_nearest_are_those_of_the_smallest_angle():
    angles = np.radians([90, 0, 180, 30, 330])
    lengths = np.array([1, 0.1, 3, 100, 1])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1) * lengths[:, None]
    found = nearest_rows(vectors, np.array([7.0, 0.7]), 9)
    assert [row for row, _ in found] == [1, 3, 4, 0, 2]
    expected = np.cos(angles - np.arctan2(0.7, 7.0))
    assert [cosine for _, cosine in found] == pytest.approx([expected[row] for row, _ in found])
    assert nearest_rows(vectors, np.array([7.0, 0.7]), 2) == found[:2]


def test_a_vector_of_zeros_is_near_to_nothing():
    found = nearest_rows(np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]), np.array([1.0, 1.0]), 3)
    assert found[0] == (1, pytest.approx(1.0)) and found[1:] == [(0, 0.0), (2, 0.0)]
