"""The transcriber: from the features of a sound to what is said in it, without an alignment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from throughtime.cells.cell import Cell
from throughtime.errors import ConfigError
from throughtime.heads.categorical import Loss
from throughtime.heads.ctc import CTC
from throughtime.nn.masks import padding_mask
from throughtime.nn.options import check_sizes
from throughtime.nn.pooling import pool_mean
from throughtime.nn.recurrent import Recurrent
from throughtime.nn.spec_augment import spec_augment
from throughtime.nn.state import State
from throughtime.nn.subsampling import Subsampling


class Sounds(Protocol):
    """What is read of a batch: the features of sounds, padded."""

    @property
    def frames(self) -> Tensor:
        """Normalised features [B, T, M]."""

    @property
    def lengths(self) -> Tensor:
        """How many frames are real [B]."""


class TranscribedSounds(Sounds, Protocol):
    """What `loss` reads of a batch."""

    @property
    def targets(self) -> Tensor:
        """The tokens of each text [B, L], from 1 on; anything in padding."""

    @property
    def target_lengths(self) -> Tensor:
        """How many tokens are real [B]."""


@dataclass(frozen=True)
class ListenerState:
    """What a model in one direction has in hand between two pieces of a sound.

    before     [B, K, M], the frames that the next step looks back at.
    recurrent  of its recurrence.
    """

    before: Tensor
    recurrent: State


class Transcriber(nn.Module):
    """p(y | x) = CTC(recurrence(subsampled frames)) (Graves et al. 2006; Hannun et al. 2014):

        u = relu(convolution(x))        one step for `subsampling` frames
        h = recurrence(dropout(u))
        p = softmax(W dropout(h) + b)   at each step, over the tokens and the blank

    features    M, numbers in a frame.
    classes     tokens, the blank, number 0, among them.
    cell        of the recurrence.
    hidden      units of a layer, both directions together where it is bidirectional, and of u.
    bidirectional
                whether the recurrence also reads from the end; only without can the model listen to a stream.
    subsampling frames for a step.
    dropout     on u, between layers and on h.
    band_masks, band_width, time_masks, time_width
                what `spec_augment` hides in training.
    unknown     the class for what was never seen: it is trained as any other, and is never put out.

    The other options are those of `Recurrent`. Raises `ConfigError` for options that do not fit each other.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        cell: Cell | str = "lstm",
        hidden: int = 256,
        layers: int = 2,
        bidirectional: bool = True,
        subsampling: int = 2,
        dropout: float = 0.2,
        variational: bool = False,
        recurrent_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        zoneout: float = 0.0,
        band_masks: int = 0,
        band_width: int = 8,
        time_masks: int = 0,
        time_width: int = 25,
        unknown: int | None = None,
    ) -> None:
        super().__init__()
        self.unknown = unknown
        check_sizes(features=features, hidden=hidden)
        if bidirectional and hidden % 2:
            raise ConfigError(f"hidden is shared by two directions and must be even, got {hidden}")
        self.masks: dict[str, Any] = {
            "bands": band_masks,
            "band_width": band_width,
            "stretches": time_masks,
            "stretch_width": time_width,
        }
        self.subsampling = Subsampling(features, hidden, subsampling)
        self.recurrence = Recurrent(
            cell,
            hidden,
            hidden // 2 if bidirectional else hidden,
            layers=layers,
            bidirectional=bidirectional,
            input_dropout=dropout,
            dropout=dropout,
            output_dropout=dropout,
            variational=variational,
            recurrent_dropout=recurrent_dropout,
            weight_dropout=weight_dropout,
            zoneout=zoneout,
        )
        self.head = CTC(hidden, classes)

    def loss(self, batch: TranscribedSounds, state: State | None = None) -> Loss:
        """The summed -log p of the texts. Sounds stand alone: no state is read or comes back."""
        features, lengths = self.features(batch)
        return self.head.loss(features, batch.targets, lengths, batch.target_lengths)

    @torch.no_grad()
    def log_probs(self, batch: Sounds) -> tuple[Float[Tensor, "B S C"], Int[Tensor, "B"]]:
        """The log-probability of every class at every step, and how many steps each row has."""
        features, lengths = self.features(batch)
        return self.log_probs_of(features), lengths

    @torch.no_grad()
    def log_probs_of(self, features: Float[Tensor, "B S H"]) -> Float[Tensor, "B S C"]:
        """The same of what `features` returned; -inf for the unknown class."""
        log_probs = self.head.log_probs(features)
        if self.unknown is not None:
            log_probs[..., self.unknown] = -torch.inf
        return log_probs

    @torch.no_grad()
    def vectors(self, batch: Sounds) -> Float[Tensor, "B H"]:
        """A vector of each sound: the mean of its features; zeros where it has no frame."""
        return pool_mean(*self.features(batch))

    def features(self, batch: Sounds) -> tuple[Float[Tensor, "B S H"], Int[Tensor, "B"]]:
        """What the recurrence says at each step, zeros in padding, and how many steps each row has."""
        x = batch.frames.masked_fill(padding_mask(batch.lengths, batch.frames.shape[1])[..., None], 0)
        if self.training and (self.masks["bands"] or self.masks["stretches"]):
            x = spec_augment(x, batch.lengths, **self.masks)
        lengths = self.subsampling.lengths(batch.lengths)
        return self.recurrence(self.subsampling(x)[0], lengths=lengths)[0], lengths

    def begin(self, batch: int) -> ListenerState:
        """The state before the first frame; raises `ConfigError` where the model reads in both directions."""
        if self.recurrence.bidirectional:
            raise ConfigError(
                "the model reads each sound from its end too, and cannot listen to one that has not ended: "
                "train with --no-bidirectional"
            )
        return ListenerState(self.subsampling.begin(batch), self.recurrence.begin(batch))

    @torch.no_grad()
    def advance(
        self, frames: Float[Tensor, "B T M"], state: ListenerState
    ) -> tuple[Float[Tensor, "B S C"], ListenerState]:
        """The log-probabilities of the steps that these frames complete, and the state after them.

        Pieces of a sound one after the other give what `log_probs` gives for all of it.
        """
        x, before = self.subsampling(frames, state.before)
        features, recurrent = self.recurrence(x, state.recurrent)
        return self.log_probs_of(features), ListenerState(before, recurrent)
