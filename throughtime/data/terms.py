"""Texts as the terms of a vocabulary that was learned from them: words of any text, or k-mers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from throughtime.data.spellings import Vocabulary
from throughtime.data.tokens import Ids
from throughtime.errors import ConfigError, DataError, RunError

#: A word, with what apostrophes and hyphens join to it; or a sign that stands for itself.
_TERM = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")


class Terms:
    """Numbers for the terms of texts: 0 for padding, 1 for what is not known, then by falling frequency.

    cut     "word": words and each sign between them; "kmer": all runs of `length` characters, one beginning
            at each character, as DNA is read.
    lower   whether case makes no difference.
    """

    def __init__(self, cut: Literal["word", "kmer"], vocabulary: Vocabulary, length: int = 3) -> None:
        self.cut, self.vocabulary, self.length = cut, vocabulary, length

    @classmethod
    def fit(
        cls,
        texts: Iterable[str],
        cut: Literal["word", "kmer"],
        *,
        lower: bool = False,
        length: int = 3,
        min_count: int = 1,
        most: int | None = None,
    ) -> Terms:
        """The terms that occur at least `min_count` times; the most frequent where `most` bounds the numbers.

        Raises `DataError` where there is none.
        """
        made = Vocabulary.fit((split_text(text, cut, length) for text in texts), lower)
        kept = [(w, n) for w, n in zip(made.words, made.counts, strict=True) if n >= min_count]
        kept = kept if most is None else kept[: max(most - 2, 0)]
        if not kept:
            raise DataError(f"the texts have no {cut} that occurs {min_count} times: give more text")
        return cls(cut, Vocabulary([w for w, _ in kept], [n for _, n in kept], lower), length)

    def grown(self, other: Terms) -> Terms:
        """The same terms, and behind them those that `other` has more."""
        return Terms(self.cut, self.vocabulary.grown(other.vocabulary), self.length)

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return self.vocabulary.size

    @property
    def texts(self) -> list[str]:
        """The terms from number 2 on."""
        return self.vocabulary.words

    def encode(self, text: str) -> Ids:
        """The numbers of the terms of a text."""
        return self.vocabulary.encode(split_text(text, self.cut, self.length))

    def to_json(self) -> dict[str, Any]:
        """Everything that `from_json` needs."""
        return {"kind": "terms", "cut": self.cut, "length": self.length} | self.vocabulary.to_json()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Terms:
        """The terms that `to_json` described; raises `RunError` where the description is damaged."""
        try:
            return cls(data["cut"], Vocabulary.from_json(data), int(data["length"]))
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"the description of the terms is damaged: {error}") from None


def split_text(text: str, cut: Literal["word", "kmer"], length: int = 3) -> list[str]:
    """The terms of a text in order."""
    if cut == "word":
        return _TERM.findall(text)
    if length < 1:
        raise ConfigError(f"k-mers have 1 or more characters, got {length}")
    return [text[k : k + length] for k in range(max(len(text) - length, 0) + 1)] if text else []
