"""The frame tagging task: a label for each frame of a clip."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import torch
import tyro
from pydantic import AfterValidator, Field
from torch import Tensor

from throughtime.config import Config
from throughtime.data.batches import Buckets, ExampleBatch, by_length, pad
from throughtime.data.captioned import list_seen
from throughtime.data.clips import (
    LabelledClips,
    pad_clips,
    read_clips,
    read_labelled_clips,
)
from throughtime.data.pictures import Pixels
from throughtime.data.tokens import joined
from throughtime.errors import DataError, RunError
from throughtime.heads.crf import CRF
from throughtime.heads.per_step import PerStep
from throughtime.models.clips import ClipEncoder, FrameEncoder
from throughtime.models.frame_tagger import FrameTagger
from throughtime.nn.convolution import Convolution, PictureGrid
from throughtime.tasks.seen import SeenConfig, check_channels
from throughtime.tasks.task import Corpus, Paths, Report, Task, check_cell, divide
from throughtime.train.classification import calibrate, class_rows, confusion_matrix
from throughtime.train.config import TrainingConfig
from throughtime.train.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

#: Frames, with padding, that are looked at side by side when the model is used.
FRAMES = 512
#: Clips that are shown as training goes on, and in the figure.
SHOWN, DRAWN = 3, 6


class LabelledClipsConfig(SeenConfig):
    """What is read, and how it becomes numbers."""

    paths: Annotated[Paths, tyro.conf.Positional] = Field(
        (), description="Tables with a column of clips and one of a label for each frame."
    )
    input: str = Field(
        "clip", description="Column of paths, each of a folder of frames or a video; or its number."
    )
    target: str = Field(
        "labels", description="Column of labels, a list or with spaces between, one for each frame."
    )
    size: int = Field(32, ge=8, description="Pixels that each side of a frame is made to have.")


class FrameTaggerModelConfig(Config):
    """The model: what sees a frame, what remembers, a head."""

    head: Literal["softmax", "crf"] = Field(
        "softmax", description="Labels each by themselves, or as they follow each other."
    )
    cell: Annotated[str, AfterValidator(check_cell)] = Field(
        "lstm", description='Recurrence: a name that "throughtime cells" lists.'
    )
    hidden: int = Field(
        128, ge=2, multiple_of=2, description="Units of each layer, both directions together."
    )
    layers: int = Field(1, ge=1, description="Layers on each other.")
    bidirectional: bool = Field(
        True, description="A label may depend on later frames; else only on those so far, as streams need."
    )
    channels: tuple[int, ...] = Field(
        (16, 32, 64), min_length=1, description="Channels of each convolution that halves the frame."
    )
    features: int = Field(128, ge=1, description="Features of a frame, which the recurrence reads.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout on frames, between layers, on the output.")


class ClipTraining(TrainingConfig):
    """How a model of clips is trained."""

    learning_rate: float = Field(2e-3, gt=0, description="Highest learning rate.")
    batch_frames: int = Field(
        256, ge=1, description="Most frames in a batch, padding among them; one clip may have more."
    )


class FrameTaggerConfig(Config):
    """Everything that decides a training of a frame tagger."""

    task: Annotated[Literal["frame-tagger"], tyro.conf.Suppress] = "frame-tagger"
    data: LabelledClipsConfig = LabelledClipsConfig()
    model: FrameTaggerModelConfig = FrameTaggerModelConfig()
    training: ClipTraining = ClipTraining()


@dataclass(frozen=True, kw_only=True)
class ClipBatch(ExampleBatch):
    """Clips as numbers; see `throughtime.models.frame_tagger`."""

    frames: Tensor
    lengths: Tensor
    targets: Tensor

    @property
    def steps(self) -> int:
        """Frames."""
        return int(self.lengths.sum())


class EncodedClips(NamedTuple):
    """Clips, the numbers of their labels, and the labels that training never saw, which come behind."""

    clips: LabelledClips
    targets: list[list[int]]
    unseen: list[str]


class FrameTaggerTask(Task[LabelledClips, EncodedClips]):
    """A frame tagger with its labels."""

    config_type = FrameTaggerConfig
    draws = True

    def __init__(self, config: FrameTaggerConfig, processor: dict[str, Any]) -> None:
        self.config = config
        try:
            self.labels: list[str] = list(processor["labels"])
        except (KeyError, TypeError) as error:
            raise RunError(f"the description of the input is damaged: {error}") from None
        model = config.model
        check_channels(config.data.size, model.channels)
        grid = PictureGrid(Convolution(model.channels), model.channels[-1])
        options = model.model_dump(include={"cell", "hidden", "layers", "bidirectional", "dropout"})
        encoder = ClipEncoder(FrameEncoder(grid, config.data.size, model.features), **options)
        self.model: FrameTagger = FrameTagger(
            encoder, len(self.labels), head=CRF if model.head == "crf" else PerStep
        )

    @classmethod
    def read(cls, config: FrameTaggerConfig) -> Corpus[LabelledClips]:
        """The clips; where none are given for validation, some of those for training, drawn at random."""
        return divide(config.data, config.training.seed, partial(_read, config.data))

    @classmethod
    def learn(
        cls, config: FrameTaggerConfig, train: LabelledClips, before: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The labels."""
        names = sorted({label for labels in train.labels for label in labels})
        return {"labels": names if before is None else joined(before["labels"], names)}

    def batches(self, train: LabelledClips) -> Buckets[ClipBatch]:
        """Clips of about equal length side by side."""
        data, training = self.encode(train), self.config.training

        def make(rows: list[int], number: int) -> ClipBatch:
            return _batch([train.frames[k] for k in rows], [data.targets[k] for k in rows], number)

        return Buckets(_lengths(train.frames), training.batch_frames, make, training.seed)

    def encode(self, part: LabelledClips) -> EncodedClips:
        """The numbers of the labels.

        A label that training never saw counts as wrong, its clip is not in the loss, and it is said once;
        where there is no other, the data are not those of this model, and `DataError` is raised.
        """
        unseen = list(
            dict.fromkeys(label for row in part.labels for label in row if label not in self.labels)
        )
        if unseen:
            rows = [k for k, row in enumerate(part.labels) if not {*row} <= {*self.labels}]
            where = f'{part.paths[rows[0]]} has the label "{unseen[0]}", which training never saw'
            if not any(label in self.labels for row in part.labels for label in row):
                raise DataError(f"{where}, and no other label is known either: is it the right column?")
            logger.warning(
                "%s; such labels count as wrong, and %d clips are not in the loss", where, len(rows)
            )
        numbers = {label: k for k, label in enumerate([*self.labels, *unseen])}
        return EncodedClips(part, [[numbers[label] for label in row] for row in part.labels], unseen)

    def size(self, part: EncodedClips) -> int:
        """Frames."""
        return sum(_lengths(part.clips.frames))

    def measure(self, part: EncodedClips) -> Report:
        """Loss (nats per frame) and accuracy by frame; precision, recall and F1 of each label."""
        total, count, names = 0.0, 0, [*self.labels, *part.unseen]
        predicted: list[list[int]] = [[] for _ in part.targets]
        probs: list[Tensor] = [torch.empty(0)] * len(part.targets)
        for rows in by_length(_lengths(part.clips.frames), FRAMES):
            batch = _batch([part.clips.frames[k] for k in rows], [part.targets[k] for k in rows], 0)
            loss = self._loss(batch)
            total, count = total + loss[0], count + loss[1]
            for k, numbers, each in zip(rows, *self._read_batch(batch), strict=True):
                predicted[k] = numbers
                probs[k] = torch.nn.functional.pad(each, (0, len(part.unseen)))
        taken, true = (torch.tensor([k for row in rows for k in row]) for rows in (predicted, part.targets))
        confusion = confusion_matrix(taken, true, len(names))
        metrics = {"loss": total / max(count, 1), "accuracy": float((taken == true).double().mean())}
        told = [[names[k] for k in row] for row in predicted[:DRAWN]]
        figures = {
            "confusion": partial(_draw_confusion, confusion, names, torch.cat(probs), true),
            "strips": partial(_draw_strips, part.clips.frames[:DRAWN], told, part.clips.labels[:DRAWN]),
        }
        return Report(metrics, class_rows(confusion, names), figures)

    def quality(self, metrics: Metrics) -> float:
        """Accuracy."""
        return metrics["accuracy"]

    def sample(self, part: EncodedClips) -> str:
        """The first clips with their labels; what is wrong has the right label behind it."""
        shown = part.clips.select(range(min(SHOWN, len(part.clips))))
        batch = _batch(shown.frames, [[]] * len(shown), 0)
        lines = []
        for path, numbers, right in zip(shown.paths, self._read_batch(batch)[0], shown.labels, strict=True):
            rows = zip([self.labels[k] for k in numbers], right, strict=True)
            lines.append(f"{path.name}: " + " ".join(t + (f"({r}!)" if t != r else "") for t, r in rows))
        return "\n".join(lines)

    def open(self, paths: Paths) -> LabelledClips:
        """Other clips."""
        return _read(self.config.data, paths)

    def inputs(self, path: Path) -> Iterable[str]:
        """The clips that a file names: itself, the lines of a text, or the clip column of a table."""
        return map(str, list_seen(path, self.config.data.input, self.config.data.folder))

    def answer(self, inputs: Sequence[str | Path]) -> list[dict[str, Any]]:
        """The label of each frame of each clip, given by its path, with its probability.

        "frames" says which frames of the clip they are, from 0.
        """
        answers: list[dict[str, Any]] = [{} for _ in inputs]
        clips = self._clips(inputs)
        for rows in by_length([len(clip.pixels) for clip in clips], FRAMES):
            batch = _batch([clips[k].pixels for k in rows], [[]] * len(rows), 0)
            for k, numbers, probs in zip(rows, *self._read_batch(batch), strict=True):
                chosen = probs[range(len(numbers)), numbers].tolist()
                answers[k] = {
                    "input": str(inputs[k]),
                    "frames": clips[k].chosen,
                    "labels": [self.labels[each] for each in numbers],
                    "probabilities": chosen,
                }
        return answers

    def input_batches(self, inputs: Sequence[str | Path]) -> Iterator[tuple[list[int], ClipBatch]]:
        """Clips of about equal length side by side."""
        frames = [clip.pixels for clip in self._clips(inputs)]
        for rows in by_length(_lengths(frames), FRAMES):
            yield rows, _batch([frames[k] for k in rows], [[]] * len(rows), 0).to(self._device)

    def show(self, answer: dict[str, Any]) -> str:
        """The labels in order."""
        return " ".join(answer["labels"])

    def draw(self, answer: dict[str, Any]) -> Figure:
        """The frames with their labels."""
        from throughtime.train.strips import draw_strips

        return draw_strips([self._clips([answer["input"]])[0].pixels], [answer["labels"]])

    def remarks(self) -> list[str]:
        """Sizes, and what runs the recurrence."""
        parameters = sum(p.numel() for p in self.model.parameters())
        return [
            f"{len(self.labels)} labels: {', '.join(self.labels[:20])}; {parameters:,} parameters",
            f"{self.config.model.cell} runs by {self.model.encoder.recurrence.explain()}",
        ]

    def _clips(self, paths: Sequence[str | Path]) -> list[Any]:
        data = self.config.data
        return read_clips([Path(path) for path in paths], data.size, data.sampling)[0]

    def _loss(self, batch: ClipBatch) -> tuple[float, int]:
        """The loss of the clips whose labels are all known, and how many frames they have."""
        known = (batch.targets < len(self.labels)).all(1)
        if not known.any():
            return 0.0, 0
        some = ClipBatch(
            frames=batch.frames[known], lengths=batch.lengths[known], targets=batch.targets[known]
        )
        with torch.no_grad():
            loss = self.model.loss(some.to(self._device))
        return loss.total.item(), loss.count

    @torch.no_grad()
    def _read_batch(self, batch: ClipBatch) -> tuple[list[list[int]], list[Tensor]]:
        """The labels of each clip by their numbers, and the probabilities of all labels at each frame."""
        batch = batch.to(self._device)
        features = self.model.features(batch)
        numbers = self.model.head.decode(features, batch.lengths).tolist()
        probs = self.model.head.marginals(features, batch.lengths).cpu()
        lengths = batch.lengths.tolist()
        return (
            [row[:length] for row, length in zip(numbers, lengths, strict=True)],
            [row[:length] for row, length in zip(probs, lengths, strict=True)],
        )


def _read(data: LabelledClipsConfig, paths: Paths) -> LabelledClips:
    return read_labelled_clips(
        paths,
        data.size,
        clip=data.input,
        labels=data.target,
        folder=data.folder,
        sampling=data.sampling,
        skip_damaged=data.skip_damaged,
    )


def _lengths(frames: Sequence[Pixels]) -> list[int]:
    return [len(each) for each in frames]


def _batch(frames: Sequence[Pixels], targets: Sequence[Sequence[int]], number: int) -> ClipBatch:
    source, lengths = pad_clips(frames)
    return ClipBatch(number=number, frames=source, lengths=lengths, targets=pad(targets, -100)[0])


def _draw_confusion(confusion: Tensor, names: list[str], probs: Tensor, true: Tensor) -> Figure:
    from throughtime.train.confusion import draw_confusion  # matplotlib takes a second to import

    return draw_confusion(confusion, names, calibrate(probs, true))


def _draw_strips(
    frames: Sequence[Pixels], predicted: Sequence[Sequence[str]], right: Sequence[Sequence[str]]
) -> Figure:
    from throughtime.train.strips import draw_strips

    return draw_strips(frames, predicted, right)
