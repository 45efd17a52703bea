"""Recordings and what is said in them: from a table, or from a folder with a text beside each sound."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from throughtime.data.audio import SUFFIXES, read_sound
from throughtime.data.columns import Places, Table, digest
from throughtime.data.tables import has_header, read_table
from throughtime.data.text import find_files, is_text, read_lines
from throughtime.errors import DataError

logger = logging.getLogger(__name__)


class SoundFile(NamedTuple):
    """A file with a sound, and what it has: `samples` of each of its `channels`, `rate` of them a second."""

    path: Path
    samples: int
    rate: int
    channels: int
    digest: str

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.samples / self.rate


@dataclass(frozen=True, eq=False)
class Recordings:
    """In the file `files[k]` is said `texts[k]`; `places[k]` says where that stands.

    The sounds themselves are read when they are needed, so that memory does not grow with the data.
    """

    files: list[SoundFile]
    texts: list[str]
    places: Places

    def __len__(self) -> int:
        return len(self.files)

    @property
    def digest(self) -> str:
        """The same for the same sounds and texts only, wherever they lie."""
        return digest({"sound": [file.digest for file in self.files], "text": self.texts})

    def select(self, rows: Sequence[int]) -> Recordings:
        """These recordings, in this order."""
        files, texts = [self.files[row] for row in rows], [self.texts[row] for row in rows]
        return Recordings(files, texts, self.places.select(rows))


def read_recordings(sources: Sequence[Path], path: str, text: str) -> Recordings:
    """Recordings from tables with the columns `path` and `text`, and from folders.

    A path in a table is relative to the folder of the table. A folder stands for all sounds below it (.wav,
    .flac, .ogg); the text of each is in the file of the same name that ends in .txt, its lines joined by
    spaces. Every sound is read once here. A recording without text or without a single sample is left out,
    which a warning says once.

    Raises `DataError`, with the place, where a sound cannot be used, and where nothing is left.
    """
    if not sources:
        raise DataError("no recordings: give tables of paths and texts, or folders of sounds and texts")
    parts = [_of_folder(each) if each.is_dir() else _of_table(each, path, text) for each in sources]
    return _without_empty(_join(parts))


def sound_paths(source: Path, path: str) -> list[Path]:
    """The sounds that a file names: itself, the column `path` of a table, the lines of a .txt file.

    Paths are relative to the folder of that file. A folder stands for all sounds below it.
    """
    if source.is_dir():
        return _sounds_below(source)
    if is_text(source):
        return [source.parent / line.strip() for line in read_lines(source) if line.strip()]
    if source.suffix.lower() in (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".gz"):
        table = read_table(source, (path,), has_header((path,)))
        return [_beside(source, table, path, row) for row in range(len(table))]
    return [source]


def _of_table(source: Path, path: str, text: str) -> Recordings:
    table = read_table(source, (path, text))
    paths = [_beside(source, table, path, row) for row in range(len(table))]
    texts = ["" if value is None else " ".join(str(value).split()) for value in table.column(text)]
    return _read(paths, texts, table.places)


def _beside(source: Path, table: Table, path: str, row: int) -> Path:
    value = table.column(path)[row]
    if not isinstance(value, str) or not value:
        raise DataError(f'{table.place(row)}: "{path}" is {value!r:.40}: give the path of a sound')
    return source.parent / value


def _of_folder(folder: Path) -> Recordings:
    paths = _sounds_below(folder)
    texts = []
    for path in paths:
        beside = path.with_suffix(".txt")
        if not beside.is_file():
            raise DataError(f"{path} has no text: write what is said in it to {beside.name} beside it")
        texts.append(" ".join(" ".join(read_lines(beside)).split()))
    which = np.arange(len(paths))
    return _read(paths, texts, Places(tuple(map(str, paths)), which, np.zeros_like(which)))


def _sounds_below(folder: Path) -> list[Path]:
    paths = [path for path in find_files(folder) if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise DataError(f"{folder} has no sounds: give one with {', '.join(SUFFIXES)}, or a table of paths")
    return paths


def _read(paths: list[Path], texts: list[str], places: Places) -> Recordings:
    files = []
    for row, path in enumerate(paths):
        try:
            sound = read_sound(path)
        except DataError as error:
            named = places[row]
            raise DataError(str(error) if named == str(path) else f"{named}: {error}") from None
        files.append(SoundFile(path, len(sound.samples), sound.rate, sound.channels, sound.digest))
    return Recordings(files, texts, places)


def _join(parts: Sequence[Recordings]) -> Recordings:
    places = [part.places[row] for part in parts for row in range(len(part))]
    which = np.arange(len(places))
    return Recordings(
        [file for part in parts for file in part.files],
        [text for part in parts for text in part.texts],
        Places(tuple(places), which, np.zeros_like(which)),
    )


def _without_empty(recordings: Recordings) -> Recordings:
    full = [row for row in range(len(recordings)) if recordings.texts[row] and recordings.files[row].samples]
    if not full:
        raise DataError(f"none of the {len(recordings)} recordings has both a sound and a text")
    if len(full) == len(recordings):
        return recordings
    kept = set(full)
    first = next(row for row in range(len(recordings)) if row not in kept)
    logger.warning(
        "%d of %d recordings have no text or a sound of length 0 and are left out, the first of them %s",
        len(recordings) - len(full),
        len(recordings),
        recordings.places[first],
    )
    return recordings.select(full)
