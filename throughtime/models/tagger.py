"""The tagger: a tag for each word of a sentence, read from the words and from how they are spelt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from throughtime.cells.cell import Cell
from throughtime.errors import ConfigError
from throughtime.heads.categorical import Loss
from throughtime.nn.dropout import chance
from throughtime.nn.masks import padding_mask
from throughtime.nn.options import Connection, check_sizes
from throughtime.nn.pooling import pool_mean
from throughtime.nn.recurrent import Recurrent
from throughtime.nn.state import State
from throughtime.nn.time import reverse

#: The number that stands in padding, and that of a word that was never seen; those that were begin after it.
PADDING, UNKNOWN = 0, 1
#: How the characters of a word are read.
CharacterEncoder = Literal["recurrent", "none"]


class Sentences(Protocol):
    """What is read of a batch: B sentences of T words, padded, and the W different words in them."""

    @property
    def words(self) -> Tensor:
        """The number of each word [B, T]."""

    @property
    def lengths(self) -> Tensor:
        """How many words each sentence has [B]."""

    @property
    def spellings(self) -> Tensor:
        """The characters of each different word [W, L]."""

    @property
    def spelling_lengths(self) -> Tensor:
        """How many characters each of these words has [W]."""

    @property
    def spelling_of(self) -> Tensor:
        """The row of `spellings` of each word [B, T]."""


class TaggedSentences(Sentences, Protocol):
    """What `loss` reads of a batch."""

    @property
    def targets(self) -> Tensor:
        """The tag of each word [B, T]; -100 in padding."""


class TaggingHead(Protocol):
    """What turns features [B, T, F] into tags; `throughtime.heads` has such."""

    def loss(self, features: Tensor, targets: Tensor, lengths: Tensor) -> Loss:
        """The summed loss of the tags [B, T]."""

    def decode(self, features: Tensor, lengths: Tensor) -> Tensor:
        """The best tags [B, T]; -100 in padding."""

    def marginals(self, features: Tensor, lengths: Tensor) -> Tensor:
        """The probability of each tag at each word [B, T, K]."""


class Tagger(nn.Module):
    """A tag for each word (Lample et al. 2016; Ma & Hovy 2016):

        x_t = [E w_t ; →h(characters of w_t) ; ←h(characters of w_t)]
        tags = head(dropout(bidirectional recurrence(dropout(x))))

    where →h and ←h are the final states of one recurrence over a word's characters and of one over them
    backwards.

    classes     how many words there are: 0 stands in padding and is not learned, 1 is any word that was
                never seen.
    characters  how many characters there are.
    outputs     how many tags there are.
    head        makes the head from its number of features and of tags.
    cell        the cell of both recurrences.
    hidden      units of the recurrence over words, both directions together.
    embedding   features of E, which is `embedding`, an `nn.Embedding` that may be given pretrained vectors.
                It begins uniform in ±√(3 / features).
    character_embedding, character_hidden
                features of a character, and units of each direction that reads them.
    character_encoder
                "recurrent", or "none" for x_t = E w_t: spellings are not looked at then.
    word_dropout
                the probability with which, in training, a word from number `rare` on is read as the unknown
                one, whose vector is learned in this way and no other. `Vocabulary` numbers words by falling
                frequency: with `rare = vocabulary.singletons` these are the words that were seen once, for
                which 0.5 is usual (Lample et al. 2016). Without `rare` they are all words.

    The other options are those of `Recurrent`, for the recurrence over words, whose input and output
    `dropout` drops too. Each different word of a batch is spelt once, which saves most of that work; what is
    dropped of its vector is drawn for each place where it stands. In a `variational` tagger the same features
    are dropped at all words of a sentence. Words, characters and tags in padding may be anything.

    Raises `ConfigError` for options that do not fit each other.
    """

    def __init__(
        self,
        classes: int,
        characters: int,
        outputs: int,
        *,
        head: Callable[[int, int], TaggingHead],
        cell: Cell | str = "lstm",
        hidden: int = 256,
        layers: int = 1,
        embedding: int = 100,
        character_embedding: int = 25,
        character_hidden: int = 25,
        character_encoder: CharacterEncoder = "recurrent",
        dropout: float = 0.5,
        word_dropout: float = 0.0,
        rare: int = UNKNOWN + 1,
        variational: bool = False,
        recurrent_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        zoneout: float = 0.0,
        connection: Connection | None = None,
    ) -> None:
        super().__init__()
        check_sizes(classes=classes, outputs=outputs, embedding=embedding)
        _check(hidden, character_encoder, word_dropout)
        self.word_dropout, self.rare = word_dropout, rare
        self.embedding = _uniform(nn.Embedding(classes, embedding, padding_idx=PADDING))
        self.speller: Speller | None = None
        if character_encoder == "recurrent":
            self.speller = Speller(characters, character_embedding, character_hidden, cell)
        self.recurrence = Recurrent(
            cell,
            embedding + (2 * character_hidden if self.speller is not None else 0),
            hidden // 2,
            layers=layers,
            bidirectional=True,
            input_dropout=dropout,
            dropout=dropout,
            output_dropout=dropout,
            variational=variational,
            recurrent_dropout=recurrent_dropout,
            weight_dropout=weight_dropout,
            zoneout=zoneout,
            connection=connection,
        )
        self.head = head(self.recurrence.output_size, outputs)

    def loss(self, batch: TaggedSentences, state: State | None = None) -> Loss:
        """The head's loss of `batch.targets`. Sentences stand alone: no state is read or comes back."""
        return self.head.loss(self.features(batch), batch.targets, batch.lengths)

    @torch.no_grad()
    def decode(self, batch: Sentences) -> Int[Tensor, "B T"]:
        """The best tags; -100 in padding."""
        return self.head.decode(self.features(batch), batch.lengths)

    @torch.no_grad()
    def vectors(self, batch: Sentences) -> Float[Tensor, "B F"]:
        """A vector of each sentence: the mean of its features; zeros where it has no words."""
        return pool_mean(self.features(batch), batch.lengths)

    def features(self, batch: Sentences) -> Float[Tensor, "B T F"]:
        """What the recurrence says of each word, which is what the head reads; zeros in padding."""
        # Looked up time first, as the recurrence reads it, so that nothing has to be copied.
        padding = padding_mask(batch.lengths, batch.words.shape[1])
        words = self._drop_words(batch.words.masked_fill(padding, PADDING).T)
        x = self.embedding(words)
        if self.speller is not None:
            spelt = self.speller(batch.spellings, batch.spelling_lengths)
            x = torch.cat([x, F.embedding(batch.spelling_of.masked_fill(padding, 0).T, spelt)], -1)
        return self.recurrence(x.transpose(0, 1), lengths=batch.lengths)[0]

    def _drop_words(self, words: Int[Tensor, "T B"]) -> Int[Tensor, "T B"]:
        if not (self.training and self.word_dropout):
            return words
        dropped = chance(tuple(words.shape), self.word_dropout, words.device)
        return words.masked_fill(dropped & (words >= self.rare), UNKNOWN)


