"""A sequence to one vector: its last step, the mean or maximum over its steps, or attention over them.

Rows have different lengths: no pooling reads the padding, so that whatever stands in it, NaN too, reaches
no value and no gradient. A row without steps gives zeros.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from throughtime.cells.initial import glorot
from throughtime.errors import ConfigError, ShapeError
from throughtime.nn.masks import masked_softmax, real_steps

#: What `Pooling` can do.
Kind = Literal["last", "mean", "max", "attention"]


def pool_last(
    y: Float[Tensor, "B T F"], lengths: Int[Tensor, "B"] | None = None, *, bidirectional: bool = False
) -> Float[Tensor, "B F"]:
    """The last real step of each row.

    With `bidirectional`, y is what a bidirectional layer puts out, forward features before backward ones.
    Each direction is read where it has seen the whole row: the first half of the features at the last
    real step, the second half at the first step. Raises `ShapeError` where the features have no halves.
    """
    real = real_steps(y, lengths)
    if bidirectional and y.shape[2] % 2:
        raise ShapeError(f"a bidirectional y must have an even number of features, got {y.shape[2]}")
    if not y.shape[1]:
        return y.sum(1)
    pooled = y[torch.arange(len(y), device=y.device), real.sum(1) - 1]
    if bidirectional:
        half = y.shape[2] // 2
        pooled = torch.cat([pooled[:, :half], y[:, 0, half:]], -1)
    return pooled.masked_fill(~real[:, :1], 0)


def pool_mean(y: Float[Tensor, "B T F"], lengths: Int[Tensor, "B"] | None = None) -> Float[Tensor, "B F"]:
    """The mean over the real steps of each row."""
    real = real_steps(y, lengths)[..., None]
    return y.masked_fill(~real, 0).sum(1) / real.sum(1).clamp(min=1)


def pool_max(y: Float[Tensor, "B T F"], lengths: Int[Tensor, "B"] | None = None) -> Float[Tensor, "B F"]:
    """The maximum of each feature over the real steps of each row; of equals one gets the gradient."""
    real = real_steps(y, lengths)
    if not y.shape[1]:
        return y.sum(1)
    return y.masked_fill(~real[..., None], -torch.inf).max(1).values.masked_fill(~real[:, :1], 0)


class AttentionPooling(nn.Module):
    """A weighted mean of the steps, with learned weights (Yang et al. 2016, equations 8 to 10).

        u_t = tanh(W y_t + b),  a = softmax_t(u_tᵀ v),  pooled = Σ_t a_t y_t

    W is square: as many hidden units as features. W and v begin uniform (Glorot & Bengio 2010), b at zero.
    Without a generator torch's global one is used.
    """

    def __init__(self, features: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if features < 1:
            raise ConfigError(f"features must be 1 or more, got {features}")
        self.features = features
        self.weight = nn.Parameter(glorot(features, features, generator))
        self.bias = nn.Parameter(torch.zeros(features))
        self.v = nn.Parameter(glorot(1, features, generator)[0])
        #: The weights pass through here: a place for hooks.
        self.looks = nn.Identity()

    def forward(
        self, y: Float[Tensor, "B T F"], lengths: Int[Tensor, "B"] | None = None
    ) -> tuple[Float[Tensor, "B F"], Float[Tensor, "B T"]]:
        """The pooled vectors, and the weights a: they sum to 1 over the real steps and are 0 in padding."""
        _check_features(y, self.features)
        padding = ~real_steps(y, lengths)
        y = y.masked_fill(padding[..., None], 0)
        scores = F.linear(y, self.weight, self.bias).tanh() @ self.v
        weights: Tensor = self.looks(masked_softmax(scores, padding))
        return (weights[:, None] @ y)[:, 0], weights

    def extra_repr(self) -> str:
        """What `repr` shows."""
        return f"{self.features}"


class Pooling(nn.Module):
    """One of the poolings of this module, by name.

    kind            "last", "mean", "max" or "attention".
    features        features of y.
    bidirectional   whether y comes from a bidirectional layer, which matters to "last" alone.

    `attention` is the `AttentionPooling`, which also tells its weights, and None for the other kinds.
    """

    def __init__(
        self,
        kind: Kind,
        features: int,
        *,
        bidirectional: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if kind not in get_args(Kind):
            raise ConfigError(f'there is no pooling "{kind}": there are {", ".join(get_args(Kind))}')
        self.kind, self.features, self.bidirectional = kind, features, bidirectional
        self.attention = AttentionPooling(features, generator) if kind == "attention" else None

    def forward(
        self, y: Float[Tensor, "B T F"], lengths: Int[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B F"]:
        """One vector for each row of y."""
        if self.attention is not None:
            return self.attention(y, lengths)[0]
        _check_features(y, self.features)
        if self.kind == "last":
            return pool_last(y, lengths, bidirectional=self.bidirectional)
        return pool_mean(y, lengths) if self.kind == "mean" else pool_max(y, lengths)

    def extra_repr(self) -> str:
        """What `repr` shows."""
        return f"{self.kind}, {self.features}, bidirectional={self.bidirectional}"


def _check_features(y: Tensor, features: int) -> None:
    if y.dim() != 3 or y.shape[2] != features:
        raise ShapeError(f"y must have shape [batch, time, {features}], got {list(y.shape)}")
