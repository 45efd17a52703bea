"""Pretrained word vectors: the rows of a large text file for the words that a model has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from throughtime.data.text import read_lines
from throughtime.errors import DataError


@dataclass(frozen=True, eq=False)
class Vectors:
    """The vector of each word in `words` is `matrix[words[word]]`; words may share one.

    `wanted` is how many words were looked for.
    """

    words: dict[str, int]
    matrix: NDArray[np.float32]
    wanted: int

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has."""
        return self.matrix.shape[1]

    @property
    def coverage(self) -> float:
        """The share of the wanted words that have a vector."""
        return len(self.words) / self.wanted


def read_vectors(path: Path, wanted: Iterable[str], *, lowercase_fallback: bool = True) -> Vectors:
    """The vectors of the wanted words, from a text file as GloVe, word2vec and fastText write it.

    A line is a word and its numbers with a space before each; a first line with the count of words and of
    dimensions, as word2vec and fastText have, may stand before. A word may hold spaces. Of several vectors of
    one word the first counts. A file ending in .gz is unpacked as it is read. Where `lowercase_fallback` is
    on, a word that is not in the file has the vector of its lower-case form.

    The file is read line by line and only vectors that are looked for are kept, so its size does not matter.

    Papers: GloVe, Pennington et al. 2014; word2vec, Mikolov et al. 2013; fastText, Bojanowski et al. 2017.

    Raises `DataError`, with the line, for a line of other dimensions or with what is no finite number, and
    where no wanted word is in the file.
    """
    words = list(dict.fromkeys(wanted))
    forms = dict.fromkeys(words) | (dict.fromkeys(map(str.lower, words)) if lowercase_fallback else {})
    found = _find(path, set(forms))
    sources = {}
    for word in words:
        form = word if word in found or not lowercase_fallback else word.lower()
        if form in found:
            sources[word] = form
    if not sources:
        raise DataError(
            f"{path} has none of the {len(words)} words that are wanted{_some(words)}: give vectors of the "
            "same language, and words as they are written there"
        )
    rows = {form: row for row, form in enumerate(dict.fromkeys(sources.values()))}
    matrix = np.stack([found[form] for form in rows])
    return Vectors({word: rows[form] for word, form in sources.items()}, matrix, len(words))


def _find(path: Path, words: set[str]) -> dict[str, NDArray[np.float32]]:
    """The vectors of the words that are in the file."""
    lines = enumerate(map(_without_last_space, read_lines(path)), start=1)
    first = next(lines, None)
    if first is None:
        raise DataError(f"{path} is empty: give a file of word vectors")
    dimensions, is_header = _dimensions(path, first[1])
    found: dict[str, NDArray[np.float32]] = {}
    for number, line in lines if is_header else chain([first], lines):
        spaces = line.count(" ")
        # Most lines are those of other words: they are counted, and not taken apart.
        if spaces == dimensions and line.partition(" ")[0] not in words:
            continue
        word, *values = line.rsplit(" ", dimensions)
        if spaces < dimensions or (" " in word and _is_number(word.rpartition(" ")[2])):
            raise DataError(
                f"{path}, line {number}: {spaces} numbers after the word, where line 1 has {dimensions}; is "
                "the file whole?"
            )
        if word in words and word not in found:
            found[word] = _vector(path, number, values)
    return found


def _dimensions(path: Path, line: str) -> tuple[int, bool]:
    """The dimensions that the first line tells, and whether it is a header."""
    fields = line.split(" ")
    if len(fields) == 2 and fields[0].isdecimal() and fields[1].isdecimal() and int(fields[1]):
        return int(fields[1]), True
    numbers = 0
    while numbers < len(fields) - 1 and _is_number(fields[-1 - numbers]):
        numbers += 1
    if not numbers:
        raise DataError(
            f'{path}, line 1: "{line[:60]}" is not a word and its numbers: give word vectors as text'
        )
    return numbers, False


def _vector(path: Path, number: int, values: list[str]) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):
            vector = np.array(values, dtype=np.float32)
    except ValueError as error:
        raise DataError(f"{path}, line {number}: {error}; give numbers after the word") from None
    if not np.isfinite(vector).all():
        raise DataError(f"{path}, line {number}: a number is not finite in 32 bits; leave the line out")
    return vector


def _without_last_space(line: str) -> str:
    return line.removesuffix(" ")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _some(words: list[str]) -> str:
    return f" ({', '.join(words[:3])}{', ...' if len(words) > 3 else ''})" if words else ""
