"""Tables of pictures or clips with captions, and lists of such files."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from throughtime.data.clips import EVERY_FRAME, Sampling, is_clip, read_clips
from throughtime.data.columns import join_tables
from throughtime.data.labelled import read_texts
from throughtime.data.pictures import SUFFIXES, Pixels, picture_paths, read_pictures
from throughtime.data.tables import read_table
from throughtime.data.text import is_text, read_lines
from throughtime.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Captioned:
    """Pictures, or clips, with captions.

    Number k is `pixels[k]`, [3, size, size] of a picture or [T, 3, size, size] of a clip, of `paths[k]`, with
    `captions[k]`, one or more.
    """

    pixels: list[Pixels]
    paths: list[Path]
    captions: list[list[str]]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def clips(self) -> bool:
        """Whether they are clips."""
        return self.pixels[0].ndim == 4

    @property
    def digest(self) -> str:
        """The same for the same pictures and captions only, wherever their files lie."""
        sha = hashlib.sha256(json.dumps(self.captions).encode())
        for each in self.pixels:
            sha.update(each.tobytes())
        return sha.hexdigest()

    def select(self, rows: Sequence[int]) -> Captioned:
        """These, in this order, each with all of its captions."""
        return Captioned(
            [self.pixels[row] for row in rows],
            [self.paths[row] for row in rows],
            [self.captions[row] for row in rows],
        )


def read_captioned(
    paths: Sequence[str | Path],
    size: int,
    *,
    picture: str = "image",
    caption: str = "caption",
    folder: Path | None = None,
    sampling: Sampling = EVERY_FRAME,
    skip_damaged: bool = False,
) -> Captioned:
    """The pictures or clips of tables, as `read_seen` reads them, with all captions that they are given.

    Tables are those of `read_table`, with a path in the column `picture` and a text in the column `caption`;
    a path goes from `folder`, or from the folder of its table. Rows of one file are one picture with several
    captions, in the order of the rows. White space around a caption is not part of it. Rows without a caption
    are left out, which a warning says.

    Raises `DataError`, with file and row, for a row without a path and where no caption is left, and for
    pictures and clips as `read_seen` does.
    """
    tables = [(Path(path), read_table(path, (picture, caption))) for path in paths]
    files = chain.from_iterable(
        picture_paths(table, picture, folder or path.parent) for path, table in tables
    )
    table = join_tables([table for _, table in tables])
    captions: dict[Path, list[str]] = {}
    places: dict[Path, str] = {}
    empty: list[int] = []
    for row, (file, text) in enumerate(zip(files, read_texts(table, (caption,)), strict=True)):
        if not text:
            empty.append(row)
            continue
        captions.setdefault(file, []).append(text)
        places.setdefault(file, table.place(row))
    if empty:
        message = f"{len(empty)} of {len(table)} rows have no caption, the first is {table.place(empty[0])}"
        if not captions:
            raise DataError(f"{message}: give each picture a text in the column {caption}")
        logger.warning("%s: they are left out", message)
    found = list(captions)
    clips = is_clip(next((path for path in found if path.exists()), found[0]))
    pixels, kept = read_seen(found, clips, size, sampling, list(places.values()), skip_damaged)
    return Captioned(pixels, [found[k] for k in kept], [captions[found[k]] for k in kept])


def read_seen(
    paths: Sequence[Path],
    clips: bool,
    size: int,
    sampling: Sampling = EVERY_FRAME,
    places: Sequence[str] | None = None,
    skip_damaged: bool = False,
) -> tuple[list[Pixels], list[int]]:
    """The pictures (`read_pictures`) or `clips` (`read_clips`) that can be read, and which of the paths.

    Raises what these do, and `DataError` for a path of the other kind, which is left out where what is
    damaged is.
    """
    for k, path in enumerate(paths):
        if not skip_damaged and path.exists() and is_clip(path) != clips:
            place = "" if places is None else f"{places[k]}: "
            kinds = "a clip, and pictures are" if is_clip(path) else "no clip, and clips are"
            raise DataError(f"{place}{path} is {kinds} read here: give one kind, as in training")
    if clips:
        found, kept = read_clips(paths, size, sampling, places, skip_damaged)
        return [frames.pixels for frames in found], kept
    pixels, kept = read_pictures(paths, size, places, skip_damaged)
    return [*pixels], kept


def list_seen(path: Path, column: str, folder: Path | None = None) -> list[Path]:
    """The pictures or clips that a path names: itself, the lines of a text, or a column of a table.

    Paths go from `folder`, or from that of the file. What a table names several times comes once.
    """
    start = folder or path.parent
    if path.suffix.lower() in SUFFIXES or is_clip(path):
        return [path]
    if is_text(path):
        return [Path(os.path.normpath(start / line.strip())) for line in read_lines(path) if line.strip()]
    return list(dict.fromkeys(picture_paths(read_table(path, (column,)), column, start)))
