"""The Transformer (Vaswani et al. 2017): an encoder, and a decoder that can also go step by step.

Layers are pre-norm, x + f(norm(x)), as is the practice today (Xiong et al. 2020), with a norm after the last;
the paper has norm(x + f(x)). Their parameters are named and laid out as those of
`torch.nn.TransformerEncoderLayer` and `torch.nn.TransformerDecoderLayer`, so that a state dict of torch's
stacks (`norm_first=True`, with a final norm) loads here and back. Torch's layers keep no keys and values
between steps; these do.

What stands in padding, NaN too, reaches no value and no gradient.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from throughtime.errors import ConfigError, ShapeError
from throughtime.nn.masks import real_steps
from throughtime.nn.multi_head import KeysValues, MultiHeadAttention, Turns, positions, rotate
from throughtime.nn.options import check_sizes
from throughtime.nn.state import State


class _Layer(nn.Module):
    """What all layers have: attention of a sequence to itself, and two linear maps with a ReLU between."""

    def __init__(self, features: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = MultiHeadAttention(features, heads, dropout)
        self.linear1, self.linear2 = nn.Linear(features, hidden), nn.Linear(hidden, features)
        self.norm1, self.norm2 = nn.LayerNorm(features), nn.LayerNorm(features)
        self.dropout = nn.Dropout(dropout)

    def attend(
        self,
        x: Float[Tensor, "B T F"],
        past: KeysValues | None = None,
        mask: Bool[Tensor, "B 1 #T S"] | None = None,
        causal: bool = False,
        turns: Turns | None = None,
    ) -> tuple[Float[Tensor, "B T F"], KeysValues]:
        """Self-attention to the steps of `past` and x; also their keys and values, before any turn."""
        z = self.norm1(x)
        queries, seen = self.self_attn.queries(z), self.self_attn.keys_values(z)
        if past is not None:
            seen = torch.cat([past[0], seen[0]], 2), torch.cat([past[1], seen[1]], 2)
        keys, values = seen
        if turns is not None:
            queries, keys = rotate(queries, turns), rotate(keys, turns)
        return x + self.dropout(self.self_attn(queries, keys, values, mask, causal)), seen

    def transform(self, x: Float[Tensor, "B T F"], norm: nn.LayerNorm) -> Float[Tensor, "B T F"]:
        """The two linear maps, at each step alone."""
        hidden = self.dropout(F.relu(self.linear1(norm(x))))
        return x + self.dropout(self.linear2(hidden))


class EncoderLayer(_Layer):
    """x' = x + attention(norm1(x)),  y = x' + W_2 relu(W_1 norm2(x') + b_1) + b_2."""

    def forward(
        self,
        x: Float[Tensor, "B T F"],
        past: KeysValues | None = None,
        mask: Bool[Tensor, "B 1 #T S"] | None = None,
        turns: Turns | None = None,
    ) -> tuple[Float[Tensor, "B T F"], KeysValues]:
        """y, and the keys and values of all steps so far."""
        x, seen = self.attend(x, past, mask, turns=turns)
        return self.transform(x, self.norm2), seen


class DecoderLayer(_Layer):
    """As the encoder's, with attention to a memory, of norm2(x'), before the linear maps, of norm3."""

    def __init__(self, features: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__(features, heads, hidden, dropout)
        self.multihead_attn = MultiHeadAttention(features, heads, dropout)
        self.norm3 = nn.LayerNorm(features)

    def forward(
        self,
        x: Float[Tensor, "B T F"],
        past: KeysValues | None,
        causal: bool,
        memory: KeysValues,
        memory_mask: Bool[Tensor, "B 1 1 S"],
    ) -> tuple[Float[Tensor, "B T F"], KeysValues]:
        """y, and the keys and values of all steps so far."""
        x, seen = self.attend(x, past, causal=causal)
        found = self.multihead_attn(self.multihead_attn.queries(self.norm2(x)), *memory, memory_mask)
        return self.transform(x + self.dropout(found), self.norm3), seen


class TransformerStack(nn.Module):
    """What all stacks of layers have: their sizes, a norm after the last, and how their weights begin.

    Matrices begin uniform (Glorot & Bengio 2010), biases at zero. Raises `ConfigError` for sizes or a dropout
    that cannot be.
    """

    def __init__(
        self,
        layer: type[_Layer],
        features: int,
        layers: int,
        heads: int,
        hidden: int | None,
        dropout: float,
    ) -> None:
        super().__init__()
        hidden = 4 * features if hidden is None else hidden
        check_sizes(features=features, layers=layers, heads=heads, hidden=hidden)
        if features % heads:
            raise ConfigError(f"features must divide among the heads, got {features} and {heads} heads")
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout must lie in [0, 1), got {dropout}")
        self.features, self.heads = features, heads
        self.layers = nn.ModuleList(layer(features, heads, hidden, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(features)
        self.dropout = nn.Dropout(dropout)
        for name, parameter in self.layers.named_parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def real(self, x: Tensor, lengths: Int[Tensor, "B"] | None, name: str = "x") -> Bool[Tensor, "B T"]:
        """Where x is a step and not padding; raises `ShapeError` where x is not [batch, time, features]."""
        if x.dim() != 3 or x.shape[2] != self.features:
            raise ShapeError(f"{name} must have shape [batch, time, {self.features}], got {list(x.shape)}")
        return real_steps(x, lengths)

    def scaled(self, x: Float[Tensor, "B T F"]) -> Float[Tensor, "B T F"]:
        """√F x: embeddings have a variance of about 1 / F, and this brings it to about 1."""
        return x * math.sqrt(self.features)

    def placed(self, x: Float[Tensor, "B T F"], start: int = 0) -> Float[Tensor, "B T F"]:
        """dropout(√F x + P), P being the sinusoidal positions from `start` on."""
        return self.dropout(self.scaled(x) + positions(x.shape[1], self.features, start).to(x))

    def nothing(self, batch: int) -> KeysValues:
        """The keys and values of no step."""
        empty = self.norm.weight.new_zeros(batch, self.heads, 0, self.features // self.heads)
        return empty, empty


class TransformerEncoder(TransformerStack):
    """y = norm(layers(√F x + P)): each step sees all real steps.

    features   of each step; a multiple of the heads.
    hidden     width between the two linear maps of a layer; 4 features where it is None.
    dropout    on √F x + P, weights of attention, between the linear maps and on what each part adds to x.

    P are the sinusoidal `positions`, added here, and x is scaled before as embeddings are in the paper.
    """

    def __init__(
        self, features: int, layers: int, heads: int = 4, hidden: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__(EncoderLayer, features, layers, heads, hidden, dropout)

    def forward(
        self, x: Float[Tensor, "B T F"], lengths: Int[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B T F"]:
        """y, which is zero in padding. Raises `ShapeError` where x or lengths do not fit."""
        real = self.real(x, lengths)
        z = self.placed(x.masked_fill(~real[..., None], 0))
        mask = None if lengths is None else real[:, None, None]
        for layer in self.layers:
            z, _ = layer(z, mask=mask)
        return self.norm(z).masked_fill(~real[..., None], 0)


class TransformerDecoder(TransformerStack):
    """y = norm(layers(√F x + P, memory)): each step sees those up to itself, and the real steps of a memory.

    The options are those of `TransformerEncoder`. Heads that look at a memory without steps find zeros.
    """

    def __init__(
        self, features: int, layers: int, heads: int = 4, hidden: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__(DecoderLayer, features, layers, heads, hidden, dropout)

    def forward(
        self,
        x: Float[Tensor, "B T F"],
        memory: Float[Tensor, "B S F"],
        memory_lengths: Int[Tensor, "B"] | None = None,
        lengths: Int[Tensor, "B"] | None = None,
    ) -> Float[Tensor, "B T F"]:
        """y, which is zero in padding. Raises `ShapeError` where x, the memory or lengths do not fit."""
        real = self._real_beside(memory, x, lengths)
        y, _ = self._run(x.masked_fill(~real[..., None], 0), self.begin(memory, memory_lengths))
        return y.masked_fill(~real[..., None], 0)

    def begin(self, memory: Float[Tensor, "B S F"], memory_lengths: Int[Tensor, "B"] | None = None) -> State:
        """The cache before the first step.

        For each layer it holds keys and values of the steps, [B, heads, t, d], and of the memory,
        [B, heads, S, d]; last comes where the memory is real, [B, S].
        """
        real = self.real(memory, memory_lengths, "memory")
        memory = memory.masked_fill(~real[..., None], 0)
        layers = (cast(DecoderLayer, layer).multihead_attn for layer in self.layers)
        return *((*self.nothing(len(memory)), *layer.keys_values(memory)) for layer in layers), (real,)

    def step(self, x: Float[Tensor, "B F"], cache: State) -> tuple[Float[Tensor, "B F"], State]:
        """y of one more step, and the cache after it."""
        y, cache = self._run(x[:, None], cache)
        return y[:, 0], cache

    def attention(
        self,
        x: Float[Tensor, "B T F"],
        memory: Float[Tensor, "B S F"],
        memory_lengths: Int[Tensor, "B"] | None = None,
        lengths: Int[Tensor, "B"] | None = None,
    ) -> Float[Tensor, "B T S"]:
        """How much each step takes of each step of the memory: the mean over the heads of the last layer."""
        real = self._real_beside(memory, x, lengths)
        *caches, (memory_real,) = self.begin(memory, memory_lengths)
        z, mask = self.placed(x.masked_fill(~real[..., None], 0)), memory_real[:, None, None]
        for layer, cache in zip(self.layers[:-1], caches, strict=False):
            z, _ = layer(z, None, True, cache[2:], mask)
        last = cast(DecoderLayer, self.layers[-1])
        z, _ = last.attend(z, causal=True)
        queries = last.multihead_attn.queries(last.norm2(z))
        weights = last.multihead_attn.weights(queries, caches[-1][2], mask)
        return weights.mean(1).masked_fill(~real[..., None], 0)

    def _real_beside(self, memory: Tensor, x: Tensor, lengths: Tensor | None) -> Bool[Tensor, "B T"]:
        if len(memory) != len(x):
            raise ShapeError(f"memory must have as many rows as x, {len(x)}, got {len(memory)}")
        return self.real(x, lengths)

    def _run(self, x: Float[Tensor, "B T F"], cache: State) -> tuple[Float[Tensor, "B T F"], State]:
        """y of the first T steps, or of one more, and the cache after them."""
        *caches, (memory_real,) = cache
        z = self.placed(x, start=caches[0][0].shape[2])
        after = []
        for layer, (keys, values, *memory) in zip(self.layers, caches, strict=True):
            z, seen = layer(z, (keys, values), x.shape[1] > 1, memory, memory_real[:, None, None])
            after.append((*seen, *memory))
        return self.norm(z), (*after, (memory_real,))
