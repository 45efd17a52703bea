"""The Transformer beside the recurrent models: from sequence to sequence, and as a language model."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from throughtime.errors import ConfigError
from throughtime.heads.categorical import Categorical, Loss
from throughtime.models.embedding import make_embedding
from throughtime.models.seq2seq import PairBatch, check_classes
from throughtime.nn.masks import padding_mask
from throughtime.nn.options import check_sizes
from throughtime.nn.pooling import pool_mean
from throughtime.nn.state import State, select_rows
from throughtime.nn.transformer import TransformerDecoder, TransformerEncoder


class TransformerSeq2Seq(nn.Module):
    """p(y_t | y_<t, x) = softmax(V h_t + b)_y_t, h = decoder(E_y y_<t, encoder(E_x x)) (Vaswani et al. 2017).

    classes_source, classes_target
                how many tokens there are on each side.
    boundary    the token of the target that the decoder reads first, and that ends a sentence.
    features    of embeddings and layers; a multiple of the heads.
    layers      of the encoder and of the decoder.
    dropout     that of `TransformerEncoder`, in training only.
    shared      E_x = E_y: one vocabulary for both sides.
    tied        V = E_y (Press & Wolf 2017).
    label_smoothing
                the probability that targets give to all classes alike in training (Szegedy et al. 2016).
                `Loss.total` is the plain cross-entropy still; the rest is in `Loss.penalty`.

    Raises `ConfigError` for options that do not fit each other.
    """

    def __init__(
        self,
        classes_source: int,
        classes_target: int,
        boundary: int,
        *,
        features: int = 256,
        layers: int = 3,
        heads: int = 4,
        dropout: float = 0.1,
        shared: bool = False,
        tied: bool = True,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(features=features)
        check_classes(classes_source, classes_target, boundary, shared)
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
        self.label_smoothing = label_smoothing
        self.target_embedding = make_embedding(classes_target, features)
        self.source_embedding = self.target_embedding if shared else make_embedding(classes_source, features)
        self.encoder = TransformerEncoder(features, layers, heads, dropout=dropout)
        self.decoder = TransformerDecoder(features, layers, heads, dropout=dropout)
        weight = cast(nn.Parameter, self.target_embedding.weight)
        self.head = Categorical(features, classes_target, weight if tied else None)

    def loss(self, batch: PairBatch, state: State | None = None) -> Loss:
        """The summed cross-entropy of `batch.targets`, each token before given.

        Pairs do not hang together: no `state` is read, and an empty one is returned.
        """
        memory = self._encode(batch.source, batch.source_lengths)
        x = _embed(self.target_embedding, batch.inputs, batch.target_lengths)
        y = self.decoder(x, memory, batch.source_lengths, batch.target_lengths)
        padding = padding_mask(batch.target_lengths, batch.targets.shape[1])
        real = (~padding).flatten().nonzero()[:, 0]
        # The softmax is most of the work: padding is left out of it.
        chosen = y.flatten(0, 1).index_select(0, real)
        smoothing = self.label_smoothing if self.training else 0.0
        return self.head.loss(chosen, batch.targets.flatten()[real], smoothing)

    @torch.no_grad()
    def attention_weights(self, batch: PairBatch) -> Float[Tensor, "B T S"]:
        """How much each target looks at each token of the source: the mean over heads of the last layer."""
        memory = self._encode(batch.source, batch.source_lengths)
        x = _embed(self.target_embedding, batch.inputs, batch.target_lengths)
        return self.decoder.attention(x, memory, batch.source_lengths, batch.target_lengths)

    def begin(self, source: Int[Tensor, "B S"], source_lengths: Int[Tensor, "B"]) -> State:
        """The state before the first token of the target: the source, encoded."""
        return self.decoder.begin(self._encode(source, source_lengths), source_lengths)

    def step(self, tokens: Int[Tensor, "R"], state: State) -> tuple[Float[Tensor, "R C"], State]:
        """The log-probability of every token after `tokens`, and the state after them."""
        y, state = self.decoder.step(self.target_embedding(tokens), state)
        return self.head.log_probs(y), state

    def select(self, state: State, rows: Int[Tensor, "R"]) -> State:
        """The rows of a state that `rows` names, in its order; one may be named several times."""
        return select_rows(state, rows)

    def vectors(self, batch: PairBatch) -> Float[Tensor, "B F"]:
        """A vector for each source: the mean of what the encoder says of its tokens. Targets are not read."""
        return pool_mean(self._encode(batch.source, batch.source_lengths), batch.source_lengths)

    def _encode(self, source: Int[Tensor, "B S"], lengths: Int[Tensor, "B"]) -> Float[Tensor, "B S F"]:
        return self.encoder(_embed(self.source_embedding, source, lengths), lengths)


def _embed(embedding: nn.Embedding, tokens: Int[Tensor, "B T"], lengths: Tensor) -> Float[Tensor, "B T F"]:
    """Padding may hold what is no token."""
    return F.embedding(tokens.masked_fill(padding_mask(lengths, tokens.shape[1]), 0), embedding.weight)
