"""The categorical head: projection to logits, cross-entropy, and log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from throughtime.nn.state import State

#: Rows of logits that are held at a time. The library's own choice is several times slower on a processor.
ROWS = 256


@dataclass(frozen=True)
class Loss:
    """A sum of losses in nats over `count` predictions, and the state after them.

    `penalty` is what training adds to the mean; it is no part of how good the predictions are.
    """

    total: Tensor
    count: int
    state: State = ()
    penalty: Tensor | float = 0.0

    @property
    def mean(self) -> Tensor:
        """Nats per prediction."""
        return self.total / max(self.count, 1)


class Categorical(nn.Module):
    """p(k | f) = softmax(W f + b)_k over `classes` (Bridle 1990).

    Loss is the cross-entropy in nats. Where there are more classes than features the logits are made
    and differentiated in pieces and never held whole, so that memory does not grow with the vocabulary.
    `weight` [classes, features] ties W to another layer's matrix (Press & Wolf 2017).
    """

    def __init__(self, features: int, classes: int, weight: nn.Parameter | None = None) -> None:
        super().__init__()
        self.features, self.classes = features, classes
        self.weight = nn.Parameter(torch.empty(classes, features)) if weight is None else weight
        if weight is None:
            nn.init.normal_(self.weight, std=features**-0.5)
        self.bias = nn.Parameter(torch.zeros(classes))

    def loss(self, features: Float[Tensor, "*N F"], targets: Int[Tensor, "*N"]) -> Loss:
        """The summed cross-entropy of `targets`; those of -100 are left out."""
        pieces = nn.LinearCrossEntropyOptions(batch_chunk_size=ROWS) if self.classes > self.features else None
        total = F.linear_cross_entropy(
            features.reshape(-1, self.features),
            self.weight,
            targets.reshape(-1),
            linear_bias=self.bias,
            reduction="sum",
            options=pieces,
        )
        return Loss(total, int((targets != -100).sum()))

    def log_probs(self, features: Float[Tensor, "*N F"]) -> Float[Tensor, "*N C"]:
        """Log-probability of every class."""
        return F.linear(features, self.weight, self.bias).log_softmax(-1)
