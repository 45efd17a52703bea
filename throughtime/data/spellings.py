"""Sentences that are cut into words already: the numbers of the words, and the characters of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from throughtime.data.tokens import RESERVED, UNKNOWN, Characters, Ids, joined
from throughtime.errors import DataError, RunError

#: Characters of a word that a model reads.
LONGEST_WORD = 40


class Vocabulary:
    """Numbers for words: 0 for padding, 1 for a word that is not in it, then by falling frequency.

    words   each once, and in lower case where `lower`.
    counts  how often each occurs in what the vocabulary was fitted to. Words with other virtues, such as a
            pretrained vector, may stand at the end with 0.
    lower   whether words that differ in case only are one.

    Raises `DataError` where that is not so.
    """

    def __init__(self, words: Sequence[str], counts: Sequence[int], lower: bool = False) -> None:
        self.words, self.counts, self.lower = list(words), list(counts), lower
        self._ids = {word: k for k, word in enumerate(self.words, start=RESERVED)}
        if len(self._ids) != len(self.words):
            twice = next(word for word, n in Counter(self.words).items() if n > 1)
            raise DataError(f'the word "{twice}" stands in a vocabulary twice: give each word once')
        if lower and any(word != word.lower() for word in self.words):
            cased = next(word for word in self.words if word != word.lower())
            raise DataError(f'"{cased}" is not in lower case, as a vocabulary with lower=True has its words')
        if len(self.counts) != len(self.words) or self.counts != sorted(self.counts, reverse=True):
            raise DataError("a vocabulary needs a count for each word, and falling counts")

    @classmethod
    def fit(cls, sentences: Iterable[Sequence[str]], lower: bool = False) -> Vocabulary:
        """All words that occur; those that occur equally often in the order of the alphabet."""
        counts = Counter[str]()
        for sentence in sentences:
            counts.update([word.lower() for word in sentence] if lower else sentence)
        words = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(words, [counts[word] for word in words], lower)

    def grown(self, other: Vocabulary) -> Vocabulary:
        """The same words, and behind them, as seen once, those that `other` has more."""
        words = joined(self.words, other.words)
        return Vocabulary(
            words, self.counts + [min([1, *self.counts])] * (len(words) - len(self.words)), self.lower
        )

    @property
    def size(self) -> int:
        """How many numbers there are, padding and the unknown word among them."""
        return RESERVED + len(self.words)

    @property
    def singletons(self) -> int:
        """The number from which on words were seen once, or never; `size` if there is no such word."""
        return RESERVED + sum(count > 1 for count in self.counts)

    def encode(self, words: Sequence[str]) -> Ids:
        """The number of each word."""
        asked = map(str.lower, words) if self.lower else words
        return np.fromiter((self._ids.get(word, UNKNOWN) for word in asked), np.int64, len(words))

    def to_json(self) -> dict[str, Any]:
        """Everything that `from_json` needs."""
        return {"words": self.words, "counts": self.counts, "lower": self.lower}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Vocabulary:
        """The vocabulary that `to_json` described; raises `RunError` where the description is damaged."""
        try:
            return cls(data["words"], data["counts"], data["lower"])
        except Exception as error:
            raise RunError(f"the description of the vocabulary is damaged: {error}") from None


def spell(sentences: Sequence[Sequence[str]], characters: Characters) -> tuple[Ids, Ids, Ids]:
    """The characters of a batch, with each different word spelt once.

    Returns `spellings` [W, L], the characters of each different word, padded with 0; `spelling_lengths` [W];
    and `spelling_of` [B, T], the row of `spellings` of each word of each sentence, 0 in padding. Of a word of
    more than 40 characters the first and the last 20 are taken, since beginnings and ends say the most.
    """
    rows: dict[str, int] = {}
    spelling_of = np.zeros((len(sentences), max(map(len, sentences), default=0)), np.int64)
    for places, sentence in zip(spelling_of, sentences, strict=True):
        places[: len(sentence)] = [rows.setdefault(word, len(rows)) for word in sentence]
    words = [_cut(word) for word in rows]
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    spellings = np.zeros((len(words), lengths.max(initial=0)), np.int64)
    # All at once: a call for each word takes longer than the rest together.
    spellings[np.arange(spellings.shape[1]) < lengths[:, None]] = characters.encode("".join(words))
    return spellings, lengths, spelling_of


def _cut(word: str) -> str:
    half = LONGEST_WORD // 2
    return word if len(word) <= LONGEST_WORD else word[:half] + word[-half:]
