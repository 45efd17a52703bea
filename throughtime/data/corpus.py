"""A text as tokens in a memory-mapped file: encoded once, never held in memory."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from throughtime.data.documents import Documents
from throughtime.data.text import Text
from throughtime.data.tokens import BOUNDARY, Tokeniser
from throughtime.storage import cache_folder, write

ADVICE = "make room, or set XDG_CACHE_HOME to a folder that has some"
Tokens = NDArray[np.unsignedinteger]


def encode(text: Text | Documents, tokeniser: Tokeniser) -> Tokens:
    """The tokens of a text, each document after a boundary, as an array over a file in the cache.

    The file is made once for a text, by its content, and a tokeniser. Raises `StorageError` where it
    cannot be written.
    """
    size: np.dtype[np.unsignedinteger] = np.dtype("uint16" if tokeniser.size <= 1 << 16 else "uint32")
    key = hashlib.sha256(json.dumps([text.digest, tokeniser.to_json()]).encode()).hexdigest()[:32]
    path = cache_folder() / "tokens" / f"{key}.{size.name}"
    if not path.exists():
        write(path, lambda new: _encode_to(new, text, tokeniser, size), ADVICE)
    return np.memmap(path, dtype=size, mode="r")


def _encode_to(
    path: Path, text: Text | Documents, tokeniser: Tokeniser, size: np.dtype[np.unsignedinteger]
) -> None:
    with path.open("wb") as file:
        for document in text.each():
            np.array([BOUNDARY], size).tofile(file)
            for block in document:
                tokeniser.encode(block).astype(size).tofile(file)
