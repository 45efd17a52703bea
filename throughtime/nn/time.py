"""Where a row stands in time: backwards within its length, and how many steps it has behind it."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def steps_since(
    count: Float[Tensor, "B"], reset: Bool[Tensor, "T B"] | None, steps: int
) -> Int[Tensor, "T B"]:
    """How many steps came before each one of a row: `count` before the first, none after a reset."""
    step = torch.arange(steps, device=count.device)[:, None]
    began = -count.long().expand(steps, -1)
    if reset is not None:
        began = torch.where(reset, step, began).cummax(0).values
    return step - began


def reverse(x: Float[Tensor, "T B F"], lengths: Int[Tensor, "B"] | None) -> Float[Tensor, "T B F"]:
    """Each row backwards in time within its length; padding stays where it is."""
    if lengths is None:
        return x.flip(0)
    steps = torch.arange(len(x), device=x.device)[:, None]
    ends = lengths.to(x.device)
    index = torch.where(steps < ends, ends - 1 - steps, steps)
    # Whole rows of features are copied: gather, which takes each number by itself, is several times slower.
    rows = index * x.shape[1] + torch.arange(x.shape[1], device=x.device)
    return x.flatten(0, 1).index_select(0, rows.flatten()).view(x.shape)
