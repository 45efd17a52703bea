"""Random masks: dropout of inputs, outputs and weights, and zoneout, from a generator."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int16
from torch import Tensor


def chance(
    shape: tuple[int, ...], rate: float, device: torch.device, generator: torch.Generator | None = None
) -> Bool[Tensor, "..."]:
    """True with probability `rate`, to the nearest of 65,536 but not 0."""
    # The bound of a rate near 1 is no number of 16 bits.
    return _numbers(shape, device, generator).to(torch.int32) < _bound(rate)


def keep_mask(
    like: Tensor, shape: tuple[int, ...], rate: float, generator: torch.Generator | None = None
) -> Tensor:
    """Numbers that are 0 with probability `rate` and else 1 / (1 - rate), so that their mean is 1."""
    # What `chance` says, but as floating point numbers throughout, which takes half the time.
    numbers = _numbers(shape, like.device, generator).to(torch.float32)
    return numbers.ge_(_bound(rate)).to(like.dtype).div_(1 - rate)


def _numbers(
    shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
) -> Int16[Tensor, "..."]:
    """Any of the 65,536 numbers of 16 bits, each as likely.

    Four of them come from 64 random bits, which takes less time than `Tensor.bernoulli_`.
    """
    count = math.prod(shape)
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=device)
    return words.random_(-(2**63), None, generator=generator).view(torch.int16)[:count].view(shape)


def _bound(rate: float) -> int:
    """The share `rate` of these numbers is less than it."""
    return max(round(rate * 2**16), 1) - 2**15


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
