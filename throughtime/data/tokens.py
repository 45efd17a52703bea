"""Tokenisers: text to the numbers a model reads, and back. Characters, words, byte pairs, or ABC notation.

All of them number the boundary between documents 0 and the unknown token 1. A character or word that was
never seen becomes the unknown token; byte pairs know every text.
"""

from __future__ import annotations

import codecs
import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from throughtime.errors import ConfigError, DataError, RunError

BOUNDARY, UNKNOWN = 0, 1
RESERVED = 2
#: What the unknown token is written as in text.
UNKNOWN_CHARACTER = "\N{REPLACEMENT CHARACTER}"
UNKNOWN_WORD = "<unk>"
Ids = NDArray[np.int64]


class Tokeniser(ABC):
    """Text to token numbers and back."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def size(self) -> int:
        """How many tokens there are, the boundary and the unknown one among them."""

    @property
    @abstractmethod
    def texts(self) -> list[str]:
        """What each token, from `RESERVED` on, stands for."""

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """The tokens of a text, without a boundary."""

    @abstractmethod
    def pieces(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of each token in turn, so that it can be shown as it is made."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Everything that `from_json` needs."""

    @abstractmethod
    def grown(self, other: Tokeniser) -> Tokeniser:
        """The same tokens, and behind them those that `other`, which is of the same kind, has more."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the tokens; a boundary has none."""
        return "".join(self.pieces(ids))


class Characters(Tokeniser):
    """Each character, in the sense of a Unicode code point, is a token."""

    kind = "char"

    def __init__(self, characters: Sequence[str]) -> None:
        self.characters = list(characters)
        codes = [ord(character) for character in self.characters]
        self._ids = np.full(max(codes, default=0) + 2, UNKNOWN, dtype=np.int64)
        self._ids[codes] = np.arange(len(codes)) + RESERVED

    @classmethod
    def fit(cls, blocks: Iterable[str], size: int | None = None) -> Characters:
        """The characters of a text; the most frequent of them where `size` bounds the tokens."""
        counts = Counter[int]()
        for block in blocks:
            codes, numbers = np.unique(_codes(block), return_counts=True)
            counts.update(dict(zip(codes.tolist(), numbers.tolist(), strict=True)))
        return cls(sorted(_most_frequent({chr(code): n for code, n in counts.items()}, size)))

    @property
    @override
    def size(self) -> int:
        return RESERVED + len(self.characters)

    @property
    @override
    def texts(self) -> list[str]:
        return self.characters

    @override
    def encode(self, text: str) -> Ids:
        return self._ids[np.minimum(_codes(text), len(self._ids) - 1)]

    @override
    def pieces(self, ids: Iterable[int]) -> Iterator[str]:
        names = ["", UNKNOWN_CHARACTER, *self.characters]
        return (names[i] for i in ids)

    @override
    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "characters": "".join(self.characters)}

    @override
    def grown(self, other: Tokeniser) -> Characters:
        return Characters(joined(self.texts, other.texts))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Characters:
        """The tokeniser that `to_json` described."""
        return cls(list(data["characters"]))


class Words(Tokeniser):
    """What stands between white space is a token, and so is each line end.

    Other white space is not kept: words come back with one space between them. A text that is already
    tokenised, as language-model corpora are, stays as it is; `<unk>` in it is the unknown token.
    """

    kind = "word"
    _pattern = re.compile(r"\n|\S+")

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self._ids = {word: k for k, word in enumerate(self.words, start=RESERVED)}

    @classmethod
    def fit(cls, blocks: Iterable[str], size: int | None = None) -> Words:
        """The words that occur at least twice; the most frequent of them where `size` bounds the tokens.

        Words that occur once become the unknown token, so that the model learns what it is like.
        """
        counts = Counter[str]()
        for block in blocks:
            counts.update(cls._pattern.findall(block))
        counts.pop(UNKNOWN_WORD, None)
        counts["\n"] += 1  # a line end is kept even where the text has a single one
        return cls(_most_frequent({word: n for word, n in counts.items() if n > 1}, size))

    @property
    @override
    def size(self) -> int:
        return RESERVED + len(self.words)

    @property
    @override
    def texts(self) -> list[str]:
        return self.words

    @override
    def encode(self, text: str) -> Ids:
        ids = (self._ids.get(word, UNKNOWN) for word in self._pattern.findall(text))
        return np.fromiter(ids, dtype=np.int64)

    @override
    def pieces(self, ids: Iterable[int]) -> Iterator[str]:
        names = ["", UNKNOWN_WORD, *self.words]
        line_start = True
        for i in ids:
            word = names[i]
            yield word if line_start or word in ("", "\n") else f" {word}"
            line_start = word == "\n" or (line_start and not word)

    @override
    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "words": self.words}

    @override
    def grown(self, other: Tokeniser) -> Words:
        return Words(joined(self.texts, other.texts))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Words:
        """The tokeniser that `to_json` described."""
        return cls(data["words"])


