"""Connectionist temporal classification: an output whose place in the input nobody has marked."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from throughtime.cells.initial import glorot
from throughtime.errors import ConfigError, ShapeError
from throughtime.heads.categorical import Loss

#: The class that stands for no output.
BLANK = 0


class CTC(nn.Module):
    """p(y | x) = Σ over alignments a of y: Π_t softmax(W f_t + b)_{a_t} (Graves et al. 2006).

    An alignment has a class for each step; y is what is left of it when equal neighbours are one and blanks,
    class 0, are taken out. `classes` counts the blank.
    """

    def __init__(self, features: int, classes: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if classes < 2:
            raise ConfigError(
                f"there must be a class beside the blank: classes must be 2 or more, got {classes}"
            )
        self.project = nn.Linear(features, classes)
        self.project.weight.data = glorot(classes, features, generator)
        nn.init.zeros_(self.project.bias)

    def log_probs(self, features: Float[Tensor, "*N F"]) -> Float[Tensor, "*N C"]:
        """Log-probability of every class at every step."""
        return self.project(features).log_softmax(-1)

    def loss(
        self,
        features: Float[Tensor, "B T F"],
        targets: Int[Tensor, "B L"],
        lengths: Int[Tensor, "B"],
        target_lengths: Int[Tensor, "B"],
    ) -> Loss:
        """-log p(y | x) in nats, summed over the rows and counted by the classes of y.

        Raises `ShapeError` where a row has fewer steps than `shortest` says, for which p is 0.
        """
        for row, (steps, length) in enumerate(zip(lengths.tolist(), target_lengths.tolist(), strict=True)):
            if (needed := shortest(targets[row, :length].tolist())) > steps:
                raise ShapeError(f"row {row} has {steps} steps, and its {length} targets need {needed}")
        total = F.ctc_loss(
            self.log_probs(features).transpose(0, 1),
            targets,
            lengths,
            target_lengths,
            BLANK,
            reduction="sum",
        )
        return Loss(total, int(target_lengths.sum()))


def shortest(targets: ArrayLike) -> int:
    """The fewest steps that an output takes: one for each class, and a blank between equal neighbours."""
    classes = torch.as_tensor(targets)
    return len(classes) + int((classes[1:] == classes[:-1]).sum())