class Speller(nn.Module):
    """Words as vectors, [→h ; ←h]: what is known after their characters, and after these backwards."""

    def __init__(self, characters: int, embedding: int, hidden: int, cell: Cell | str) -> None:
        super().__init__()
        check_sizes(characters=characters, character_embedding=embedding, character_hidden=hidden)
        self.embedding = _uniform(nn.Embedding(characters, embedding, padding_idx=PADDING))
        self.forwards, self.backwards = (Recurrent(cell, embedding, hidden) for _ in range(2))

    def forward(self, spellings: Int[Tensor, "W L"], lengths: Int[Tensor, "W"]) -> Float[Tensor, "W+1 F"]:
        """A row for each word, and one of zeros, so that there is a row 0 where there are no words."""
        characters = spellings.masked_fill(padding_mask(lengths, spellings.shape[1]), PADDING).T
        # Turned round before they are looked up: a bidirectional layer would turn vectors, and then outputs
        # that nobody reads.
        turned = reverse(characters[..., None], lengths)[..., 0]
        finals = []
        for way, read in ((self.forwards, characters), (self.backwards, turned)):
            x = self.embedding(read).transpose(0, 1)
            _, (states,) = way(x, lengths=lengths)
            finals.append(states[0])
        return F.pad(torch.cat(finals, -1), (0, 0, 0, 1))


def _uniform(embedding: nn.Embedding) -> nn.Embedding:
    bound = (3 / embedding.embedding_dim) ** 0.5
    nn.init.uniform_(embedding.weight, -bound, bound)
    return embedding


def _check(hidden: int, character_encoder: str, word_dropout: float) -> None:
    if hidden < 2 or hidden % 2:
        raise ConfigError(f"hidden is shared by two directions and must be even, got {hidden}")
    if character_encoder not in get_args(CharacterEncoder):
        raise ConfigError(
            f'there is no character encoder "{character_encoder}": '
            f"there are {', '.join(get_args(CharacterEncoder))}"
        )
    if not 0 <= word_dropout < 1:
        raise ConfigError(f"word_dropout must lie in [0, 1), got {word_dropout}")
