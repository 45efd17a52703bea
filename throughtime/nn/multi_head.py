"""Attention by several heads (Vaswani et al. 2017), and the two ways to tell it the positions of steps."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from throughtime.nn.masks import masked_softmax

#: Keys and values of an attention, both [B, heads, S, d].
KeysValues = tuple[Tensor, Tensor]

#: Cosines and sines of the angles that steps are turned by, both [S, d / 2].
Turns = tuple[Tensor, Tensor]


def angles(steps: int, features: int, start: int = 0) -> Float[Tensor, "T {(features+1)//2}"]:
    """t / 10000^(2i / features) for t = start, ..., start + steps - 1, in double precision."""
    rates = 10000.0 ** (-torch.arange(0, features, 2, dtype=torch.float64) / features)
    return torch.arange(start, start + steps, dtype=torch.float64)[:, None] * rates


def positions(steps: int, features: int, start: int = 0) -> Float[Tensor, "T {features}"]:
    """Sinusoidal positions, in double precision (section 3.5 of the paper).

    P[t, 2i] = sin(t / 10000^(2i / F)),  P[t, 2i + 1] = cos(t / 10000^(2i / F)),  t = start, start + 1, ...
    """
    a = angles(steps, features, start)
    return torch.stack([a.sin(), a.cos()], -1).flatten(1)[:, :features]


def rotate(x: Float[Tensor, "B N T d"], turns: Turns) -> Float[Tensor, "B N T d"]:
    """Rotary positions: feature pairs (i, i + d/2) turned by the last T of the angles (Su et al. 2021).

    The product of a query and a key so turned depends on the difference of their positions alone.
    """
    cos, sin = (each[-x.shape[2] :] for each in turns)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention by several heads: W_o concat_n softmax(q_n k_nᵀ / √d) v_n + b_o.

    q, k and v are affine maps of what asks and what is looked at, d = features / heads. Parameters are those
    of `torch.nn.MultiheadAttention`: `in_proj_weight` holds W_q, W_k and W_v. Weights of attention are
    dropped with probability `dropout` in training. A query that may see no key finds zeros.
    """

    def __init__(self, features: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.features, self.heads, self.dropout = features, heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * features, features))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * features))
        self.out_proj = nn.Linear(features, features)
        #: The weights, which nothing else needs, pass through here where it has hooks.
        self.looks = nn.Identity()

    def queries(self, x: Float[Tensor, "B T F"]) -> Float[Tensor, "B N T d"]:
        """The query of each head at each step."""
        return self._heads(
            F.linear(x, self.in_proj_weight[: self.features], self.in_proj_bias[: self.features])
        )

    def keys_values(self, x: Float[Tensor, "B S F"]) -> KeysValues:
        """The key and the value of each head at each step."""
        both = F.linear(x, self.in_proj_weight[self.features :], self.in_proj_bias[self.features :])
        keys, values = both.chunk(2, -1)
        return self._heads(keys), self._heads(values)

    def _heads(self, x: Float[Tensor, "B T F"]) -> Float[Tensor, "B N T d"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(
        self,
        queries: Float[Tensor, "B N T d"],
        keys: Float[Tensor, "B N S d"],
        values: Float[Tensor, "B N S d"],
        mask: Bool[Tensor, "B #N #T S"] | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "B T F"]:
        """What each query finds, among the keys that `mask` shows it, or, if causal, those up to its own."""
        dropout = self.dropout if self.training else 0.0
        if self.looks._forward_hooks:
            self._show(queries, keys, mask, causal)
        found = F.scaled_dot_product_attention(queries, keys, values, mask, dropout, is_causal=causal)
        return self.out_proj(found.transpose(1, 2).flatten(2))

    @torch.no_grad()
    def _show(self, queries: Tensor, keys: Tensor, mask: Tensor | None, causal: bool) -> None:
        """Let the hooks see the weights of all heads [B, N, T, S], before dropout."""
        if mask is None:
            every = torch.ones(queries.shape[2], keys.shape[2], dtype=torch.bool, device=queries.device)
            mask = every.tril() if causal else every
        self.looks(self.weights(queries, keys, mask))

    def weights(
        self,
        queries: Float[Tensor, "B N T d"],
        keys: Float[Tensor, "B N S d"],
        mask: Bool[Tensor, "B #N #T S"],
    ) -> Float[Tensor, "B N T S"]:
        """How much each query takes of each key: they sum to 1, or to 0 where there is nothing to see."""
        return masked_softmax(queries @ keys.mT / math.sqrt(queries.shape[-1]), ~mask)
