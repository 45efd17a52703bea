"""A text as tokens in a memory-mapped file: encoded once, never held in memory."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from throughtime.data.text import Text
from throughtime.data.tokens import BOUNDARY, Tokeniser
from throughtime.errors import StorageError

Tokens = NDArray[np.unsignedinteger]


def cache_folder() -> Path:
    """Where encoded texts are kept: `throughtime` in $XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "throughtime"


def encode(text: Text, tokeniser: Tokeniser) -> Tokens:
    """The tokens of a text, each document after a boundary, as an array over a file in the cache.

    The file is made once for a text, by its content, and a tokeniser. Raises `StorageError` where it
    cannot be written.
    """
    size: np.dtype[np.unsignedinteger] = np.dtype("uint16" if tokeniser.size <= 1 << 16 else "uint32")
    path = cache_folder() / "tokens" / f"{_key(text, tokeniser)}.{size.name}"
    if not path.exists():
        try:
            _write(text, tokeniser, path, size)
        except OSError as error:
            raise StorageError(
                f"the encoded text cannot be written to {path.parent}: {error.strerror or error}; "
                "make room, or set XDG_CACHE_HOME to a folder that has some"
            ) from None
    return np.memmap(path, dtype=size, mode="r")


def _key(text: Text, tokeniser: Tokeniser) -> str:
    parts = [(document.digest, document.start, document.stop) for document in text.documents]
    identity = json.dumps([parts, tokeniser.to_json()])
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def _write(text: Text, tokeniser: Tokeniser, path: Path, size: np.dtype[np.unsignedinteger]) -> None:
    """Under another name first, so that a file with the right name is always whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for document in text.documents:
                np.array([BOUNDARY], size).tofile(file)
                for block in document.blocks():
                    tokeniser.encode(block).astype(size).tofile(file)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
