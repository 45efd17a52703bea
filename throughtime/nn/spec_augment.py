"""SpecAugment: whole bands and whole stretches of time hidden in training."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def spec_augment(
    x: Float[Tensor, "B T M"],
    lengths: Int[Tensor, "B"],
    *,
    bands: int = 2,
    band_width: int = 8,
    stretches: int = 2,
    stretch_width: int = 25,
    longest_share: float = 0.2,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B T M"]:
    """x with masks of zeros, the mean of normalised features, anew for each row (Park et al. 2019).

    bands, band_width           F masks over features [f, f + w), w uniform in 0..band_width.
    stretches, stretch_width    masks over time [t, t + w), w uniform in 0..stretch_width, but no more than
                                the share `longest_share` of the row's real steps.

    f and t are uniform over all places where the mask fits. What is drawn comes from `generator`, from
    torch's global one where it is None.
    """
    widths = torch.full_like(lengths, band_width).clamp(max=x.shape[2])
    hidden = torch.zeros(x.shape, dtype=torch.bool, device=x.device)
    for _ in range(bands):
        hidden |= _stretch(widths, torch.full_like(lengths, x.shape[2]), x.shape[2], generator)[:, None, :]
    widths = torch.minimum(torch.full_like(lengths, stretch_width), (longest_share * lengths).long())
    for _ in range(stretches):
        hidden |= _stretch(widths, lengths, x.shape[1], generator)[:, :, None]
    return x.masked_fill(hidden, 0)


def _stretch(
    most: Int[Tensor, "B"], lengths: Int[Tensor, "B"], size: int, generator: torch.Generator | None
) -> Bool[Tensor, "B {size}"]:
    """A run of 0 to most[b] places among the first lengths[b] of `size`."""
    drawn = torch.rand(2, len(most), generator=generator, device=most.device, dtype=torch.float64)
    width = (drawn[0] * (most + 1)).long()
    start = (drawn[1] * (lengths - width + 1)).long()[:, None]
    place = torch.arange(size, device=most.device)
    return (place >= start) & (place < start + width[:, None])
