"""The tagging task: a tag for each word, as parts of speech, names, slots."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
import tyro
from pydantic import AfterValidator, Field
from torch import Tensor

from throughtime.config import ChoiceConfig, Config
from throughtime.data.batches import Buckets, ExampleBatch, by_length, pad
from throughtime.data.columns import digest
from throughtime.data.conll import Sentence, columns_of, read_aligned, read_conll, write_conll
from throughtime.data.spans import OUTSIDE, legal_transitions, repair, scheme, span_f1, spans, stray
from throughtime.data.spellings import Vocabulary, spell
from throughtime.data.terms import split_text
from throughtime.data.text import is_text, read_lines
from throughtime.data.tokens import Characters, Tokeniser, joined, tokeniser_from_json
from throughtime.errors import ConfigError, DataError, RunError
from throughtime.heads.crf import CRF
from throughtime.heads.per_step import PerStep
from throughtime.models.tagger import Tagger
from throughtime.tasks.task import Corpus, DataConfig, Paths, Report, Task, check_cell, divide
from throughtime.tasks.vectors import put_vectors
from throughtime.train.classification import class_rows, confusion_matrix
from throughtime.train.config import ExampleTraining
from throughtime.train.metrics import Metrics

logger = logging.getLogger(__name__)

#: Words, with padding, that are read side by side when the model is used.
TOKENS = 8000
#: Validation sentences that are shown as training goes on.
SHOWN = 3


class TaggedConfig(DataConfig):
    """What is read, and how it becomes numbers."""

    paths: Annotated[Paths, tyro.conf.Positional] = Field(
        (), description="Files of a word a line with its columns: CoNLL, or CoNLL-U (.conllu)."
    )
    parallel: bool = Field(False, description="Two files: a sentence a line in one, its tags in the other.")
    words: str | None = Field(None, description="Column of the words: a number from 1, or a CoNLL-U name.")
    tags: str | None = Field(None, description="Column of the tags; the last, or UPOS, if not given.")
    scheme: Literal["bio", "bioes"] | None = Field(
        None, description="Scheme in which the model learns tags; answers stay as the data have them."
    )
    lower: bool = Field(True, description="Look words up in lower case; their spelling keeps its case.")
    vectors: Path | None = Field(
        None, description="Pretrained word vectors (GloVe, word2vec, fastText text)."
    )


class TaggerModelConfig(ChoiceConfig):
    """The model: words and spellings, a bidirectional recurrence, a head."""

    choice = "character_encoder"
    read_by: ClassVar = dict.fromkeys(("character_embedding", "character_hidden"), ("recurrent",))

    head: Literal["crf", "softmax"] = Field("crf", description="Tags that fit each other, or each by itself.")
    cell: Annotated[str, AfterValidator(check_cell)] = Field(
        "lstm", description='Recurrence: a name that "throughtime cells" lists.'
    )
    hidden: int = Field(
        256, ge=2, multiple_of=2, description="Units of each layer, both directions together."
    )
    layers: int = Field(1, ge=1, description="Layers on each other.")
    embedding: int = Field(100, ge=1, description="Features of a word; as many as --vectors has numbers.")
    character_encoder: Literal["recurrent", "none"] = Field("recurrent", description="What reads spellings.")
    character_embedding: int = Field(25, ge=1, description="Features of a character.")
    character_hidden: int = Field(25, ge=1, description="Units of each direction that reads a spelling.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Dropout on words, between layers, on the output.")
    word_dropout: float = Field(0.5, ge=0, lt=1, description="Share of words seen once read as unknown.")
    variational: bool = Field(False, description="Drop the same features at all words of a sentence.")
    recurrent_dropout: float = Field(
        0.0, ge=0, lt=1, description="Dropout on what recurrent matrices multiply."
    )
    weight_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on entries of recurrent matrices.")
    zoneout: float = Field(0.0, ge=0, lt=1, description="Probability that a unit keeps its state at a step.")


class ReadingConfig(Config):
    """How input is read when the model is used."""

    raw: bool = Field(False, description="Cut lines of text into words and signs; else spaces part words.")


class TaggerTraining(ExampleTraining):
    """How a tagger is trained."""

    learning_rate: float = Field(4e-3, gt=0, description="Highest learning rate.")
    batch_tokens: int = Field(
        500, ge=1, description="Most words in a batch, padding among them; one sentence may have more."
    )


class TaggerConfig(Config):
    """Everything that decides a training of a tagger."""

    task: Annotated[Literal["tagger"], tyro.conf.Suppress] = "tagger"
    data: TaggedConfig = TaggedConfig()
    model: TaggerModelConfig = TaggerModelConfig()
    search: Annotated[ReadingConfig, tyro.conf.Suppress] = ReadingConfig()
    training: TaggerTraining = TaggerTraining()


@dataclass(frozen=True, kw_only=True)
class SentenceBatch(ExampleBatch):
    """Sentences as numbers; see `throughtime.models.tagger`."""

    shared: ClassVar[frozenset[str]] = frozenset({"spellings", "spelling_lengths"})
    words: Tensor
    lengths: Tensor
    spellings: Tensor
    spelling_lengths: Tensor
    spelling_of: Tensor
    targets: Tensor

    @property
    def steps(self) -> int:
        """Words."""
        return int(self.lengths.sum())


@dataclass(frozen=True)
class Sentences:
    """Tagged sentences."""

    sentences: list[Sentence]

    def __len__(self) -> int:
        return len(self.sentences)

    def select(self, rows: Sequence[int]) -> Sentences:
        """These sentences, in this order."""
        return Sentences([self.sentences[row] for row in rows])

    @property
    def digest(self) -> str:
        """The same for the same words and tags only."""
        both = {"words": [s.words for s in self.sentences], "tags": [s.tags for s in self.sentences]}
        return digest(both)


class EncodedSentences(NamedTuple):
    """Sentences and the numbers of their tags; -100 for a tag that training never saw."""

    sentences: list[Sentence]
    targets: list[list[int]]


class TaggerTask(Task[Sentences, EncodedSentences]):
    """A tagger with its words, characters and tags."""

    config_type = TaggerConfig
    searches = ("predict",)

    def __init__(self, config: TaggerConfig, processor: dict[str, Any]) -> None:
        self.config = config
        try:
            self.tags: list[str] = list(processor["tags"])
            self.scheme: Literal["bio", "bioes"] | None = processor["scheme"]
            self.columns: int = processor["columns"]
            self.vocabulary = Vocabulary.from_json(processor["words"])
            characters = tokeniser_from_json(processor["characters"])
        except (KeyError, TypeError) as error:
            raise RunError(f"the description of the input is damaged: {error}") from None
        assert isinstance(characters, Characters)
        self.characters = characters
        self._tag_numbers = {tag: k for k, tag in enumerate(self.tags)}
        model = config.model
        options = model.model_dump(exclude={"head"})
        legal = torch.tensor(legal_transitions(self.tags))
        head = partial(CRF, legal=legal) if model.head == "crf" else PerStep
        self.model: Tagger = Tagger(
            self.vocabulary.size,
            characters.size,
            len(self.tags),
            head=head,
            rare=self.vocabulary.singletons,
            **options,
        )

    @classmethod
    def read(cls, config: TaggerConfig) -> Corpus[Sentences]:
        """The sentences; where none are given for validation, some of them, drawn at random."""
        return divide(config.data, config.training.seed, partial(_read, config.data))

    @classmethod
    def learn(
        cls, config: TaggerConfig, train: Sentences, before: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Words, characters, tags, and the scheme of the tags."""
        tags = {tag for s in train.sentences for tag in s.tags}
        found = scheme(tags)
        if before is not None and tags == {OUTSIDE}:
            found = before["scheme"]
        if before is not None and found != before["scheme"]:
            kinds = [f"spans ({each})" if each else "no spans" for each in (before["scheme"], found)]
            raise ConfigError(
                f"the run has tags of {kinds[0]} and the data of {kinds[1]}: give tags of one kind"
            )
        if found is None:
            _warn_of_stray(train)
        if found is None and config.data.scheme is not None:
            raise DataError(
                f"--scheme {config.data.scheme} is for tags of spans, as B-PER, I-PER and O: the tags here "
                "are others, so leave it out"
            )
        tags = {tag for s in train.sentences for tag in _repaired(s, found, config.data.scheme)[0]}
        if found is not None:
            tags.add(OUTSIDE)  # without it there may be no legal tags for a sentence of some length
        words = Vocabulary.fit((s.words for s in train.sentences), config.data.lower)
        characters: Tokeniser = Characters.fit("".join(s.words) for s in train.sentences)
        names = sorted(tags)
        if before is not None:
            words = Vocabulary.from_json(before["words"]).grown(words)
            characters = tokeniser_from_json(before["characters"]).grown(characters)
            names = joined(before["tags"], names)
        return {
            "tags": names,
            "scheme": found,
            "words": words.to_json(),
            "characters": characters.to_json(),
            "columns": columns_of(train.sentences[0]),
        }

    def prepare(self) -> None:
        """Put the pretrained vectors in."""
        if (path := self.config.data.vectors) is not None:
            put_vectors(self.model.embedding, self.vocabulary.words, path)

    def batches(self, train: Sentences) -> Buckets[SentenceBatch]:
        """Sentences of about equal length side by side."""
        data, training = self.encode(train), self.config.training

        def make(rows: list[int], number: int) -> SentenceBatch:
            return self._batch(
                [data.sentences[k].words for k in rows], [data.targets[k] for k in rows], number
            )

        return Buckets(_lengths(data.sentences), training.batch_tokens, make, training.seed)

    def encode(self, part: Sentences) -> EncodedSentences:
        """The numbers of the tags. Illegal ones are repaired as the field does, and counted."""
        targets, changed, unseen = [], 0, list[tuple[str, str]]()
        for sentence in part.sentences:
            tags, count = _repaired(sentence, self.scheme, self.config.data.scheme)
            changed += count
            targets.append([self._tag_numbers.get(tag, -100) for tag in tags])
            unseen += [(tag, sentence.place) for tag in tags if tag not in self._tag_numbers]
        if changed:
            logger.warning("%d tags did not follow the %s scheme and were repaired", changed, self.scheme)
        if unseen:
            tag, place = unseen[0]
            where = f"the sentence at {place} has the tag {tag}, which training never saw"
            if len(unseen) == sum(map(len, targets)):
                raise DataError(f"{where}, and no other tag is known either: is it the right column?")
            logger.warning(
                "%s: %d words like it count as wrong, and their sentences are not in the loss",
                where,
                len(unseen),
            )
        return EncodedSentences(part.sentences, targets)

    def size(self, part: EncodedSentences) -> int:
        """Words."""
        return sum(_lengths(part.sentences))

    def measure(self, part: EncodedSentences) -> Report:
        """Loss and accuracy by word; of spans also precision, recall and F1, exact in words and kind.

        Tags are compared in the scheme of the training data.
        """
        total, count = 0.0, 0
        predicted: list[list[str]] = [[] for _ in part.sentences]
        for rows in by_length(_lengths(part.sentences), TOKENS):
            words, targets = [part.sentences[k].words for k in rows], [part.targets[k] for k in rows]
            batch = self._batch(words, targets, 0).to(self._device)
            loss = self._loss(batch)
            total, count = total + loss[0], count + loss[1]
            for k, tags in zip(rows, self._decode(batch), strict=True):
                predicted[k] = tags
        right = [tag for sentence in part.sentences for tag in self._legal(sentence.tags)]
        found = [tag for tags in predicted for tag in tags]
        accuracy = sum(a == b for a, b in zip(right, found, strict=True)) / len(right)
        metrics = {"loss": total / max(count, 1), "accuracy": accuracy}
        if self.scheme is None:
            names = sorted({*right, *found})
            numbers = {tag: k for k, tag in enumerate(names)}
            taken, true = (torch.tensor([numbers[tag] for tag in tags]) for tags in (found, right))
            return Report(metrics, class_rows(confusion_matrix(taken, true, len(names)), names))
        quality = span_f1([s.tags for s in part.sentences], predicted)
        metrics |= {"precision": quality["precision"], "recall": quality["recall"], "f1": quality["f1"]}
        kinds = sorted(quality["kinds"].items())
        return Report(metrics, [{"class": kind} | of_kind for kind, of_kind in kinds])

    def quality(self, metrics: Metrics) -> float:
        """F1 of spans, or accuracy where there are none."""
        return metrics.get("f1", metrics["accuracy"])

    def sample(self, part: EncodedSentences) -> str:
        """The first sentences with their tags; what is wrong has the right tag behind it."""
        shown = part.sentences[:SHOWN]
        lines = []
        for sentence, answer in zip(shown, self.answer([s.words for s in shown]), strict=True):
            rows = zip(sentence.words, answer["tags"], self._legal(sentence.tags), strict=True)
            lines.append(" ".join(f"{w}/{t}" + (f"({r}!)" if t != r else "") for w, t, r in rows))
        return "\n".join(lines)

    def open(self, paths: Paths) -> Sentences:
        """Other sentences."""
        return _read(self.config.data, paths)

    def inputs(self, path: Path) -> Iterable[Any]:
        """The lines of a text (.txt, or where words and tags are in two files), or sentences in columns."""
        if self.config.data.parallel or is_text(path):
            return read_lines(path)
        data = self.config.data
        return read_conll(path, words=_column(data.words), tags=_column(data.tags), columns=self.columns)

    def answer(self, inputs: Sequence[str | Sequence[str] | Sentence]) -> list[dict[str, Any]]:
        """The tag of each word with its probability, and the spans where the tags are of spans.

        A text is cut at its spaces, or with `raw` into words and signs. A `Sentence` also comes back as
        the lines that it was read from, with the tags put in.
        """
        answers: list[dict[str, Any]] = [{} for _ in inputs]
        for rows, batch in self.input_batches(inputs):
            for k, (tags, probabilities) in zip(rows, self._tagged(batch), strict=True):
                answers[k] = self._answer(inputs[k], self._words(inputs[k]), tags, probabilities)
        return answers

    def show(self, answer: dict[str, Any]) -> str:
        """The words with their tags, in columns where the input had columns."""
        if "conll" in answer:
            return str(answer["conll"])
        return " ".join(f"{word}/{tag}" for word, tag in zip(answer["words"], answer["tags"], strict=True))

    def input_batches(
        self, inputs: Sequence[str | Sequence[str] | Sentence]
    ) -> Iterator[tuple[list[int], SentenceBatch]]:
        """Sentences of about equal length side by side."""
        sentences = [self._words(each) for each in inputs]
        for rows in by_length(list(map(len, sentences)), TOKENS):
            yield rows, self._batch([sentences[k] for k in rows], [[] for _ in rows], 0).to(self._device)

    def looked_at_text(self, text: str) -> SentenceBatch:
        """A sentence, with the tags that the model gives it."""
        words = self._words(text)
        if not words:
            raise DataError("there is nothing to look at: the sentence is empty")
        batch = self._batch([words], [[]], 0).to(self._device)
        with torch.no_grad():
            return replace(batch, targets=self.model.decode(batch))

    def names_of(self, batch: SentenceBatch) -> tuple[list[list[str]], list[list[str]]]:
        """The words, and the tag of each."""
        lengths = batch.lengths.tolist()
        words = [row[:n] for row, n in zip(batch.words.tolist(), lengths, strict=True)]
        tags = [row[:n] for row, n in zip(batch.targets.tolist(), lengths, strict=True)]
        known = ["<padding>", "<unknown>", *self.vocabulary.words]
        return (
            [[known[k] for k in row] for row in words],
            [[self.tags[k] if k >= 0 else "<unknown>" for k in row] for row in tags],
        )

    def class_names(self) -> list[str]:
        """The tags."""
        return list(self.tags)

    def remarks(self) -> list[str]:
        """Sizes, and what runs the recurrence."""
        parameters = sum(p.numel() for p in self.model.parameters())
        kind = "no spans" if self.scheme is None else f"spans ({self.scheme})"
        return [
            f"{len(self.tags)} tags, {kind}; {len(self.vocabulary.words)} words; {parameters:,} parameters",
            f"{self.config.model.cell} runs by {self.model.recurrence.explain()}",
        ]

    def _answer(
        self, given: Any, words: Sequence[str], tags: list[str], probabilities: list[float]
    ) -> dict[str, Any]:
        answer: dict[str, Any] = {"words": list(words), "tags": tags, "probabilities": probabilities}
        if self.scheme is not None:
            answer["spans"] = [
                {"kind": s.kind, "start": s.start, "stop": s.stop, "text": " ".join(words[s.start : s.stop])}
                for s in spans(tags)
            ]
        if isinstance(given, Sentence):
            text = io.StringIO()
            write_conll(text, given, tags)
            answer["conll"] = text.getvalue().removesuffix("\n")
        return answer

    def _words(self, given: str | Sequence[str] | Sentence) -> Sequence[str]:
        if isinstance(given, Sentence):
            return given.words
        if isinstance(given, str):
            return split_text(given, "word") if self.config.search.raw else given.split()
        return given

    def _batch(
        self, sentences: Sequence[Sequence[str]], targets: Sequence[Sequence[int]], number: int
    ) -> SentenceBatch:
        words, lengths = pad([self.vocabulary.encode(sentence) for sentence in sentences])
        spelling = map(torch.from_numpy, spell(sentences, self.characters))
        spellings, spelling_lengths, spelling_of = spelling
        return SentenceBatch(
            number=number,
            words=words,
            lengths=lengths,
            spellings=spellings,
            spelling_lengths=spelling_lengths,
            spelling_of=spelling_of,
            targets=pad(targets, -100)[0],
        )

    def _loss(self, batch: SentenceBatch) -> tuple[float, int]:
        """The loss of the sentences whose tags are all known, and how many words they have."""
        padding = torch.arange(batch.targets.shape[1], device=batch.targets.device) >= batch.lengths[:, None]
        known = ((batch.targets != -100) | padding).all(1)
        if not known.any():
            return 0.0, 0
        rows = {"words", "lengths", "spelling_of", "targets"}
        loss = self.model.loss(replace(batch, **{name: getattr(batch, name)[known] for name in rows}))
        return loss.total.item(), loss.count

    @torch.no_grad()
    def _decode(self, batch: SentenceBatch) -> list[list[str]]:
        """The tags of each sentence."""
        return self._names(self.model.decode(batch), batch)

    @torch.no_grad()
    def _tagged(self, batch: SentenceBatch) -> Iterator[tuple[list[str], list[float]]]:
        """The tags of each sentence, and the probability that the model gives each of them."""
        features = self.model.features(batch)
        tags = self.model.head.decode(features, batch.lengths)
        marginals = self.model.head.marginals(features, batch.lengths)
        probabilities = marginals.gather(-1, tags.clamp(min=0)[..., None])[..., 0].tolist()
        for names, row in zip(self._names(tags, batch), probabilities, strict=True):
            yield names, row[: len(names)]

    def _names(self, tags: Tensor, batch: SentenceBatch) -> list[list[str]]:
        """Tags of the model in the scheme of the data, and legal in it."""
        rows = zip(tags.tolist(), batch.lengths.tolist(), strict=True)
        return [self._legal([self.tags[k] for k in row[:length]]) for row, length in rows]

    def _legal(self, tags: Sequence[str]) -> list[str]:
        """The same spans in the scheme of the data; tags that are of no spans stay as they are."""
        return list(tags) if self.scheme is None else repair(tags, self.scheme)[0]


