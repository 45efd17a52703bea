"""Searches over the steps of connectionist temporal classification, with or without a language model.

They take log-probabilities [T, C] of every class at every step, the blank among the classes, and a language
model as functions; they know neither model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from throughtime.errors import ConfigError, ShapeError

#: Takes the last tokens [R] of R beginnings, which may differ in length, and the state of each; returns
#: log-probabilities [R, C] and the states after.
FusionStep = Callable[[Tensor, Sequence[Any]], tuple[Tensor, Sequence[Any]]]


@dataclass(frozen=True)
class Transcript:
    """An output that a search found.

    tokens    the classes, without blanks.
    log_prob  log p(tokens | x), in nats, over all alignments.
    score     what outputs are compared by: with the language model and the bonus in it.
    """

    tokens: list[int]
    log_prob: float
    score: float


@dataclass(frozen=True)
class Fusion:
    """A language model that a search asks: shallow fusion.

    step     reads a token of each beginning. In the column of the blank stands the log-probability that the
             text ends there.
    first    log-probabilities [C] of the first token, and `begin` the state before it.
    weight   what its log-probabilities are multiplied by.
    """

    step: FusionStep
    first: Float[Tensor, "C"]
    begin: Any
    weight: float = 1.0


@torch.no_grad()
def greedy_search(log_probs: Float[Tensor, "T C"], blank: int = 0) -> Transcript:
    """The output of the likeliest alignment, which is not always the likeliest output."""
    _check(log_probs)
    tokens, _ = collapse(log_probs.argmax(-1).tolist(), blank)
    log_prob = sequence_log_prob(log_probs, tokens, blank)
    return Transcript(tokens, log_prob, log_prob)


def collapse(path: Sequence[int], blank: int = 0, before: int | None = None) -> tuple[list[int], int]:
    """What is left of an alignment when equal neighbours are one and blanks are out; and its last class.

    `before` is the class of the step before the first, for an alignment that comes in pieces.
    """
    last = blank if before is None else before
    tokens = []
    for each in path:
        if each not in (last, blank):
            tokens.append(each)
        last = each
    return tokens, last


@torch.no_grad()
def sequence_log_prob(log_probs: Float[Tensor, "T C"], tokens: Sequence[int], blank: int = 0) -> float:
    """log p(tokens | x): the sum over all alignments."""
    if not len(log_probs):
        return 0.0 if not tokens else -torch.inf
    return -F.ctc_loss(
        log_probs.double()[:, None],
        torch.tensor([list(tokens)], dtype=torch.int64),
        torch.tensor([len(log_probs)]),
        torch.tensor([len(tokens)]),
        blank,
        reduction="sum",
    ).item()


@torch.no_grad()
def align(log_probs: Float[Tensor, "T C"], tokens: Sequence[int], blank: int = 0) -> list[tuple[int, int]]:
    """From which step to before which step each token stands in the likeliest alignment of all (Viterbi).

    Raises `ShapeError` where there are too few steps for an alignment.
    """
    states = [blank]
    for token in tokens:
        states += [token, blank]
    scores = log_probs.double().numpy()[:, states] if len(log_probs) else np.zeros((0, len(states)))
    # A token may follow another without a blank between them where they differ.
    skips = [k >= 2 and states[k] != blank and states[k] != states[k - 2] for k in range(len(states))]
    best = np.full(len(states), -np.inf)
    came = np.zeros(scores.shape, dtype=np.int64)
    for t, row in enumerate(scores):
        if t == 0:
            best[: min(2, len(states))] = row[:2]
            continue
        ways = np.full((3, len(states)), -np.inf)
        ways[0], ways[1, 1:] = best, best[:-1]
        ways[2, 2:] = np.where(skips[2:], best[:-2], -np.inf)
        came[t] = ways.argmax(0)
        best = ways.max(0) + row
    ends = best[-2:]
    if tokens and not (len(scores) and np.isfinite(ends).any()):
        raise ShapeError(f"{len(scores)} steps have no alignment with {len(tokens)} tokens")
    at = len(states) - len(ends) + int(ends.argmax())
    steps: list[list[int]] = [[] for _ in states]
    for t in reversed(range(len(scores))):
        steps[at].append(t)
        at -= came[t, at]
    return [(min(stood), max(stood) + 1) for stood in steps[1::2]]


@torch.no_grad()
def prefix_beam_search(
    log_probs: Float[Tensor, "T C"],
    *,
    blank: int = 0,
    beams: int = 10,
    n_best: int = 1,
    fusion: Fusion | None = None,
    length_bonus: float = 0.0,
) -> list[Transcript]:
    """The outputs that score best, the best first (Hannun, Maas, Jurafsky & Ng 2014):

        score(y) = log p(y | x) + weight log p_language(y) + length_bonus |y|

    Step by step the `beams` best beginnings are kept, each with the probability of all its alignments so far
    that end in a blank, and of those that do not; beginnings that become equal are one. Those that are left
    at the end are scored anew, over the alignments too whose beginnings were not kept. With as many beams as
    there are beginnings the result is exact.

    length_bonus  added for each token; a language model makes outputs short, and this makes up for it.

    Raises `ConfigError` for an option that cannot be, `ShapeError` for log-probabilities with NaN.
    """
    if beams < 1 or n_best < 1:
        raise ConfigError(f"beams and n_best must be 1 or more, got {beams} and {n_best}")
    _check(log_probs)
    search = _Search(log_probs.shape[1], blank, max(beams, n_best), fusion, length_bonus)
    for row in log_probs.double().numpy():
        search.advance(row)
    found = []
    for tokens, fused in search.ends():
        log_prob = sequence_log_prob(log_probs, tokens, blank)
        found.append(Transcript(tokens, log_prob, log_prob + fused))
    return sorted(found, key=lambda each: -each.score)[:n_best]


@dataclass
class _Prefix:
    """A beginning, what language and bonus say of it, and of each token after it, and the state after it."""

    tokens: tuple[int, ...]
    fused: float
    language: Float[NDArray[np.float64], "C"]
    state: Any


class _Search:
    """The beginnings that are kept, and the log-probabilities of their alignments so far:

    `ends_blank` are of those that end in a blank, `ends_token` of those that end in the last token.
    """

    def __init__(
        self,
        classes: int,
        blank: int,
        beams: int,
        fusion: Fusion | None,
        length_bonus: float,
    ) -> None:
        self.blank, self.beams, self.fusion, self.length_bonus = blank, beams, fusion, length_bonus
        self.closed = np.zeros(classes)  # what may not follow anything
        self.closed[blank] = -np.inf
        language, state = np.zeros(classes), None
        if fusion is not None:
            language, state = _weighted(fusion.first[None], fusion.weight)[0], fusion.begin
        self.prefixes = [_Prefix((), 0.0, language, state)]
        self.ends_blank, self.ends_token = np.zeros(1), np.full(1, -np.inf)

    def advance(self, log_probs: Float[NDArray[np.float64], "C"]) -> None:
        """Read the log-probabilities of a step."""
        total = np.logaddexp(self.ends_blank, self.ends_token)
        stays_blank = total + log_probs[self.blank]
        last = [prefix.tokens[-1] if prefix.tokens else self.blank for prefix in self.prefixes]
        rows = np.arange(len(last))
        stays_token = np.where(
            [bool(p.tokens) for p in self.prefixes], self.ends_token + log_probs[last], -np.inf
        )
        # After its own last token a beginning goes on with the same one only where a blank is between them.
        before = np.repeat(total[:, None], len(log_probs), 1)
        before[rows, last] = self.ends_blank
        longer = before + log_probs + self.closed
        self._merge(longer, stays_token)
        fused = np.array([prefix.fused for prefix in self.prefixes])
        step = np.array([prefix.language for prefix in self.prefixes]) + self.length_bonus
        scores = np.concatenate(
            [np.logaddexp(stays_blank, stays_token) + fused, (longer + fused[:, None] + step).ravel()]
        )
        chosen = np.argsort(-scores, kind="stable")[: self.beams]
        chosen = chosen[scores[chosen] > -np.inf]
        stay = chosen[chosen < len(rows)]
        parent, token = np.divmod(chosen[chosen >= len(rows)] - len(rows), len(log_probs))
        made = self._continued(parent.tolist(), token.tolist(), step)
        self.ends_blank = np.concatenate([stays_blank[stay], np.full(len(made), -np.inf)])
        self.ends_token = np.concatenate([stays_token[stay], longer[parent, token]])
        self.prefixes = [self.prefixes[k] for k in stay] + made

    def _merge(self, longer: NDArray[np.float64], stays: NDArray[np.float64]) -> None:
        """Add what becomes equal to a beginning that is kept to that one."""
        place = {prefix.tokens: k for k, prefix in enumerate(self.prefixes)}
        for k, prefix in enumerate(self.prefixes):
            if prefix.tokens and (parent := place.get(prefix.tokens[:-1])) is not None:
                token = prefix.tokens[-1]
                stays[k] = np.logaddexp(stays[k], longer[parent, token])
                longer[parent, token] = -np.inf

    def _continued(
        self, parents: list[int], tokens: list[int], step: Float[NDArray[np.float64], "K C"]
    ) -> list[_Prefix]:
        made = [
            _Prefix((*old.tokens, token), old.fused + step[k, token], old.language, old.state)
            for k, token in zip(parents, tokens, strict=True)
            for old in [self.prefixes[k]]
        ]
        if self.fusion is None or not made:
            return made
        fusion = self.fusion
        log_probs, states = fusion.step(torch.tensor(tokens), [prefix.state for prefix in made])
        rows = _weighted(log_probs, fusion.weight)
        for prefix, row, state in zip(made, rows, states, strict=True):
            prefix.language, prefix.state = row, state
        return made

    def ends(self) -> list[tuple[list[int], float]]:
        """The beginnings as whole outputs, and what language and bonus say of each."""
        return [(list(p.tokens), p.fused + float(p.language[self.blank])) for p in self.prefixes]


def _weighted(log_probs: Float[Tensor, "R C"], weight: float) -> Float[NDArray[np.float64], "R C"]:
    """weight x log_probs; 0 where the weight is, of what is impossible too."""
    values: NDArray[np.float64] = log_probs.double().numpy()
    return weight * values if weight else np.zeros_like(values)


def _check(log_probs: Tensor) -> None:
    if log_probs.ndim != 2:
        raise ShapeError(f"log_probs must be [steps, classes], got the shape {list(log_probs.shape)}")
    if log_probs.isnan().any():
        raise ShapeError("log_probs hold NaN")
