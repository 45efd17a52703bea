"""The recurrent encoder-decoder: the probability of one sequence of tokens given another."""

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
from throughtime.nn.dropout import drop_steps
from throughtime.nn.masks import padding_mask
from throughtime.nn.memory_attention import Attention, Memory, coverage_loss
from throughtime.nn.options import check_sizes
from throughtime.nn.pooling import pool_mean
from throughtime.nn.recurrent import Recurrent
from throughtime.nn.state import State, select_rows

#: How the decoder looks at the source; "none" where it sees no more of it than its own first state.
AttentionKind = Literal["none", "additive", "dot", "general"]


class PairBatch(Protocol):
    """What is read of a batch: a source and a target in each row, both padded."""

    @property
    def source(self) -> Tensor:
        """The tokens of the source [B, S]."""

    @property
    def source_lengths(self) -> Tensor:
        """How many of them are real [B]."""

    @property
    def inputs(self) -> Tensor:
        """What the decoder reads [B, T]: the boundary, then the tokens of the target."""

    @property
    def targets(self) -> Tensor:
        """The token after each of them [B, T], the boundary after the last; -100 in padding."""

    @property
    def target_lengths(self) -> Tensor:
        """How many inputs are real [B]."""


@dataclass(frozen=True)
class DecoderState:
    """What the decoder has in hand between two tokens.

    recurrent  of its recurrence.
    memory     the encoded source; None without attention.
    feed       [B, H], the features of the token before, with input feeding.
    coverage   [B, S], the sum of all attention so far, with coverage.
    """

    recurrent: State
    memory: Memory | None = None
    feed: Tensor | None = None
    coverage: Tensor | None = None


