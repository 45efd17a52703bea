"""The likeliest next words, found by beam search over the pieces that words are spelt with."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from throughtime.decode.sampling import StepFunction

_WORD = re.compile(r"[\w'’-]+")
#: Pieces in the longest word that is looked for.
LONGEST = 32


def started_word(text: str) -> str:
    """The word that a text ends in the middle of; empty where it ends between words."""
    found = re.search(_WORD.pattern + r"\Z", text)
    return found.group() if found else ""


@torch.no_grad()
def complete_words(
    step: StepFunction,
    select: Callable[[Any, Tensor], Any],
    log_probs: Float[Tensor, "C"],
    state: Any,
    pieces: Sequence[str],
    *,
    started: str = "",
    count: int = 5,
    beams: int = 32,
) -> list[tuple[str, float]]:
    """The `count` likeliest words after a text that ended with `started`, with their probabilities.

    log_probs  of the first piece.
    state      after the text, of one row.
    select     takes rows of a state by their indices.
    pieces     the text of each token.

    The probability of a word is that of spelling it and then ending it, by a piece that begins with
    something that no word holds; it is summed over all spellings among the `beams` likeliest beginnings
    and so is never too high. The search ends when no open beginning can still beat the words found.
    """
    heads = [_head(piece) for piece in pieces]
    has_head = torch.tensor([bool(head) for head in heads])
    ends = torch.tensor(
        [not head or piece.startswith(" ") for head, piece in zip(heads, pieces, strict=True)]
    )
    found: dict[str, float] = {}
    words, total = [started], log_probs[None]
    for _ in range(LONGEST):
        between = words == [""]
        if not between:
            for word, probability in zip(words, total[:, ends].exp().sum(1).tolist(), strict=True):
                found[word] = found.get(word, 0.0) + probability
        going = total.masked_fill(~(has_head if between else ~ends), -torch.inf).flatten()
        best = going.topk(min(beams, len(going)))
        beginnings: list[tuple[str, int, int, float]] = []
        for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            row, token = divmod(index, len(pieces))
            word = words[row] + heads[token]
            if pieces[token].lstrip(" ") == heads[token]:
                beginnings.append((word, row, token, value))
            else:  # the piece ends the word itself
                found[word] = found.get(word, 0.0) + torch.tensor(value).exp().item()
        ranked = sorted(found.values(), reverse=True)[:count]
        open_best = torch.tensor(beginnings[0][3]).exp().item() if beginnings else 0.0
        if not open_best or (len(ranked) == count and open_best < ranked[-1]):
            break
        words = [word for word, _, _, _ in beginnings]
        rows = torch.tensor([row for _, row, _, _ in beginnings])
        tokens = torch.tensor([token for _, _, token, _ in beginnings])
        log_probs_after, state = step(tokens, select(state, rows))
        total = log_probs_after + torch.tensor([value for *_, value in beginnings])[:, None]
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))[:count]


def _head(piece: str) -> str:
    """The letters of a word that a piece begins with, after spaces."""
    found = _WORD.match(piece.lstrip(" "))
    return found.group() if found else ""
