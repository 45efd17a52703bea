"""The frame tagger: a label for each frame of a clip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from throughtime.heads.categorical import Loss
from throughtime.models.clips import ClipEncoder
from throughtime.models.tagger import TaggingHead
from throughtime.nn.options import check_sizes
from throughtime.nn.pooling import pool_mean
from throughtime.nn.state import State


class Clips(Protocol):
    """What is read of a batch: B clips of T frames, padded."""

    @property
    def frames(self) -> Tensor:
        """Red, green and blue in bytes [B, T, 3, H, W]."""

    @property
    def lengths(self) -> Tensor:
        """How many frames each clip has [B]."""


class LabelledClips(Clips, Protocol):
    """What `loss` reads of a batch."""

    @property
    def targets(self) -> Tensor:
        """The label of each frame [B, T]; -100 in padding."""


class FrameTagger(nn.Module):
    """A label for each frame, which may need memory: a direction is not to be seen in one frame.

        labels = head(m_1 .. m_T), m the memory of a `ClipEncoder`

    encoder  reads a clip.
    outputs  how many labels there are.
    head     makes the head from its number of features and of labels.
    """

    def __init__(
        self, encoder: ClipEncoder, outputs: int, *, head: Callable[[int, int], TaggingHead]
    ) -> None:
        super().__init__()
        check_sizes(outputs=outputs)
        self.encoder = encoder
        self.head = head(encoder.features, outputs)

    def loss(self, batch: LabelledClips, state: State | None = None) -> Loss:
        """The head's loss of `batch.targets`. Clips stand alone: no state is read or comes back."""
        return self.head.loss(self.features(batch), batch.targets, batch.lengths)

    @torch.no_grad()
    def decode(self, batch: Clips) -> Int[Tensor, "B T"]:
        """The best labels; -100 in padding."""
        return self.head.decode(self.features(batch), batch.lengths)

    @torch.no_grad()
    def vectors(self, batch: Clips) -> Float[Tensor, "B F"]:
        """A vector of each clip: the mean of its features."""
        return pool_mean(self.features(batch), batch.lengths)

    def features(self, batch: Clips) -> Float[Tensor, "B T F"]:
        """What the encoder says of each frame, which is what the head reads; zeros in padding."""
        return self.encoder(batch.frames, batch.lengths)[0]
