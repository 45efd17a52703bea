"""The sequence-to-sequence task: translation, answers, corrections, summaries."""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
import tyro
from pydantic import AfterValidator, Field
from torch import Tensor

from throughtime.config import ChoiceConfig, Config
from throughtime.data.batches import Buckets, ExampleBatch, by_length, pad
from throughtime.data.columns import Places
from throughtime.data.labelled import read_texts
from throughtime.data.pairs import Pairs, read_pairs
from throughtime.data.tables import has_header, read_table
from throughtime.data.text import is_text, read_lines
from throughtime.data.tokens import BOUNDARY, Ids, fit_tokeniser, tokeniser_from_json
from throughtime.decode.sequences import Hypothesis
from throughtime.errors import DataError
from throughtime.models.seq2seq import Seq2Seq
from throughtime.models.transformer import TransformerSeq2Seq
from throughtime.tasks.search import SearchConfig, search_tokens
from throughtime.tasks.task import Corpus, DataConfig, Paths, Report, Task, check_cell, divide
from throughtime.tasks.vectors import put_vectors
from throughtime.train.config import ExampleTraining
from throughtime.train.metrics import Metrics
from throughtime.train.translation import metrics_by_length, translation_metrics, translation_signatures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

#: Source tokens, with padding, that are encoded side by side when the model is used.
TOKENS = 4000
#: Tokens of a text that are read: attention over all of a pair takes memory that grows with their square.
LONGEST = 5000
#: Validation sentences that are shown as training goes on.
SHOWN = 3


class PairsConfig(ChoiceConfig, DataConfig):
    """What is read, and how it becomes tokens."""

    choice = "tokens"
    read_by: ClassVar = {"vectors": ("word",)}

    paths: Annotated[Paths, tyro.conf.Positional] = Field(
        (), description="Two parallel text files, or tables with an input and a target column."
    )
    input: str | None = Field(None, description="Column of the source in a table; its number without header.")
    target: str | None = Field(None, description="Column of the target.")
    tokens: Literal["bpe", "char", "word"] = Field("bpe", description="What both sides are cut into.")
    vocabulary: int | None = Field(
        None, ge=3, description="Most tokens there may be; all, or 4096 byte pairs, where not given."
    )
    vectors: Path | None = Field(
        None, description="Pretrained word vectors of both sides (GloVe, word2vec, fastText text)."
    )
    max_length: int = Field(
        200, ge=1, description="Most tokens of a side in training; longer pairs are left out, and counted."
    )


class EncoderDecoderConfig(ChoiceConfig):
    """The model: an encoder, attention, a decoder."""

    read_by: ClassVar = dict.fromkeys(
        (
            "cell",
            "embedding",
            "attention",
            "input_feeding",
            "coverage",
            "bidirectional",
            "scheduled_sampling",
        ),
        ("recurrent",),
    ) | {"heads": ("transformer",)}

    model: Literal["recurrent", "transformer"] = Field(
        "recurrent", description="What encoder and decoder are."
    )
    cell: Annotated[str, AfterValidator(check_cell)] = Field(
        "lstm", description='Recurrence: a name that "throughtime cells" lists.'
    )
    hidden: int = Field(
        256,
        ge=1,
        description="Units of a layer, half in each direction of the encoder; features of a transformer.",
    )
    layers: int = Field(1, ge=1, description="Layers of the encoder and of the decoder.")
    heads: int = Field(4, ge=1, description="Heads of the transformer's attention.")
    embedding: int | None = Field(
        None, ge=1, description="Features of a token; as many as hidden if not given."
    )
    attention: Literal["general", "dot", "additive", "none"] = Field(
        "general", description="How the decoder looks at the source; none is the bottleneck form."
    )
    input_feeding: bool = Field(False, description="The decoder reads what it attended to a step before.")
    coverage: bool = Field(False, description="Attention knows where it was; needs additive attention.")
    bidirectional: bool = Field(True, description="The encoder reads in both directions.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout on embeddings, between layers, on output.")
    tied: bool = Field(True, description="Tie the softmax to the embedding where their sizes are the same.")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Probability given to all tokens alike.")
    scheduled_sampling: float = Field(
        0.0, ge=0, le=1, description="Share of inputs that are the model's own in training."
    )


class Seq2SeqConfig(Config):
    """Everything that decides a training from one sequence to another."""

    task: Annotated[Literal["seq2seq"], tyro.conf.Suppress] = "seq2seq"
    data: PairsConfig = PairsConfig()
    model: EncoderDecoderConfig = EncoderDecoderConfig()
    search: Annotated[SearchConfig, tyro.conf.Suppress] = SearchConfig()
    training: ExampleTraining = ExampleTraining()


