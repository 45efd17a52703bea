"""Sampling and greedy search, one token after another, from a step function."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from throughtime.errors import ConfigError

#: From the last tokens [B] and a state to log-probabilities [B, C] of the next and the state after.
StepFunction = Callable[[Tensor, Any], tuple[Tensor, Any]]


def filtered(
    log_probs: Float[Tensor, "B C"],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Float[Tensor, "B C"]:
    """The log-probabilities that sampling draws from.

    They are divided by `temperature` and normalised; then only the `top_k` likeliest are kept
    (Fan et al. 2018), and of these the likeliest that together reach the probability `top_p`
    (Holtzman et al. 2020). At least one is always kept. A temperature of 0 keeps the likeliest alone.
    """
    if not 0 <= temperature < math.inf:
        raise ConfigError(f"temperature must be 0 or more and finite, got {temperature:g}")
    if top_k is not None and top_k < 1:
        raise ConfigError(f"top-k must be 1 or more, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ConfigError(f"top-p must lie in (0, 1], got {top_p:g}")
    if temperature == 0:
        top_k = 1
    else:
        # The largest becomes 0 first, so that a tiny temperature leaves it alone.
        best = log_probs.max(-1, keepdim=True).values
        log_probs = ((log_probs - best) / temperature).log_softmax(-1)
    if top_k is None and top_p is None:
        return log_probs  # sorting thousands of classes takes longer than the rest
    ordered, order = log_probs.sort(descending=True, stable=True)
    dropped = torch.zeros_like(ordered, dtype=torch.bool)
    if top_k is not None:
        dropped[:, top_k:] = True
    if top_p is not None:
        probs = ordered.masked_fill(dropped, -torch.inf).softmax(-1)
        dropped |= probs.cumsum(-1) - probs >= top_p
    ordered = ordered.masked_fill(dropped, -torch.inf).log_softmax(-1)
    return torch.empty_like(log_probs).scatter_(-1, order, ordered)


@torch.no_grad()
def sample(
    step: StepFunction,
    tokens: Tensor,
    state: Any,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    banned: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Draw token after token [B], without end, after `tokens` [B] and `state`.

    `banned` tokens are never drawn. Temperature 0 is greedy search. The options are those of `filtered`.
    """
    while True:
        log_probs, state = step(tokens, state)
        log_probs = log_probs.clone()
        log_probs[:, list(banned)] = -torch.inf
        kept = filtered(log_probs, temperature, top_k, top_p)
        tokens = torch.multinomial(kept.exp(), 1, generator=generator)[:, 0]
        yield tokens