class Seq2Seq(nn.Module):
    """p(y_t | y_<t, x) = softmax(V h~_t + b) by an encoder, a decoder and attention between them.

        m_1 .. m_S = encoder(E_x x)                  h_t = decoder(E_y y_{t-1}, h_{t-1})
        c_t = attention(h_t, m)                      h~_t = tanh(W [c_t; h_t])

    This is the order of Luong, Pham & Manning (2015). The decoder begins in the states that the encoder
    ends in, layer by layer, those of both directions joined: sizes agree, and a state keeps its meaning
    whatever the cell. With attention "none" the source is known by these alone and h~ = h
    (Sutskever, Vinyals & Le 2014; Cho et al. 2014).

    Bahdanau, Cho & Bengio (2015) ask with h_{t-1}, and c_t enters the recurrence at step t. Here "additive",
    as every kind, asks with h_t, so that in training the recurrence runs over all targets in one call and
    attention over all of them in another. With `input_feeding` h~_{t-1}, and the context in it, enters
    the recurrence at step t. Input feeding, coverage and scheduled sampling go one step after another.

    classes_source, classes_target
                how many tokens there are on each side.
    boundary    the token of the target that the decoder reads first, and that ends a sentence.
    hidden      units of the decoder, and features of the encoder: half of them in each direction.
    embedding   features of E_x and E_y; `hidden` where it is None.
    attention   "none" or a kind of `throughtime.nn.memory_attention.Attention`.
    input_feeding
                the decoder reads [E_y y_{t-1}; h~_{t-1}], h~_0 = 0 (Luong et al. 2015).
    coverage    the score sees where attention went before, and training adds Σ_s min(a, coverage) to the
                mean loss, with the factor 1 (See, Liu & Manning 2017); for "additive".
    dropout     on embeddings, between layers and on h~, in training only.
    shared      E_x = E_y: one vocabulary for both sides.
    tied        V = E_y (Press & Wolf 2017).
    label_smoothing
                the probability that targets give to all classes alike in training (Szegedy et al. 2016).
                `Loss.total` is the plain cross-entropy still; the rest is in `Loss.penalty`.
    scheduled_sampling
                the probability with which an input after the first is drawn, in training, from what the
                model said, instead of being the true token (Bengio et al. 2015).

    Raises `ConfigError` for options that do not fit each other.
    """

    def __init__(
        self,
        classes_source: int,
        classes_target: int,
        boundary: int,
        *,
        cell: Cell | str = "lstm",
        hidden: int = 256,
        layers: int = 1,
        embedding: int | None = None,
        attention: AttentionKind = "general",
        input_feeding: bool = False,
        coverage: bool = False,
        bidirectional: bool = True,
        dropout: float = 0.2,
        shared: bool = False,
        tied: bool = True,
        label_smoothing: float = 0.0,
        scheduled_sampling: float = 0.0,
    ) -> None:
        super().__init__()
        embedding = hidden if embedding is None else embedding
        check_classes(classes_source, classes_target, boundary, shared)
        _check_sizes(hidden, embedding, bidirectional, tied)
        _check_attention(attention, input_feeding, coverage)
        _check_rates(dropout=dropout, label_smoothing=label_smoothing, scheduled_sampling=scheduled_sampling)
        self.hidden, self.dropout = hidden, dropout
        self.input_feeding, self.coverage = input_feeding, coverage
        self.label_smoothing, self.scheduled_sampling = label_smoothing, scheduled_sampling
        self.target_embedding = make_embedding(classes_target, embedding)
        self.source_embedding = self.target_embedding if shared else make_embedding(classes_source, embedding)
        self.encoder = Recurrent(
            cell,
            embedding,
            hidden // 2 if bidirectional else hidden,
            layers=layers,
            bidirectional=bidirectional,
            dropout=dropout,
        )
        width = embedding + hidden * input_feeding
        self.decoder = Recurrent(cell, width, hidden, layers=layers, dropout=dropout)
        self.attention: Attention | None = None
        if attention != "none":
            self.attention = Attention(attention, hidden, hidden, coverage=coverage)
            self.join = nn.Linear(2 * hidden, hidden, bias=False)
            self.join.weight.data = glorot(hidden, 2 * hidden, None)
        weight = cast(nn.Parameter, self.target_embedding.weight)
        self.head = Categorical(hidden, classes_target, weight if tied else None)

    def loss(self, batch: PairBatch, state: State | None = None) -> Loss:
        """The summed cross-entropy of `batch.targets`, each token before given.

        Pairs do not hang together: no `state` is read, and an empty one is returned.
        """
        features, _, penalty = self._read_targets(batch)
        smoothing = self.label_smoothing if self.training else 0.0
        loss = self.head.loss(features, batch.targets[batch.targets != -100], smoothing)
        return replace(loss, penalty=loss.penalty + penalty / max(loss.count, 1))

    @torch.no_grad()
    def attention_weights(self, batch: PairBatch) -> Float[Tensor, "B T S"]:
        """How much each target looks at each token of the source, each token before given.

        Raises `ConfigError` for a model without attention.
        """
        if self.attention is None:
            raise ConfigError('a model with attention "none" has no weights to look at')
        weights = cast(Tensor, self._read_targets(batch)[1])
        return weights.masked_fill(padding_mask(batch.target_lengths, weights.shape[1])[..., None], 0)

    def _read_targets(
        self, batch: PairBatch
    ) -> tuple[Float[Tensor, "N H"], Float[Tensor, "B T S"] | None, Tensor | float]:
        """What the softmax reads at N real targets, the weights of attention, the sum of coverage losses."""
        state = self.begin(batch.source, batch.source_lengths)
        real = (batch.targets != -100).flatten().nonzero()[:, 0]
        x = self._embed(batch.inputs, batch.target_lengths, self.target_embedding.weight)
        if self.input_feeding or self.coverage or (self.training and self.scheduled_sampling):
            features, looks, penalty = self._step_by_step(x, batch.target_lengths, state)
            return _take(features, real), looks, penalty
        h, _ = self.decoder(x, state.recurrent, batch.target_lengths)
        if self.attention is None:
            return self._drop(_take(h, real)[:, None])[:, 0], None, 0.0
        assert state.memory is not None
        context, weights = self.attention(h, state.memory)
        features = self._join(_take(context, real), _take(h, real))
        return self._drop(features[:, None])[:, 0], weights, 0.0

    def _step_by_step(
        self, x: Float[Tensor, "B T E"], lengths: Int[Tensor, "B"], state: DecoderState
    ) -> tuple[Tensor, Tensor | None, Tensor | float]:
        outputs: list[Tensor] = []
        looks: list[Tensor] = []
        penalty: Tensor | float = 0.0
        for t, true in enumerate(x.unbind(1)):
            given = self._sample_some(true, outputs[-1]) if outputs else true
            features, weights, after = self._advance(given, state, lengths > t)
            outputs.append(features)
            if weights is not None:
                looks.append(weights)
            if self.training and weights is not None and state.coverage is not None:
                penalty = penalty + coverage_loss(weights, state.coverage)[t < lengths].sum()
            state = after
        if not outputs:
            return x.new_zeros(len(x), 0, self.hidden), x.new_zeros(len(x), 0, 0), 0.0
        return torch.stack(outputs, 1), torch.stack(looks, 1) if looks else None, penalty

    def _sample_some(self, true: Float[Tensor, "B E"], features: Tensor) -> Float[Tensor, "B E"]:
        """The embedded inputs, some of them drawn from what the model said (`scheduled_sampling`)."""
        if not (self.training and self.scheduled_sampling):
            return true
        rows = (torch.rand(len(true), device=true.device) < self.scheduled_sampling).nonzero()[:, 0]
        if not len(rows):
            return true
        with torch.no_grad():
            drawn = torch.multinomial(self.head.log_probs(features[rows]).exp(), 1)
        # Sparse, for otherwise every step would make a gradient as large as the vocabulary.
        x = F.embedding(drawn, self.target_embedding.weight, sparse=True)
        return true.index_copy(0, rows, self._drop(x)[:, 0])

    def begin(self, source: Int[Tensor, "B S"], source_lengths: Int[Tensor, "B"]) -> DecoderState:
        """The state before the first token of the target: the source, encoded."""
        y, final = self._encode(source, source_lengths)
        return DecoderState(
            self._hand_over(final),
            None if self.attention is None else self.attention.prepare(y, source_lengths),
            y.new_zeros(len(y), self.hidden) if self.input_feeding else None,
            y.new_zeros(y.shape[:2]) if self.coverage else None,
        )

    def step(
        self, tokens: Int[Tensor, "R"], state: DecoderState
    ) -> tuple[Float[Tensor, "R C"], DecoderState]:
        """The log-probability of every token after `tokens`, and the state after them."""
        x = F.embedding(tokens, self.target_embedding.weight)
        features, _, state = self._advance(x, state)
        return self.head.log_probs(features), state

    def select(self, state: DecoderState, rows: Int[Tensor, "R"]) -> DecoderState:
        """The rows of a state that `rows` names, in its order; one may be named several times."""
        return DecoderState(
            select_rows(state.recurrent, rows),
            None if state.memory is None else state.memory.select(rows),
            None if state.feed is None else state.feed[rows],
            None if state.coverage is None else state.coverage[rows],
        )

    def vectors(self, batch: PairBatch) -> Float[Tensor, "B H"]:
        """A vector for each source: the mean of what the encoder says of its tokens. Targets are not read."""
        return pool_mean(self._encode(batch.source, batch.source_lengths)[0], batch.source_lengths)

    def _advance(
        self, x: Float[Tensor, "B E"], state: DecoderState, going: Bool[Tensor, "B"] | None = None
    ) -> tuple[Float[Tensor, "B H"], Float[Tensor, "B S"] | None, DecoderState]:
        """What the softmax reads, the weights of attention, and the state after one embedded token.

        Rows that are not `going` have ended: the recurrence does not read them.
        """
        x = x if state.feed is None else torch.cat([x, state.feed], -1)
        y, recurrent = self.decoder(x[:, None], state.recurrent, None if going is None else going.long())
        features = y[:, 0]
        weights = None
        if self.attention is not None:
            assert state.memory is not None
            context, weights = self.attention.step(features, state.memory, state.coverage)
            features = self._join(context, features)
        features = self._drop(features[:, None])[:, 0]
        feed = None if state.feed is None else features
        coverage = None if state.coverage is None or weights is None else state.coverage + weights
        return features, weights, DecoderState(recurrent, state.memory, feed, coverage)

    def _encode(self, source: Tensor, lengths: Tensor) -> tuple[Float[Tensor, "B S H"], State]:
        return self.encoder(self._embed(source, lengths, self.source_embedding.weight), lengths=lengths)

    def _embed(self, tokens: Int[Tensor, "B T"], lengths: Tensor, weight: Tensor) -> Float[Tensor, "B T E"]:
        tokens = tokens.masked_fill(padding_mask(lengths, tokens.shape[1]), 0)
        # Looked up time first, as the recurrence reads it, so that nothing has to be copied.
        return self._drop(F.embedding(tokens.T, weight).transpose(0, 1))

    def _drop(self, x: Float[Tensor, "B T F"]) -> Float[Tensor, "B T F"]:
        if not (self.training and self.dropout):
            return x
        return drop_steps(x.transpose(0, 1), self.dropout, variational=False).transpose(0, 1)

    def _join(self, context: Float[Tensor, "*B H"], h: Float[Tensor, "*B H"]) -> Float[Tensor, "*B H"]:
        return self.join(torch.cat([context, h], -1)).tanh()

    def _hand_over(self, final: State) -> State:
        """The states that the encoder ends in, both directions of a layer joined; steps are counted anew."""
        if self.encoder.bidirectional:
            ways = zip(final[::2], final[1::2], strict=True)
            final = tuple(tuple(torch.cat(both, -1) for both in zip(*way, strict=True)) for way in ways)
        begin = self.decoder.begin(len(final[0][0]))
        return tuple(
            tuple(
                end if name in cell.graph.driven else new
                for name, end, new in zip(cell.states, ends, news, strict=True)
            )
            for cell, ends, news in zip(self.decoder.cells, final, begin, strict=True)
        )


