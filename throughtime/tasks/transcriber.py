"""The transcriber task: speech to text, without anyone having marked where in the sound a word stands."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
import tyro
from jaxtyping import Float
from pydantic import AfterValidator, Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from throughtime.config import Config
from throughtime.data.audio import Sound, converted_length, read_sound
from throughtime.data.batches import Buckets, ExampleBatch, by_length, pad
from throughtime.data.features import BandStatistics, LogMel
from throughtime.data.recordings import Recordings, read_recordings, sound_paths
from throughtime.data.tokens import UNKNOWN, Ids, fit_tokeniser, tokeniser_from_json
from throughtime.decode.ctc import Fusion, Transcript, align, greedy_search, prefix_beam_search
from throughtime.errors import DataError, RunError
from throughtime.heads.ctc import BLANK, shortest
from throughtime.models.transcriber import Transcriber
from throughtime.tasks.fusion import fuse
from throughtime.tasks.listener import Listener
from throughtime.tasks.table import load
from throughtime.tasks.task import Corpus, DataConfig, Paths, Report, Task, check_cell, divide
from throughtime.tasks.transcript import draw_heard, word_times
from throughtime.train.config import ExampleTraining
from throughtime.train.metrics import Metrics
from throughtime.train.transcription import transcription_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

#: Frames, with padding, that are read side by side when the model is used.
FRAMES = 12000
#: Validation recordings that are shown as training goes on.
SHOWN = 5


class RecordingsConfig(DataConfig):
    """What is read, and how it becomes numbers."""

    paths: Annotated[Paths, tyro.conf.Positional] = Field(
        (), description="Tables of paths and texts, or folders with a .txt file beside each sound."
    )
    input: str = Field("path", description="Column of the paths of sounds, from the table's folder on.")
    target: str = Field("text", description="Column of what is said.")
    tokens: Literal["char", "word"] = Field("char", description="What texts are written in.")
    rate: int | None = Field(
        None,
        ge=1000,
        description="Samples a second that sounds are brought to; as most training recordings have "
        "if not given, of equally many the higher.",
    )
    mels: int = Field(40, ge=1, description="Bands of the mel scale in a frame.")
    normalise: bool = Field(
        True, description="Bring each band to mean 0 and deviation 1 over the training data."
    )
    max_seconds: float = Field(
        30.0, gt=0, description="Longest recording that is trained on; others are left out, and counted."
    )


class TranscriberModelConfig(Config):
    """The model: fewer steps, a recurrence, CTC."""

    cell: Annotated[str, AfterValidator(check_cell)] = Field(
        "lstm", description='Recurrence: a name that "throughtime cells" lists.'
    )
    hidden: int = Field(256, ge=2, description="Units of each layer, both directions together.")
    layers: int = Field(2, ge=1, description="Layers on each other.")
    bidirectional: bool = Field(
        True, description="Read from the end too; without, a run can listen to a stream."
    )
    subsampling: int = Field(2, ge=1, description="Frames of 10 ms for a step of the recurrence.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout on steps, between layers, on the output.")
    variational: bool = Field(False, description="Drop the same features at all steps of a recording.")
    recurrent_dropout: float = Field(
        0.0, ge=0, lt=1, description="Dropout on what recurrent matrices multiply."
    )
    weight_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on entries of recurrent matrices.")
    zoneout: float = Field(0.0, ge=0, lt=1, description="Probability that a unit keeps its state at a step.")
    band_masks: int = Field(2, ge=0, description="Stretches of mel bands hidden in training (SpecAugment).")
    band_width: int = Field(8, ge=0, description="Most bands in such a stretch.")
    time_masks: int = Field(2, ge=0, description="Stretches of time hidden in training.")
    time_width: int = Field(25, ge=0, description="Most frames in such a stretch; never over a fifth of all.")


class TranscriberSearch(Config):
    """How a text is looked for."""

    beams: int = Field(1, ge=1, description="Beginnings kept at each step; 1 is greedy search.")
    n_best: int = Field(1, ge=1, description="Texts for each sound.")
    language_model: Path | None = Field(
        None, description="Run of a language model that says how likely a text is."
    )
    language_weight: float = Field(
        0.5, ge=0, allow_inf_nan=False, description="What its log-probability is multiplied by."
    )
    length_bonus: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="Added to the score for each token, in nats."
    )

    @property
    def greedy(self) -> bool:
        """Whether the likeliest class of each step is taken."""
        plain = self.language_model is None and not self.length_bonus
        return self.beams == 1 and self.n_best == 1 and plain


class TranscriberTraining(ExampleTraining):
    """How a transcriber is trained."""

    batch_tokens: int = Field(
        4000, ge=1, description="Most frames in a batch, padding among them; one recording may have more."
    )


class TranscriberConfig(Config):
    """Everything that decides a training of a transcriber."""

    task: Annotated[Literal["transcriber"], tyro.conf.Suppress] = "transcriber"
    data: RecordingsConfig = RecordingsConfig()
    model: TranscriberModelConfig = TranscriberModelConfig()
    search: Annotated[TranscriberSearch, tyro.conf.Suppress] = TranscriberSearch()
    training: TranscriberTraining = TranscriberTraining()


@dataclass(frozen=True, kw_only=True)
class SoundBatch(ExampleBatch):
    """Sounds and their texts side by side; see `throughtime.models.transcriber`."""

    frames: Tensor
    lengths: Tensor
    targets: Tensor
    target_lengths: Tensor

    @property
    def steps(self) -> int:
        """Frames."""
        return int(self.lengths.sum())


class EncodedRecordings(NamedTuple):
    """Recordings, their texts as tokens, how many frames each has, and whether its text fits into them."""

    recordings: Recordings
    targets: list[Ids]
    frames: list[int]
    fits: list[bool]


class TranscriberTask(Task[Recordings, EncodedRecordings]):
    """A model from sound to text, with its features and its tokeniser."""

    config_type = TranscriberConfig
    draws = True

    def __init__(self, config: TranscriberConfig, processor: dict[str, Any]) -> None:
        self.config = config
        self.tokeniser = tokeniser_from_json(processor.get("tokeniser", {}))
        if not isinstance(features := processor.get("features"), dict):
            raise RunError("the description of the features is damaged: there is none")
        self.features = LogMel.from_json(features)
        options = config.model.model_dump()
        self.model: Transcriber = Transcriber(
            self.features.mels, self.tokeniser.size, unknown=UNKNOWN, **options
        )
        self._language: tuple[tuple[Path, float], Fusion] | None = None  # kept from answer to answer

    @classmethod
    def read(cls, config: TranscriberConfig) -> Corpus[Recordings]:
        """The recordings; where none are given for validation, some of them, drawn at random."""
        return divide(config.data, config.training.seed, partial(_read, config.data))

    @classmethod
    def learn(
        cls, config: TranscriberConfig, train: Recordings, before: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The tokeniser, the rate of all sounds, and mean and deviation of each mel band."""
        data = config.data
        tokeniser = fit_tokeniser(data.tokens, train.texts)
        if before is not None:  # its weights were trained on features of this scale
            tokeniser = tokeniser_from_json(before["tokeniser"]).grown(tokeniser)
            return {"tokeniser": tokeniser.to_json(), "features": before["features"]}
        features = LogMel(_usual_rate(train) if data.rate is None else data.rate, data.mels)
        if data.normalise:
            statistics = BandStatistics(data.mels)
            for file in train.files:
                statistics.add(_frames(read_sound(file.path), features))
            mean, deviation = statistics.mean.tolist(), statistics.deviation.tolist()
            features = LogMel(features.rate, features.mels, mean, deviation)
        return {"tokeniser": tokeniser.to_json(), "features": features.to_json()}

    def batches(self, train: Recordings) -> Buckets[SoundBatch]:
        """Recordings of about equal length side by side, without those that cannot be trained on."""
        data, training, longest = self.encode(train), self.config.training, self.config.data.max_seconds
        long = [file.seconds > longest for file in train.files]
        kept = [row for row in range(len(train)) if data.fits[row] and not long[row]]
        if any(long):
            logger.warning(
                "%d of %d recordings are longer than %g seconds and are not trained on, the first is %s",
                sum(long),
                len(train),
                longest,
                train.places[long.index(True)],
            )
        if not kept:
            raise DataError(
                "no recording can be trained on: give a larger --max-seconds, or a smaller --subsampling"
            )
        paths, targets = [train.files[row].path for row in kept], [data.targets[row] for row in kept]
        return Buckets(
            [data.frames[row] for row in kept],
            training.batch_tokens,
            lambda rows, number: self._batch(
                [self._sound(paths[row]) for row in rows], [targets[row] for row in rows], number
            ),
            training.seed,
        )

    def encode(self, part: Recordings) -> EncodedRecordings:
        """Texts as tokens, and how long each sound is for the model.

        What is converted, what was never seen, and texts that are too long for their sound are counted; the
        last are measured, but are in no loss. Raises `DataError` where no text fits its sound.
        """
        self._warn_of_conversion(part)
        targets = [self.tokeniser.encode(text) for text in part.texts]
        self._warn_of_unknown(part, targets)
        frames = [
            self.features.frames(converted_length(file.samples, file.rate, self.features.rate))
            for file in part.files
        ]
        steps = self.model.subsampling.lengths(torch.tensor(frames)).tolist()
        fits = [shortest(ids) <= count for ids, count in zip(targets, steps, strict=True)]
        if not all(fits):
            k = fits.index(False)
            found = (
                f"{len(fits) - sum(fits)} of {len(fits)} recordings are too short for their text, the first "
                f"is {part.places[k]}: it has {steps[k]} steps and its text needs {shortest(targets[k])}"
            )
            if not any(fits):
                raise DataError(f"{found}; give longer recordings, or a smaller --subsampling")
            logger.warning("%s. They are in no loss; a smaller --subsampling makes more steps", found)
        return EncodedRecordings(part, targets, frames, fits)

    def _warn_of_conversion(self, part: Recordings) -> None:
        rate = self.features.rate
        if other := [k for k, file in enumerate(part.files) if file.rate != rate or file.channels > 1]:
            first = part.files[other[0]]
            logger.warning(
                "%d of %d recordings are converted to one channel of %d Hz, the first is %s with %d of %d Hz",
                len(other),
                len(part),
                rate,
                part.places[other[0]],
                first.channels,
                first.rate,
            )

    def _warn_of_unknown(self, part: Recordings, targets: Sequence[Ids]) -> None:
        if unseen := [k for k, ids in enumerate(targets) if (ids == UNKNOWN).any()]:
            word = self.tokeniser.kind == "word"
            logger.warning(
                "%d of %d texts have %s, as %s: they are never written",
                len(unseen),
                len(part),
                "words that occur once in training or not at all"
                if word
                else "tokens that training never saw",
                part.places[unseen[0]],
            )

    def size(self, part: EncodedRecordings) -> int:
        """Frames."""
        return sum(part.frames)

    def measure(self, part: EncodedRecordings) -> Report:
        """Loss (nats per token), word and character error rate, and the share of texts exactly right.

        The figure is of the first recording.
        """
        metrics, texts = self._measured(part, self.config.search)
        draw = partial(self._draw, part.recordings.files[0].path, texts[0])
        return Report(metrics, figures={"transcript": draw})

    def validate(self, part: EncodedRecordings) -> Metrics:
        """The same by greedy search."""
        return self._measured(part, TranscriberSearch())[0]

    def _measured(self, part: EncodedRecordings, search: TranscriberSearch) -> tuple[Metrics, list[str]]:
        """The metrics, and what was heard in each recording."""
        total, count, fusion = 0.0, 0, self._fusion(search)
        outputs = [""] * len(part.recordings)
        for rows in by_length(part.frames, FRAMES):
            sounds = [self._sound(part.recordings.files[row].path) for row in rows]
            batch = self._batch(sounds, [part.targets[row] for row in rows], 0).to(self._device)
            features, lengths = self.model.features(batch)
            if any(fits := [part.fits[row] for row in rows]):
                loss = self.model.head.loss(
                    *(each[fits] for each in (features, batch.targets, lengths, batch.target_lengths))
                )
                total, count = total + loss.total.item(), count + loss.count
            log_probs = self.model.log_probs_of(features).cpu()
            for row, each, length in zip(rows, log_probs, lengths.tolist(), strict=True):
                outputs[row] = self.text(_search(each[:length], search, fusion)[0].tokens)
        metrics = transcription_metrics(outputs, part.recordings.texts)
        return {"loss": total / max(count, 1)} | metrics, outputs

    def quality(self, metrics: Metrics) -> float:
        """1 - CER: characters say something earlier in training than words."""
        return 1 - metrics["cer"]

    def sample(self, part: EncodedRecordings) -> str:
        """The first texts and what the model heard."""
        shown = zip(part.recordings.texts, part.recordings.files[:SHOWN], strict=False)
        lines = []
        for text, file in shown:
            [(_, log_probs)] = self._heard([self._sound(file.path)])
            lines.append(f"{text}\n  {self.text(greedy_search(log_probs).tokens)}")
        return "\n".join(lines)

    def open(self, paths: Paths) -> Recordings:
        """Other recordings."""
        return _read(self.config.data, paths)

    def inputs(self, path: Path) -> Iterable[str]:
        """The sounds that a table, a .txt file of paths or a folder names, or the one sound itself."""
        return map(str, sound_paths(path, self.config.data.input))

    def answer(self, inputs: Sequence[str]) -> list[dict[str, Any]]:
        """What is said in each file, its log-probability in nats, and the seconds in which each word stands.

        Times are where the likeliest alignment has a word's tokens: CTC tends to put them out late and at
        once, so that they say where a word is rather than how long. Raises `DataError` for what is no sound.
        """
        search = self.config.search
        fusion, answers = self._fusion(search), [dict[str, Any]() for _ in inputs]
        for k, log_probs in self._heard([self._opened(Path(each)) for each in inputs]):
            found = _search(log_probs, search, fusion)
            best = found[0]
            answer = {
                "input": str(inputs[k]),
                "text": self.text(best.tokens),
                "log_prob": best.log_prob,
                "words": self._words(best.tokens, log_probs),
            }
            if search.n_best > 1:
                answer["n_best"] = [
                    {"text": self.text(each.tokens), "log_prob": each.log_prob, "score": each.score}
                    for each in found
                ]
            answers[k] = answer
        return answers

    def input_batches(self, inputs: Sequence[str]) -> Iterator[tuple[list[int], SoundBatch]]:
        """Sounds of about equal length side by side, without texts."""
        yield from self._sound_batches([self._opened(Path(each)) for each in inputs])

    def show(self, answer: dict[str, Any]) -> str:
        """The text; several of them one below the other, with their scores."""
        if "n_best" not in answer:
            return str(answer["text"])
        return "\n".join(f"{each['score']:8.3f}  {each['text']}" for each in answer["n_best"])

    def draw(self, answer: dict[str, Any]) -> Figure:
        """The log-mel picture, and the probability of each token of the answer at each step."""
        return self._draw(Path(answer["input"]), answer["text"])

    def stream(self, rate: int | None = None) -> Listener:
        """What listens to a sound that comes in piece by piece, `rate` samples a second.

        The rate is that of the model where it is None. Raises `ConfigError` for a model in both directions.
        """
        return Listener(self.model, self.features, self.text, self.features.rate if rate is None else rate)

    def text(self, tokens: Sequence[int]) -> str:
        """What the tokens of a transcript are written as."""
        return " ".join(self.tokeniser.decode(tokens).split())

    def remarks(self) -> list[str]:
        """Sizes, and what runs the recurrence."""
        parameters = sum(p.numel() for p in self.model.parameters())
        return [
            f"{self.features.mels} mel bands of {self.features.rate} Hz, {self.tokeniser.size} tokens; "
            f"{parameters:,} parameters",
            f"{self.config.model.cell} runs by {self.model.recurrence.explain()}",
        ]

    def _sound(self, path: Path) -> Float[Tensor, "T M"]:
        return _frames(read_sound(path), self.features)

    def _opened(self, path: Path) -> Float[Tensor, "T M"]:
        """The frames of an input; what is converted is said."""
        sound, rate = read_sound(path), self.features.rate
        if not len(sound.samples):
            raise DataError(f"{path} is a sound of length 0: record it anew")
        if sound.rate != rate or sound.channels > 1:
            logger.warning(
                "%s has %d channels of %d Hz and is converted to one of %d Hz",
                path,
                sound.channels,
                sound.rate,
                rate,
            )
        return _frames(sound, self.features)

    def _sound_batches(self, sounds: Sequence[Tensor]) -> Iterator[tuple[list[int], SoundBatch]]:
        for rows in by_length([len(sound) for sound in sounds], FRAMES):
            chosen = [sounds[row] for row in rows]
            yield rows, self._batch(chosen, [np.empty(0, np.int64)] * len(rows), 0).to(self._device)

    def _heard(self, sounds: Sequence[Tensor]) -> Iterator[tuple[int, Float[Tensor, "S C"]]]:
        """The log-probabilities of each sound, with its place among them."""
        for rows, batch in self._sound_batches(sounds):
            log_probs, lengths = self.model.log_probs(batch)
            for row, each, length in zip(rows, log_probs.cpu(), lengths.tolist(), strict=True):
                yield row, each[:length]

    def _fusion(self, search: TranscriberSearch) -> Fusion | None:
        if search.language_model is None:
            return None
        key = (search.language_model, search.language_weight)
        if self._language is None or self._language[0] != key:
            language = load(search.language_model, "language-model")
            self._language = key, fuse(language, self.tokeniser, search.language_weight)
        return self._language[1]

    def _words(self, tokens: Sequence[int], log_probs: Float[Tensor, "S C"]) -> list[dict[str, Any]]:
        factor = self.config.model.subsampling
        spans = [
            (self.features.seconds(start * factor), self.features.seconds(stop * factor))
            for start, stop in align(log_probs, tokens, BLANK)
        ]
        return word_times(self.tokeniser.pieces(tokens), spans)

    def _batch(self, sounds: Sequence[Tensor], targets: Sequence[Ids], number: int) -> SoundBatch:
        padded, target_lengths = pad(targets)
        return SoundBatch(
            number=number,
            frames=pad_sequence(list(sounds), batch_first=True),
            lengths=torch.tensor([len(sound) for sound in sounds]),
            targets=padded,
            target_lengths=target_lengths,
        )

    def _draw(self, path: Path, text: str) -> Figure:
        frames = self._sound(path)
        [(_, log_probs)] = self._heard([frames])
        return draw_heard(frames, log_probs, text, self.tokeniser, self.features)


def _read(data: RecordingsConfig, paths: Paths) -> Recordings:
    return read_recordings(paths, data.input, data.target)


def _usual_rate(recordings: Recordings) -> int:
    """That of most recordings, of equally many the highest: their order and the draw hardly matter."""
    counts = Counter(file.rate for file in recordings.files)
    return max(counts, key=lambda rate: (counts[rate], rate))


def _frames(sound: Sound, features: LogMel) -> Float[Tensor, "T M"]:
    return features(torch.from_numpy(sound.converted(features.rate)))


def _search(
    log_probs: Float[Tensor, "S C"], search: TranscriberSearch, fusion: Fusion | None
) -> list[Transcript]:
    if search.greedy:
        return [greedy_search(log_probs, BLANK)]
    return prefix_beam_search(
        log_probs,
        blank=BLANK,
        beams=search.beams,
        n_best=search.n_best,
        fusion=fusion,
        length_bonus=search.length_bonus,
    )
