"""Rows of different lengths: where their steps end, and a softmax that leaves the rest out."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from throughtime.errors import ShapeError


def real_steps(y: Float[Tensor, "B T F"], lengths: Int[Tensor, "B"] | None) -> Bool[Tensor, "B T"]:
    """Where y is a step and not padding: t < lengths[b], everywhere if lengths is None.

    Raises `ShapeError` where `y` is not a batch of sequences or `lengths` does not fit it.
    """
    if y.dim() != 3 or not y.is_floating_point():
        raise ShapeError(
            f"y must be floating point of shape [batch, time, feature], "
            f"got {y.dtype} of shape {list(y.shape)}"
        )
    batch, steps = y.shape[:2]
    if lengths is None:
        return torch.ones(batch, steps, dtype=torch.bool, device=y.device)
    if not isinstance(lengths, Tensor):
        raise ShapeError(f"lengths must be a tensor of integers, got {type(lengths).__name__}")
    if lengths.shape != (batch,) or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ShapeError(
            f"lengths must be integers of shape [{batch}], got {lengths.dtype} of shape {list(lengths.shape)}"
        )
    if not torch.compiler.is_compiling() and batch and (lengths.min() < 0 or lengths.max() > steps):
        raise ShapeError(f"lengths must lie in 0..{steps}, got {lengths.tolist()}")
    return ~padding_mask(lengths.to(y.device), steps)


def padding_mask(lengths: Int[Tensor, "B"], steps: int) -> Bool[Tensor, "B {steps}"]:
    """Where a row of `steps` steps is padding: t >= lengths[b]."""
    return torch.arange(steps, device=lengths.device) >= lengths[:, None]


def masked_softmax(scores: Float[Tensor, "*B S"], mask: Bool[Tensor, "*#B S"]) -> Float[Tensor, "*B S"]:
    """The softmax over the last axis of what is not masked, and 0 elsewhere: zeros where all is masked."""
    # The smallest number and not -Inf: where all is masked there is a softmax then, and no NaN in it.
    scores = scores.masked_fill(mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1).masked_fill(mask, 0)
