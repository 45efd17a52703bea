"""Sounds from files and streams: samples between -1 and 1, in one channel, at the rate asked for."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from throughtime.errors import ConfigError, DataError

#: How the names of sounds end where they are looked for in a folder.
SUFFIXES = (".wav", ".flac", ".ogg")
#: Sizes in the head of a wav file that say nothing: it was written to a pipe, before its length was known.
UNKNOWN_SIZE = 0x7FFF0000


@dataclass(frozen=True, eq=False)
class Sound:
    """What a file holds: samples [N, channels] between -1 and 1, `rate` of them a second.

    `digest` is the sha256 of the file.
    """

    samples: Float[NDArray[np.float32], "N channels"]
    rate: int
    digest: str

    @property
    def channels(self) -> int:
        """How many there are."""
        return self.samples.shape[1]

    def converted(self, rate: int) -> Float[NDArray[np.float32], "N"]:
        """The mean of the channels at another rate; what is in the file where it has this form."""
        return Converter(self.rate, rate).feed(mono(self.samples), last=True)


def read_sound(path: Path) -> Sound:
    """The sound in a file of wav, FLAC, Ogg or what else libsndfile knows.

    Raises `DataError` where the file is missing, is no sound, was cut off, or holds NaN or Inf. A file
    without samples is a sound of length 0.
    """
    soundfile = _library("soundfile")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    _check_whole(path, content)
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            promised, rate = file.frames, file.samplerate
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
        reason = str(getattr(error, "error_string", error)).rstrip(". \n")
        raise DataError(f"{path} is no sound: {reason}; give wav, FLAC or Ogg") from None
    if len(samples) < promised:
        raise _cut_off(path, f"{len(samples)} of {promised} samples")
    if not np.isfinite(samples).all():
        at = int(np.nonzero(~np.isfinite(samples).all(1))[0][0])
        raise DataError(f"{path} holds NaN or Inf, first in sample {at + 1}: write the file anew")
    return Sound(samples, rate, hashlib.sha256(content).hexdigest())


def mono(samples: Float[NDArray[np.float32], "N channels"]) -> Float[NDArray[np.float32], "N"]:
    """The mean of the channels."""
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(1)


def converted_length(samples: int, before: int, after: int) -> int:
    """How many samples there are at the rate `after` of so many at the rate `before`."""
    return (2 * samples * after + before) // (2 * before)


class Converter:
    """Sound from one rate to another by soxr, in pieces: together they are what the whole would give."""

    def __init__(self, before: int, after: int) -> None:
        if before < 1:
            raise ConfigError(f"a sound has 1 sample a second or more, got a rate of {before}")
        self._stream: Any = None
        if before != after:
            self._stream = _library("soxr").ResampleStream(before, after, 1, dtype="float32")

    def feed(
        self, samples: Float[NDArray[np.float32], "N"], *, last: bool = False
    ) -> Float[NDArray[np.float32], "M"]:
        """What is known of the converted sound after these samples; with `last`, all the rest of it."""
        if self._stream is None:
            return samples
        converted: NDArray[np.float32] = self._stream.resample_chunk(samples, last=last)
        return converted


def _check_whole(path: Path, content: bytes) -> None:
    """Raise `DataError` where a wav file has fewer bytes than its head says: libsndfile says nothing."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return
    at = 12
    while at + 8 <= len(content):
        name, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        if name == b"data":
            there = len(content) - at - 8
            if there < size < UNKNOWN_SIZE:
                raise _cut_off(path, f"{there} of {size} bytes of sound")
            return
        at += 8 + size + size % 2
    raise _cut_off(path, "its head")


def _cut_off(path: Path, what: str) -> DataError:
    return DataError(f"{path} was cut off: it has {what}; copy or record it anew")


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except (ImportError, OSError):  # libsndfile itself may be missing
        raise ConfigError(f"sounds need the package {name}: pip install 'throughtime[audio]'") from None
