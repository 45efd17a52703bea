"""The language-model task: text in, text out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
import tyro
from pydantic import AfterValidator, Field
from rich.console import Console

from throughtime.cells.library import find_cell
from throughtime.config import Config
from throughtime.data.corpus import encode
from throughtime.data.streams import Streams
from throughtime.data.text import Text, open_text
from throughtime.data.tokens import BOUNDARY, UNKNOWN, Tokeniser, fit_tokeniser, tokeniser_from_json
from throughtime.decode.completion import complete_words, typed_part
from throughtime.decode.sampling import sample
from throughtime.errors import CellError, ConfigError, DataError, RunError
from throughtime.models.language_model import LanguageModel
from throughtime.nn.state import State, select_rows
from throughtime.train.checkpoint import Checkpoint, load_weights, read_tensors
from throughtime.train.config import TrainingConfig
from throughtime.train.metrics import evaluate_text, evaluating, text_metrics
from throughtime.train.run import Run, Trained

Paths = tuple[Path, ...]


#: Chunks of training after which a row begins anew, so that the model knows how to begin.
FRESH = 32
#: Time steps that a single row is read by at once; no answer depends on it.
ROW_STEPS = 1024


class TextConfig(Config):
    """What is read, and how it becomes tokens."""

    paths: Annotated[Paths, tyro.conf.Positional] = Field((), description="Text files or folders, UTF-8.")
    valid: Paths = Field((), description="Text for validation; else the last part of the text.")
    test: Paths = Field((), description="Text that the finished model is measured on.")
    valid_share: float = Field(0.1, gt=0, lt=1, description="Last part of the text, kept for validation.")
    tokens: Literal["char", "word", "bpe"] = Field("char", description="What the text is cut into.")
    vocabulary: int | None = Field(
        None, ge=3, description="Most tokens there may be; all of them, or 4096 byte pairs, where not given."
    )

    def absolute(self) -> TextConfig:
        """The same with absolute paths, which hold from any folder."""
        paths = {
            name: tuple(path.absolute() for path in getattr(self, name))
            for name in ("paths", "valid", "test")
        }
        return self.model_copy(update=paths)


def _check_cell(name: str) -> str:
    if ":" in name:  # a run must hold all that it needs, and a file of Python is not in it
        raise CellError(f"{name} is not in the table of cells, and this task trains only those")
    return find_cell(name).name


class ModelConfig(Config):
    """The model: embedding, recurrence, softmax."""

    cell: Annotated[str, AfterValidator(_check_cell)] = Field(
        "lstm", description='Recurrence: a name that "throughtime cells" lists.'
    )
    hidden: int = Field(256, ge=1, description="Units of each layer.")
    layers: int = Field(1, ge=1, description="Recurrent layers on each other.")
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
    tied: bool = Field(True, description="Tie the softmax to the embedding where their sizes are the same.")


class LanguageModelConfig(Config):
    """Everything that decides a training of a language model."""

    task: Annotated[Literal["language-model"], tyro.conf.Suppress] = "language-model"
    text: TextConfig = TextConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()


class Part(NamedTuple):
    """A text that a model is measured on."""

    streams: Streams
    characters: int


class Corpus(NamedTuple):
    """Everything that a training reads."""

    train: Streams
    valid: Part
    test: Part | None


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


class LanguageModelTask:
    """A language model with its tokeniser: what a run holds."""

    config_type = LanguageModelConfig

    def __init__(self, config: LanguageModelConfig, tokeniser: Tokeniser) -> None:
        self.config, self.tokeniser = config, tokeniser
        model = config.model
        size = model.hidden if model.embedding is None else model.embedding
        try:
            options = model.model_dump() | {"embedding": size, "tied": model.tied and size == model.hidden}
            self.model = LanguageModel(tokeniser.size, BOUNDARY, UNKNOWN, **options)
        except RuntimeError as error:  # torch has no type of its own for memory on the processor
            raise ConfigError(
                f"a model of {tokeniser.size} tokens, hidden {model.hidden} and {model.layers} layers cannot "
                f"be made: {str(error).splitlines()[0]}; take a smaller one"
            ) from None

    @classmethod
    def load(cls, run: Run) -> LanguageModelTask:
        """The task of a run with its best weights."""
        task = cls._of(run)
        load_weights(task.model, read_tensors(run.model)[0])
        task.model.eval()
        return task

    @staticmethod
    def read_config(run: Run) -> LanguageModelConfig:
        """The configuration of a run; raises `RunError` where it is damaged."""
        try:
            return LanguageModelConfig.from_toml(run.config)
        except ConfigError as error:
            raise RunError(f"the run {run.folder} is damaged: {error}") from None

    @classmethod
    def _of(cls, run: Run) -> LanguageModelTask:
        return cls(cls.read_config(run), tokeniser_from_json(run.read_processor().get("tokeniser", {})))

    @classmethod
    def train(cls, config: LanguageModelConfig, folder: Path, console: Console | None = None) -> Trained:
        """Train a new run into `folder`, which must be new or empty."""
        Run.check_new(folder)
        config = config.model_copy(update={"text": config.text.absolute()})
        train, valid = _read_text(config.text)
        tokeniser = fit_tokeniser(config.text.tokens, train.blocks(), config.text.vocabulary)
        torch.manual_seed(config.training.seed)
        task = cls(config, tokeniser)
        corpus = task._corpus(train, valid)
        processor = {"tokeniser": tokeniser.to_json(), "train": train.digest, "valid": valid.digest}
        run = Run.create(folder, config.to_toml(), processor)
        return task._fit(run, corpus, resume=False, console=console)

    @classmethod
    def resume(cls, run: Run, config: LanguageModelConfig, console: Console | None = None) -> Trained:
        """Go on with a run from its last checkpoint, exactly as if it had never stopped.

        `config` may differ from the run's own in how long and how fast to train, and in where the text
        is. Raises `ConfigError` where it differs in more, `RunError` where the text is not what it was.
        """
        _check_resumable(cls.read_config(run), config)
        Checkpoint.load(run.last)
        config = config.model_copy(update={"text": config.text.absolute()})
        train, valid = _read_text(config.text)
        processor = run.read_processor()
        if (train.digest, valid.digest) != (processor.get("train"), processor.get("valid")):
            raise RunError(
                f"the text is not the one that {run.folder} began with: to go on needs the same text for "
                "training and validation; start a new run without --resume"
            )
        task = cls(config, cls._of(run).tokeniser)
        corpus = task._corpus(train, valid)
        run.update_config(config.to_toml())
        return task._fit(run, corpus, resume=True, console=console)

    def _corpus(self, train: Text, valid: Text) -> Corpus:
        """Everything that is read, as tokens; what is wrong with a text is found here."""
        training, test = self.config.training, self.config.text.test
        tokens = encode(train, self.tokeniser)
        return Corpus(
            Streams(tokens, training.batch_size, training.chunk_length, FRESH),
            self._part(valid),
            self._part(open_text(test)) if test else None,
        )

    def _part(self, text: Text) -> Part:
        try:
            return Part(Streams(encode(text, self.tokeniser), 1, ROW_STEPS), text.characters)
        except DataError as error:
            raise DataError(f"{text.documents[0].path}: {error}") from None

    def _fit(self, run: Run, corpus: Corpus, *, resume: bool, console: Console | None) -> Trained:
        from throughtime.train.fit import fit  # Lightning takes seconds to import

        training, characters = self.config.training, self.tokeniser.kind == "char"
        if console is not None:
            console.print(f"{self.config.model.cell} runs by {self.model.recurrence.explain()}", style="dim")

        def read(loss: float) -> str:
            if characters:
                return f"{loss / math.log(2):.3f} bits per character"
            return f"perplexity {math.exp(min(loss, 700.0)):.1f}"

        def show() -> str:
            with evaluating(self.model):
                return self.generate(length=300 if characters else 80, seed=training.seed)

        progress, finished = fit(
            self.model,
            corpus.train,
            run,
            training,
            validate=lambda: evaluate_text(self.model, *corpus.valid),
            validation_tokens=corpus.valid.streams.length,
            sample=show,
            read=read,
            resume=resume,
            console=console,
        )
        test = {}
        if corpus.test is not None and finished:
            test = evaluate_text(type(self).load(run).model, *corpus.test)
        return Trained(run.folder, run.best_metrics(), test, progress.step, progress.seconds, finished)

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

    def evaluate(self, paths: Paths) -> dict[str, float]:
        """Loss (nats per token), perplexity and bits per character of text the model did not train on."""
        return evaluate_text(self.model, *self._part(open_text(paths)))

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
        return torch.as_tensor(ids, device=self.model.head.weight.device)


def _check_resumable(before: LanguageModelConfig, now: LanguageModelConfig) -> None:
    """Raise `ConfigError` where a run would not be the same one any more."""
    for part, names in (
        ("model", tuple(ModelConfig.model_fields)),
        ("text", ("tokens", "vocabulary", "valid_share")),
        ("training", ("batch_size", "chunk_length", "optimizer", "seed")),
    ):
        for name in names:
            old, new = getattr(getattr(before, part), name), getattr(getattr(now, part), name)
            if old != new:
                raise ConfigError(
                    f"--{name.replace('_', '-')} was {old} when the run began and cannot become {new}: "
                    "leave it out, or start a new run without --resume"
                )


def _read_text(config: TextConfig) -> tuple[Text, Text]:
    """The text to train and to validate on, read once from end to end."""
    text = open_text(config.paths)
    train, valid = (text, open_text(config.valid)) if config.valid else text.split(config.valid_share)
    if not train.characters or not valid.characters:
        raise DataError(
            f"a text of {text.characters} characters is too short to keep {config.valid_share:.0%} of it for "
            "validation: give more text, or validation text with --valid"
        )
    return train, valid
