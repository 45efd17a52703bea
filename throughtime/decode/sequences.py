"""Sequences that come to an end: what a search says of each, and drawing them by chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor

from throughtime.decode.sampling import StepFunction, filtered
from throughtime.errors import ConfigError, ShapeError

#: Takes the rows of a state that a tensor of indices names; a row may be taken several times.
SelectFunction = Callable[[Any, Tensor], Any]


@dataclass(frozen=True)
class Hypothesis:
    """A sequence that a search found.

    tokens    without the one that it was begun with and without the end token.
    log_prob  log p(tokens, and the end token where it is finished), in nats, as the step function gave it:
              before temperature, filters and penalties.
    score     `length_normalised(log_prob)`: what hypotheses are compared by.
    finished  whether the end token followed. Otherwise the longest length cut it, or nothing could follow.
    """

    tokens: list[int]
    log_prob: float
    score: float
    finished: bool


@overload
def length_normalised(log_prob: float, length: int, length_penalty: float = 1.0) -> float: ...


@overload
def length_normalised(log_prob: Tensor, length: int | Tensor, length_penalty: float = 1.0) -> Tensor: ...


def length_normalised(
    log_prob: float | Tensor, length: int | Tensor, length_penalty: float = 1.0
) -> float | Tensor:
    """log p(Y) / ((5 + |Y|) / 6)^a, which favours no length as log p(Y) favours the short (Wu et al. 2016).

    |Y| is `length`, the end token counted; a is `length_penalty`, and 0 leaves log p(Y) as it is.
    """
    # Divided the other way round, an extreme penalty underflows to 0 and does not overflow.
    return log_prob * (6 / (5 + length)) ** length_penalty


@torch.no_grad()
def sample_sequences(
    step: StepFunction,
    select: SelectFunction,
    tokens: Int[Tensor, "B"],
    state: Any,
    *,
    end: int,
    max_length: Int[Tensor, "B"] | int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    banned: Sequence[int] = (),
    seeds: Sequence[int] | None = None,
) -> list[Hypothesis]:
    """Draw one sequence for each row of a batch, from its first token in `tokens` and its row of `state`.

    select      takes rows of a state by their indices: rows that are done leave the batch.
    end         the token that ends a sequence.
    max_length  the most tokens that are drawn, the end token counted; for each row, or for all.
    banned      tokens that are never drawn.
    seeds       one for each row; drawn from torch's global generator where it is None.

    The options between these are those of `filtered`; a temperature of 0 is greedy search. Each row draws
    from a generator of its own, one number for each of its tokens, so that its sequence does not depend on
    what else is in the batch. A row in which nothing can follow is left as it stands, unfinished.

    Raises `ConfigError` for an option that cannot be, `ShapeError` for tensors that do not fit each other or
    log-probabilities that are NaN.
    """
    limits = limits_of(max_length, tokens)
    generators = [torch.Generator().manual_seed(seed) for seed in _seeds(seeds, len(tokens))]
    drawn: list[list[int]] = [[] for _ in generators]
    log_prob = torch.zeros(len(tokens), dtype=torch.float64, device=tokens.device)
    rows = torch.arange(len(tokens), device=tokens.device)  # of the batch, of those that go on
    goes_on, last, length = limits > 0, tokens, 0
    while goes_on.any():
        if not goes_on.all():
            rows, last, state = rows[goes_on], last[goes_on], select(state, goes_on.nonzero()[:, 0])
        log_probs, state = step(last, state)
        allowed = barred(log_probs, end, banned)
        best = allowed.amax(-1)
        check_numbers(best)
        possible = best > -torch.inf
        # Where nothing is possible there is nothing to draw from; what is drawn there is not kept.
        kept = filtered(allowed.where(possible[:, None], 0.0), temperature, top_k, top_p)
        last = _draw(kept, [generators[row] for row in rows.tolist()])
        value = log_probs.gather(1, last[:, None])[:, 0].double()
        log_prob[rows] += value.where(possible, 0.0)
        length += 1
        for row, token in zip(rows[possible].tolist(), last[possible].tolist(), strict=True):
            drawn[row].append(token)
        goes_on = possible & (last != end) & (limits[rows] > length)
    return [_hypothesis(*pair, end) for pair in zip(drawn, log_prob.tolist(), strict=True)]


def limits_of(max_length: Int[Tensor, "B"] | int, tokens: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
    """The longest length of each row, from what is given for each or for all; checks both."""
    if tokens.ndim != 1:
        raise ShapeError(f"tokens must be [batch], one for each row, got the shape {list(tokens.shape)}")
    limits = torch.as_tensor(max_length, device=tokens.device)
    if limits.is_floating_point() or limits.shape not in ((), tokens.shape):
        raise ShapeError(
            f"max_length must be a whole number or one for each of {len(tokens)} rows, "
            f"got {limits.dtype} of the shape {list(limits.shape)}"
        )
    if (limits < 0).any():
        raise ConfigError(f"max_length must be 0 or more, got {limits.min().item()}")
    return limits.expand(len(tokens))


def barred(log_probs: Float[Tensor, "R C"], end: int, banned: Sequence[int]) -> Float[Tensor, "R C"]:
    """The log-probabilities with those of the banned tokens at -inf; checks that the tokens exist."""
    classes = log_probs.shape[-1]
    wrong = [token for token in (end, *banned) if not 0 <= token < classes]
    if wrong:
        raise ConfigError(f"the end token and banned tokens must lie in 0..{classes - 1}, got {wrong[0]}")
    if end in banned:
        raise ConfigError(f"the end token {end} is banned, so that nothing ends: take it out of `banned`")
    if not banned:
        return log_probs
    return log_probs.index_fill(1, torch.tensor(list(banned), device=log_probs.device), -torch.inf)


def check_numbers(best: Float[Tensor, "R"]) -> None:
    """Raise `ShapeError` where the largest log-probability of a row is NaN."""
    if best.isnan().any():
        raise ShapeError("the step function returned NaN where log-probabilities are wanted")


def _seeds(seeds: Sequence[int] | None, batch: int) -> Sequence[int]:
    if seeds is None:
        return torch.randint(2**62, (batch,)).tolist()
    if len(seeds) != batch:
        raise ConfigError(f"seeds must be one for each of {batch} rows, got {len(seeds)}")
    return seeds


def _draw(log_probs: Float[Tensor, "R C"], generators: Sequence[torch.Generator]) -> Int[Tensor, "R"]:
    """A token for each row, where its cumulative distribution passes the uniform number of its generator."""
    numbers = [torch.rand((), dtype=torch.float64, generator=generator) for generator in generators]
    reached = log_probs.double().exp().cumsum(-1)
    level = torch.stack(numbers).to(reached.device)[:, None] * reached[:, -1:]
    return torch.searchsorted(reached, level, right=True)[:, 0]


def _hypothesis(drawn: list[int], log_prob: float, end: int) -> Hypothesis:
    finished = drawn[-1:] == [end]
    tokens = drawn[:-1] if finished else drawn
    return Hypothesis(tokens, log_prob, length_normalised(log_prob, len(drawn)), finished)
