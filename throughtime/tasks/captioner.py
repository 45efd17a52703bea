"""The captioner: a sentence that tells what a picture or a clip shows."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from throughtime.data.captioned import Captioned, list_seen, read_captioned, read_seen
from throughtime.data.clips import EVERY_FRAME, pad_clips
from throughtime.data.pictures import Pixels
from throughtime.data.tokens import BOUNDARY, Ids, fit_tokeniser, tokeniser_from_json
from throughtime.decode.sequences import Hypothesis
from throughtime.errors import ConfigError, RunError
from throughtime.models.captioner import Captioner, PictureEncoder
from throughtime.models.clips import ClipEncoder, FrameEncoder
from throughtime.nn.backbone import Backbone, read_scaling
from throughtime.nn.convolution import Convolution, PictureGrid
from throughtime.tasks.search import SearchConfig, search_tokens
from throughtime.tasks.seen import SeenConfig, check_channels
from throughtime.tasks.task import Corpus, Paths, Report, Task, check_cell, divide
from throughtime.tasks.vectors import put_vectors
from throughtime.train.captions import caption_metrics, caption_signatures
from throughtime.train.config import TrainingConfig
from throughtime.train.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

#: Pictures, or frames of clips, that are encoded side by side when the model is used.
ROWS, FRAMES = 64, 512
#: Pictures that are shown as training goes on, and in the figure.
SHOWN, DRAWN = 3, 12


class CaptionsConfig(ChoiceConfig, SeenConfig):
    """What is read, and how it becomes numbers."""

    choice = "tokens"
    read_by: ClassVar = {"vectors": ("word",)}

    paths: Annotated[Paths, tyro.conf.Positional] = Field(
        (), description="Tables with a column of pictures, or of clips, and one of captions."
    )
    input: str = Field(
        "image", description="Column of the paths of pictures, of folders of frames, or of videos."
    )
    target: str = Field("caption", description="Column of the captions.")
    size: int = Field(64, ge=8, description="Pixels that each side of a picture or frame is made to have.")
    tokens: Literal["word", "char", "bpe"] = Field("word", description="What captions are cut into.")
    vocabulary: int | None = Field(
        None, ge=3, description="Most tokens there may be; all, or 4096 byte pairs, where not given."
    )
    vectors: Path | None = Field(
        None, description="Pretrained word vectors (GloVe, word2vec, fastText text)."
    )
    max_length: int = Field(
        100, ge=1, description="Most tokens of a caption that are read; longer ones are cut there."
    )


class CaptionerConfig(ChoiceConfig):
    """The model: what sees, and what tells."""

    read_by: ClassVar = {
        "attention": ("attention",),
        "doubly_stochastic": ("attention",),
    }

    model: Literal["attention", "initial-state", "conditioned"] = Field(
        "attention",
        description="How the decoder knows of the picture: for each word, at first, at each step.",
    )
    cell: Annotated[str, AfterValidator(check_cell)] = Field(
        "lstm", description='Recurrence: a name that "throughtime cells" lists.'
    )
    hidden: int = Field(
        256, ge=1, description="Units of a layer of the decoder; of the encoder of clips in both directions."
    )
    layers: int = Field(1, ge=1, description="Layers of the decoder, and of the encoder of clips.")
    embedding: int | None = Field(
        None, ge=1, description="Features of a token; as many as hidden if not given."
    )
    attention: Literal["general", "dot", "additive"] = Field(
        "general", description="How the decoder scores the places of a picture, or the frames of a clip."
    )
    doubly_stochastic: float = Field(
        0.0, ge=0, description="What it costs that the attention to a place is not 1 in all, squared."
    )
    features: int = Field(128, ge=1, description="Features of a place in a picture, and of a frame.")
    channels: tuple[int, ...] = Field(
        (32, 64, 128), min_length=1, description="Channels of each convolution that halves the picture."
    )
    backbone: Path | None = Field(
        None, description="Folder of a pretrained network of transformers, in place of the convolutions."
    )
    fine_tune: bool = Field(False, description="Train the backbone too; else it stays as it is.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout on embeddings, between layers, on output.")
    tied: bool = Field(True, description="Tie the softmax to the embedding where their sizes are the same.")

    @model_validator(mode="after")
    def _check_network(self) -> Self:
        if self.fine_tune and self.backbone is None:
            raise ValueError("--fine-tune is for a pretrained network: add --backbone, or leave it out")
        if self.backbone is not None and self.channels != type(self).model_fields["channels"].default:
            raise ValueError("--channels are not read with --backbone: leave them out")
        return self


class CaptionTraining(TrainingConfig):
    """How a captioner is trained."""

    learning_rate: float = Field(2e-3, gt=0, description="Highest learning rate.")
    batch_size: int = Field(32, ge=1, description="Pictures side by side, each with all of its captions.")


class CaptionTaskConfig(Config):
    """Everything that decides a training of a captioner."""

    task: Annotated[Literal["captioner"], tyro.conf.Suppress] = "captioner"
    data: CaptionsConfig = CaptionsConfig()
    model: CaptionerConfig = CaptionerConfig()
    search: Annotated[SearchConfig, tyro.conf.Suppress] = SearchConfig()
    training: CaptionTraining = CaptionTraining()


@dataclass(frozen=True, kw_only=True)
class CaptionBatch(ExampleBatch):
    """Pictures, and captions of them; see `throughtime.models.captioner.CaptionBatch`."""

    source: Tensor
    source_lengths: Tensor
    rows: Tensor
    inputs: Tensor
    targets: Tensor
    target_lengths: Tensor

    @property
    def steps(self) -> int:
        """Tokens of all captions."""
        return int(self.target_lengths.sum())

    def split(self) -> list[Self]:
        """Each caption as a batch of its own, with its picture alone."""
        own = replace(self, source=self.source[self.rows], source_lengths=self.source_lengths[self.rows])
        return [replace(each, rows=torch.zeros_like(each.rows)) for each in super(CaptionBatch, own).split()]


class EncodedCaptions(NamedTuple):
    """Captioned pictures, and the tokens of all captions of each."""

    part: Captioned
    captions: list[list[Ids]]


class CaptionerTask(Task[Captioned, EncodedCaptions]):
    """A model from pictures to sentences, with its tokeniser."""

    config_type = CaptionTaskConfig
    draws = True

    def __init__(self, config: CaptionTaskConfig, processor: dict[str, Any]) -> None:
        self.config = config
        self.tokeniser = tokeniser_from_json(processor.get("tokeniser", {}))
        self.longest = int(processor.get("longest", 0))
        self.clips = bool(processor.get("clips", False))
        self.model: Captioner = self._make_model(processor.get("backbone"))

    @classmethod
    def read(cls, config: CaptionTaskConfig) -> Corpus[Captioned]:
        """The pictures; where none are given for validation, some of those for training, drawn at random.

        What is drawn are pictures: all captions of one stay together.
        """
        return divide(config.data, config.training.seed, partial(_read, config.data))

    @classmethod
    def learn(
        cls, config: CaptionTaskConfig, train: Captioned, before: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The tokeniser, the length of the longest caption, what the backbone is, whether there are clips."""
        data, texts = config.data, list(chain.from_iterable(train.captions))
        _check_kind(config, train.clips)
        tokeniser, longest = fit_tokeniser(data.tokens, texts, data.vocabulary), 0
        if before is not None:
            tokeniser, longest = tokeniser_from_json(before["tokeniser"]).grown(tokeniser), before["longest"]
            if before["clips"] != train.clips:
                kinds = [("pictures", "clips")[each] for each in (before["clips"], train.clips)]
                raise ConfigError(
                    f"the run reads {kinds[0]} and the data are {kinds[1]}: give data of one kind"
                )
        longest = max(longest, min(max(len(tokeniser.encode(text)) for text in texts), data.max_length))
        backbone = None if before is None else before["backbone"]
        if before is None and (folder := config.model.backbone) is not None:
            backbone = {"network": Backbone.describe(folder)} | read_scaling(folder)
        return {
            "tokeniser": tokeniser.to_json(),
            "longest": longest,
            "backbone": backbone,
            "clips": train.clips,
        }

    def load_pretrained(self) -> None:
        """Put the pretrained network in."""
        for network in self.model.modules():
            if isinstance(network, Backbone) and self.config.model.backbone is not None:
                network.load(self.config.model.backbone)

    def prepare(self) -> None:
        """Put the pretrained vectors in."""
        if (path := self.config.data.vectors) is not None:
            put_vectors(self.model.embedding, self.tokeniser.texts, path)

    def batches(self, train: Captioned) -> Buckets[CaptionBatch]:
        """Pictures side by side, each with all of its captions."""
        data, training = self.encode(train), self.config.training
        ones = [1] * len(train)  # as long as each other
        return Buckets(
            ones, training.batch_size, lambda rows, number: _batch(data, rows, number), training.seed
        )

    def encode(self, part: Captioned) -> EncodedCaptions:
        """All captions as tokens; how many are cut is said in a warning."""
        most = self.config.data.max_length
        captions = [[self.tokeniser.encode(text) for text in texts] for texts in part.captions]
        if long := sum(len(ids) > most for ids in chain.from_iterable(captions)):
            logger.warning("%d captions have more than %d tokens, and are cut there", long, most)
        return EncodedCaptions(part, [[ids[:most] for ids in each] for each in captions])

    def size(self, part: EncodedCaptions) -> int:
        """Tokens of all captions."""
        return sum(map(len, chain.from_iterable(part.captions)))

    def measure(self, part: EncodedCaptions) -> Report:
        """Loss (nats per token), BLEU-1 to BLEU-4, chrF, and the share of captions that are exactly right.

        An output is compared with all captions of its picture.
        """
        outputs = self._outputs(part, self.config.search)
        metrics = self._loss(part) | caption_metrics(outputs, part.part.captions)
        return Report(metrics, figures=self._figures(part.part, outputs))

    def validate(self, part: EncodedCaptions) -> Metrics:
        """The same by greedy search."""
        outputs = self._outputs(part, SearchConfig(beams=1))
        return self._loss(part) | caption_metrics(outputs, part.part.captions)

    def quality(self, metrics: Metrics) -> float:
        """chrF, which says something of bad captions too."""
        return metrics["chrf"]

    def signatures(self) -> dict[str, str]:
        """How BLEU and chrF were computed."""
        return caption_signatures()

    def sample(self, part: EncodedCaptions) -> str:
        """The first pictures, what the model says of them, and what people said."""
        shown = part.part.select(range(min(SHOWN, len(part.part))))
        found = self._search(shown.pixels, SearchConfig(beams=1))
        rows = zip(shown.paths, found, shown.captions, strict=True)
        return "\n".join(
            f"{path.name}\n  {self._text(best[0].tokens)}\n  (right: {' | '.join(told)})"
            for path, best, told in rows
        )

    def open(self, paths: Paths) -> Captioned:
        """Other pictures."""
        return _read(self.config.data, paths)

    def inputs(self, path: Path) -> Iterable[str]:
        """The pictures that a file names: itself, the lines of a text, or the picture column of a table."""
        return map(str, list_seen(path, self.config.data.input, self.config.data.folder))

    def answer(self, inputs: Sequence[str | Path]) -> list[dict[str, Any]]:
        """The caption of each picture, given by its path; n-best or attention where the search says so."""
        search, pixels = self.config.search, self._pixels(inputs)
        answers = []
        for path, picture, found in zip(inputs, pixels, self._search(pixels, search), strict=True):
            answer: dict[str, Any] = {"input": str(path), "caption": self._text(found[0].tokens)}
            answer["log_prob"] = found[0].log_prob
            if search.n_best > 1:
                answer["n_best"] = [{"caption": self._text(h.tokens), "log_prob": h.log_prob} for h in found]
            if search.attention:
                answer["attention"] = self.attention(picture, found[0].tokens)
            answers.append(answer)
        return answers

    def input_batches(self, inputs: Sequence[str | Path]) -> Iterator[tuple[list[int], CaptionBatch]]:
        """Pictures side by side, without captions."""
        pixels = self._pixels(inputs)
        for rows in _groups(pixels):
            source, lengths = _sources([pixels[row] for row in rows])
            none = torch.empty(0, dtype=torch.int64)
            batch = CaptionBatch(
                source=source,
                source_lengths=lengths,
                rows=none,
                inputs=none[None],
                targets=none[None],
                target_lengths=none,
            )
            yield rows, batch.to(self._device)

    def show(self, answer: dict[str, Any]) -> str:
        """The caption; several of them one below the other, with their log-probabilities."""
        if "n_best" not in answer:
            return str(answer["caption"])
        return "\n".join(f"{each['log_prob']:8.3f}  {each['caption']}" for each in answer["n_best"])

    def draw(self, answer: dict[str, Any]) -> Figure:
        """The picture for each word of its caption, bright where the model looked; of a clip the frames."""
        return self._draw_attention(self._pixels([answer["input"]])[0], answer["caption"])

    def remarks(self) -> list[str]:
        """Sizes of the vocabulary and the model, and what runs the recurrence."""
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        kept = sum(p.numel() for p in self.model.parameters()) - trained
        frozen = f" and {kept:,} of the backbone, which stay as they are" if kept else ""
        runs = self.model.decoder
        return [
            f"{self.tokeniser.size} tokens, {trained:,} parameters{frozen}",
            f"{runs.cells[0].name} runs by {runs.explain()}",
        ]

    @torch.no_grad()
    def attention(self, picture: Pixels, tokens: Sequence[int]) -> dict[str, Any]:
        """How much each word of a caption (rows) looked at each place of the picture, or frame (columns)."""
        part = Captioned([picture], [Path()], [[""]])
        batch = _batch(EncodedCaptions(part, [[np.asarray(tokens, dtype=np.int64)]]), [0], 0)
        weights = self.model.attention_weights(batch.to(self._device))[0]
        looked = {"words": [*(self.tokeniser.decode([i]).strip() for i in tokens), "<end>"]}
        side = round(weights.shape[1] ** 0.5)
        return looked | ({} if self.clips else {"grid": [side, side]}) | {"weights": weights.tolist()}

    def names_of(self, batch: CaptionBatch) -> tuple[list[list[str]], list[list[str]]]:
        """The tokens of each caption, with its end; a picture has no names of steps."""
        rows = zip(batch.inputs[:, 1:].tolist(), batch.target_lengths.tolist(), strict=True)
        return [], [[*(self.tokeniser.decode([k]).strip() for k in row[: n - 1]), "<end>"] for row, n in rows]

    def _make_model(self, backbone: dict[str, Any] | None) -> Captioner:
        config = self.config.model
        size = config.hidden if config.embedding is None else config.embedding
        self.grid = _make_grid(config, self.config.data.size, backbone)
        return Captioner(
            self._make_encoder(self.grid),
            self.tokeniser.size,
            BOUNDARY,
            model=config.model,
            cell=config.cell,
            hidden=config.hidden,
            layers=config.layers,
            embedding=size,
            attention=config.attention,
            doubly_stochastic=config.doubly_stochastic,
            dropout=config.dropout,
            tied=config.tied and size == config.hidden,
        )

    def _make_encoder(self, grid: PictureGrid) -> PictureEncoder | ClipEncoder:
        config = self.config.model
        if not self.clips:
            return PictureEncoder(grid)
        return ClipEncoder(
            FrameEncoder(grid, self.config.data.size, config.features),
            cell=config.cell,
            hidden=config.hidden,
            layers=config.layers,
            dropout=config.dropout,
        )

    def _figures(self, part: Captioned, outputs: Sequence[str]) -> dict[str, Any]:
        """Pictures with what the model says of them, and where it looked in the first."""
        figures: dict[str, Any] = {"captions": partial(_draw_captions, part.pixels[:DRAWN], outputs[:DRAWN])}
        if self.model.attention is not None:
            figures["attention"] = partial(self._draw_attention, part.pixels[0], outputs[0])
        return figures

    def _draw_attention(self, seen: Pixels, caption: str) -> Figure:
        from throughtime.insight.looks import draw_looks
        from throughtime.train.strips import draw_temporal_attention

        looked = self.attention(seen, self.tokeniser.encode(caption).tolist())
        if self.clips:
            return draw_temporal_attention(seen, looked["words"], looked["weights"])
        return draw_looks(seen, looked["words"], looked["weights"], looked["grid"])

    def _outputs(self, part: EncodedCaptions, search: SearchConfig) -> list[str]:
        return [self._text(best[0].tokens) for best in self._search(part.part.pixels, search)]

    def _loss(self, part: EncodedCaptions) -> Metrics:
        total, count = 0.0, 0
        for rows in _groups(part.part.pixels):
            with torch.no_grad():
                loss = self.model.loss(_batch(part, rows, 0).to(self._device))
            total, count = total + loss.total.item(), count + loss.count
        return {"loss": total / count}

    @torch.no_grad()
    def _search(self, pixels: Sequence[Pixels], search: SearchConfig) -> list[list[Hypothesis]]:
        """The captions of each picture, the best first."""
        found: list[list[Hypothesis]] = [[] for _ in pixels]
        for rows in _groups(pixels):
            part = [pixels[row] for row in rows]
            source, lengths = (each.to(self._device) for each in _sources(part))
            most = torch.full((len(part),), self.longest + 1)
            seeds = [zlib.crc32(picture.tobytes()) for picture in part]
            best = search_tokens(self.model, self.model.begin(source, lengths), most, seeds, search)
            for row, each in zip(rows, best, strict=True):
                found[row] = each
        return found

    def _pixels(self, paths: Sequence[str | Path]) -> list[Pixels]:
        data = self.config.data
        return read_seen([Path(path) for path in paths], self.clips, data.size, data.sampling)[0]

    def _text(self, ids: Iterable[int]) -> str:
        return self.tokeniser.decode(ids).strip()