class Music(Tokeniser):
    """ABC notation: a note with its accidental, octave and length, a bar line, the key of a field is a token.

    So are all single characters, of which everything else is spelt: every text comes back as it was.
    """

    kind = "abc"
    _pattern = re.compile(
        r"^[A-Za-z]:"  # the key of a field
        r"|(?:\^{1,2}|_{1,2}|=)?[A-Ga-gxz][,']*[0-9]*(?:/[0-9]*)?"  # a note or a rest
        r"|:*\|+[]:]*|\[[0-9|]|\([0-9]|."  # bar lines, endings, tuplets; any other character
        r"|\n",
        re.MULTILINE,
    )

    def __init__(self, pieces: Sequence[str]) -> None:
        self._pieces = list(pieces)
        self._ids = {piece: k for k, piece in enumerate(self._pieces, start=RESERVED)}

    @classmethod
    def fit(cls, blocks: Iterable[str], size: int | None = None) -> Music:
        """The characters, and behind them what occurs twice or more; only the first where there is a size."""
        characters, counts = Counter[str](), Counter[str]()
        for block in blocks:
            characters.update(block)
            counts.update(cls._pattern.findall(block))
        longer = {piece: n for piece, n in counts.items() if n > 1 and len(piece) > 1}
        return cls(
            joined(_most_frequent(characters, size), _most_frequent(longer, None))[: size and size - RESERVED]
        )

    @property
    @override
    def size(self) -> int:
        return RESERVED + len(self._pieces)

    @property
    @override
    def texts(self) -> list[str]:
        return self._pieces

    @override
    def encode(self, text: str) -> Ids:
        known = self._ids
        ids = (
            known.get(part, UNKNOWN)
            for piece in self._pattern.findall(text)
            for part in ([piece] if piece in known else piece)
        )
        return np.fromiter(ids, dtype=np.int64)

    @override
    def pieces(self, ids: Iterable[int]) -> Iterator[str]:
        names = ["", UNKNOWN_CHARACTER, *self._pieces]
        return (names[i] for i in ids)

    @override
    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "pieces": self._pieces}

    @override
    def grown(self, other: Tokeniser) -> Music:
        return Music(joined(self.texts, other.texts))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Music:
        """The tokeniser that `to_json` described."""
        return cls(data["pieces"])


def _bytes_of_letters() -> dict[str, int]:
    """The byte of each letter that byte-level BPE writes: visible Latin-1 as it is, the rest from 256 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + k): byte for k, byte in enumerate(others)}


BYTES = _bytes_of_letters()


class BytePairs(Tokeniser):
    """Byte-pair encoding over the bytes of the text (Sennrich et al. 2016; Radford et al. 2019)."""

    kind = "bpe"
    DEFAULT_SIZE = 4096

    def __init__(self, model: str) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(model)
        ids = self._tokenizer.get_vocab()
        self._bytes = [bytes(BYTES[letter] for letter in token) for token in sorted(ids, key=ids.__getitem__)]

    @classmethod
    def fit(cls, blocks: Iterable[str], size: int | None = None) -> BytePairs:
        """Learn merges until there are `size` tokens (4096 where it is None), or no pair is left."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        wanted = (cls.DEFAULT_SIZE if size is None else size) - RESERVED
        if wanted < len(alphabet):
            raise ConfigError(
                f"{size} byte-pair tokens are too few: there are {len(alphabet)} bytes and {RESERVED} "
                f"marks, so give a vocabulary of {len(alphabet) + RESERVED} or more"
            )
        trainer = trainers.BpeTrainer(
            vocab_size=wanted, initial_alphabet=alphabet, min_frequency=2, show_progress=False
        )
        tokenizer.train_from_iterator(blocks, trainer)
        return cls(tokenizer.to_str())

    @property
    @override
    def size(self) -> int:
        return RESERVED + len(self._bytes)

    @property
    @override
    def texts(self) -> list[str]:
        return [token.decode(errors="replace") for token in self._bytes]

    @override
    def encode(self, text: str) -> Ids:
        return np.asarray(self._tokenizer.encode(text).ids, dtype=np.int64) + RESERVED

    @override
    def pieces(self, ids: Iterable[int]) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for i in ids:
            if i < RESERVED:
                yield "" if i == BOUNDARY else UNKNOWN_CHARACTER
            else:  # a character whose bytes are several tokens comes with the last of them
                yield decoder.decode(self._bytes[i - RESERVED])

    @override
    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "model": json.loads(self._tokenizer.to_str())}

    @override
    def grown(self, other: Tokeniser) -> BytePairs:
        return self  # every text is made of its tokens

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> BytePairs:
        """The tokeniser that `to_json` described."""
        return cls(json.dumps(data["model"]))


TOKENISERS: dict[str, type[Characters] | type[Words] | type[BytePairs] | type[Music]] = {
    tokeniser.kind: tokeniser for tokeniser in (Characters, Words, BytePairs, Music)
}


def fit_tokeniser(kind: str, blocks: Iterable[str], size: int | None = None) -> Tokeniser:
    """A tokeniser of `kind` (char, word, bpe or abc) for a text, of at most `size` tokens."""
    if size is not None and size <= RESERVED:
        raise ConfigError(f"a vocabulary of {size} leaves no room: give more than {RESERVED}")
    tokeniser = TOKENISERS[kind].fit(blocks, size)
    if tokeniser.size == RESERVED:
        raise DataError("the text has no word that occurs twice: train on characters instead")
    return tokeniser


def tokeniser_from_json(data: dict[str, Any]) -> Tokeniser:
    """The tokeniser that `to_json` described; raises `RunError` where the description is damaged."""
    try:
        return TOKENISERS[data["kind"]].from_json(data)
    except Exception as error:
        raise RunError(f"the description of the tokeniser is damaged: {error}") from None


def joined(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """The names, and behind them those of the others that are not among them."""
    return list(dict.fromkeys([*names, *others]))


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _most_frequent(counts: dict[str, int], size: int | None) -> list[str]:
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    return ranked if size is None else ranked[: size - RESERVED]
