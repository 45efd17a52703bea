"""The language-model task: text in, text out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
import tyro
from pydantic import AfterValidator, Field

from throughtime.config import ChoiceConfig, Config
from throughtime.data.batches import by_length, pad
from throughtime.data.corpus import encode
from throughtime.data.documents import Documents, open_documents
from throughtime.data.split import hold_out
from throughtime.data.streams import Chunk, Streams
from throughtime.data.text import Text
from throughtime.data.tokens import BOUNDARY, UNKNOWN, fit_tokeniser, tokeniser_from_json
from throughtime.decode.cache import Cache, with_cache
from throughtime.decode.completion import complete_words, typed_part
from throughtime.decode.sampling import sample
from throughtime.errors import ConfigError, DataError
from throughtime.heads.adaptive import default_cutoffs
from throughtime.models.language_model import LanguageModel
from throughtime.nn.recurrent import Recurrent
from throughtime.nn.state import State, select_rows
from throughtime.tasks.task import Corpus, DataConfig, Paths, Report, Task, check_cell
from throughtime.tasks.vectors import put_vectors
from throughtime.train.config import StreamTraining
from throughtime.train.metrics import evaluate_text, text_metrics

#: Chunks of training after which a row begins anew, so that the model knows how to begin.
FRESH = 32
#: Places of a text that a model is looked at with.
LOOKED = 8
#: Time steps that a single row is read by at once; no answer depends on it.
ROW_STEPS = 1024
#: Tokens, with padding, that are read side by side when texts are embedded.
ROW_TOKENS = 8000


class TextConfig(ChoiceConfig, DataConfig):
    """What is read, and how it becomes tokens."""

    choice = "tokens"
    read_by: ClassVar = {"vectors": ("word",)}

    paths: Annotated[Paths, tyro.conf.Positional] = Field(
        (), description="Text files or folders, UTF-8; .abc files are read tune by tune."
    )
    valid_share: float = Field(
        0.1, gt=0, lt=1, description="Last part of the text kept for validation; of tunes and rows any."
    )
    test_share: float = Field(
        0.0, ge=0, lt=1, description="Part of the text behind that kept for the test; of tunes and rows any."
    )
    columns: tuple[str, ...] = Field(
        (), description="Read tables, each row a document: the values of these columns, with tabs between."
    )
    tokens: Literal["char", "word", "bpe", "abc"] = Field("char", description="What the text is cut into.")
    vocabulary: int | None = Field(
        None, ge=3, description="Most tokens there may be; all of them, or 4096 byte pairs, where not given."
    )
    vectors: Path | None = Field(
        None, description="Pretrained word vectors (GloVe, word2vec, fastText text)."
    )


class ModelConfig(ChoiceConfig):
    """The model: embedding, recurrence, softmax."""

    read_by: ClassVar = dict.fromkeys(
        (
            "cell",
            "variational",
            "recurrent_dropout",
            "weight_dropout",
            "zoneout",
            "connection",
            "learned_state",
        ),
        ("recurrent",),
    ) | {
        "layers": ("recurrent", "transformer"),
        "heads": ("transformer",),
        "context": ("transformer", "big-window"),
        "window": ("fixed-window",),
        "embedding": ("recurrent", "bag-of-words", "fixed-window", "big-window"),
    }

    model: Literal["recurrent", "transformer", "bag-of-words", "fixed-window", "big-window"] = Field(
        "recurrent", description="What reads the text."
    )
    cell: Annotated[str, AfterValidator(check_cell)] = Field(
        "lstm", description='Recurrence: a name that "throughtime cells" lists.'
    )
    hidden: int = Field(256, ge=1, description="Units of each layer; features of the transformer.")
    layers: int = Field(1, ge=1, description="Layers on each other.")
    heads: int = Field(4, ge=1, description="Heads of the transformer.")
    context: int = Field(
        256, ge=1, description="Tokens back that each layer of the transformer sees, or big-window."
    )
    window: int = Field(5, ge=1, description="Tokens back that fixed-window sees.")
    embedding: int | None = Field(
        None, ge=1, description="Features of a token; as many as hidden if not given."
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout on embedding, between layers, on output.")
    variational: bool = Field(False, description="Drop the same features at all steps of a chunk.")
    recurrent_dropout: float = Field(
        0.0, ge=0, lt=1, description="Dropout on what recurrent matrices multiply, one mask a chunk."
    )
    weight_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on entries of recurrent matrices.")
    zoneout: float = Field(0.0, ge=0, lt=1, description="Probability that a unit keeps its state at a step.")
    connection: Literal["residual", "highway"] | None = Field(
        None, description="How the input of a layer beyond the first joins its output."
    )
    learned_state: bool = Field(False, description="Learn the state before the first token.")
    activation_penalty: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="Factor of the mean square of the output."
    )
    temporal_activation_penalty: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Factor of the mean square of the output's change from step to step.",
    )
    softmax: Literal["full", "adaptive"] = Field(
        "full", description="Softmax; adaptive is several times faster over many thousands of words."
    )
    tied: bool = Field(True, description="Tie the softmax to the embedding where their sizes are the same.")


class CacheConfig(Config):
    """How text is measured: with a neural cache of what stood before, or without."""

    cache: int = Field(0, ge=0, description="Tokens back that a neural cache looks at; 0 is no cache.")
    cache_share: float = Field(0.1, ge=0, lt=1, description="Share of the cache in the probability.")
    cache_theta: float = Field(
        0.3, ge=0, allow_inf_nan=False, description="How much the cache trusts similar states."
    )


class LanguageModelConfig(Config):
    """Everything that decides a training of a language model."""

    task: Annotated[Literal["language-model"], tyro.conf.Suppress] = "language-model"
    data: TextConfig = TextConfig()
    model: ModelConfig = ModelConfig()
    search: Annotated[CacheConfig, tyro.conf.Suppress] = CacheConfig()
    training: StreamTraining = StreamTraining()


class Texts(NamedTuple):
    """Texts side by side: tokens [B, T], and how many each has [B]."""

    tokens: torch.Tensor
    lengths: torch.Tensor


class Passage(NamedTuple):
    """A text that a model is measured on, read from one end to the other."""

    streams: Streams
    characters: int


@dataclass(frozen=True)
class Score:
    """How likely a text is: each token and its log-probability in nats, given all before it."""

    tokens: list[str]
    log_probs: list[float]
    characters: int

    @property
    def log_prob(self) -> float:
        """Of the whole text, in nats."""
        return math.fsum(self.log_probs)

    @property
    def metrics(self) -> dict[str, float]:
        """Loss (nats per token), perplexity, bits per character."""
        return text_metrics(-self.log_prob, len(self.log_probs), self.characters)


class LanguageModelTask(Task[Text | Documents, Passage]):
    """A language model with its tokeniser."""

    config_type = LanguageModelConfig
    searches = ("evaluate",)
    answers_texts = False

    def __init__(self, config: LanguageModelConfig, processor: dict[str, Any]) -> None:
        self.config = config
        self.tokeniser = tokeniser_from_json(processor.get("tokeniser", {}))
        #: What the model was trained on, where that were small documents: "tunes" or "rows".
        self.documents: str | None = processor.get("documents")
        model = config.model
        size = model.hidden if model.embedding is None else model.embedding
        options = model.model_dump() | {
            "embedding": size,
            "tied": model.tied and size == model.hidden,
            "cutoffs": processor.get("cutoffs"),
        }
        self.model: LanguageModel = LanguageModel(self.tokeniser.size, BOUNDARY, UNKNOWN, **options)

    @classmethod
    def read(cls, config: LanguageModelConfig) -> Corpus[Text | Documents]:
        """The text to train, to validate and to test on, read once from end to end.

        Of a text the last parts are kept apart, of documents in files some whole ones, drawn from the seed.
        """
        data, seed = config.data, config.training.seed
        text = open_documents(data.paths, data.columns)
        test = open_documents(data.test, data.columns) if data.test else None
        if test is None and data.test_share:
            text, test = _hold(text, data.test_share, seed)
        if data.valid:
            train, valid = text, open_documents(data.valid, data.columns)
        else:
            train, valid = _hold(text, data.valid_share, seed)
        if not train.characters or not valid.characters:
            raise DataError(
                f"a text of {text.characters} characters is too short to keep {data.valid_share:.0%} of it "
                "for validation: give more text, or validation text with --valid"
            )
        return Corpus(train, valid, test)

    @classmethod
    def learn(
        cls, config: LanguageModelConfig, train: Text | Documents, before: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The tokeniser, and where the clusters of an adaptive softmax begin."""
        tokeniser = fit_tokeniser(config.data.tokens, train.blocks(), config.data.vocabulary)
        processor: dict[str, Any] = {}
        if isinstance(train, Documents):
            processor["documents"] = train.kind
        if config.model.softmax == "adaptive":
            processor["cutoffs"] = default_cutoffs(tokeniser.size)
        if before is not None:
            tokeniser = tokeniser_from_json(before["tokeniser"]).grown(tokeniser)
            processor |= {name: before[name] for name in {"cutoffs"} & processor.keys()}
        return processor | {"tokeniser": tokeniser.to_json()}

    def prepare(self) -> None:
        """Put the pretrained vectors in."""
        if (path := self.config.data.vectors) is not None:
            option = "--hidden" if self.config.model.model == "transformer" else "--embedding"
            put_vectors(self.model.embedding, self.tokeniser.texts, path, option)

    def batches(self, train: Text | Documents) -> Streams:
        """Rows of text side by side, for truncated backpropagation through time."""
        training = self.config.training
        # Small documents begin often enough by themselves, though rows but the first may begin within one.
        fresh = FRESH if isinstance(train, Text) else None
        return Streams(encode(train, self.tokeniser), training.batch_size, training.chunk_length, fresh)

    def encode(self, part: Text | Documents) -> Passage:
        """A text as one row, so that the state is carried through all of it."""
        try:
            return Passage(Streams(encode(part, self.tokeniser), 1, ROW_STEPS), part.characters)
        except DataError as error:
            raise DataError(f"{part.source}: {error}") from None

    def measure(self, part: Passage) -> Report:
        """Loss (nats per token), perplexity and bits per character."""
        if not self.config.search.cache:
            return Report(evaluate_text(self.model, *part))
        return Report(text_metrics(-sum(self._cached(part)), part.streams.length, part.characters))

    def _cached(self, part: Passage) -> Iterator[float]:
        """The log-probabilities of a text piece by piece, by the model and a cache of its document so far."""
        search, state = self.config.search, self.model.begin(1)
        cache: Cache | None = None
        for chunk in part.streams:
            inputs, targets = chunk.inputs.to(self._device), chunk.targets[0].to(self._device)
            features, state = self.model.features(inputs, state)
            log_probs = self.model.head.log_probs_of(features[0], targets)
            begins = (inputs[0] == BOUNDARY).nonzero()[:, 0].tolist()
            for start, stop in pairwise(sorted({0, *begins, len(targets)})):
                mixed, cache = with_cache(
                    features[0, start:stop],
                    targets[start:stop],
                    log_probs[start:stop],
                    size=search.cache,
                    theta=search.cache_theta,
                    interpolation=search.cache_share,
                    cache=None if start in begins else cache,
                )
                yield mixed.sum().item()

    def size(self, part: Passage) -> int:
        """Tokens."""
        return part.streams.length

    def sample(self, part: Passage) -> str:
        """Some text, always from the same random numbers."""
        length = 300 if self.tokeniser.kind == "char" else 80
        return self.generate(length=length, seed=self.config.training.seed)

    def open(self, paths: Paths) -> Text | Documents:
        """Other text."""
        return open_documents(paths, self.config.data.columns)

    def answer(self, inputs: Sequence[str]) -> list[dict[str, Any]]:
        """How likely each text is: its log-probability (nats), loss, perplexity, bits per character.

        A text without a token, such as an empty line, has a log-probability of 0 and no other number.
        """
        return [self._likelihood(text) for text in inputs]

    def _likelihood(self, text: str) -> dict[str, Any]:
        if not len(self.tokeniser.encode(text)):
            return {"text": text, "log_prob": 0.0}
        score = self.score(text)
        return {"text": text, "log_prob": score.log_prob} | score.metrics

    def input_batches(self, inputs: Sequence[str]) -> Iterator[tuple[list[int], Texts]]:
        """Texts of about equal length side by side, each after a boundary."""
        ids = [np.append(BOUNDARY, self.tokeniser.encode(text)) for text in inputs]
        for rows in by_length(list(map(len, ids)), ROW_TOKENS):
            yield rows, Texts(*(each.to(self._device) for each in pad([ids[k] for k in rows])))

    def looked_at(self, part: Text | Documents, steps: int) -> Chunk:
        """Rows of so many tokens from `LOOKED` places of a text."""
        return Streams(encode(part, self.tokeniser), LOOKED, steps).batch(0).to(self._device)

    def looked_at_text(self, text: str) -> Chunk:
        """A text, as one row."""
        ids = self.tokeniser.encode(text).tolist()
        if not ids:
            raise DataError("there is nothing to look at: the text is empty")
        return Chunk(self._tensor([[BOUNDARY, *ids[:-1]]]), self._tensor([ids]), 0)

    def names_of(self, batch: Chunk) -> tuple[list[list[str]], list[list[str]]]:
        """The tokens, and the token after each."""
        both = (batch.inputs, batch.targets)
        inputs, outputs = ([list(self.tokeniser.pieces(row)) for row in each.tolist()] for each in both)
        return inputs, outputs

    def class_names(self) -> list[str]:
        """The text of each token."""
        return [piece for k in range(self.tokeniser.size) for piece in self.tokeniser.pieces([k])]

    def show(self, answer: dict[str, Any]) -> str:
        """The log-probability and the text."""
        return f"{answer['log_prob']:10.3f}  {answer['text']}"

    def remarks(self) -> list[str]:
        """What runs the recurrence."""
        layer = self.model.recurrence
        return [f"{self.config.model.cell} runs by {layer.explain()}"] if isinstance(layer, Recurrent) else []

    def read_loss(self, loss: float) -> str:
        """Bits per character, or perplexity."""
        if self.tokeniser.kind == "char":
            return f"{loss / math.log(2):.3f} bits per character"
        return f"perplexity {math.exp(min(loss, 700.0)):.1f}"

    def generate(
        self,
        prompt: str = "",
        length: int = 500,
        *,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> str:
        """Text that goes on from `prompt`, of `length` tokens or up to the end of the document."""
        return "".join(
            self.stream(prompt, length, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        )

    def stream(
        self,
        prompt: str = "",
        length: int = 500,
        *,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """What `generate` returns, piece by piece as it is made.

        temperature  0 takes the likeliest token each time; 1 draws from the model as it is.
        top_k        draw among so many likeliest tokens.
        top_p        draw among the likeliest tokens that together have this probability.
        seed         makes the text repeatable; each call draws anew where it is None.
        """
        if length < 0:
            raise ConfigError(f"length must be 0 or more, got {length}")
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        before = [BOUNDARY, *self.tokeniser.encode(prompt).tolist()]
        _, state = self._read(before[:-1], self.model.begin(1))
        drawn = sample(
            self._step,
            torch.tensor(before[-1:]),
            state,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            banned=[UNKNOWN],
            generator=generator,
        )

        def ids() -> Iterator[int]:
            for _, tokens in zip(range(length), drawn, strict=False):
                if tokens.item() == BOUNDARY:
                    return
                yield int(tokens.item())

        yield from self._continued(before[1:], ids())

    def _continued(self, before: list[int], ids: Iterator[int]) -> Iterator[str]:
        """The pieces of `ids` as they read after the tokens `before`."""
        held = before[-8:]

        def both() -> Iterator[int]:
            yield from held
            yield from ids

        pieces = self.tokeniser.pieces(both())
        for _ in held:
            next(pieces, None)
        yield from pieces

    def score(self, text: str) -> Score:
        """The log-probability of each token of a text, read from its beginning."""
        ids = self.tokeniser.encode(text)
        if not len(ids):
            raise DataError("there is nothing to score: the text is empty")
        before = self._tensor([BOUNDARY, *ids[:-1].tolist()])
        log_probs: list[float] = []
        state = self.model.begin(1)
        after = self._tensor(ids.tolist())
        for inputs, targets in zip(before.split(ROW_STEPS), after.split(ROW_STEPS), strict=True):
            part, state = self.model.log_probs_of(inputs, targets, state)
            log_probs += part.tolist()
        return Score(list(self.tokeniser.pieces(ids.tolist())), log_probs, len(text))

    def complete(self, text: str, count: int = 5) -> list[tuple[str, float]]:
        """The likeliest words to come next, or to end the word that `text` ends in, with probabilities."""
        typed = typed_part(text)
        read = text.removesuffix(typed)
        log_probs, state = self._read([BOUNDARY, *self.tokeniser.encode(read).tolist()], self.model.begin(1))
        pieces = ["", "", *self.tokeniser.texts]
        if self.tokeniser.kind != "word":
            return complete_words(
                self._step,
                select_rows,
                log_probs,
                state,
                pieces,
                typed=typed,
                count=count,
            )
        started = typed.strip()
        fits = torch.tensor([bool(word.strip()) and word.startswith(started) for word in pieces])
        probs = log_probs.masked_fill(~fits, -torch.inf)
        probs = (probs.log_softmax(-1) if started else probs).exp()
        best = probs.topk(min(count, int(fits.sum())))
        return [(pieces[i], p) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]

    def unknown(self, text: str) -> list[str]:
        """The characters or words of a text that the model does not know, each once."""
        parts = text.split() if self.tokeniser.kind == "word" else text
        return [part for part in dict.fromkeys(parts) if (self.tokeniser.encode(part) == UNKNOWN).any()]

    @torch.no_grad()
    def _read(self, ids: list[int], state: State) -> tuple[torch.Tensor, State]:
        """Log-probabilities of the token after `ids`, and the state after them."""
        if not ids:
            return torch.zeros(self.tokeniser.size), state
        features, state = self.model.features(self._tensor([ids]), state)
        return self.model.head.log_probs(features[0, -1]).cpu(), state

    def _step(self, tokens: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """A step of the model, wherever it is, for a search on the processor."""
        log_probs, state = self.model.step(self._tensor(tokens), state)
        return log_probs.cpu(), state

    def _tensor(self, ids: list[int] | list[list[int]] | torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(ids, device=self._device)


def _hold(part: Text | Documents, share: float, seed: int) -> tuple[Text | Documents, Text | Documents]:
    """A text without its last part, and that part; of documents, a share of them drawn at random."""
    if isinstance(part, Text):
        return part.split(share)
    rest, held = hold_out(len(part), share, seed)
    return part.select(rest), part.select(held)
