"""The language model: the probability of each token given all before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, cast, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from throughtime.cells.cell import Cell
from throughtime.errors import ConfigError
from throughtime.heads.adaptive import Adaptive
from throughtime.heads.categorical import Categorical, Loss
from throughtime.models.embedding import make_embedding
from throughtime.models.history import BagHistory, WindowHistory
from throughtime.nn.dropout import drop_steps
from throughtime.nn.options import Connection, check_sizes
from throughtime.nn.penalties import activation_penalty, temporal_activation_penalty
from throughtime.nn.pooling import pool_mean
from throughtime.nn.recurrent import Recurrent
from throughtime.nn.state import State
from throughtime.nn.window_transformer import WindowTransformer

#: What reads the text.
Model = Literal["recurrent", "transformer", "bag-of-words", "fixed-window", "big-window"]
#: How the probability of a token is made.
Softmax = Literal["full", "adaptive"]


class TokenBatch(Protocol):
    """What `loss` reads of a batch: tokens and the tokens that follow them, both [B, T]."""

    @property
    def inputs(self) -> Tensor:
        """The tokens that are read."""

    @property
    def targets(self) -> Tensor:
        """The token after each of them; -100 where there is none."""


class TextBatch(Protocol):
    """What `vectors` reads: texts side by side."""

    @property
    def tokens(self) -> Tensor:
        """The tokens [B, T], padded."""

    @property
    def lengths(self) -> Tensor:
        """How many of them are real [B]."""


class LanguageModel(nn.Module):
    """p(x_t | x_<t) = softmax(W h_t + b), h_t = recurrence(E x_{t-1}, h_{t-1}) (Mikolov et al. 2010).

    classes     how many tokens there are.
    boundary    the token that stands before each document: the state begins anew when it is read,
                so that one document tells nothing about the next.
    unknown     the token for what was never seen. It and the boundary are read as the zero vector: they are
                rare, and a tied embedding of a rare token is shaped by the softmax alone.
    model       "recurrent", or what stands in place of the recurrence; it has the dropout below, and does not
                look at the other options of a recurrence:
                "transformer"   a `WindowTransformer` with `hidden` features, `layers` and `heads` (Vaswani et
                                al. 2017). A token sees itself and the `context` - 1 before it.
                "bag-of-words"  the mean of all vectors of the document so far: the order is lost.
                "fixed-window"  the last `window` tokens, with a matrix for each place (Bengio et al. 2003).
                "big-window"    the same over `context` tokens: places share no weights.
    embedding   features of E; `hidden` where it is None.
    dropout     on the embedding, between layers and on the output, in training only.
    softmax     "full", or "adaptive" (`throughtime.heads.Adaptive`): another distribution, much faster to
                train over many tokens, which must be numbered by falling frequency; `cutoffs` are its own.
    tied        W = E where the sizes allow it (Press & Wolf 2017); `ConfigError` where they do not.
    activation_penalty, temporal_activation_penalty
                factors of the penalties of `throughtime.nn.penalties` on the output of the recurrence, after
                dropout and before it, which training adds to the loss (Merity et al. 2017).

    Those from `variational` to `learned_state` are those of `Recurrent`; `variational` drops the same
    features of the embedding and the output throughout a chunk too. Raises `ConfigError` for options that do
    not fit each other.
    """

    def __init__(
        self,
        classes: int,
        boundary: int,
        unknown: int,
        *,
        model: Model = "recurrent",
        cell: Cell | str = "lstm",
        heads: int = 4,
        context: int = 256,
        window: int = 5,
        hidden: int = 256,
        layers: int = 1,
        embedding: int | None = None,
        dropout: float = 0.0,
        variational: bool = False,
        recurrent_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        zoneout: float = 0.0,
        connection: Connection | None = None,
        learned_state: bool = False,
        activation_penalty: float = 0.0,
        temporal_activation_penalty: float = 0.0,
        softmax: Softmax = "full",
        cutoffs: Sequence[int] | None = None,
        tied: bool = True,
    ) -> None:
        super().__init__()
        for name, value, known in (("model", model, Model), ("softmax", softmax, Softmax)):
            if value not in get_args(known):
                raise ConfigError(f'there is no {name} "{value}": there are {", ".join(get_args(known))}')
        embedding = hidden if embedding is None else embedding
        check_sizes(classes=classes, hidden=hidden, embedding=embedding)
        if tied and embedding != hidden:
            raise ConfigError(
                f"tied weights need embedding = hidden, got {embedding} and {hidden}: "
                "leave the embedding out, or set tied to false"
            )
        if model == "transformer" and embedding != hidden:
            raise ConfigError(
                f"a transformer reads as many features as it has, got embedding={embedding} and "
                f"hidden={hidden}: leave the embedding out"
            )
        self.boundary, self.unknown = boundary, unknown
        self.dropout, self.variational = dropout, variational and model == "recurrent"
        self.activation_penalty = activation_penalty
        self.temporal_activation_penalty = temporal_activation_penalty
        self.embedding = make_embedding(classes, embedding)
        weight = cast(nn.Parameter, self.embedding.weight)
        self.recurrence: Recurrent | WindowTransformer | WindowHistory | BagHistory
        match model:
            case "transformer":
                self.recurrence = WindowTransformer(hidden, layers, heads, dropout=dropout, context=context)
            case "bag-of-words":
                self.recurrence = BagHistory(embedding, hidden, dropout)
            case "fixed-window":
                self.recurrence = WindowHistory(embedding, hidden, window, dropout)
            case "big-window":
                self.recurrence = WindowHistory(embedding, hidden, context, dropout)
            case "recurrent":
                self.recurrence = Recurrent(
                    cell,
                    embedding,
                    hidden,
                    layers=layers,
                    input_dropout=dropout,
                    dropout=dropout,
                    variational=variational,
                    recurrent_dropout=recurrent_dropout,
                    weight_dropout=weight_dropout,
                    zoneout=zoneout,
                    connection=connection,
                    learned_state=learned_state,
                )
        shared = weight if tied else None
        self.head: Categorical | Adaptive
        if softmax == "adaptive":
            self.head = Adaptive(hidden, classes, shared, cutoffs)
        else:
            self.head = Categorical(hidden, classes, shared)

    def begin(self, batch: int) -> State:
        """The state before the first token."""
        return self.recurrence.begin(batch)

    def features(self, tokens: Int[Tensor, "B T"], state: State) -> tuple[Float[Tensor, "B T H"], State]:
        """What the recurrence says after each token, before dropout, and the state after the last."""
        x, begins = self._embed(tokens)
        return self.recurrence(x, state, reset=begins)

    def _embed(self, tokens: Int[Tensor, "B T"]) -> tuple[Float[Tensor, "B T E"], Bool[Tensor, "B T"]]:
        """E x, and where documents begin."""
        # Looked up time first, as the recurrence reads it, so that nothing has to be copied.
        x = F.embedding(tokens.T, self.embedding.weight).transpose(0, 1)
        begins = tokens == self.boundary
        marks = begins | (tokens == self.unknown)
        if marks.any():
            x = x.masked_fill(marks[..., None], 0.0)
        return x, begins

    def loss(self, batch: TokenBatch, state: State | None = None) -> Loss:
        """The summed cross-entropy of `batch.targets`, and the state after the batch."""
        state = self.begin(len(batch.inputs)) if state is None else state
        features, state = self.features(batch.inputs, state)
        dropped = self._drop(features)
        loss = self.head.loss(dropped, batch.targets)
        return Loss(loss.total, loss.count, state, self._penalty(features, dropped))

    def _drop(self, features: Float[Tensor, "B T H"]) -> Float[Tensor, "B T H"]:
        if not (self.training and self.dropout):
            return features
        return drop_steps(features.transpose(0, 1), self.dropout, self.variational).transpose(0, 1)

    def _penalty(self, features: Tensor, dropped: Tensor) -> Tensor | float:
        penalty: Tensor | float = 0.0
        if self.training and self.activation_penalty:
            penalty = self.activation_penalty * activation_penalty(dropped)
        if self.training and self.temporal_activation_penalty:
            penalty = penalty + self.temporal_activation_penalty * temporal_activation_penalty(features)
        return penalty

    def vectors(self, batch: TextBatch) -> Float[Tensor, "B H"]:
        """A vector for each text: the mean of what the recurrence says after each of its tokens."""
        x, _ = self._embed(batch.tokens)
        y, _ = self.recurrence(x, lengths=batch.lengths)
        return pool_mean(y, batch.lengths)

    def step(self, tokens: Int[Tensor, "B"], state: State) -> tuple[Float[Tensor, "B C"], State]:
        """The log-probability of every token after `tokens`, and the state after them."""
        features, state = self.features(tokens[:, None], state)
        return self.head.log_probs(features[:, 0]), state

    @torch.no_grad()
    def log_probs_of(
        self, tokens: Int[Tensor, "T"], targets: Int[Tensor, "T"], state: State
    ) -> tuple[Float[Tensor, "T"], State]:
        """The log-probability of each target in one row of text, and the state after it."""
        features, state = self.features(tokens[None], state)
        return self.head.log_probs_of(features[0], targets), state
