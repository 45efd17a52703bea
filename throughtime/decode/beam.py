"""Beam search for the likeliest sequences of a batch, and its diverse form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from throughtime.decode.sampling import StepFunction
from throughtime.decode.sequences import (
    Hypothesis,
    SelectFunction,
    barred,
    check_numbers,
    length_normalised,
    limits_of,
)
from throughtime.errors import ConfigError

#: Classes of which the maximum is taken before the largest are looked for among them.
BLOCK = 64


@torch.no_grad()
def beam_search(
    step: StepFunction,
    select: SelectFunction,
    tokens: Int[Tensor, "B"],
    state: Any,
    *,
    end: int,
    beams: int = 5,
    max_length: Int[Tensor, "B"] | int,
    length_penalty: float = 1.0,
    no_repeat_ngram: int = 0,
    n_best: int = 1,
    groups: int = 1,
    diversity: float = 0.0,
    banned: Sequence[int] = (),
) -> list[list[Hypothesis]]:
    """For each row of a batch, the `n_best` best sequences found, the best first.

    tokens           the first token of each row, which the search goes on from; no part of the answer.
    state            the state before it. `select` takes rows of a state by their indices.
    end              the token that ends a sequence.
    beams            how many of the likeliest beginnings are kept after each step; 1 is greedy search.
    max_length       the most tokens of a sequence, the end token counted; for each row, or for all.
    length_penalty   a of `length_normalised` (Wu et al. 2016), by which sequences are compared.
    no_repeat_ngram  where n > 0, no n tokens occur twice in a sequence (Paulus et al. 2018).
    groups           the beams are split among as many searches, one after another at each step.
    diversity        taken off the log-probability of a token for each beam of an earlier group that chose it
                     at this step: what a group keeps is chosen by the difference, and scored without it
                     (diverse beam search with Hamming diversity, Vijayakumar et al. 2018).
    banned           tokens that never occur.

    At each step the `beams` likeliest continuations of what is open are kept by their log-probability. Those
    that end leave the beam (Sutskever et al. 2014), and the next step fills it again. The search for a row
    stops when no open hypothesis, kept at its log-probability up to the longest length, could still beat the
    n best finished ones, when none is open, or at the longest length.

    Finished hypotheses come first, in the order of their scores. Where there are fewer than `n_best`, those
    that the longest length cut follow: their log-probability is that of all that begins so, and says nothing
    of one sequence. Hypotheses that nothing can follow count as cut when no other of their group goes on.
    There is always one at least, and fewer than `n_best` only where no more were found; groups that find the
    same sequence give it once.

    Rows are searched side by side and leave the batch when they are done; what else is in the batch changes
    nothing. Raises `ConfigError` for an option that cannot be, `ShapeError` for tensors that do not fit each
    other or log-probabilities that are NaN.
    """
    _check(beams, length_penalty, no_repeat_ngram, n_best, groups, diversity)
    limits = limits_of(max_length, tokens)
    found = _Found(len(tokens), n_best, length_penalty, tokens.device)
    rows = _Rows.first(tokens, groups)
    parent = rows.sentence  # the row of the state that each hypothesis goes on from
    held = torch.arange(len(tokens), device=tokens.device)  # the rows of the state
    while True:
        cut = limits[rows.sentence] <= rows.length
        found.add(rows[cut], finished=False)
        going = ~cut & found.beatable(rows, limits)
        rows, parent = rows[going], parent[going]
        if not len(rows):
            return found.best()
        if not torch.equal(parent, held):
            state = select(state, parent)
        log_probs, state = step(rows.tokens[:, -1], state)
        held = torch.arange(len(rows), device=held.device)
        log_probs = barred(log_probs, end, banned)
        if no_repeat_ngram:
            log_probs = _without_repeats(log_probs, rows.tokens[:, 1:], no_repeat_ngram)
        longer, parent = _diverse(rows, log_probs, len(tokens), beams // groups, groups, diversity)
        found.add(rows[_stuck(rows, longer)], finished=False)
        ended = longer.tokens[:, -1] == end
        found.add(longer[ended], finished=True)
        rows, parent = longer[~ended], parent[~ended]


def _check(
    beams: int, length_penalty: float, no_repeat_ngram: int, n_best: int, groups: int, diversity: float
) -> None:
    if beams < 1:
        raise ConfigError(f"beams must be 1 or more, got {beams}")
    if not 1 <= n_best <= beams:
        raise ConfigError(f"n_best must lie in 1..{beams}, the number of beams, got {n_best}")
    if groups < 1 or beams % groups:
        raise ConfigError(f"groups must divide the {beams} beams, got {groups}")
    if not 0 <= length_penalty < math.inf:
        raise ConfigError(f"length_penalty must be 0 or more and finite, got {length_penalty:g}")
    if no_repeat_ngram < 0:
        raise ConfigError(f"no_repeat_ngram must be 0 (off) or more, got {no_repeat_ngram}")
    if not 0 <= diversity < math.inf:
        raise ConfigError(f"diversity must be 0 or more and finite, got {diversity:g}")
    if diversity and groups == 1:
        raise ConfigError(
            f"diversity is between groups, got {diversity:g} and 1 group: give 2 groups or more"
        )


@dataclass(frozen=True)
class _Rows:
    """Hypotheses, one a row, all of the same length."""

    sentence: Int[Tensor, "R"]
    group: Int[Tensor, "R"]
    #: Its place among the beams of its group.
    place: Int[Tensor, "R"]
    #: The token that it was begun with, and those found.
    tokens: Int[Tensor, "R T"]
    #: A sum over many steps, so in double precision.
    log_prob: Float[Tensor, "R"]

    @staticmethod
    def first(tokens: Int[Tensor, "B"], groups: int) -> _Rows:
        """Nothing but the first token, for each sentence and group."""
        sentence = torch.arange(len(tokens), device=tokens.device).repeat_interleave(groups)
        group = torch.arange(groups, device=tokens.device).repeat(len(tokens))
        log_prob = torch.zeros(len(sentence), dtype=torch.float64, device=tokens.device)
        return _Rows(sentence, group, torch.zeros_like(sentence), tokens[sentence][:, None], log_prob)

    @staticmethod
    def joined(parts: Sequence[_Rows]) -> _Rows:
        """All rows of all parts."""
        return _Rows(
            torch.cat([part.sentence for part in parts]),
            torch.cat([part.group for part in parts]),
            torch.cat([part.place for part in parts]),
            torch.cat([part.tokens for part in parts]),
            torch.cat([part.log_prob for part in parts]),
        )

    def __getitem__(self, rows: Tensor) -> _Rows:
        return _Rows(
            self.sentence[rows], self.group[rows], self.place[rows], self.tokens[rows], self.log_prob[rows]
        )

    def __len__(self) -> int:
        return len(self.sentence)

    @property
    def length(self) -> int:
        """Tokens found."""
        return self.tokens.shape[1] - 1


class _Found:
    """The best hypotheses so far of each sentence, finished and cut."""

    def __init__(self, batch: int, n_best: int, length_penalty: float, device: torch.device) -> None:
        self.n_best, self.length_penalty = n_best, length_penalty
        self.finished: list[list[Hypothesis]] = [[] for _ in range(batch)]
        self.cut: list[list[Hypothesis]] = [[] for _ in range(batch)]
        #: The score that a hypothesis has to beat.
        self.to_beat = torch.full((batch,), -torch.inf, dtype=torch.float64, device=device)

    def add(self, rows: _Rows, *, finished: bool) -> None:
        """Keep what is among the n best; of those that score the same, what was found first."""
        if not len(rows):
            return
        score = length_normalised(rows.log_prob, rows.length, self.length_penalty)
        if finished:
            better = score > self.to_beat[rows.sentence]
            rows, score = rows[better], score[better]
        tokens = rows.tokens[:, 1:-1] if finished else rows.tokens[:, 1:]
        columns = (rows.sentence, tokens, rows.log_prob, score)
        for sentence, *values in zip(*(column.tolist() for column in columns), strict=True):
            kept = (self.finished if finished else self.cut)[sentence]
            hypothesis = Hypothesis(values[0], values[1], values[2], finished)
            if any(hypothesis.tokens == other.tokens for other in kept):
                continue
            kept.append(hypothesis)
            kept.sort(key=lambda one: -one.score)
            del kept[self.n_best :]
            if finished and len(kept) == self.n_best:
                self.to_beat[sentence] = kept[-1].score

    def beatable(self, rows: _Rows, limits: Int[Tensor, "B"]) -> Bool[Tensor, "R"]:
        """Whether any row of the same sentence could still finish among the n best.

        No continuation is likelier than its beginning, and the length that is kindest to it is the longest.
        """
        bound = length_normalised(rows.log_prob, limits[rows.sentence].double(), self.length_penalty)
        hopeful = torch.zeros_like(self.to_beat, dtype=torch.bool)
        hopeful[rows.sentence[bound > self.to_beat[rows.sentence]]] = True
        return hopeful[rows.sentence]

    def best(self) -> list[list[Hypothesis]]:
        pairs = zip(self.finished, self.cut, strict=True)
        return [(finished + cut)[: self.n_best] for finished, cut in pairs]


def _diverse(
    rows: _Rows, log_probs: Float[Tensor, "R C"], batch: int, width: int, groups: int, diversity: float
) -> tuple[_Rows, Int[Tensor, "N"]]:
    """The likeliest continuations of each group, each less likely for being like those of earlier groups.

    Also the row that each of them continues.
    """
    if groups == 1:
        return _likeliest(rows, log_probs, log_probs, batch, width)
    penalty = log_probs.new_zeros(batch, log_probs.shape[1])  # for what earlier groups chose at this step
    parts, parents = [], []
    for group in range(groups):
        members = (rows.group == group).nonzero()[:, 0]
        mine, own = rows[members], log_probs[members]
        longer, parent = _likeliest(mine, own, own - penalty[mine.sentence], batch, width)
        each = penalty.new_full((len(longer),), diversity)
        penalty.index_put_((longer.sentence, longer.tokens[:, -1]), each, accumulate=True)
        parts.append(longer)
        parents.append(members[parent])
    return _Rows.joined(parts), torch.cat(parents)


def _likeliest(
    rows: _Rows,
    log_probs: Float[Tensor, "R C"],
    scores: Float[Tensor, "R C"],
    batch: int,
    width: int,
) -> tuple[_Rows, Int[Tensor, "N"]]:
    """The `width` possible continuations of each sentence that are best by log_prob + scores.

    They have the sums of `log_probs`. Also the row that each of them continues.
    """
    values, tokens = _largest(scores, min(width, scores.shape[1]))
    check_numbers(values[:, 0])
    each = values.shape[1]
    # A sentence has from none to `width` rows: they are laid out with room for all.
    total = rows.log_prob.new_full((batch, width, each), -torch.inf)
    total[rows.sentence, rows.place] = rows.log_prob[:, None] + values.double()
    row = rows.place.new_zeros(batch, width)
    row[rows.sentence, rows.place] = torch.arange(len(rows), device=row.device)
    total, at = total.flatten(1).sort(descending=True, stable=True)
    sentence, place = (total[:, :width] > -torch.inf).nonzero(as_tuple=True)
    at = at[sentence, place]
    parent = row[sentence, at // each]
    token = tokens[parent, at % each]
    log_prob = rows.log_prob[parent] + log_probs[parent, token].double()
    history = torch.cat([rows.tokens[parent], token[:, None]], 1)
    return _Rows(sentence, rows.group[parent], place, history, log_prob), parent


def _largest(scores: Float[Tensor, "R C"], count: int) -> tuple[Float[Tensor, "R K"], Int[Tensor, "R K"]]:
    """The `count` largest of each row and where they are.

    The largest stand in the blocks with the largest maxima, which are found several times as fast.
    """
    blocks = scores.unfold(1, BLOCK, BLOCK) if scores.shape[1] > 4 * BLOCK * count else None
    if blocks is None:
        # Unlike topk, max takes the first of equals.
        found = scores.max(-1, keepdim=True) if count == 1 else scores.topk(count)
        return found.values, found.indices
    _, block = _largest(blocks.amax(-1), count)
    inside = torch.arange(BLOCK, device=scores.device)
    rest = torch.arange(blocks.shape[1] * BLOCK, scores.shape[1], device=scores.device)
    columns = (block[:, :, None] * BLOCK + inside).flatten(1)
    columns = torch.cat([columns, rest.expand(len(scores), -1)], 1)
    values, at = _largest(scores.gather(1, columns), count)
    return values, columns.gather(1, at)


def _stuck(rows: _Rows, longer: _Rows) -> Bool[Tensor, "R"]:
    """The rows of groups in which nothing can follow anything."""
    groups = int(rows.group.max()) + 1
    return ~torch.isin(rows.sentence * groups + rows.group, longer.sentence * groups + longer.group)


def _without_repeats(
    log_probs: Float[Tensor, "R C"], tokens: Int[Tensor, "R T"], size: int
) -> Float[Tensor, "R C"]:
    """The log-probabilities with those of tokens that would repeat `size` tokens of their row at -inf."""
    if tokens.shape[1] < size:
        return log_probs
    runs = tokens.unfold(1, size, 1)
    last = tokens[:, tokens.shape[1] - size + 1 :]
    row, at = (runs[:, :, :-1] == last[:, None]).all(-1).nonzero(as_tuple=True)
    return log_probs.index_put((row, runs[row, at, -1]), log_probs.new_tensor(-torch.inf))
