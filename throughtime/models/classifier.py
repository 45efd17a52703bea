"""The classifier: one answer for a sequence of tokens, or for a row of numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, cast, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from throughtime.cells.cell import Cell
from throughtime.errors import ConfigError
from throughtime.heads.categorical import Categorical, Loss
from throughtime.models.embedding import make_embedding
from throughtime.models.encoders import FeedForward, RecurrentEncoder, TransformerMean, Window
from throughtime.nn.masks import padding_mask
from throughtime.nn.options import Connection, check_sizes
from throughtime.nn.pooling import Kind, Pooling
from throughtime.nn.recurrent import Recurrent
from throughtime.nn.state import State
from throughtime.nn.transformer import TransformerEncoder

#: How a classifier reads its input.
Model = Literal["bag-of-words", "fixed-window", "big-window", "feed-forward", "recurrent", "transformer"]
#: Tokens that the model "fixed-window" sees where it is not told.
WINDOW = 5


class Sequences(Protocol):
    """What is read of a batch of B sequences of T tokens, padded."""

    @property
    def tokens(self) -> Tensor:
        """The number of each token [B, T]: 0 in padding, 1 for any token that was never seen."""

    @property
    def lengths(self) -> Tensor:
        """How many tokens each sequence has [B]."""


class Columns(Protocol):
    """What is read of a batch of B rows of numbers."""

    @property
    def features(self) -> Tensor:
        """The numbers [B, columns]."""


class Labelled(Protocol):
    """What `loss` reads beside them."""

    @property
    def targets(self) -> Tensor:
        """The class of each row [B]; or, for `MultiLabel`, 1 for each label that is there [B, K]."""


class LabelledSequences(Sequences, Labelled, Protocol):
    """Sequences and their classes."""


class LabelledColumns(Columns, Labelled, Protocol):
    """Rows of numbers and their classes."""


class Head(Protocol):
    """What turns vectors [B, F] into classes; `throughtime.heads` has such."""

    def loss(self, features: Tensor, targets: Tensor) -> Loss:
        """The summed loss of the targets."""

    def log_probs(self, features: Tensor) -> Tensor:
        """The log-probability of each class or label [B, K]."""


class Classifier(nn.Module):
    """v = dropout(encoder(E x_1 ... E x_n)), answer = head(v).

    encoder     from [B, T, E] and lengths [B] to v [B, F], as those of `throughtime.models.encoders`; or,
                where there is no embedding, from numbers [B, columns].
    head        reads v.
    embedding   E, which may be given pretrained vectors.
    dropout     of v, in training.

    Tokens beyond a sequence's length may be anything. `make_classifier` makes one by name.
    """

    def __init__(
        self, encoder: nn.Module, head: Head, embedding: nn.Embedding | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = head

    def loss(self, batch: LabelledSequences | LabelledColumns, state: State | None = None) -> Loss:
        """The head's loss of `batch.targets`. Sequences stand alone: `state` is not read, none comes back."""
        return self.head.loss(self.vectors(batch), batch.targets)

    def log_probs(self, batch: Sequences | Columns) -> Float[Tensor, "B K"]:
        """The log-probability of each class, or of each label."""
        return self.head.log_probs(self.vectors(batch))

    def vectors(self, batch: Sequences | Columns) -> Float[Tensor, "B F"]:
        """v, what the head reads: a vector for each sequence."""
        if self.embedding is None:
            return self.dropout(self.encoder(cast(Columns, batch).features))
        batch = cast(Sequences, batch)
        return self.dropout(self.encoder(self._embed(batch.tokens, batch.lengths), batch.lengths))

    def _embed(self, tokens: Int[Tensor, "B T"], lengths: Int[Tensor, "B"]) -> Float[Tensor, "B T E"]:
        assert self.embedding is not None
        # Looked up time first, as a recurrence reads it, so that nothing has to be copied.
        padding = padding_mask(lengths, tokens.shape[1])
        return self.embedding(tokens.masked_fill(padding, 0).T).transpose(0, 1)


