"""Random masks: dropout of inputs, outputs and weights, and zoneout, from a generator."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def chance(
    shape: tuple[int, ...], rate: float, device: torch.device, generator: torch.Generator | None = None
) -> Bool[Tensor, "..."]:
    """True with probability `rate`, to the nearest of 65,536 but not 0.

    Four numbers come from 64 random bits, which takes less time than `Tensor.bernoulli_`.
    """
    count = math.prod(shape)
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=device)
    bits = words.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]
    return (bits < max(round(rate * 2**16), 1) - 2**15).view(shape)


def keep_mask(
    like: Tensor, shape: tuple[int, ...], rate: float, generator: torch.Generator | None = None
) -> Tensor:
    """Numbers that are 0 with probability `rate` and else 1 / (1 - rate), so that their mean is 1."""
    dropped = chance(shape, rate, like.device, generator)
    return dropped.logical_not_().to(like.dtype).div_(1 - rate)


def drop_steps(
    x: Float[Tensor, "T B F"], rate: float, variational: bool, generator: torch.Generator | None = None
) -> Float[Tensor, "T B F"]:
    """x with features dropped (Srivastava et al. 2014).

    `variational` drops the same features of a row at all its steps (Gal & Ghahramani 2016), else each step
    has a mask of its own.
    """
    steps, batch, features = x.shape
    return x * keep_mask(x, (1 if variational else steps, batch, features), rate, generator)


def drop_weights(weight: Tensor, rate: float, generator: torch.Generator | None = None) -> Tensor:
    """A weight with entries dropped, the same for all rows and steps (DropConnect; Merity et al. 2017)."""
    return weight * keep_mask(weight, tuple(weight.shape), rate, generator)
