"""The likeliest next words, found by beam search over the pieces that words are spelt with."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from throughtime.decode.sampling import StepFunction

_WORD = re.compile(r"[\w'’-]+")
_TYPED = re.compile(r" ?(?:[\w'’-]+)?\Z")
#: Pieces in the longest word that is looked for.
LONGEST = 32
HALF = "\N{REPLACEMENT CHARACTER}"


def typed_part(text: str) -> str:
    """The end of a text that the next word begins with: a space, the beginning of a word, or both."""
    found = _TYPED.search(text)
    return found.group() if found else ""


@torch.no_grad()
def complete_words(
    step: StepFunction,
    select: Callable[[Any, Tensor], Any],
    log_probs: Float[Tensor, "C"],
    state: Any,
    pieces: Sequence[str],
    *,
    typed: str = "",
    count: int = 5,
    beams: int = 32,
) -> list[tuple[str, float]]:
    """The `count` likeliest words after a text and `typed`, with their probabilities given both.

    log_probs  of the first piece after the text.
    state      after the text, of one row.
    select     takes rows of a state by their indices.
    pieces     the text of each token.
    typed      what stands after the text and the model has not read: every spelling begins with it. Where
               pieces are longer than a character, what was typed may be the beginning of one.

    The probability of a word is that of spelling it and then ending it, by a piece that begins with
    something that no word holds, summed over the spellings among the `beams` likeliest beginnings. A piece
    with half a character in it, which shows as U+FFFD, is in no word and ends none. The search ends when
    no open beginning can still beat the words found.
    """
    whole = [HALF not in piece for piece in pieces]
    goes_on = torch.tensor([ok and bool(_WORD.match(p)) for ok, p in zip(whole, pieces, strict=True)])
    ends = torch.tensor(whole) & ~goes_on
    found: dict[str, float] = {}
    covered = 0.0 if typed else 1.0  # the probability of all that begins with what was typed
    spelt, total = [""], log_probs[None]
    for _ in range(LONGEST):
        candidates: list[tuple[float, int, int]] = []
        for row, text in enumerate(spelt):
            word = text.lstrip(" ")
            if word and len(text) >= len(typed):
                found[word] = found.get(word, 0.0) + total[row, ends].exp().sum().item()
                allowed = goes_on
            else:
                fits = [
                    ok and p != "" and _fits(text + p, typed) for ok, p in zip(whole, pieces, strict=True)
                ]
                allowed = torch.tensor(fits)
                if len(text) < len(typed):
                    reach = torch.tensor([len(text + piece) >= len(typed) for piece in pieces])
                    covered += total[row, allowed & reach].exp().sum().item()
            best = total[row].masked_fill(~allowed, -math.inf).topk(min(beams, len(pieces)))
            pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
            candidates += [(value, row, token) for value, token in pairs if value > -math.inf]
        beginnings: list[tuple[float, int, int]] = []
        for value, row, token in sorted(candidates, reverse=True)[:beams]:
            text = spelt[row] + pieces[token]
            word = text.lstrip(" ")
            head = _WORD.match(word)
            if typed.startswith(text) or (head and head.group() == word):
                beginnings.append((value, row, token))
            elif head:  # the piece ends the word itself
                found[head.group()] = found.get(head.group(), 0.0) + math.exp(value)
        ranked = sorted(found.values(), reverse=True)[:count]
        if not beginnings or (len(ranked) == count and math.exp(beginnings[0][0]) < ranked[-1]):
            break
        rows, tokens = (torch.tensor([beginning[k] for beginning in beginnings]) for k in (1, 2))
        spelt = [spelt[row] + pieces[token] for _, row, token in beginnings]
        after, state = step(tokens, select(state, rows))
        total = after + torch.tensor([value for value, _, _ in beginnings])[:, None]
    possible = [(word, p / covered) for word, p in found.items() if p > 0]
    return sorted(possible, key=lambda item: (-item[1], item[0]))[:count]


def _fits(text: str, typed: str) -> bool:
    """Whether a spelling and what was typed agree as far as both go."""
    return text.startswith(typed) or typed.startswith(text)
