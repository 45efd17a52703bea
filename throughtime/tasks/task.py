"""What all tasks share: training into a run, going on with it, measuring and using it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    Protocol,
    Self,
    TypeVar,
)

import torch
import tyro
from pydantic import Field
from rich.console import Console
from torch import Tensor, nn

from throughtime.cells.library import find_cell
from throughtime.config import Config
from throughtime.data.split import hold_out
from throughtime.errors import CellError, ConfigError, DataError, RunError
from throughtime.nn.recurrent import Recurrent
from throughtime.nn.state import State
from throughtime.train.checkpoint import Checkpoint, load_weights, read_tensors, take_over
from throughtime.train.config import TrainingConfig
from throughtime.train.curves import save_figure
from throughtime.train.feed import Batches
from throughtime.train.metrics import Metrics, evaluating
from throughtime.train.run import Run, Trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Paths = tuple[Path, ...]

#: What a run may have otherwise when it goes on: where the data are, and how long and fast to train.
MAY_CHANGE = {"paths", "valid", "test", "folder", *TrainingConfig.model_fields} - {"optimizer", "seed"}
#: Options that decide what the inputs and answers of a model are.
READING = (
    *("tokens", "columns", "kmer_length", "lower", "multi_label", "scheme", "size"),
    *("targets", "known", "past", "static", "calendar", "season", "positions"),
    *("context", "lags", "centre", "scale", "relative", "horizons"),
    *("rate", "mels", "normalise", "every"),
)
#: What a nat of loss weighs where the best weights are chosen: it decides between equals alone.
TIE = 1e-6


class DataConfig(Config):
    """What is read."""

    paths: Annotated[Paths, tyro.conf.Positional] = Field((), description="Files to train on.")
    valid: Paths = Field((), description="Files for validation; else a part of the training data.")
    test: Paths = Field((), description="Files that the finished model is measured on.")
    valid_share: float = Field(0.1, gt=0, lt=1, description="Part of the rest kept for validation.")
    test_share: float = Field(0.0, ge=0, lt=1, description="Part of the data kept for the test; none if 0.")

    def absolute(self) -> Self:
        """The same with absolute paths, which hold from any folder."""
        files = {name: tuple(map(_absolute, getattr(self, name))) for name in ("paths", "valid", "test")}
        vectors: Path | None = getattr(self, "vectors", None)
        return self.model_copy(update=files if vectors is None else files | {"vectors": _absolute(vectors)})


class Part(Protocol):
    """A part of the data."""

    @property
    def digest(self) -> str:
        """The same for the same content only, wherever it lies."""


class Report(NamedTuple):
    """How a model does on a part of the data.

    metrics    numbers by their names in the field, `loss` among them.
    parts      the same, class by class or length by length, as rows of a table.
    figures    what draws a picture, by the picture's name.
    """

    metrics: Metrics
    parts: Sequence[dict[str, Any]] = ()
    figures: Mapping[str, Callable[[], Figure]] = MappingProxyType({})

    def draw(self, folder: Path) -> list[Path]:
        """Draw all figures into a folder; returns their files."""
        drawn = {folder / f"{name}.png": draw for name, draw in self.figures.items()}
        for path, draw in drawn.items():
            save_figure(draw(), path)
        return list(drawn)


P = TypeVar("P", bound=Part)
E = TypeVar("E")


class Corpus(NamedTuple, Generic[P]):
    """Everything that a training reads."""

    train: P
    valid: P
    test: P | None


class _Data(NamedTuple, Generic[E]):
    """The same as a model reads it."""

    batches: Batches
    valid: E
    test: E | None


class Task(ABC, Generic[P, E]):
    """A model with what turns raw input into numbers and answers into text: what a run holds.

    P is a part of the data as it is read, E the same as numbers.

    `config` decides everything; `processor` is what was learned from the training data beside the weights,
    such as the vocabulary, as JSON.
    """

    config_type: ClassVar[type[Config]]
    #: Whether a report has figures: then there is one of the validation data where there are none for a test.
    draws: ClassVar[bool] = False
    #: The commands that read the configuration's `search`, where it has one.
    searches: ClassVar[tuple[str, ...]] = ("predict", "evaluate")
    #: Whether the loss of a text that is typed wants an answer, which is the model's own then.
    answers_texts: ClassVar[bool] = True
    config: Any
    model: nn.Module

    @abstractmethod
    def __init__(self, config: Any, processor: dict[str, Any]) -> None:
        """The task with untrained weights. Raises `RunError` where `processor` is damaged."""

    @classmethod
    @abstractmethod
    def read(cls, config: Any) -> Corpus[P]:
        """The data that the configuration names; raises `DataError` for what is wrong with them."""

    @classmethod
    @abstractmethod
    def learn(cls, config: Any, train: P, before: dict[str, Any] | None = None) -> dict[str, Any]:
        """The processor, from the training data.

        For a model that was trained with the processor `before`: what has a number keeps it, and what is new
        comes behind. Raises `ConfigError` where the data are of another kind.
        """

    @abstractmethod
    def batches(self, train: P) -> Batches:
        """The training data as the model reads them."""

    @abstractmethod
    def encode(self, part: P) -> E:
        """Data to measure the model on; raises `DataError` where the model cannot be measured on them."""

    @abstractmethod
    def measure(self, part: E) -> Report:
        """How the model as it is does on a part of the data. Called in evaluation mode."""

    @abstractmethod
    def size(self, part: E) -> int:
        """How many time steps `measure` reads."""

    @abstractmethod
    def sample(self, part: E) -> str:
        """Something the model makes of the validation data, for people to read, in evaluation mode."""

    @abstractmethod
    def open(self, paths: Paths) -> P:
        """Other data than those of the training, read in the same way."""

    @abstractmethod
    def answer(self, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        """The prediction for each input, as JSON. It does not depend on the other inputs."""

    @abstractmethod
    def input_batches(self, inputs: Sequence[Any]) -> Iterator[tuple[list[int], Any]]:
        """Inputs for `answer` in batches for the model, each with the places of its rows among them."""

    @abstractmethod
    def show(self, answer: dict[str, Any]) -> str:
        """A prediction as a line for people to read."""

    def draw(self, answer: dict[str, Any]) -> Figure:
        """The picture of a prediction; raises `ConfigError` where a task has none."""
        raise ConfigError(f"{self.config.task} draws no picture of a prediction")

    def looked_at(self, part: P, steps: int) -> Any:
        """A batch of a part of the data for the model to be looked at with, as `model.loss` takes it.

        `steps` are the most time steps where a row may have any number of them.
        """
        return self.batches(part).batch(0, 0).to(self._device)

    def looked_at_text(self, text: str) -> Any:
        """The same for an input that was typed, with the model's own answer where the loss needs one.

        Raises `ConfigError` where a task reads no text.
        """
        raise ConfigError(f"{self.config.task} reads no text: give --file with data as it was trained on")

    def names_of(self, batch: Any) -> tuple[list[list[str]], list[list[str]]]:
        """What people call each step that a batch reads, and what the loss wants there: row by row.

        Where steps have no names, as sounds have none, there are no rows.
        """
        return [], []

    def class_names(self) -> list[str]:
        """What people call each class that the model's head tells apart; none where they have no names."""
        return []

    def inputs(self, path: Path) -> Iterable[Any]:
        """The inputs for `answer` in a file: its lines, if a task knows nothing better."""
        from throughtime.data.text import read_lines

        return read_lines(path)

    def load_pretrained(self) -> None:
        """What is done once to the untrained model of a run that begins from no other."""

    def prepare(self) -> None:
        """What is done once to the untrained model of a new run."""

    def validate(self, part: E) -> Metrics:
        """The metrics that training looks at on its way."""
        return self.measure(part).metrics

    def signatures(self) -> dict[str, str]:
        """How metrics were computed, where the field asks for it."""
        return {}

    def quality(self, metrics: Metrics) -> float:
        """What the best weights are chosen by, the higher the better; of equal ones the lowest loss."""
        return -metrics["loss"]

    def remarks(self) -> list[str]:
        """What a person who trains the model may want to know before it begins."""
        return []

    def read_loss(self, loss: float) -> str:
        """A loss as people of the field read it, for the progress bar."""
        return f"{loss:.3f} nats"

    @classmethod
    def load(cls, run: Run) -> Self:
        """The task of a run with its best weights."""
        task = cls(cls.read_config(run), run.read_processor())
        load_weights(task.model, read_tensors(run.model)[0])
        task.model.eval()
        return task

    @classmethod
    def read_config(cls, run: Run) -> Any:
        """The configuration of a run; raises `RunError` where it is damaged."""
        try:
            return cls.config_type.from_toml(run.config)
        except ConfigError as error:
            raise RunError(f"the run {run.folder} is damaged: {error}") from None

    @classmethod
    def train(
        cls, config: Any, folder: Path, console: Console | None = None, start: Run | None = None
    ) -> Trained:
        """Train a new run into `folder`, which must be new or empty.

        It begins as a copy of the run `start`, if given, that has learned to read what is new in the data.
        Raises `ConfigError` where `config` has not the sizes of that run.
        """
        Run.check_new(folder)
        before = None if start is None else cls._check_start(start, config)
        config = config.model_copy(update={"data": config.data.absolute()})
        corpus = cls.read(config)
        processor = cls.learn(config, corpus.train, before) | _digests(corpus)
        torch.manual_seed(config.training.seed)
        task = cls._sized(config, processor)
        data = task._read_all(corpus)
        if start is None:
            task.load_pretrained()
        task.prepare()
        if start is not None:
            take_over(task.model, read_tensors(start.model)[0])
        run = Run.create(folder, config.to_toml(), processor)
        return task._fit(run, data, resume=False, console=console)

    @classmethod
    def resume(cls, run: Run, config: Any, console: Console | None = None) -> Trained:
        """Go on with a run from its last checkpoint, exactly as if it had never stopped.

        `config` may differ from the run's own in how long and how fast to train, and in where the data
        are. Raises `ConfigError` where it differs in more, `RunError` where the data are not what they were.
        """
        _check_resumable(cls.read_config(run), config)
        Checkpoint.load(run.last)
        config = config.model_copy(update={"data": config.data.absolute()})
        corpus, processor = cls.read(config), run.read_processor()
        if any(processor.get(name) != digest for name, digest in _digests(corpus).items()):
            raise RunError(
                f"the data are not those that {run.folder} began with: to go on needs the same for "
                "training and validation; start a new run without --resume"
            )
        task = cls._sized(config, processor)
        data = task._read_all(corpus)
        run.update_config(config.to_toml())
        return task._fit(run, data, resume=True, console=console)

    def evaluate(self, paths: Paths) -> Metrics:
        """The metrics of data that the model did not train on."""
        return self.report(paths).metrics

    def report(self, paths: Paths) -> Report:
        """The same with its parts and figures."""
        with evaluating(self.model):
            return self.measure(self.encode(self.open(paths)))

    @torch.no_grad()
    def embed(self, inputs: Sequence[Any], kind: Literal["pooled", "state"] = "pooled") -> Tensor:
        """A vector for each input [N, F].

        "pooled" is the model's own: what a classifier's head reads, else the mean over the steps of the last
        layer. "state" is the hidden state that the recurrence ends in, of both directions where it has two.
        Raises `ConfigError` for the state of a model without a recurrence.
        """
        ran: list[tuple[Recurrent, State]] = []
        layers = [layer for layer in self.model.modules() if isinstance(layer, Recurrent)]
        hooks = [layer.register_forward_hook(lambda m, _, out: ran.append((m, out[1]))) for layer in layers]
        found: list[Tensor] = [torch.empty(0)] * len(inputs)
        try:
            for rows, batch in self.input_batches(inputs):
                vectors = self.model.vectors(batch)  # type: ignore[operator]
                if kind == "state":
                    vectors = _last_state(ran)
                for k, vector in zip(rows, vectors.cpu(), strict=True):
                    found[k] = vector
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(found)

    def predict(self, inputs: Iterable[Any], rows: int = 64) -> Iterator[dict[str, Any]]:
        """The prediction for each input in turn, `rows` of them computed at a time.

        Where one cannot be read there are those before it, and then the error.
        """
        left = iter(inputs)
        while group := list(islice(left, rows)):
            try:
                answers: Iterable[dict[str, Any]] = self.answer(group)
            except DataError:
                answers = (answer for each in group for answer in self.answer([each]))
            yield from answers

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    @classmethod
    def _check_start(cls, start: Run, config: Any) -> dict[str, Any]:
        """The processor of a run that is begun from, whose model these options must fit."""
        old, processor = cls.read_config(start), start.read_processor()
        for name in READING:
            was, now = (getattr(each.data, name, getattr(each.model, name, None)) for each in (old, config))
            if was != now:
                raise ConfigError(
                    f"--{name.replace('_', '-')} was {was} for {start.folder} and cannot become {now}: "
                    "leave it out"
                )
        one, two = (_shapes(cls._sized(each, processor).model) for each in (old, config))
        for name in sorted(one.keys() | two.keys()):
            if one.get(name) != two.get(name):
                raise ConfigError(
                    f'with these options the model is not that of {start.folder}: "{name}" would have shape '
                    f"{two.get(name)} and not {one.get(name)}; leave out what changes sizes"
                )
        return processor

    @classmethod
    def _sized(cls, config: Any, processor: dict[str, Any]) -> Self:
        try:
            return cls(config, processor)
        except RuntimeError as error:  # torch has no type of its own for memory on the processor
            raise ConfigError(
                f"a model of this size cannot be made: {str(error).splitlines()[0]}; take a smaller one"
            ) from None

    def _read_all(self, corpus: Corpus[P]) -> _Data[E]:
        """All data as numbers; what is wrong with them is found here, before there is a run."""
        test = None if corpus.test is None else self.encode(corpus.test)
        return _Data(self.batches(corpus.train), self.encode(corpus.valid), test)

    def _fit(self, run: Run, data: _Data[E], *, resume: bool, console: Console | None) -> Trained:
        from throughtime.train.fit import fit  # Lightning takes seconds to import

        def validate() -> Metrics:
            with evaluating(self.model):
                return self.validate(data.valid)

        def show() -> str:
            with evaluating(self.model):
                return self.sample(data.valid)

        if console is not None:
            for remark in self.remarks():
                console.print(remark, style="dim", markup=False)
        progress, finished = fit(
            self.model,
            data.batches,
            run,
            self.config.training,
            validate=validate,
            validation_tokens=self.size(data.valid),
            score=lambda metrics: TIE * metrics["loss"] - self.quality(metrics),
            sample=show,
            read=self.read_loss,
            resume=resume,
            console=console,
        )
        test: Metrics = {}
        parts: Sequence[dict[str, Any]] = ()
        if finished and (data.test is not None or self.draws):
            best = type(self).load(run)
            with evaluating(best.model):
                report = best.measure(data.valid if data.test is None else data.test)
            report.draw(run.folder)
            test, parts = {} if data.test is None else report.metrics, report.parts
        return Trained(run.folder, run.best_metrics(), test, progress.step, progress.seconds, finished, parts)


