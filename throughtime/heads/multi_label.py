"""The multi-label head: each label is there or not, whatever the others are."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from throughtime.heads.categorical import Loss


class MultiLabel(nn.Module):
    """p(label k | f) = σ(W f + b)_k for each of `labels`, independently of each other (binary relevance).

    Loss is the binary cross-entropy in nats; each label of each row is one prediction, so that the mean is
    that of `torch.nn.BCEWithLogitsLoss`.
    """

    def __init__(self, features: int, labels: int) -> None:
        super().__init__()
        self.features, self.labels = features, labels
        self.linear = nn.Linear(features, labels)
        nn.init.normal_(self.linear.weight, std=features**-0.5)
        nn.init.zeros_(self.linear.bias)

    def loss(
        self,
        features: Float[Tensor, "*N F"],
        targets: Float[Tensor, "*N K"] | Int[Tensor, "*N K"] | Bool[Tensor, "*N K"],
    ) -> Loss:
        """The summed cross-entropy of `targets`: 1 where a label is there, 0 where not, or between."""
        logits = self.linear(features)
        total = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="sum")
        return Loss(total, targets.numel())

    def log_probs(self, features: Float[Tensor, "*N F"]) -> Float[Tensor, "*N K"]:
        """Log-probability that each label is there; over the labels they do not add up to 1."""
        return F.logsigmoid(self.linear(features))
