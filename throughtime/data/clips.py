"""Clips as numbers: folders of frames and video files, and tables of them with a label for each frame."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from throughtime.data.columns import join_tables
from throughtime.data.pictures import (
    SUFFIXES,
    Pixels,
    fit_picture,
    load_picture,
    picture_paths,
    warn_of_modes,
)
from throughtime.data.tables import read_table
from throughtime.data.video import read_video
from throughtime.errors import DataError

logger = logging.getLogger(__name__)

#: The ends of the names of video files.
VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".gif", ".3gp", ".ts", ".wmv")


class Sampling(NamedTuple):
    """Which frames of a clip are read.

    every  the first one and every so many after it.
    rate   in place of that, of a video, so many per second: the first frame that is not before each time.
    """

    every: int = 1
    rate: float | None = None


EVERY_FRAME = Sampling()


class Frames(NamedTuple):
    """Frames of a clip as they are read.

    pixels  [T, 3, size, size], red, green and blue from 0 to 255.
    chosen  which frames of the clip they are, from 0.
    total   how many the clip has.
    modes   how many of them held colour in which way, as Pillow calls it.
    """

    pixels: Pixels
    chosen: list[int]
    total: int
    modes: Counter[str]


def read_clip(path: str | Path, size: int, sampling: Sampling = EVERY_FRAME) -> Frames:
    """A clip: a folder of frames, or a video file.

    Frames are the PNG and JPEG files of a folder, in natural order (2 before 10), each read as
    `throughtime.data.pictures.read_picture` reads it; other files are not looked at. Videos are read by PyAV.

    Raises `DataError` where there is no frame, where a frame or a video is damaged or breaks off, where the
    frames of a folder are not all of one size, and for a rate of a folder, whose frames have no times.
    """
    path = Path(path)
    if path.is_dir():
        return _from_folder(path, size, sampling)
    if not path.exists():
        raise DataError(f"{path} is not there: give a folder of frames or a video")
    return _from_video(path, size, sampling)


def is_clip(path: Path) -> bool:
    """Whether a path is that of a clip, by its kind and name: a folder, or a video file."""
    return path.suffix.lower() in VIDEOS or path.is_dir()


def frame_files(folder: Path) -> list[Path]:
    """The pictures in a folder in natural order; raises `DataError` where there is none."""
    files = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != "."]
    if not files:
        raise DataError(f"{folder} has no frames: give a folder of PNG or JPEG files, one for each frame")
    return sorted(files, key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    """What sorts 2 before 10, and a name before the same with a number behind it."""
    parts = re.split(r"(\d+)", path.stem)
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in parts if part]


def _from_folder(folder: Path, size: int, sampling: Sampling) -> Frames:
    if sampling.rate is not None:
        raise DataError(
            f"{folder} is a folder of frames, which has no times, and {sampling.rate:g} frames per second "
            "are to be read: give videos, or train with --every in place of --rate"
        )
    files = frame_files(folder)
    chosen = list(range(0, len(files), sampling.every))
    pictures = [load_picture(files[k], size) for k in chosen]
    first = pictures[0]
    for k, picture in zip(chosen, pictures, strict=True):
        if picture.sides != first.sides:
            raise DataError(
                f"{files[k]} is of {_sides(picture.sides)} and {files[0].name} of {_sides(first.sides)}: the "
                "frames of a clip have one size"
            )
    pixels = np.stack([picture.pixels for picture in pictures])
    return Frames(pixels, chosen, len(files), Counter(picture.mode for picture in pictures))


def _from_video(path: Path, size: int, sampling: Sampling) -> Frames:
    if path.suffix.lower() in SUFFIXES:
        raise DataError(f"{path} is one picture: give a folder of frames or a video")
    pixels, chosen, total, due = [], list[int](), 0, 0
    for number, (seconds, picture) in enumerate(read_video(path)):
        total += 1
        # Some files count time in whole milliseconds.
        passed = number / sampling.every if sampling.rate is None else (seconds + 1e-3) * sampling.rate
        if passed >= due:
            pixels.append(fit_picture(picture, size))
            chosen.append(number)
            due = int(passed) + 1
    if not pixels:
        raise DataError(f"{path} has no frames: give a video with at least one")
    return Frames(np.stack(pixels), chosen, total, Counter({"RGB": len(pixels)}))


def _sides(sides: tuple[int, int]) -> str:
    return f"{sides[0]} x {sides[1]} pixels"


def read_clips(
    paths: Sequence[Path],
    size: int,
    sampling: Sampling = EVERY_FRAME,
    places: Sequence[str] | None = None,
    skip_damaged: bool = False,
) -> tuple[list[Frames], list[int]]:
    """The clips that can be read, and which of the paths those are.

    How many frames were no RGB is said in a warning. Raises `DataError` where a clip cannot be read, with the
    number of such and the first, and with `places` where that was asked for; with `skip_damaged` a warning
    says the same.
    """
    found: list[Frames] = []
    kept: list[int] = []
    wrong: list[str] = []
    for k, path in enumerate(paths):
        try:
            found.append(read_clip(path, size, sampling))
            kept.append(k)
        except DataError as error:
            wrong.append(str(error) if places is None else f"{places[k]}: {error}")
    if wrong:
        message = f"{len(wrong)} of {len(paths)} clips cannot be read; the first: {wrong[0]}"
        if not (skip_damaged and found):
            raise DataError(message if len(paths) > 1 else wrong[0])
        logger.warning("%s; they are left out", message)
    warn_of_modes(sum((frames.modes for frames in found), Counter()), "frames")
    return found, kept


@dataclass(frozen=True, eq=False)
class LabelledClips:
    """Clip k has the frames `frames[k]` [T, 3, size, size], comes from `paths[k]`, and has T labels."""

    frames: list[Pixels]
    paths: list[Path]
    labels: list[list[str]]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def digest(self) -> str:
        """The same for the same frames and labels only, wherever their files lie."""
        sha = hashlib.sha256(json.dumps(self.labels).encode())
        for frames in self.frames:
            sha.update(frames.tobytes())
        return sha.hexdigest()

    def select(self, rows: Sequence[int]) -> LabelledClips:
        """These clips, in this order."""
        return LabelledClips(
            [self.frames[row] for row in rows],
            [self.paths[row] for row in rows],
            [self.labels[row] for row in rows],
        )


def read_labelled_clips(
    paths: Sequence[str | Path],
    size: int,
    *,
    clip: str = "clip",
    labels: str = "labels",
    folder: Path | None = None,
    sampling: Sampling = EVERY_FRAME,
    skip_damaged: bool = False,
) -> LabelledClips:
    """The clips of tables, with a label for each frame.

    Tables are those of `read_table`, with a path in the column `clip`, which goes from `folder` or from the
    folder of its table, and in the column `labels` a list of texts, or a text with spaces between them: as
    many as the clip has frames. Of frames that are not read the labels are not read either.

    Raises `DataError`, with file and row, for a row without a path or without labels, and for other labels
    than the clip has frames; for clips as `read_clips` does.
    """
    tables = [(Path(path), read_table(path, (clip, labels))) for path in paths]
    if not tables:
        raise DataError("no data: give tables of clips and their labels, before the options")
    files = [file for path, table in tables for file in picture_paths(table, clip, folder or path.parent)]
    table = join_tables([table for _, table in tables])
    places = [table.place(row) for row in range(len(table))]
    told = [_labels(value, labels, place) for value, place in zip(table.column(labels), places, strict=True)]
    found, kept = read_clips(files, size, sampling, places, skip_damaged)
    for row, frames in zip(kept, found, strict=True):
        if len(told[row]) != frames.total:
            raise DataError(
                f"{places[row]}: {len(told[row])} labels for {files[row]}, which has {frames.total} frames: "
                "give one for each"
            )
    chosen = [[told[row][k] for k in frames.chosen] for row, frames in zip(kept, found, strict=True)]
    return LabelledClips([frames.pixels for frames in found], [files[row] for row in kept], chosen)


def pad_clips(clips: Sequence[Pixels]) -> tuple[UInt8[Tensor, "B T 3 H W"], Int[Tensor, "B"]]:
    """Clips side by side, filled up with black, and how many frames each has."""
    lengths = [len(clip) for clip in clips]
    padded = np.zeros((len(clips), max(lengths), *clips[0].shape[1:]), np.uint8)
    for row, clip in zip(padded, clips, strict=True):
        row[: len(clip)] = clip
    return torch.from_numpy(padded), torch.tensor(lengths, dtype=torch.int64)


def _labels(value: Any, column: str, place: str) -> list[str]:
    """The labels in a field: of a list, or between spaces."""
    each: Iterable[Any] = ()
    if isinstance(value, str) and not value.lstrip().startswith("["):
        each = value.split()
    elif isinstance(value, list) and all(isinstance(label, str | int) for label in value):
        each = value
    found = [str(label).strip() for label in each]
    if not found or not all(found):
        raise DataError(
            f"{place}: {column} is {value!r:.40}: give a label for each frame, in a list or between spaces"
        )
    return found