def make_classifier(
    model: Model,
    classes: int,
    *,
    words: int | None = None,
    columns: int | None = None,
    head: Callable[[int, int], Head] = Categorical,
    embedding: int = 128,
    hidden: int = 128,
    layers: int = 1,
    dropout: float = 0.0,
    window: int | None = None,
    heads: int = 4,
    cell: Cell | str = "lstm",
    bidirectional: bool = False,
    pooling: Kind = "last",
    variational: bool = False,
    recurrent_dropout: float = 0.0,
    weight_dropout: float = 0.0,
    zoneout: float = 0.0,
    connection: Connection | None = None,
    learned_state: bool = False,
) -> Classifier:
    """A classifier by the name of its encoder, with as many answers as `classes`.

    model       "bag-of-words"  the mean of the embeddings (Joulin et al. 2016): the order is lost.
                "fixed-window"  the last few tokens, with weights for each place (Bengio et al. 2003): what
                                stands before them is lost.
                "big-window"    the same over so many tokens as any sequence has: places share no weights.
                "feed-forward"  `layers` hidden layers over `columns` numbers.
                "recurrent"     `layers` of a recurrence, and a pooling of its outputs.
                "transformer"   `layers` of a transformer (Vaswani et al. 2017), and the mean of its outputs.
    words       how many different tokens there are; every model but "feed-forward" needs it. The vectors of
                padding (0) and of what was never seen (1) begin as zeros.
    columns     how many numbers a row has, for "feed-forward".
    head        makes the head from its number of features and of classes: `Categorical`, `MultiLabel`.
    embedding   features of a token, and of each layer of the transformer.
    hidden      units of the windows' hidden layer, of each layer of "feed-forward", and of each layer and
                direction of "recurrent".
    dropout     of the vector that the head reads, of the embedding for "recurrent" and "transformer", and
                between layers.
    window      tokens that a window sees: 5 for "fixed-window" where it is None; "big-window" needs it.
    heads
                heads of each layer of the transformer.

    The options from `cell` on are those of "recurrent": `pooling` is a kind of `throughtime.nn.Pooling`, the
    others go to `throughtime.nn.Recurrent`. A model does not look at what it has no use for. Weights are
    drawn by torch's global generator. Raises `ConfigError` where a model lacks what it needs.
    """
    if model not in get_args(Model):
        raise ConfigError(f'there is no model "{model}": there are {", ".join(get_args(Model))}')
    check_sizes(classes=classes, embedding=embedding, hidden=hidden, layers=layers)
    if model == "feed-forward":
        columns = _needed(model, columns=columns)
        return Classifier(
            FeedForward(columns, hidden, layers, dropout), head(hidden, classes), dropout=dropout
        )
    words, features = _needed(model, words=words), hidden
    encoder: nn.Module
    match model:
        case "bag-of-words":
            encoder, features = Pooling("mean", embedding), embedding
        case "fixed-window":
            encoder = Window(embedding, _needed(model, window=WINDOW if window is None else window), hidden)
        case "big-window":
            encoder = Window(embedding, _needed(model, window=window), hidden)
        case "transformer":
            transformer = TransformerEncoder(embedding, layers, heads, dropout=dropout)
            encoder, features = TransformerMean(transformer), embedding
        case "recurrent":
            recurrence = Recurrent(
                cell,
                embedding,
                hidden,
                layers=layers,
                bidirectional=bidirectional,
                connection=connection,
                learned_state=learned_state,
                input_dropout=dropout,
                dropout=dropout,
                variational=variational,
                recurrent_dropout=recurrent_dropout,
                weight_dropout=weight_dropout,
                zoneout=zoneout,
            )
            encoder, features = RecurrentEncoder(recurrence, pooling), recurrence.output_size
    return Classifier(encoder, head(features, classes), _embedding(words, embedding), dropout)


def _needed(model: str, **size: int | None) -> int:
    [(name, value)] = size.items()
    if value is None:
        raise ConfigError(f'model "{model}" needs {name}: give {name}, which is 1 or more')
    check_sizes(**{name: value})
    return value


def _embedding(words: int, features: int) -> nn.Embedding:
    embedding = make_embedding(words, features, padding=0)
    with torch.no_grad():
        embedding.weight[:2] = 0.0
    return embedding
