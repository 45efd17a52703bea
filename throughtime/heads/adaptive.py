"""The adaptive softmax: an exact head for large vocabularies, cheap where most tokens are frequent ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from throughtime.errors import ConfigError
from throughtime.heads.categorical import Loss

#: Shares of the classes at which the clusters begin where none are given. On words, whose frequency falls as
#: their rank rises (Zipf 1935), no others make fewer logits for each prediction.
SHARES = (1 / 64, 1 / 8, 2 / 5)


class Adaptive(nn.Module):
    """p(k | f) over `classes` that are numbered by falling frequency, in two steps (Grave et al. 2017).

    The first `cutoffs[0]` classes, the short list, share a softmax with the clusters that hold the others:

        p(k | f) = softmax([W_0; V] f + [b_0; a])_k                                  k < cutoffs[0]
        p(k | f) = softmax([W_0; V] f + [b_0; a])_{cluster j} softmax(W_j f + b_j)_k
                                                                cutoffs[j - 1] ≤ k < cutoffs[j]

    It is a distribution over all classes, and not that of `Categorical` with the same weights. The logits of
    a cluster are made for those targets alone that lie in it. All classes have as many features as `f`, so
    that `weight` [classes, features] ties W = [W_0; W_1; ...] to another layer's matrix (Press & Wolf 2017).

    cutoffs    where the clusters begin: rising, in 1..classes-1; none is a single softmax. Where it is None,
               a 64th, an eighth and two fifths of the classes.

    At first features of zero make all classes equally likely. Raises `ConfigError` for cutoffs that do not
    rise.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        weight: nn.Parameter | None = None,
        cutoffs: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.features, self.classes = features, classes
        self.cutoffs = default_cutoffs(classes) if cutoffs is None else list(cutoffs)
        bounds = [0, *self.cutoffs, classes]
        self.sizes = [stop - start for start, stop in itertools.pairwise(bounds)]
        if min(self.sizes) < 1:
            raise ConfigError(
                f"the cutoffs of an adaptive softmax must rise within 1..{classes - 1}, got {self.cutoffs}"
            )
        self.weight = nn.Parameter(torch.empty(classes, features)) if weight is None else weight
        if weight is None:
            nn.init.normal_(self.weight, std=features**-0.5)
        self.bias = nn.Parameter(torch.zeros(classes))
        self.cluster_weight = nn.Parameter(torch.zeros(len(self.cutoffs), features))
        self.cluster_bias = nn.Parameter(torch.tensor([math.log(size) for size in self.sizes[1:]]))

    def loss(self, features: Float[Tensor, "*N F"], targets: Int[Tensor, "*N"]) -> Loss:
        """The summed cross-entropy of `targets`; those of -100 are left out, and their features not read."""
        targets = targets.reshape(-1)
        kept = (targets != -100).nonzero()[:, 0]
        targets = targets[kept]
        features = features.reshape(-1, self.features).index_select(0, kept)
        nats = [_nats(x, *softmax, k, "sum") for _, x, softmax, k in self._parts(features, targets)]
        return Loss(torch.stack(nats).sum(), len(targets))

    def log_probs_of(self, features: Float[Tensor, "N F"], targets: Int[Tensor, "N"]) -> Float[Tensor, "N"]:
        """Log-probability of each target alone."""
        log_probs = features.new_zeros(len(targets))
        for rows, x, softmax, k in self._parts(features, targets):
            log_probs[rows] -= _nats(x, *softmax, k, "none")
        return log_probs

    def _parts(
        self, features: Float[Tensor, "N F"], targets: Int[Tensor, "N"]
    ) -> Iterator[tuple[Tensor, Tensor, tuple[Tensor, Tensor], Tensor]]:
        """Of each softmax: the rows it has a say in, their features, its weights and bias, its targets."""
        cluster = torch.bucketize(targets, targets.new_tensor(self.cutoffs), right=True)
        short, *tails = self._weights()
        first = torch.where(cluster == 0, targets, self.sizes[0] - 1 + cluster)
        yield torch.arange(len(targets), device=targets.device), features, short, first
        for j, (start, tail) in enumerate(zip(self.cutoffs, tails, strict=True), 1):
            rows = (cluster == j).nonzero()[:, 0]
            yield rows, features.index_select(0, rows), tail, targets[rows] - start

    def log_probs(self, features: Float[Tensor, "*N F"]) -> Float[Tensor, "*N C"]:
        """Log-probability of every class."""
        short, *tails = self._weights()
        first, *clusters = (
            F.linear(features, *short).log_softmax(-1).split([self.sizes[0]] + [1] * len(tails), -1)
        )
        within = [F.linear(features, *tail).log_softmax(-1) for tail in tails]
        return torch.cat([first, *(p + q for p, q in zip(clusters, within, strict=True))], -1)

    def _weights(self) -> list[tuple[Tensor, Tensor]]:
        """The matrix and bias of the short list with the clusters, and of each cluster."""
        # One split, whose gradient is written once: a slice for each would make as many of the whole size.
        (weight, *weights), (bias, *biases) = self.weight.split(self.sizes), self.bias.split(self.sizes)
        first = torch.cat([weight, self.cluster_weight]), torch.cat([bias, self.cluster_bias])
        return [first, *zip(weights, biases, strict=True)]


def default_cutoffs(classes: int) -> list[int]:
    """Where the clusters begin: a short list of at least one class, and none that is empty."""
    return sorted({max(1, int(classes * share)) for share in SHARES} - {classes})


def _nats(
    features: Float[Tensor, "N F"],
    weight: Float[Tensor, "C F"],
    bias: Float[Tensor, "C"],
    targets: Int[Tensor, "N"],
    reduction: str,
) -> Tensor:
    """The cross-entropy of a softmax."""
    return F.cross_entropy(F.linear(features, weight, bias), targets, reduction=reduction)
