"""The categorical head: projection to logits, cross-entropy, and log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from throughtime.errors import ConfigError
from throughtime.nn.state import State

#: Rows of logits that are held at a time. The library's own choice is several times slower on a processor.
ROWS = 512


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

    `class_weights` [classes] weigh the predictions of a batch by the class of their target in training: the
    mean of the loss and its penalty are then what `torch.nn.CrossEntropyLoss(weight=class_weights)` gives.
    The loss itself stays what the predictions cost. Raises `ConfigError` where they do not fit the classes or
    are not finite numbers of 0 or more.
    """

    class_weights: Float[Tensor, "C"] | None

    def __init__(
        self,
        features: int,
        classes: int,
        weight: nn.Parameter | None = None,
        class_weights: Float[Tensor, "C"] | None = None,
    ) -> None:
        super().__init__()
        if class_weights is not None:
            _check_class_weights(class_weights, classes)
        self.features, self.classes = features, classes
        self.weight = nn.Parameter(torch.empty(classes, features)) if weight is None else weight
        if weight is None:
            nn.init.normal_(self.weight, std=features**-0.5)
        self.bias = nn.Parameter(torch.zeros(classes))
        self.register_buffer("class_weights", class_weights, persistent=False)

    def loss(
        self, features: Float[Tensor, "*N F"], targets: Int[Tensor, "*N"], label_smoothing: float = 0.0
    ) -> Loss:
        """The summed cross-entropy of `targets`; those of -100 are left out.

        With `label_smoothing` ε the mean and the penalty together are the mean cross-entropy of targets that
        give ε of their probability to all classes alike (Szegedy et al. 2016). The total is the plain
        cross-entropy still, of which perplexity is made; the penalty is what smoothing adds to its mean.
        Raises `ConfigError` where there are class weights too.
        """
        if label_smoothing and self.class_weights is not None:
            raise ConfigError("label smoothing treats all classes alike: take it or class weights, not both")
        pieces = nn.LinearCrossEntropyOptions(batch_chunk_size=ROWS) if self.classes > self.features else None
        weighted = self.training and self.class_weights is not None
        nats = F.linear_cross_entropy(
            features.reshape(-1, self.features),
            self.weight,
            targets.reshape(-1),
            linear_bias=self.bias,
            reduction="none" if weighted else "sum",
            options=pieces,
        )
        loss = Loss(nats.sum(), int((targets != -100).sum()))
        if weighted:
            return replace(loss, penalty=self._weighted_mean(nats, targets) - loss.mean)
        if label_smoothing:
            difference = self._smoothing(features.reshape(-1, self.features), targets.reshape(-1))
            return replace(loss, penalty=label_smoothing * difference / max(loss.count, 1))
        return loss

    def _smoothing(self, features: Float[Tensor, "N F"], targets: Int[Tensor, "N"]) -> Tensor:
        """Σ z_y - mean_k z_k over the logits z of each prediction.

        (1 - ε)(-log p_y) + ε mean_k(-log p_k) is ε times this more than -log p_y: the softmax cancels out,
        so that no second one is made.
        """
        left_out = targets == -100
        targets = targets.masked_fill(left_out, 0)
        apart = F.embedding(targets, self.weight) - self.weight.mean(0)
        logits = (features * apart).sum(-1) + self.bias[targets] - self.bias.mean()
        return logits.masked_fill(left_out, 0).sum()

    def _weighted_mean(self, nats: Float[Tensor, "N"], targets: Int[Tensor, "*N"]) -> Tensor:
        assert self.class_weights is not None
        targets = targets.reshape(-1)
        left_out = targets == -100
        weights = self.class_weights[targets.masked_fill(left_out, 0)].masked_fill(left_out, 0).to(nats.dtype)
        return (weights * nats).sum() / weights.sum().clamp(min=torch.finfo(nats.dtype).tiny)

    def log_probs(self, features: Float[Tensor, "*N F"]) -> Float[Tensor, "*N C"]:
        """Log-probability of every class."""
        return F.linear(features, self.weight, self.bias).log_softmax(-1)

    def log_probs_of(self, features: Float[Tensor, "N F"], targets: Int[Tensor, "N"]) -> Float[Tensor, "N"]:
        """Log-probability of each target alone."""
        pieces = [
            self.log_probs(f).gather(-1, k[:, None])[:, 0]
            for f, k in zip(features.split(ROWS), targets.split(ROWS), strict=True)
        ]
        return torch.cat(pieces) if pieces else features.new_zeros(0)


def _check_class_weights(weights: Tensor, classes: int) -> None:
    if weights.shape != (classes,) or not weights.is_floating_point():
        raise ConfigError(
            f"class_weights must be {classes} floating point numbers, one for each class, "
            f"got {weights.dtype} of shape {list(weights.shape)}"
        )
    if not ((weights >= 0) & weights.isfinite()).all():
        raise ConfigError(f"class_weights must be finite and 0 or more, got {weights.tolist()}")