@dataclass(frozen=True, kw_only=True)
class PairBatch(ExampleBatch):
    """Sources and targets side by side; see `throughtime.models.seq2seq.PairBatch`."""

    source: Tensor
    source_lengths: Tensor
    inputs: Tensor
    targets: Tensor
    target_lengths: Tensor

    @property
    def steps(self) -> int:
        """Tokens of both sides."""
        return int(self.source_lengths.sum() + self.target_lengths.sum())


class EncodedPairs(NamedTuple):
    """Pairs as tokens, and the texts that the outputs are compared with."""

    pairs: Pairs
    sources: list[Ids]
    targets: list[Ids]


class Seq2SeqTask(Task[Pairs, EncodedPairs]):
    """A model from one sequence to another, with its tokeniser."""

    config_type = Seq2SeqConfig

    def __init__(self, config: Seq2SeqConfig, processor: dict[str, Any]) -> None:
        self.config = config
        self.tokeniser = tokeniser_from_json(processor.get("tokeniser", {}))
        self.longest = int(processor.get("longest", 0))
        self.model: Seq2Seq | TransformerSeq2Seq = _make_model(config.model, self.tokeniser.size)

    @classmethod
    def read(cls, config: Seq2SeqConfig) -> Corpus[Pairs]:
        """The pairs; where none are given for validation, some of those for training, drawn at random."""
        data = config.data
        return divide(data, config.training.seed, lambda paths: read_pairs(paths, data.input, data.target))

    @classmethod
    def learn(
        cls, config: Seq2SeqConfig, train: Pairs, before: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The tokeniser of both sides, and the length of the longest target."""
        texts = chain(train.sources, train.targets)
        tokeniser, longest = fit_tokeniser(config.data.tokens, texts, config.data.vocabulary), 0
        if before is not None:
            tokeniser, longest = tokeniser_from_json(before["tokeniser"]).grown(tokeniser), before["longest"]
        lengths = [len(tokeniser.encode(text)) for text in train.targets]
        longest = max(longest, min(max(lengths), config.data.max_length))
        return {"tokeniser": tokeniser.to_json(), "longest": longest}

    def prepare(self) -> None:
        """Put the pretrained vectors in."""
        if (path := self.config.data.vectors) is not None:
            option = "--hidden" if self.config.model.model == "transformer" else "--embedding"
            put_vectors(self.model.target_embedding, self.tokeniser.texts, path, option)

    def batches(self, train: Pairs) -> Buckets[PairBatch]:
        """Pairs of about equal length side by side, without those that are too long."""
        data, most = self.encode(train), self.config.data.max_length
        kept = [
            k
            for k, pair in enumerate(zip(data.sources, data.targets, strict=True))
            if max(map(len, pair)) <= most
        ]
        if len(kept) < len(train):
            first = next(k for k, row in enumerate([*kept, -1]) if k != row)
            logger.warning(
                "%d of %d pairs have a side of more than %d tokens and are not trained on, the first is %s",
                len(train) - len(kept),
                len(train),
                most,
                train.places[first],
            )
        if not kept:
            raise DataError(f"no pair has at most {most} tokens on each side: give a larger --max-length")
        sources, targets = [data.sources[k] for k in kept], [data.targets[k] for k in kept]
        lengths = [len(s) + len(t) + 2 for s, t in zip(sources, targets, strict=True)]
        training = self.config.training
        return Buckets(
            lengths,
            training.batch_tokens,
            lambda rows, number: _batch([sources[k] for k in rows], [targets[k] for k in rows], number),
            training.seed,
        )

    def encode(self, part: Pairs) -> EncodedPairs:
        """Both sides as tokens."""
        return EncodedPairs(part, self._ids(part.sources, part.places), self._ids(part.targets, part.places))

    def size(self, part: EncodedPairs) -> int:
        """Tokens of both sides."""
        return sum(map(len, part.sources)) + sum(map(len, part.targets))

    def measure(self, part: EncodedPairs) -> Report:
        """Loss (nats per token), perplexity, BLEU, chrF, and the share of outputs that are exactly right.

        BLEU also by the number of words in the input, in four parts of about as many pairs.
        """
        outputs = self._outputs(part, self.config.search)
        pairs = part.pairs
        metrics = self._loss(part) | translation_metrics(outputs, pairs.targets)
        return Report(metrics, metrics_by_length(pairs.sources, outputs, pairs.targets))

    def validate(self, part: EncodedPairs) -> Metrics:
        """The same by greedy search."""
        outputs = self._outputs(part, SearchConfig(beams=1))
        return self._loss(part) | translation_metrics(outputs, part.pairs.targets)

    def _outputs(self, part: EncodedPairs, search: SearchConfig) -> list[str]:
        return [self._text(best[0].tokens) for best in self._search(part.sources, search)]

    def quality(self, metrics: Metrics) -> float:
        """chrF, which words, digits and spellings alike are measured by."""
        return metrics["chrf"]

    def signatures(self) -> dict[str, str]:
        """How BLEU and chrF were computed."""
        return translation_signatures()

    def sample(self, part: EncodedPairs) -> str:
        """The first sources and what the model makes of them."""
        found = self._search(part.sources[:SHOWN], SearchConfig(beams=1))
        shown = zip(part.pairs.sources, part.pairs.targets, found, strict=False)
        return "\n".join(f"{s}\n  {self._text(best[0].tokens)}\n  (right: {t})" for s, t, best in shown)

    def open(self, paths: Paths) -> Pairs:
        """Other pairs."""
        return read_pairs(paths, self.config.data.input, self.config.data.target)

    def inputs(self, path: Path) -> Iterable[str]:
        """The input column of a table where training read tables, else and of .txt the lines."""
        column, target = self.config.data.input, self.config.data.target
        if column is None or target is None or is_text(path):
            return read_lines(path)
        return read_texts(read_table(path, (column,), has_header((column, target))), (column,))

    def answer(self, inputs: Sequence[str]) -> list[dict[str, Any]]:
        """The output for each input; with its attention, or several outputs, where the search says so."""
        search = self.config.search
        sources = self._ids(inputs)
        answers = []
        for text, source, found in zip(inputs, sources, self._search(sources, search), strict=True):
            answer: dict[str, Any] = {"input": text, "output": self._text(found[0].tokens)}
            answer["log_prob"] = found[0].log_prob
            if search.n_best > 1:
                answer["n_best"] = [{"output": self._text(h.tokens), "log_prob": h.log_prob} for h in found]
            if search.attention:
                answer["attention"] = self.attention(source, found[0].tokens)
            answers.append(answer)
        return answers

    def input_batches(self, inputs: Sequence[str]) -> Iterator[tuple[list[int], PairBatch]]:
        """Inputs of about equal length side by side, without outputs."""
        sources = self._ids(inputs)
        for rows in by_length([len(source) + 1 for source in sources], TOKENS):
            chosen = [sources[k] for k in rows]
            yield rows, _batch(chosen, [np.empty(0, np.int64)] * len(rows), 0).to(self._device)

    def show(self, answer: dict[str, Any]) -> str:
        """The output; several of them one below the other, with their log-probabilities."""
        if "n_best" not in answer:
            return str(answer["output"])
        return "\n".join(f"{each['log_prob']:8.3f}  {each['output']}" for each in answer["n_best"])

    def draw(self, answer: dict[str, Any]) -> Figure:
        """The attention matrix."""
        from throughtime.insight.alignment import draw_alignment

        source, target = self._ids([answer["input"], answer["output"]])
        return draw_alignment(**self.attention(source, target.tolist()))

    def looked_at_text(self, text: str) -> PairBatch:
        """An input, with the output that the model gives it."""
        [source] = self._ids([text])
        [found] = self._search([source], SearchConfig(beams=1))
        return _batch([source], [np.asarray(found[0].tokens, dtype=np.int64)], 0).to(self._device)

    def names_of(self, batch: PairBatch) -> tuple[list[list[str]], list[list[str]]]:
        """The tokens of the input and of the output, each with its end."""
        sides = (batch.source, batch.source_lengths), (batch.inputs[:, 1:], batch.target_lengths)
        inputs, outputs = (
            [self._pieces(row[: n - 1]) for row, n in zip(ids.tolist(), lengths.tolist(), strict=True)]
            for ids, lengths in sides
        )
        return inputs, outputs

    def class_names(self) -> list[str]:
        """The text of each token of the output."""
        return [self._pieces([k])[0] if k != BOUNDARY else "<end>" for k in range(self.tokeniser.size)]

    def remarks(self) -> list[str]:
        """Sizes of the vocabulary and the model, and what runs the recurrences."""
        parameters = sum(p.numel() for p in self.model.parameters())
        remarks = [f"{self.tokeniser.size} tokens, {parameters:,} parameters"]
        if isinstance(self.model, Seq2Seq):
            remarks.append(f"{self.config.model.cell} runs by {self.model.decoder.explain()}")
        return remarks

    def read_loss(self, loss: float) -> str:
        """Perplexity."""
        return f"perplexity {math.exp(min(loss, 700.0)):.1f}"

    @torch.no_grad()
    def attention(self, source: Ids, target: Sequence[int]) -> dict[str, Any]:
        """How much each token of an output (rows) looked at each of the input (columns)."""
        batch = _batch([source], [np.asarray(target, dtype=np.int64)], 0).to(self._device)
        weights = self.model.attention_weights(batch)[0]
        columns, rows = (self._pieces(ids) for ids in (source.tolist(), target))
        return {"input_tokens": columns, "output_tokens": rows, "weights": weights.tolist()}

    def _ids(self, texts: Sequence[str], places: Places | None = None) -> list[Ids]:
        """The tokens of texts, of long ones the first `LONGEST`, which is said with the place of one."""
        found = [self.tokeniser.encode(text.strip()) for text in texts]
        if long := [k for k, ids in enumerate(found) if len(ids) > LONGEST]:
            logger.warning(
                "%d of %d texts have more than %d tokens, of which the first %d are read; the first is %s",
                len(long),
                len(texts),
                LONGEST,
                LONGEST,
                places[long[0]] if places is not None else repr(texts[long[0]][:50] + "..."),
            )
        return [ids[:LONGEST] for ids in found]

    def _pieces(self, ids: Iterable[int]) -> list[str]:
        return [*(self.tokeniser.decode([i]).strip() for i in ids), "<end>"]

    def _loss(self, part: EncodedPairs) -> Metrics:
        total, count = 0.0, 0
        lengths = [len(s) + len(t) + 2 for s, t in zip(part.sources, part.targets, strict=True)]
        for rows in by_length(lengths, TOKENS):
            batch = _batch([part.sources[k] for k in rows], [part.targets[k] for k in rows], 0)
            loss = self.model.loss(batch.to(self._device))
            total, count = total + loss.total.item(), count + loss.count
        return {"loss": total / count, "perplexity": math.exp(min(total / count, 700.0))}

    @torch.no_grad()
    def _search(self, sources: Sequence[Ids], search: SearchConfig) -> list[list[Hypothesis]]:
        """The outputs for each source, the best first."""
        found: list[list[Hypothesis]] = [[] for _ in sources]
        for rows in by_length([len(source) + 1 for source in sources], TOKENS):
            tokens, lengths = _sources([sources[k] for k in rows])
            state = self.model.begin(tokens.to(self._device), lengths.to(self._device))
            # A model that finds no end would go on: it is not asked for more than twice what it trained on.
            usual = self.longest + 1
            most = (2 * lengths + 10).clamp(usual, max(usual, 2 * self.config.data.max_length + 10))
            seeds = [zlib.crc32(sources[k].tobytes()) for k in rows]
            for k, hypotheses in zip(
                rows, search_tokens(self.model, state, most, seeds, search), strict=True
            ):
                found[k] = hypotheses
        return found

    def _text(self, ids: Iterable[int]) -> str:
        return self.tokeniser.decode(ids).strip()


def _make_model(config: EncoderDecoderConfig, classes: int) -> Seq2Seq | TransformerSeq2Seq:
    if config.model == "transformer":
        return TransformerSeq2Seq(
            classes,
            classes,
            BOUNDARY,
            features=config.hidden,
            layers=config.layers,
            heads=config.heads,
            dropout=config.dropout,
            shared=True,
            tied=config.tied,
            label_smoothing=config.label_smoothing,
        )
    options = config.model_dump(exclude={"model", "heads", "tied", "embedding"})
    size = config.hidden if config.embedding is None else config.embedding
    tied = config.tied and size == config.hidden
    return Seq2Seq(classes, classes, BOUNDARY, shared=True, tied=tied, embedding=size, **options)


def _batch(sources: Sequence[Ids], targets: Sequence[Ids], number: int) -> PairBatch:
    source, source_lengths = _sources(sources)
    inputs, target_lengths = pad([np.append(BOUNDARY, ids) for ids in targets])
    after, _ = pad([np.append(ids, BOUNDARY) for ids in targets], -100)
    return PairBatch(
        number=number,
        source=source,
        source_lengths=source_lengths,
        inputs=inputs,
        targets=after,
        target_lengths=target_lengths,
    )


def _sources(sources: Sequence[Ids]) -> tuple[Tensor, Tensor]:
    """Each source with a boundary at its end, so that an empty one has a token too."""
    return pad([np.append(ids, BOUNDARY) for ids in sources])
