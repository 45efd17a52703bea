"""Small documents of a file: tunes and rows, never cut; and text as it was before."""

import gzip

import numpy as np
import pytest

from throughtime.data.corpus import encode
from throughtime.data.documents import Documents, open_documents
from throughtime.data.text import Text
from throughtime.data.tokens import BOUNDARY, Characters
from throughtime.errors import DataError

TUNE = "X:{0}\nT:Tune\nK:C\nAB|\n"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_tunes_of_files_and_folders(tmp_path):
    folder = tmp_path / "tunes"
    folder.mkdir()
    (folder / "b.ABC").write_text(TUNE.format(3))
    with gzip.open(folder / "a.abc.gz", "wt") as file:
        file.write(TUNE.format(1) + "\n" + TUNE.format(2))
    found = open_documents([folder])
    assert found == Documents(tuple(TUNE.format(k) for k in (1, 2, 3)), "tunes")
    assert found.characters == 3 * len(TUNE.format(1)) and len(found.select([2, 0])) == 2
    assert found.select([2]).texts == (TUNE.format(3),)
    assert found.digest == open_documents([folder / "a.abc.gz", folder / "b.ABC"]).digest
    assert found.digest != found.select([0, 2, 1]).digest


def test_rows_of_tables(tmp_path):
    path = tmp_path / "names.csv"
    path.write_text('name,hex,x\nRed,#f00,\n"two  \nlines",#00f,1\n')
    assert open_documents([path], ["name", "hex"]) == Documents(("Red\t#f00\n", "two lines\t#00f\n"), "rows")
    with pytest.raises(DataError, match='no column "colour"'):
        open_documents([path], ["colour"])


def test_other_files_are_text(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    assert isinstance(open_documents([tmp_path / "a.txt"]), Text)
    (tmp_path / "b.abc").write_text(TUNE.format(1))
    with pytest.raises(DataError, match=r"a\.txt is no ABC, and others of the files are"):
        open_documents([tmp_path])
    with pytest.raises(DataError, match="no text: give files or folders"):
        open_documents([])


def test_each_document_stands_behind_a_boundary():
    documents = Documents(("ab\n", "b\n"), "rows")
    tokeniser = Characters.fit(documents.blocks())
    a, b, end = tokeniser.encode("ab\n").tolist()
    tokens = encode(documents, tokeniser)
    np.testing.assert_array_equal(tokens, [BOUNDARY, a, b, end, BOUNDARY, b, end])