def _check_kind(config: CaptionTaskConfig, clips: bool) -> None:
    """Raise `ConfigError` for options that clips read and pictures do not."""
    if clips:
        return
    if config.data.sampling != EVERY_FRAME:
        raise ConfigError("--every and --rate say which frames of clips are read, and these are pictures")
    model = config.model
    if model.model == "conditioned" and model.cell != CaptionerConfig.model_fields["cell"].default:
        raise ConfigError('--cell is not read with --model conditioned, which has "image_rnn": leave it out')


def _read(data: CaptionsConfig, paths: Paths) -> Captioned:
    return read_captioned(
        paths,
        data.size,
        picture=data.input,
        caption=data.target,
        folder=data.folder,
        sampling=data.sampling,
        skip_damaged=data.skip_damaged,
    )


def _make_grid(config: CaptionerConfig, size: int, backbone: dict[str, Any] | None) -> PictureGrid:
    if backbone is None:
        check_channels(size, config.channels)
        return PictureGrid(Convolution(config.channels), config.features)
    try:
        network = Backbone(backbone["network"], config.fine_tune)
        return PictureGrid(network, config.features, backbone["mean"], backbone["deviation"])
    except (KeyError, TypeError) as error:
        raise RunError(f"the description of the backbone is damaged: {error!r}") from None