class Examples(Part, Protocol):
    """A part of the data that is made of examples."""

    def __len__(self) -> int:
        """How many there are."""

    def select(self, rows: Sequence[int]) -> Self:
        """These of them, in this order."""


X = TypeVar("X", bound=Examples)


def divide(
    data: DataConfig,
    seed: int,
    read: Callable[[Paths], X],
    labels: Callable[[X], Sequence[Hashable] | None] = lambda part: None,
) -> Corpus[X]:
    """The examples to train, to validate and to test on.

    What has no files of its own is a share of the training data, drawn at random from the seed; where there
    are `labels`, of each label the same share.
    """

    def hold(part: X, share: float) -> tuple[X, X]:
        rest, held = hold_out(len(part), share, seed, labels(part))
        return part.select(rest), part.select(held)

    train, test = read(data.paths), read(data.test) if data.test else None
    if test is None and data.test_share:
        train, test = hold(train, data.test_share)
    train, valid = (train, read(data.valid)) if data.valid else hold(train, data.valid_share)
    return Corpus(train, valid, test)


def _last_state(ran: list[tuple[Recurrent, State]]) -> Tensor:
    """The hidden state, of each direction, that the last layer of the last recurrence ended in."""
    if not ran:
        raise ConfigError('this model has no recurrence, and so no state: take the "pooled" vector')
    layer, state = ran[-1]
    return torch.cat([values[0] for values in state[-layer.directions :]], -1)


def check_cell(name: str) -> str:
    """The name of a cell of the table; raises `CellError` where it is none."""
    if ":" in name:  # a run must hold all that it needs, and a file of Python is not in it
        raise CellError(f"{name} is not in the table of cells, and this task trains only those")
    return find_cell(name).name


def _shapes(model: nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in model.state_dict().items()}


def _digests(corpus: Corpus[Any]) -> dict[str, str]:
    return {"train": corpus.train.digest, "valid": corpus.valid.digest}


def _check_resumable(before: Any, now: Any) -> None:
    """Raise `ConfigError` where a run would not be the same one any more."""
    for part in ("model", "data", "training"):
        old, new = getattr(before, part), getattr(now, part)
        for name in type(new).model_fields:
            a, b = getattr(old, name), getattr(new, name)
            if name not in MAY_CHANGE and a != b:
                raise ConfigError(
                    f"--{name.replace('_', '-')} was {a} when the run began and cannot become {b}: "
                    "leave it out, or start a new run without --resume"
                )


def _absolute(path: Path) -> Path:
    """A path that holds from any folder; the name of a dataset stays as it is."""
    return path if str(path).startswith("hf:") else path.absolute()
