"""Spelling correction by a noisy channel: what a language model expects, and how far that is from it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray

from throughtime.data.tokens import BOUNDARY, RESERVED, UNKNOWN
from throughtime.errors import ConfigError
from throughtime.nn.state import select_rows
from throughtime.tasks.language_model import LanguageModelTask

#: A word, as it stands between what is none.
WORD = re.compile(r"(?<!\w)[^\W\d_]+(?:['’][^\W\d_]+)*(?!\w)")
#: What a single slip of the fingers costs, in nats: one key in some hundreds goes wrong.
SLIP = 6.0
#: Slips in a word that are thought of, words that are weighed in context, and words after it that are read.
SLIPS, WEIGHED, AFTER = 2, 40, 3


class Corrector:
    """Corrects the words that a word-level language model does not know (Kernighan, Church & Gale 1990).

        correction(w) = argmax_v  log p(v | words before) + log p(words after | v, words before) - 6 d(v, w)

    over the words v of the model within d = 2 slips of w: a letter too many, too few, another, or two in the
    wrong order. Case is kept. Raises `ConfigError` for a model of anything but words.
    """

    def __init__(self, task: LanguageModelTask) -> None:
        if task.tokeniser.kind != "word":
            raise ConfigError(
                f"the run predicts {task.tokeniser.kind} tokens: correction needs --tokens word in training"
            )
        self.task = task
        texts = task.tokeniser.texts
        self.words = {w: k for k, w in enumerate(texts, start=RESERVED) if WORD.fullmatch(w)}
        self._lexicon = Lexicon(self.words)

    def answer(self, texts: Iterable[str]) -> list[dict[str, Any]]:
        """Each text corrected, and what was changed."""
        return [self._answer(text) for text in texts]

    def _answer(self, text: str) -> dict[str, Any]:
        output, changes, end = "", [], 0
        for found in WORD.finditer(text):
            word = found.group()
            output += text[end : found.start()]
            end = found.end()
            if word in self.words or word.lower() in self.words:
                output += word
                continue
            candidates = self._candidates(word, output, text[end:])
            best = _in_case_of(word, candidates[0]) if candidates else word
            changes.append({"word": word, "correction": best, "candidates": candidates[:5]})
            output += best
        return {"input": text, "output": output + text[end:], "changes": changes}

    @torch.no_grad()
    def _candidates(self, word: str, before: str, after: str) -> list[str]:
        """The words that may be meant, the best first."""
        near = self._lexicon.near(word.lower(), SLIPS)
        for v, d in self._lexicon.near(word, SLIPS).items():
            near[v] = min(d, near.get(v, d))
        if not near:
            return []
        model, tokeniser = self.task.model, self.task.tokeniser
        read = torch.tensor([[BOUNDARY, *tokeniser.encode(_spaced(before)).tolist()]])
        features, state = model.features(read, model.begin(1))
        log_probs = model.head.log_probs(features[0, -1])
        channel = {v: log_probs[self.words[v]].item() - SLIP * d for v, d in near.items()}
        kept = sorted(channel, key=channel.__getitem__, reverse=True)[:WEIGHED]
        follow = [k for k in tokeniser.encode(_spaced(after)).tolist() if k != UNKNOWN][:AFTER]
        if follow:
            rows = torch.tensor([[self.words[v], *follow] for v in kept])
            features, _ = model.features(rows[:, :-1], select_rows(state, [0] * len(kept)))
            ahead = model.head.log_probs(features).gather(-1, rows[:, 1:, None])[..., 0].sum(1).tolist()
            total = {v: channel[v] + score for v, score in zip(kept, ahead, strict=True)}
            kept = sorted(kept, key=total.__getitem__, reverse=True)
        return kept


class Lexicon:
    """Words, and which of them are a few slips away from another."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = sorted(words, key=len)
        lengths = np.array([len(word) for word in self.words], np.int64)
        self._codes = np.zeros((len(self.words), lengths.max(initial=0)), np.int32)
        for row, word in zip(self._codes, self.words, strict=True):
            row[: len(word)] = [ord(letter) for letter in word]
        self._lengths = lengths

    def near(self, word: str, most: int) -> dict[str, int]:
        """The words at most so many slips away, and how many (optimal string alignment distance)."""
        first, last = np.searchsorted(self._lengths, [len(word) - most, len(word) + most + 1])
        distances = _distances(word, self._codes[first:last], self._lengths[first:last])
        return {self.words[first + k]: int(distances[k]) for k in np.flatnonzero(distances <= most)}


def _distances(
    word: str, codes: Int[NDArray[np.int32], "N L"], lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The distance of a word to each of N others: the usual table, filled for all of them at once."""
    count, longest = len(codes), int(lengths.max(initial=0))
    rows = [np.tile(np.arange(longest + 1), (count, 1))]
    for i, letter in enumerate(map(ord, word), start=1):
        row = np.full((count, longest + 1), i)
        for j in range(1, longest + 1):
            same = codes[:, j - 1] == letter
            row[:, j] = np.minimum(np.minimum(rows[-1][:, j], row[:, j - 1]) + 1, rows[-1][:, j - 1] + ~same)
            if i > 1 and j > 1:
                swapped = (codes[:, j - 2] == letter) & (codes[:, j - 1] == ord(word[i - 2]))
                row[:, j] = np.where(swapped, np.minimum(row[:, j], rows[-2][:, j - 2] + 1), row[:, j])
        rows.append(row)
    found: NDArray[np.int64] = rows[-1][np.arange(count), lengths]
    return found


def _spaced(text: str) -> str:
    """A text with spaces round its signs, as texts are that models of words are trained on."""
    return re.sub(r"([^\w\s'’-])", r" \1 ", text)


def _in_case_of(word: str, correction: str) -> str:
    if word.isupper() and len(word) > 1:
        return correction.upper()
    return correction[:1].upper() + correction[1:] if word[:1].isupper() else correction