def _batch(data: EncodedCaptions, rows: Sequence[int], number: int) -> CaptionBatch:
    """All captions of some pictures."""
    captions = [(k, ids) for k, row in enumerate(rows) for ids in data.captions[row]]
    inputs, lengths = pad([np.append(BOUNDARY, ids) for _, ids in captions])
    targets, _ = pad([np.append(ids, BOUNDARY) for _, ids in captions], -100)
    source, source_lengths = _sources([data.part.pixels[row] for row in rows])
    return CaptionBatch(
        number=number,
        source=source,
        source_lengths=source_lengths,
        rows=torch.tensor([k for k, _ in captions]),
        inputs=inputs,
        targets=targets,
        target_lengths=lengths,
    )


def _groups(pixels: Sequence[Pixels]) -> Iterator[list[int]]:
    """The numbers of all pictures, or of clips of about equal length, that are encoded side by side."""
    frames = [len(each) if each.ndim == 4 else FRAMES // ROWS for each in pixels]
    return by_length(frames, FRAMES)


def _sources(pixels: Sequence[Pixels]) -> tuple[Tensor, Tensor]:
    """Pictures or clips as a batch: a picture is one step."""
    if pixels[0].ndim == 4:
        return pad_clips(pixels)
    return torch.from_numpy(np.stack(pixels)), torch.ones(len(pixels), dtype=torch.int64)


def _draw_captions(seen: Sequence[Pixels], captions: Sequence[str]) -> Figure:
    from throughtime.insight.looks import draw_captions
    from throughtime.train.strips import draw_told_strips

    return (draw_told_strips if seen[0].ndim == 4 else draw_captions)(seen, captions)
