"""Sound that comes in: samples of 16 bits from a stream, raw or behind the head of a wav file."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from io import BufferedReader

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from throughtime.data.audio import UNKNOWN_SIZE, mono
from throughtime.errors import DataError

logger = logging.getLogger(__name__)

#: Bytes that are read at most at a time; what is there is taken at once.
BLOCK = 1 << 13
#: Kinds of wav that hold plain samples.
PLAIN = (0x0001, 0xFFFE)
#: How files begin that are neither wav nor raw: what each is.
OTHERS = {b"fLaC": "FLAC", b"OggS": "Ogg", b"RF64": "RF64", b"ID3": "MP3", b"FORM": "AIFF"}


def read_pcm(stream: BufferedReader, rate: int) -> tuple[int, Iterator[Float[NDArray[np.float32], "N"]]]:
    """The rate of a sound, and its samples between -1 and 1 in pieces as they come.

    A wav says itself how many channels and samples a second it has, of several channels the mean is taken.
    Everything else is raw: one channel of signed 16-bit numbers, the low byte first, `rate` of them a second.

    Raises `DataError` for a wav of anything but 16-bit samples, and for a file of another kind.
    """
    head = stream.read(12)
    for magic, kind in OTHERS.items():
        if head.startswith(magic):
            decoder = "flac -dc" if kind == "FLAC" else "ffmpeg -i FILE -f wav -"
            raise DataError(f"standard input is {kind}: decode it first, as with {decoder}")
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return rate, _samples(stream, head, 1, None)
    rate, channels, size = _read_head(stream)
    return rate, _samples(stream, b"", channels, size)


def _read_head(stream: BufferedReader) -> tuple[int, int, int | None]:
    """Rate, channels and, where it is known, the number of bytes of sound; the stream stands at the sound."""
    rate = channels = 0
    while len(head := stream.read(8)) == 8:
        name, size = head[:4], int.from_bytes(head[4:], "little")
        if name == b"data" and rate:
            return rate, channels, size if 0 < size < UNKNOWN_SIZE else None
        body = stream.read(size + size % 2)
        if name == b"fmt " and len(body) >= 16:
            kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
            if kind not in PLAIN or bits != 16 or not channels:
                raise DataError(
                    f"the wav on standard input has samples of {bits} bits in form {kind}: give 16-bit PCM"
                )
    raise DataError("the wav on standard input ends within its head: give all of it")


def _samples(
    stream: BufferedReader, rest: bytes, channels: int, size: int | None
) -> Iterator[Float[NDArray[np.float32], "N"]]:
    width = 2 * channels
    while True:
        whole = len(rest) // width * width
        if whole:
            numbers = np.frombuffer(rest[:whole], "<i2").reshape(-1, channels)
            yield mono(numbers.astype(np.float32) / np.float32(32768))
        rest = rest[whole:]
        block = stream.read1(BLOCK if size is None else min(BLOCK, size))
        size = None if size is None else size - len(block)
        if not block:
            break
        rest += block
    if rest:
        logger.warning("the sound ends within a sample: %d bytes are left out", len(rest))
