"""Recordings: from tables and folders, what is left out and what is refused."""

import logging

import numpy as np
import pytest
import soundfile

from throughtime.data.recordings import read_recordings, sound_paths
from throughtime.errors import DataError


@pytest.fixture
def folder(tmp_path):
    """Three sounds with texts beside them, and a table of them."""
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    for k, name in enumerate(("a.wav", "b.flac", "c.ogg")):
        soundfile.write(sounds / name, np.full(800 + k, 0.1 * k), 8000)
        (sounds / name).with_suffix(".txt").write_text(f"text  {k}\nof it\n")
    rows = [
        "path,text",
        "sounds/a.wav,text 0 of it",
        "sounds/b.flac,text 1 of it",
        "sounds/c.ogg,text 2 of it",
    ]
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_a_table_and_a_folder_say_the_same(folder):
    table = read_recordings([folder / "table.csv"], "path", "text")
    beside = read_recordings([folder / "sounds"], "path", "text")
    assert table.texts == beside.texts == ["text 0 of it", "text 1 of it", "text 2 of it"]
    assert [file.samples for file in table.files] == [800, 801, 802]
    assert table.files[0].seconds == 0.1
    assert table.digest == beside.digest and len(table) == 3
    assert table.places[1].endswith("table.csv, line 3") and beside.places[1].endswith("b.flac")
    assert read_recordings([folder / "table.csv"] * 2, "path", "text").texts == 2 * table.texts


def test_the_digest_is_of_sounds_and_texts(folder):
    before = read_recordings([folder / "sounds"], "path", "text")
    assert before.select([0, 1]).digest != before.digest
    soundfile.write(folder / "sounds" / "a.wav", np.full(800, 0.25), 8000)
    assert read_recordings([folder / "sounds"], "path", "text").digest != before.digest


def test_columns_have_other_names_or_numbers(folder):
    (folder / "numbered.tsv").write_text("x\tsounds/a.wav\thello\n")
    assert read_recordings([folder / "numbered.tsv"], "2", "3").texts == ["hello"]
    (folder / "rows.jsonl").write_text('{"sound": "sounds/a.wav", "said": "hello"}\n')
    assert read_recordings([folder / "rows.jsonl"], "sound", "said").texts == ["hello"]


def test_what_has_no_text_or_no_sound_is_left_out_and_counted(folder, caplog):
    soundfile.write(folder / "sounds" / "d.wav", np.zeros(0), 8000)
    rows = "path\ttext\nsounds/a.wav\tone\nsounds/b.flac\t\nsounds/d.wav\tfour\n"
    (folder / "some.tsv").write_text(rows)
    with caplog.at_level(logging.WARNING):
        assert read_recordings([folder / "some.tsv"], "path", "text").texts == ["one"]
    assert "2 of 3 recordings have no text or a sound of length 0" in caplog.text
    assert "some.tsv, line 3" in caplog.text
    (folder / "none.tsv").write_text("path\ttext\nsounds/d.wav\tfour\n")
    with pytest.raises(DataError, match="none of the 1 recordings"):
        read_recordings([folder / "none.tsv"], "path", "text")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("sounds/x.wav\tone", r"bad\.tsv, line 3: .*x\.wav cannot be read: No such file"),
        ("sounds/a.txt\tone", r"bad\.tsv, line 3: .*a\.txt is no sound"),
        ("\tone", r'bad\.tsv, line 3: "path" is \'\': give the path of a sound'),
    ],
)
def test_a_bad_row_is_named(folder, row, message):
    (folder / "bad.tsv").write_text(f"path\ttext\nsounds/a.wav\tone\n{row}\n")
    with pytest.raises(DataError, match=message):
        read_recordings([folder / "bad.tsv"], "path", "text")


def test_bad_folders_are_named(folder):
    (folder / "sounds" / "b.txt").unlink()
    with pytest.raises(DataError, match=r"b\.flac has no text: write what is said in it to b\.txt"):
        read_recordings([folder / "sounds"], "path", "text")
    (folder / "other").mkdir()
    (folder / "other" / "x.md").write_text("x")
    with pytest.raises(DataError, match="other has no sounds"):
        read_recordings([folder / "other"], "path", "text")
    with pytest.raises(DataError, match="no recordings: give tables"):
        read_recordings([], "path", "text")


def test_sounds_are_named_by_tables_lists_folders_and_themselves(folder):
    sounds = [folder / "sounds" / name for name in ("a.wav", "b.flac", "c.ogg")]
    assert sound_paths(folder / "table.csv", "path") == sounds
    assert sound_paths(folder / "sounds", "path") == sounds
    assert sound_paths(sounds[1], "path") == [sounds[1]]
    (folder / "list.txt").write_text("sounds/a.wav\n\nsounds/b.flac\n")
    assert sound_paths(folder / "list.txt", "path") == sounds[:2]