def _take(x: Float[Tensor, "B T F"], rows: Int[Tensor, "N"]) -> Float[Tensor, "N F"]:
    """Some of the B T steps of x."""
    # A lookup, for its gradient is made several times faster than that of an index.
    return F.embedding(rows, x.flatten(0, 1))


def check_classes(classes_source: int, classes_target: int, boundary: int, shared: bool) -> None:
    """Raise `ConfigError` for numbers of tokens, or a boundary, that cannot be."""
    check_sizes(classes_source=classes_source, classes_target=classes_target)
    if not 0 <= boundary < classes_target:
        raise ConfigError(
            f"boundary must be a token of the target, 0 to {classes_target - 1}, got {boundary}"
        )
    if shared and classes_source != classes_target:
        raise ConfigError(
            f"a shared embedding needs as many classes on both sides, got {classes_source} and "
            f"{classes_target}: give one vocabulary for both, or set shared to false"
        )


def _check_sizes(hidden: int, embedding: int, bidirectional: bool, tied: bool) -> None:
    check_sizes(hidden=hidden, embedding=embedding)
    if bidirectional and hidden % 2:
        raise ConfigError(
            f"a bidirectional encoder has hidden / 2 units in each direction, got hidden={hidden}: "
            "take an even number"
        )
    if tied and embedding != hidden:
        raise ConfigError(
            f"tied weights need embedding = hidden, got {embedding} and {hidden}: "
            "leave the embedding out, or set tied to false"
        )


def _check_attention(attention: str, input_feeding: bool, coverage: bool) -> None:
    kinds = get_args(AttentionKind)
    if attention not in kinds:
        raise ConfigError(f'there is no attention "{attention}": there are {", ".join(kinds)}')
    if attention == "none" and (input_feeding or coverage):
        option = "input_feeding" if input_feeding else "coverage"
        raise ConfigError(f'{option} needs attention, and it is "none": take "additive"')


def _check_rates(**rates: float) -> None:
    for name, rate in rates.items():
        if not 0 <= rate <= 1 or (name != "scheduled_sampling" and rate == 1):
            closed = "]" if name == "scheduled_sampling" else ")"
            raise ConfigError(f"{name} must lie in [0, 1{closed}, got {rate}")
