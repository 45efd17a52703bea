"""One softmax for each step of a sequence, with the methods of the conditional random field."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from throughtime.heads.categorical import Categorical, Loss
from throughtime.nn.masks import real_steps


class PerStep(nn.Module):
    """p(y_t = k | f_t) = softmax(W f_t + b)_k, at each step by itself.

    It does what `CRF` does, so that a model changes between them by its head. Padding is not read.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.categorical = Categorical(features, classes)

    def loss(
        self, features: Float[Tensor, "B T F"], targets: Int[Tensor, "B T"], lengths: Int[Tensor, "B"]
    ) -> Loss:
        """The summed cross-entropy of the real steps in nats; targets of -100 among them are left out."""
        real = real_steps(features, lengths)
        return self.categorical.loss(features[real], targets[real])

    @torch.no_grad()
    def decode(self, features: Float[Tensor, "B T F"], lengths: Int[Tensor, "B"]) -> Int[Tensor, "B T"]:
        """The most probable class of each step; -100 in padding."""
        real = real_steps(features, lengths)
        return self.categorical.log_probs(features).argmax(-1).masked_fill(~real, -100)

    @torch.no_grad()
    def marginals(
        self, features: Float[Tensor, "B T F"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B T K"]:
        """The probability of each class at each step, without gradients; zeros in padding."""
        real = real_steps(features, lengths)
        return self.categorical.log_probs(features).exp().masked_fill(~real[..., None], 0)
