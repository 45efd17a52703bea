"""The classifier task: one answer for a text, a sequence of characters, or a row of numbers."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
import tyro
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor

from throughtime.config import ChoiceConfig, Config
from throughtime.data.batches import Buckets, ExampleBatch, by_length, pad
from throughtime.data.columns import Table, join_tables
from throughtime.data.labelled import rarest, read_labels, read_texts, table_of
from throughtime.data.scaling import Scaling, read_numbers
from throughtime.data.tables import has_header, read_table
from throughtime.data.terms import Terms
from throughtime.data.text import is_text, read_lines
from throughtime.data.tokens import Tokeniser, fit_tokeniser, joined, tokeniser_from_json
from throughtime.errors import DataError, RunError
from throughtime.heads.categorical import Categorical
from throughtime.heads.multi_label import MultiLabel
from throughtime.models.classifier import Classifier, Head, make_classifier
from throughtime.nn.recurrent import Recurrent
from throughtime.tasks.task import Corpus, DataConfig, Paths, Report, Task, check_cell, divide
from throughtime.tasks.vectors import put_vectors
from throughtime.train.classification import (
    Calibration,
    calibrate,
    class_metrics,
    class_rows,
    label_rows,
    multi_label_metrics,
)
from throughtime.train.config import ExampleTraining
from throughtime.train.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

#: Tokens, with padding, that are read side by side when the model is used.
TOKENS = 16_000
#: Options of the data that are for texts alone.
OF_TEXTS = ("tokens", "kmer_length", "lower", "min_count", "vocabulary", "vectors", "max_length")
#: Validation examples that are shown as training goes on.
SHOWN = 5


class LabelledConfig(ChoiceConfig, DataConfig):
    """What is read, and how it becomes numbers."""

    choice = "tokens"
    read_by: ClassVar = {
        "kmer_length": ("kmer",),
        "lower": ("word", "kmer"),
        "min_count": ("word", "kmer"),
        "vectors": ("word",),
    }

    paths: Annotated[Paths, tyro.conf.Positional] = Field(
        (),
        description="Tables (csv, tsv, jsonl, parquet, hf:NAME:SPLIT), or a folder with a folder or a file "
        "of texts for each class.",
    )
    input: tuple[str, ...] = Field(
        ("text",), description="Column of the text, or columns of numbers or lists of them."
    )
    target: str = Field("label", description="Column of the class. Numbers name columns without a header.")
    multi_label: str | None = Field(
        None, min_length=1, description="Rows have several labels, or none, with this between them."
    )
    tokens: Literal["word", "char", "bpe", "kmer"] = Field("word", description="What a text is cut into.")
    kmer_length: int = Field(3, ge=1, description="Characters of a k-mer.")
    lower: bool = Field(True, description="Read words and k-mers in lower case.")
    min_count: int = Field(2, ge=1, description="Rarer words and k-mers are read as unknown.")
    vocabulary: int | None = Field(None, ge=3, description="Most tokens there may be; all if not given.")
    vectors: Path | None = Field(
        None, description="Pretrained word vectors (GloVe, word2vec, fastText text)."
    )
    max_length: int = Field(2000, ge=1, description="Tokens of a text that are read; the rest is left out.")


class ClassifierModelConfig(ChoiceConfig):
    """The model: an encoder of the sequence, and a softmax."""

    read_by: ClassVar = dict.fromkeys(
        (
            "cell",
            "bidirectional",
            "pooling",
            "variational",
            "recurrent_dropout",
            "weight_dropout",
            "zoneout",
        ),
        ("recurrent",),
    ) | {
        "embedding": ("recurrent", "bag-of-words", "fixed-window", "big-window", "transformer"),
        "hidden": ("recurrent", "fixed-window", "big-window", "feed-forward"),
        "layers": ("recurrent", "feed-forward", "transformer"),
        "window": ("fixed-window",),
        "heads": ("transformer",),
    }

    model: Literal[
        "recurrent", "bag-of-words", "fixed-window", "big-window", "feed-forward", "transformer"
    ] = Field("recurrent", description="What reads the input; feed-forward reads numbers.")
    cell: Annotated[str, AfterValidator(check_cell)] = Field(
        "lstm", description='Recurrence: a name that "throughtime cells" lists.'
    )
    hidden: int = Field(128, ge=1, description="Units of each layer and direction.")
    layers: int = Field(1, ge=1, description="Layers on each other.")
    embedding: int = Field(128, ge=1, description="Features of a token; as many as --vectors has numbers.")
    bidirectional: bool = Field(True, description="Read in both directions.")
    pooling: Literal["last", "mean", "max", "attention"] = Field(
        "max", description="How the outputs of a recurrence become one vector."
    )
    window: int = Field(5, ge=1, description="Tokens that fixed-window sees, the last ones.")
    heads: int = Field(4, ge=1, description="Heads of the transformer.")
    dropout: float = Field(
        0.5, ge=0, lt=1, description="Dropout on embedding, between layers, on the vector."
    )
    variational: bool = Field(False, description="Drop the same features at all steps of a row.")
    recurrent_dropout: float = Field(
        0.0, ge=0, lt=1, description="Dropout on what recurrent matrices multiply."
    )
    weight_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on entries of recurrent matrices.")
    zoneout: float = Field(0.0, ge=0, lt=1, description="Probability that a unit keeps its state at a step.")
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="Weigh classes in the loss; balanced makes each count the same."
    )


class ClassifierConfig(Config):
    """Everything that decides a training of a classifier."""

    task: Annotated[Literal["classifier"], tyro.conf.Suppress] = "classifier"
    data: LabelledConfig = LabelledConfig()
    model: ClassifierModelConfig = ClassifierModelConfig()
    training: ExampleTraining = ExampleTraining()

    @model_validator(mode="after")
    def _check_fit(self) -> Self:
        reads_numbers = self.model.model == "feed-forward"
        for name in OF_TEXTS if reads_numbers else ():
            if getattr(self.data, name) != LabelledConfig.model_fields[name].default:
                option = name.replace("_", "-")
                raise ValueError(
                    f"--{option} is for texts, and a feed-forward model reads numbers: leave it out"
                )
        if self.data.multi_label is not None and self.model.class_weights != "none":
            raise ValueError("--class-weights weigh one class against others: leave them out")
        return self


@dataclass(frozen=True, kw_only=True)
class SequenceBatch(ExampleBatch):
    """Texts as tokens, and their classes; see `throughtime.models.classifier`."""

    tokens: Tensor
    lengths: Tensor
    targets: Tensor

    @property
    def steps(self) -> int:
        """Tokens."""
        return int(self.lengths.sum())


@dataclass(frozen=True, kw_only=True)
class ColumnBatch(ExampleBatch):
    """Rows of numbers, and their classes."""

    features: Tensor
    targets: Tensor

    @property
    def steps(self) -> int:
        """Rows: each is a single step."""
        return len(self.features)


class EncodedTable(NamedTuple):
    """Examples as numbers: tokens or columns, and classes, those that training never saw coming last."""

    table: Table
    inputs: list[Any]
    targets: Tensor
    unseen: list[str]


class ClassifierTask(Task[Table, EncodedTable]):
    """A classifier with its vocabulary, or the scaling of its columns, and the names of its classes."""

    config_type = ClassifierConfig
    draws = True

    def __init__(self, config: ClassifierConfig, processor: dict[str, Any]) -> None:
        self.config = config
        try:
            self.labels: list[str] = list(processor["labels"])
            self.reader = _reader_from_json(processor)
            self.model: Classifier = _make_model(config, self.reader, processor)
        except (KeyError, TypeError) as error:
            raise RunError(f"the description of the input is damaged: {error}") from None
        self._numbers = {label: k for k, label in enumerate(self.labels)}

    @classmethod
    def read(cls, config: ClassifierConfig) -> Corpus[Table]:
        """The tables; where none are given for validation, a share of each class, drawn at random."""
        data = config.data

        def labels(part: Table) -> list[list[str]]:
            return read_labels(part, data.target, data.multi_label)

        corpus = divide(data, config.training.seed, partial(_read, data), lambda part: rarest(labels(part)))
        if single := [label for label, n in Counter(chain(*labels(corpus.train))).items() if n == 1]:
            logger.warning("classes with a single example to train on: %s", _some(single))
        return corpus

    @classmethod
    def learn(
        cls, config: ClassifierConfig, train: Table, before: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Vocabulary or scaling, the classes, and how often each occurs.

        For a run that is begun from another the scaling and what a big window sees stay as they were.
        """
        data = config.data
        counts = Counter(chain(*read_labels(train, data.target, data.multi_label)))
        if not counts:
            raise DataError(f"{train.source}: no row has a label: give rows with labels in {data.target}")
        labels = sorted(counts) if before is None else joined(before["labels"], sorted(counts))
        if len(labels) < 2 and data.multi_label is None:
            raise DataError(f'{train.source}: every {data.target} is "{labels[0]}": a classifier needs two')
        processor = {"labels": labels, "counts": [max(counts[label], 1) for label in labels]}
        if config.model.model == "feed-forward":
            scaling = Scaling.fit(train, data.input).to_json() if before is None else before["scaling"]
            return processor | {"scaling": scaling}
        texts = read_texts(train, data.input)
        reader = _fit_reader(data, texts)
        if before is not None:
            known: Any = _reader_from_json(before)
            return processor | {"tokeniser": known.grown(reader).to_json(), "longest": before["longest"]}
        longest = max(len(reader.encode(text)) for text in texts)
        return processor | {"tokeniser": reader.to_json(), "longest": max(min(longest, data.max_length), 1)}

    def prepare(self) -> None:
        """Put the pretrained vectors in."""
        path = self.config.data.vectors
        if path is not None and self.model.embedding is not None and not isinstance(self.reader, Scaling):
            put_vectors(self.model.embedding, self.reader.texts, path)

    def batches(self, train: Table) -> Buckets[SequenceBatch] | Buckets[ColumnBatch]:
        """Examples of about equal length side by side."""
        data, training = self.encode(train), self.config.training

        def make(rows: list[int], number: int) -> Any:
            return self._batch([data.inputs[k] for k in rows], data.targets[rows], number)

        return Buckets(_lengths(data.inputs), training.batch_tokens, make, training.seed)

    def encode(self, part: Table) -> EncodedTable:
        """Tokens or scaled columns, and the numbers of the classes.

        A class that training never saw counts as wrong, is not in the loss, and is said once; where there is
        no other, the data are not those of this model, and `DataError` is raised.
        """
        data = self.config.data
        labels = read_labels(part, data.target, data.multi_label)
        unseen = list(dict.fromkeys(label for row in labels for label in row if label not in self._numbers))
        if unseen:
            first = next(k for k, row in enumerate(labels) if not self._numbers.keys() >= set(row))
            where = f'{part.place(first)}: {data.target} is "{unseen[0]}"'
            known = f"which training never saw: it saw {_some(self.labels)}"
            if not any(label in self._numbers for row in labels for label in row):
                raise DataError(f"{where}, {known}; none of the labels is known, so is it the right column?")
            count = sum(not self._numbers.keys() >= set(row) for row in labels)
            logger.warning("%s, %s; %d of %d rows like it count as wrong", where, known, count, len(part))
        numbers = self._numbers | {label: k for k, label in enumerate(unseen, start=len(self.labels))}
        if data.multi_label is None:
            targets = torch.tensor([numbers[label] for [label] in labels])
        else:
            targets = torch.zeros(len(part), len(numbers))
            for k, row in enumerate(labels):
                targets[k, [numbers[label] for label in row]] = 1
        inputs = self._inputs(part)
        if empty := [k for k, ids in enumerate(inputs) if not len(ids)]:
            _warn(part, empty, "nothing in them that is read")
        return EncodedTable(part, inputs, targets, unseen)

    def size(self, part: EncodedTable) -> int:
        """Tokens, or rows of numbers."""
        return sum(_lengths(part.inputs))

    def measure(self, part: EncodedTable) -> Report:
        """Loss, accuracy, macro F1, calibration error; of several labels, exact match, micro and macro F1."""
        total, count = 0.0, 0
        known = len(self.labels)
        probs = torch.zeros(len(part.inputs), known + len(part.unseen))
        for rows, batch in self._batches(part.inputs, part.targets):
            vectors = self.model.vectors(batch)
            probs[rows, :known] = self.model.head.log_probs(vectors).exp().cpu()
            several = batch.targets.dim() == 2
            targets = (
                batch.targets[:, :known] if several else batch.targets.where(batch.targets < known, -100)
            )
            loss = self.model.head.loss(vectors, targets)
            total, count = total + loss.total.item(), count + loss.count
        metrics = {"loss": total / max(count, 1)}
        names = self.labels + part.unseen
        if self.config.data.multi_label:
            of_labels = label_rows(probs, part.targets, names)
            return Report(metrics | multi_label_metrics(probs, part.targets), of_labels)
        of_classes, confusion = class_metrics(probs, part.targets)
        figures = {"confusion": partial(_draw, confusion, names, calibrate(probs, part.targets))}
        return Report(metrics | of_classes, class_rows(confusion, names), figures)

    def quality(self, metrics: Metrics) -> float:
        """Accuracy, or micro F1 of several labels."""
        return metrics["micro_f1" if self.config.data.multi_label else "accuracy"]

    def sample(self, part: EncodedTable) -> str:
        """The first examples and what the model takes them for."""
        answers = self._answers(part.inputs[:SHOWN])
        shown = part.table.select(range(len(answers)))
        rights = read_labels(shown, self.config.data.target, self.config.data.multi_label)
        return "\n".join(
            f"{self._told(part.table, k)}\n  {self.show(answer)} (right: {', '.join(right)})"
            for k, (answer, right) in enumerate(zip(answers, rights, strict=False))
        )

    def open(self, paths: Paths) -> Table:
        """Other examples."""
        return _read(self.config.data, paths)

    def inputs(self, path: Path) -> Iterable[Any]:
        """The rows of a table, or the lines of a text."""
        data = self.config.data
        if is_text(path):
            return read_lines(path)
        table = read_table(path, data.input, has_header((*data.input, data.target)))
        return [
            dict(zip(data.input, row, strict=True))
            for row in zip(*map(table.column, data.input), strict=True)
        ]

    def answer(self, inputs: Sequence[str | dict[str, Any]]) -> list[dict[str, Any]]:
        """The class of each text or row, with the probability of every class.

        A row is an object with the columns of the training, or the JSON of one.
        """
        table = table_of(inputs, self.config.data.input, isinstance(self.reader, Scaling))
        shown = [{"input": each} for each in inputs]
        return [a | b for a, b in zip(shown, self._answers(self._inputs(table)), strict=True)]

    def show(self, answer: dict[str, Any]) -> str:
        """The class and its probability."""
        if self.config.data.multi_label:
            return (
                ", ".join(f"{name} {answer['probabilities'][name]:.3f}" for name in answer["labels"]) or "-"
            )
        return f"{answer['label']} {answer['probabilities'][answer['label']]:.3f}"

    def input_batches(self, inputs: Sequence[str | dict[str, Any]]) -> Iterator[tuple[list[int], Any]]:
        """Texts of about equal length, or rows of numbers, side by side."""
        table = table_of(inputs, self.config.data.input, isinstance(self.reader, Scaling))
        return self._batches(self._inputs(table))

    def looked_at_text(self, text: str) -> Any:
        """A text, with the class that the model gives it."""
        [ids] = self._inputs(table_of([text], self.config.data.input, isinstance(self.reader, Scaling)))
        answer = self._log_probs([ids])
        targets = (answer.exp() >= 0.5).float() if self.config.data.multi_label else answer.argmax(-1)
        return self._batch([ids], targets, 0).to(self._device)

    def names_of(self, batch: Any) -> tuple[list[list[str]], list[list[str]]]:
        """The tokens or the columns, and the class."""
        if isinstance(self.reader, Scaling):
            inputs = [list(self.config.data.input)] * len(batch.features)
        else:
            rows = zip(batch.tokens.tolist(), batch.lengths.tolist(), strict=True)
            inputs = [[self._word(k) for k in row[:length]] for row, length in rows]
        several = batch.targets.dim() == 2
        wanted = [row.nonzero()[:, 0].tolist() if several else [int(row)] for row in batch.targets]
        return inputs, [[self.labels[k] for k in row if 0 <= k < len(self.labels)] for row in wanted]

    def class_names(self) -> list[str]:
        """The classes, or the labels."""
        return list(self.labels)

    def _word(self, number: int) -> str:
        """A token as people read it."""
        assert not isinstance(self.reader, Scaling)
        return self.reader.texts[number - 2] if number > 1 else "<unknown>"

    def remarks(self) -> list[str]:
        """The classes, sizes, and what runs the recurrence."""
        parameters = sum(p.numel() for p in self.model.parameters())
        remarks = [f"{len(self.labels)} classes: {_some(self.labels)}; {parameters:,} parameters"]
        layers = [m for m in self.model.modules() if isinstance(m, Recurrent)]
        return remarks + [f"{self.config.model.cell} runs by {layer.explain()}" for layer in layers]

    def _answers(self, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        for row in self._log_probs(inputs).exp().tolist():
            probabilities: dict[str, float] = dict(zip(self.labels, row, strict=True))
            if self.config.data.multi_label:
                answers.append({"labels": [n for n, p in probabilities.items() if p >= 0.5]})
            else:
                answers.append({"label": max(probabilities, key=probabilities.__getitem__)})
            answers[-1]["probabilities"] = probabilities
        return answers

    @torch.no_grad()
    def _log_probs(self, inputs: Sequence[Any]) -> Tensor:
        log_probs = torch.empty(len(inputs), len(self.labels))
        for rows, batch in self._batches(inputs):
            log_probs[rows] = self.model.log_probs(batch).cpu()
        return log_probs

    def _batches(
        self, inputs: Sequence[Any], targets: Tensor | None = None
    ) -> Iterator[tuple[list[int], Any]]:
        targets = torch.zeros(len(inputs), dtype=torch.long) if targets is None else targets
        for rows in by_length(_lengths(inputs), TOKENS):
            yield rows, self._batch([inputs[k] for k in rows], targets[rows], 0).to(self._device)

    def _batch(self, inputs: Sequence[Any], targets: Tensor, number: int) -> Any:
        if isinstance(self.reader, Scaling):
            features = torch.as_tensor(np.stack(inputs))
            return ColumnBatch(features=features, targets=targets, number=number)
        tokens, lengths = pad(inputs)
        return SequenceBatch(tokens=tokens, lengths=lengths, targets=targets, number=number)

    def _inputs(self, table: Table) -> list[Any]:
        data = self.config.data
        if isinstance(self.reader, Scaling):
            return list(self.reader.encode(read_numbers(table, data.input)))
        inputs = [self.reader.encode(text) for text in read_texts(table, data.input)]
        most = data.max_length
        if long := [k for k, ids in enumerate(inputs) if len(ids) > most]:
            _warn(table, long, f"more than {most} tokens, of which the first {most} are read")
        return [ids[:most] for ids in inputs]

    def _told(self, table: Table, row: int) -> str:
        return " ".join(str(table.column(name)[row]) for name in self.config.data.input)[:200]


def _read(data: LabelledConfig, paths: Paths) -> Table:
    if not paths:
        raise DataError("no data: give a table, or a folder of texts by class, before the options")
    return join_tables([read_table(path, (*data.input, data.target)) for path in paths])


def _draw(confusion: Tensor, names: Sequence[str], calibration: Calibration) -> Figure:
    from throughtime.train.confusion import draw_confusion  # matplotlib takes a while to import

    return draw_confusion(confusion, names, calibration)


def _fit_reader(data: LabelledConfig, texts: Sequence[str]) -> Terms | Tokeniser:
    if data.tokens == "word" or data.tokens == "kmer":
        return Terms.fit(
            texts,
            data.tokens,
            lower=data.lower,
            length=data.kmer_length,
            min_count=data.min_count,
            most=data.vocabulary,
        )
    return fit_tokeniser(data.tokens, texts, data.vocabulary)


def _reader_from_json(processor: dict[str, Any]) -> Terms | Tokeniser | Scaling:
    if "scaling" in processor:
        return Scaling.from_json(processor["scaling"])
    if processor["tokeniser"].get("kind") == "terms":
        return Terms.from_json(processor["tokeniser"])
    return tokeniser_from_json(processor["tokeniser"])


def _make_model(
    config: ClassifierConfig, reader: Terms | Tokeniser | Scaling, processor: dict[str, Any]
) -> Classifier:
    model, counts = config.model, torch.tensor(processor["counts"], dtype=torch.float)
    head: Callable[[int, int], Head] = MultiLabel
    if config.data.multi_label is None:
        balanced = counts.sum() / (len(counts) * counts)
        head = partial(Categorical, class_weights=balanced if model.class_weights == "balanced" else None)
    options = model.model_dump(exclude={"model", "class_weights", "window"})
    if isinstance(reader, Scaling):
        return make_classifier(model.model, len(counts), head=head, columns=len(reader.mean), **options)
    window = processor["longest"] if model.model == "big-window" else model.window
    return make_classifier(model.model, len(counts), head=head, words=reader.size, window=window, **options)


def _lengths(inputs: Sequence[Any]) -> list[int]:
    """Tokens of each text; a row of numbers counts as one."""
    return [1 if each.dtype == np.float32 else len(each) for each in inputs]


def _warn(table: Table, rows: Sequence[int], what: str) -> None:
    logger.warning(
        "%d of %d texts have %s; the first is %s", len(rows), len(table), what, table.place(rows[0])
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
