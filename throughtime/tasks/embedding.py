"""Vectors of inputs: keeping them, and finding the nearest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from throughtime.errors import ConfigError
from throughtime.storage import write

ADVICE = "make room, or give another --out"


def check_format(path: Path) -> None:
    """Raise `ConfigError` for a file that `save_vectors` would not write."""
    if path.suffix not in {".npy", ".parquet"}:
        raise ConfigError(f"{path} ends in neither .npy nor .parquet: give one of these")


def save_vectors(path: Path, inputs: Sequence[Any], vectors: Float[NDArray[Any], "N F"]) -> None:
    """Write vectors to .npy, or with the inputs beside them, as columns `input` and `vector`, to .parquet.

    Raises `ConfigError` for another name.
    """
    check_format(path)
    if path.suffix == ".npy":

        def save(new: Path) -> None:
            with new.open("wb") as file:
                np.save(file, vectors)
    else:

        def save(new: Path) -> None:
            import pyarrow
            from pyarrow.parquet import write_table

            values = list(map(plain, inputs))
            if len(set(map(type, values))) > 1:  # a column has values of one type
                values = list(map(str, values))
            table = {"input": values, "vector": list(vectors)}
            write_table(pyarrow.table(table), new)

    write(path, save, ADVICE)


def nearest_rows(
    vectors: Float[NDArray[Any], "N F"], query: Float[NDArray[Any], "F"], count: int
) -> list[tuple[int, float]]:
    """The `count` rows with the largest cosine with the query, and that cosine, the nearest first."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    cosines = vectors @ query / np.maximum(lengths, np.finfo(np.float32).tiny)
    order = np.argsort(-cosines, kind="stable")[:count]
    return [(int(k), float(cosines[k])) for k in order]


def plain(given: Any) -> Any:
    """An input as JSON: a text, the value of a table's only column, a row, or the words of a sentence."""
    if isinstance(given, dict):
        return next(iter(given.values())) if len(given) == 1 else given
    return given if isinstance(given, str) else " ".join(getattr(given, "words", given))