def _read(data: TaggedConfig, paths: Paths) -> Sentences:
    if data.parallel:
        if len(paths) != 2:
            raise DataError(f"--parallel reads two files, one of words and one of tags, got {len(paths)}")
        return Sentences(read_aligned(*paths))
    if not paths:
        raise DataError("no data: give files of a word a line with its columns, before the options")
    found = [read_conll(path, words=_column(data.words), tags=_column(data.tags)) for path in paths]
    return Sentences([sentence for sentences in found for sentence in sentences])


def _warn_of_stray(train: Sentences) -> None:
    every = [(tag, sentence) for sentence in train.sentences for tag in sentence.tags]
    if (k := stray([tag for tag, _ in every])) is not None:
        tag, sentence = every[k]
        logger.warning(
            'tags are not read as spans, for the sentence at %s has "%s", which is no tag of a span, '
            "though others are: if it is a slip, mend it",
            sentence.place,
            tag,
        )


def _column(name: str | None) -> int | str | None:
    return int(name) if name is not None and name.isdecimal() else name


def _repaired(
    sentence: Sentence, found: Literal["bio", "bioes"] | None, to: Literal["bio", "bioes"] | None
) -> tuple[list[str], int]:
    """The tags of a sentence as the model is to read them, and how many were against their own scheme."""
    if found is None:
        return list(sentence.tags), 0
    tags, changed = repair(sentence.tags, found)
    return (tags if to in (None, found) else repair(tags, to)[0]), changed


def _lengths(sentences: Sequence[Sentence]) -> list[int]:
    return [len(sentence.words) for sentence in sentences]
