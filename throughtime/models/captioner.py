"""Models that tell what they see: the probability of a sentence given a picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol, cast, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from throughtime.cells.cell import Cell
from throughtime.cells.initial import glorot
from throughtime.errors import ConfigError
from throughtime.heads.categorical import Categorical, Loss
from throughtime.models.embedding import make_embedding
from throughtime.nn.convolution import PictureGrid
from throughtime.nn.dropout import drop_steps
from throughtime.nn.masks import padding_mask
from throughtime.nn.memory_attention import Attention, Memory
from throughtime.nn.options import check_sizes
from throughtime.nn.pooling import pool_max
from throughtime.nn.recurrent import Recurrent
from throughtime.nn.state import State, select_rows

#: How the decoder knows what is to be seen.
Kind = Literal["attention", "initial-state", "conditioned"]


class Encoder(Protocol):
    """What a sentence is about as a memory: the places of a picture, or the frames of a clip."""

    features: int
    dimensions: int

    def __call__(
        self, source: Tensor, lengths: Int[Tensor, "P"]
    ) -> tuple[Float[Tensor, "P S F"], Int[Tensor, "P"], Float[Tensor, "P S D"]]:
        """The memory, how many of its S steps are real in each row, and where each step is."""


class PictureEncoder(nn.Module):
    """The places of one picture, row by row: a `PictureGrid`, of which all steps are real."""

    def __init__(self, grid: PictureGrid) -> None:
        super().__init__()
        self.grid, self.features, self.dimensions = grid, grid.features, 2

    def forward(
        self, source: Tensor, lengths: Int[Tensor, "P"]
    ) -> tuple[Float[Tensor, "P S F"], Int[Tensor, "P"], Float[Tensor, "P S 2"]]:
        """The memory of pictures [P, 3, H, W] in bytes; `lengths` is not read."""
        memory, places = self.grid(source)
        return memory, torch.full_like(lengths, memory.shape[1]), places.expand(len(memory), -1, -1)


class CaptionBatch(Protocol):
    """What is read of a batch: P sources, and B captions of them."""

    @property
    def source(self) -> Tensor:
        """What the encoder reads [P, ...]."""

    @property
    def source_lengths(self) -> Tensor:
        """How many steps of it are real [P]: frames of a clip, 1 of a picture."""

    @property
    def rows(self) -> Tensor:
        """The source of each caption [B]."""

    @property
    def inputs(self) -> Tensor:
        """What the decoder reads [B, T]: the boundary, then the tokens of the caption."""

    @property
    def targets(self) -> Tensor:
        """The token after each of them [B, T], the boundary after the last; -100 in padding."""

    @property
    def target_lengths(self) -> Tensor:
        """How many inputs are real [B]."""


@dataclass(frozen=True)
class CaptionState:
    """What the decoder has in hand between two tokens.

    recurrent  of its recurrence.
    memory     what it looks at; None without attention.
    places     [B, S, D], where the steps of the memory are; None without attention.
    looked     [B, D], where it looked for the token before; None without attention.
    """

    recurrent: State
    memory: Memory | None = None
    places: Tensor | None = None
    looked: Tensor | None = None


class Captioner(nn.Module):
    """p(y_t | y_<t, picture) = softmax(V h~_t + b) by an encoder and a recurrent decoder.

        m_1 .. m_S = encoder(picture)        v = max_s m_s          h_t = decoder(E y_{t-1}, h_{t-1})

    "conditioned": h_t = tanh(W_x E y_{t-1} + W_h h_{t-1} + W_i v' + b), v' = W v: the picture enters at every
    step (Karpathy & Fei-Fei 2015), by the cell `image_rnn`; h~ = h.

    "initial-state": the decoder reads W v before the first token, as if it were one, and knows of the picture
    what its state keeps of that; h~ = h (Show and Tell, Vinyals et al. 2015). For any cell.

    "attention": it looks at the picture for each word (Show, Attend and Tell, Xu et al. 2015, "soft"):

        h_t = decoder([E y_{t-1} ; p_{t-1}], h_{t-1})            h_0 = p_0 = 0
        a_ts = softmax_s(score(h_t, m_s))     β_t = σ(w h_t + b)     h~_t = tanh(U [β_t Σ_s a_ts m_s ; h_t])
        p_t = Σ_s a_ts x_s

    with x_s where m_s is: x and y of a place in a picture, the time of a frame. Xu et al. ask with h_{t-1},
    which does not know y_{t-1} yet; here, in the order of Luong, Pham & Manning (2015), the question is h_t.
    And into their recurrence goes what was seen, which can then be looked at long before it is said, and h_0
    is made of the mean of all m_s. Here the recurrence knows the words and where it looked for them, and
    nothing else of the picture: what a word says of it must be looked at for that word. So where it looks
    tells what it says. Words go one after another in training too.

    The picture as a whole, v, is the largest value of each feature: the mean would say little of things that
    cover a small part of it.

    encoder     makes the memory; its `features` are F.
    classes     how many tokens there are.
    boundary    the token that the decoder reads first, and that ends a caption.
    cell        of the decoder; "conditioned" has its own.
    attention   the score, a kind of `throughtime.nn.memory_attention.Attention`.
    doubly_stochastic
                λ of the penalty λ Σ_s (1 - Σ_t a_ts)², which training adds to the nats of each caption: all
                places want to be looked at once, in sum over the words (Xu et al. 2015, equation 14).
    dropout     on embeddings, between layers and on h~, in training only.
    tied        V = E (Press & Wolf 2017).

    Raises `ConfigError` for options that do not fit each other.
    """

    def __init__(
        self,
        encoder: Encoder,
        classes: int,
        boundary: int,
        *,
        model: Kind = "attention",
        cell: Cell | str = "lstm",
        hidden: int = 256,
        layers: int = 1,
        embedding: int | None = None,
        attention: Literal["general", "dot", "additive"] = "general",
        doubly_stochastic: float = 0.0,
        dropout: float = 0.2,
        tied: bool = True,
    ) -> None:
        super().__init__()
        embedding = hidden if embedding is None else embedding
        _check(model, classes, boundary, hidden, embedding, tied)
        self.model, self.hidden, self.dropout = model, hidden, dropout
        self.doubly_stochastic = doubly_stochastic
        self.encoder = encoder
        self.embedding = make_embedding(classes, embedding)
        cell = "image_rnn" if model == "conditioned" else cell
        width = embedding + encoder.dimensions * (model == "attention")
        self.decoder = Recurrent(cell, width, hidden, layers=layers, dropout=dropout)
        self.attention: Attention | None = None
        if model == "attention":
            self.attention = Attention(attention, hidden, encoder.features)
            self.gate = nn.Linear(hidden, 1)
            self.join = nn.Linear(encoder.features + hidden, hidden, bias=False)
            self.join.weight.data = glorot(hidden, encoder.features + hidden, None)
        else:
            seen = layers * hidden if model == "conditioned" else embedding
            self.picture = nn.Linear(encoder.features, seen)
        weight = cast(nn.Parameter, self.embedding.weight)
        self.head = Categorical(hidden, classes, weight if tied else None)

    def loss(self, batch: CaptionBatch, state: State | None = None) -> Loss:
        """The summed cross-entropy of `batch.targets`, each token before given.

        Captions do not hang together: no `state` is read, and an empty one is returned.
        """
        features, weights, memory = self._read_captions(batch)
        real = (batch.targets != -100).flatten().nonzero()[:, 0]
        chosen = features.flatten(0, 1).index_select(0, real)
        loss = self.head.loss(self._drop(chosen[:, None])[:, 0], batch.targets.flatten()[real])
        if not (self.training and self.doubly_stochastic) or weights is None or memory is None:
            return loss
        unseen = (1 - _real(weights, batch.target_lengths).sum(1)).square().masked_fill(memory.padding, 0)
        return replace(loss, penalty=self.doubly_stochastic * unseen.sum() / max(loss.count, 1))

    @torch.no_grad()
    def attention_weights(self, batch: CaptionBatch) -> Float[Tensor, "B T S"]:
        """How much each word looks at each place, each token before given; rows after the last are zero.

        Raises `ConfigError` for a model without attention.
        """
        weights = self._read_captions(batch)[1]
        if weights is None:
            raise ConfigError(f'the model "{self.model}" has no attention to look at: train "attention"')
        return _real(weights, batch.target_lengths)

    def begin(self, source: Tensor, source_lengths: Int[Tensor, "P"]) -> CaptionState:
        """The state before the first token: the source, encoded and seen as a whole."""
        return self._begin(*self.encoder(source, source_lengths))

    def step(
        self, tokens: Int[Tensor, "R"], state: CaptionState
    ) -> tuple[Float[Tensor, "R C"], CaptionState]:
        """The log-probability of every token after `tokens`, and the state after them."""
        features, _, state = self._advance(F.embedding(tokens, self.embedding.weight), state)
        return self.head.log_probs(features), state

    def select(self, state: CaptionState, rows: Int[Tensor, "R"]) -> CaptionState:
        """The rows of a state that `rows` names, in its order; one may be named several times."""
        return CaptionState(
            select_rows(state.recurrent, rows),
            None if state.memory is None else state.memory.select(rows),
            None if state.places is None else state.places[rows],
            None if state.looked is None else state.looked[rows],
        )

    def vectors(self, batch: CaptionBatch) -> Float[Tensor, "P F"]:
        """A vector for each source: the largest value of each feature of its memory, no caption read."""
        memory, lengths, places = self.encoder(batch.source, batch.source_lengths)
        self._begin(memory, lengths, places)  # so that the state that the decoder begins in can be looked at
        return pool_max(memory, lengths)

    def _read_captions(
        self, batch: CaptionBatch
    ) -> tuple[Float[Tensor, "B T H"], Float[Tensor, "B T S"] | None, Memory | None]:
        """What the softmax reads at each target, the weights of attention, and what it looked at."""
        state = self.select(self.begin(batch.source, batch.source_lengths), batch.rows)
        tokens = batch.inputs.masked_fill(padding_mask(batch.target_lengths, batch.inputs.shape[1]), 0)
        x = self._drop(F.embedding(tokens, self.embedding.weight))
        if self.attention is None:
            h, _ = self.decoder(x, state.recurrent, batch.target_lengths)
            return h, None, None
        features: list[Tensor] = []
        looks: list[Tensor] = []
        for t, each in enumerate(x.unbind(1)):
            told, weights, state = self._advance(each, state, batch.target_lengths > t)
            features.append(told)
            looks.append(cast(Tensor, weights))
        return torch.stack(features, 1), torch.stack(looks, 1), state.memory

    def _begin(
        self,
        memory: Float[Tensor, "P S F"],
        lengths: Int[Tensor, "P"],
        places: Float[Tensor, "P S D"],
    ) -> CaptionState:
        state = self.decoder.begin(len(memory))
        if self.attention is not None:
            looked = torch.zeros_like(places[:, 0])
            return CaptionState(state, self.attention.prepare(memory, lengths), places, looked)
        seen = self.picture(pool_max(memory, lengths))
        if self.model == "initial-state":
            return CaptionState(self.decoder(seen[:, None], state)[1])
        parts = seen.chunk(self.decoder.layers, -1)
        return CaptionState(tuple((h, part) for (h, _), part in zip(state, parts, strict=True)))

    def _advance(
        self, x: Float[Tensor, "B E"], state: CaptionState, going: Bool[Tensor, "B"] | None = None
    ) -> tuple[Float[Tensor, "B H"], Float[Tensor, "B S"] | None, CaptionState]:
        """What the softmax reads, the weights of attention, and the state after one embedded token.

        Rows that are not `going` have ended: the recurrence does not read them.
        """
        x = x if state.looked is None else torch.cat([x, state.looked], -1)
        y, recurrent = self.decoder(x[:, None], state.recurrent, None if going is None else going.long())
        h = y[:, 0]
        if self.attention is None:
            return h, None, CaptionState(recurrent)
        assert state.memory is not None and state.places is not None
        context, weights = self.attention.step(h, state.memory)
        told = self.join(torch.cat([self.gate(h).sigmoid() * context, h], -1)).tanh()
        looked = (weights[:, None] @ state.places)[:, 0]
        return told, weights, CaptionState(recurrent, state.memory, state.places, looked)

    def _drop(self, x: Float[Tensor, "B T F"]) -> Float[Tensor, "B T F"]:
        return drop_steps(x, self.dropout, variational=False) if self.training and self.dropout else x


def _real(weights: Float[Tensor, "B T S"], lengths: Int[Tensor, "B"]) -> Float[Tensor, "B T S"]:
    """The weights without those of padding."""
    return weights.masked_fill(padding_mask(lengths, weights.shape[1])[..., None], 0)


def _check(model: str, classes: int, boundary: int, hidden: int, embedding: int, tied: bool) -> None:
    if model not in get_args(Kind):
        raise ConfigError(f'there is no captioner "{model}": there are {", ".join(get_args(Kind))}')
    check_sizes(classes=classes, hidden=hidden, embedding=embedding)
    if not 0 <= boundary < classes:
        raise ConfigError(f"boundary must be a token, 0 to {classes - 1}, got {boundary}")
    if tied and embedding != hidden:
        raise ConfigError(
            f"tied weights need embedding = hidden, got {embedding} and {hidden}: "
            "leave the embedding out, or set tied to false"
        )
