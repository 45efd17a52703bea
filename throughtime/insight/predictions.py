"""What a model gave to each thing that was wanted of it, and what it would rather have said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from throughtime.data.batches import ExampleBatch
from throughtime.errors import ConfigError
from throughtime.heads.categorical import Categorical
from throughtime.models.classifier import Classifier
from throughtime.models.frame_tagger import FrameTagger
from throughtime.models.language_model import LanguageModel
from throughtime.models.seq2seq import Seq2Seq
from throughtime.models.tagger import Tagger
from throughtime.models.transformer import TransformerSeq2Seq

#: Steps of a text whose distributions are held at a time.
PIECE = 256


@dataclass(frozen=True)
class Prediction:
    """One thing that was wanted.

    row, step   where; the step is None where a row has one answer, or its loss is a sum over steps.
    nats        -log p of what was wanted; for models without classes the mean loss of the row.
    wanted      its class; None where there are no classes.
    guesses     the likeliest classes and their probabilities, the best first.
    """

    row: int
    step: int | None
    nats: float
    wanted: int | None = None
    guesses: tuple[tuple[int, float], ...] = ()


@torch.no_grad()
def predictions(model: nn.Module, batch: Any, guesses: int) -> list[Prediction]:
    """Everything that is wanted of a model in a batch.

    Language models, taggers (by the marginals of a CRF), encoder-decoders (each token before given) and
    classifiers tell the probability of each answer; of other models it is the mean loss of each row. Raises
    `ConfigError` for a batch that has no rows to take apart.
    """
    match model:
        case LanguageModel():
            found = _of_text(model, batch)
        case Tagger() | FrameTagger():
            found = _of_tags(model, batch)
        case Seq2Seq() | TransformerSeq2Seq():
            found = _of_pairs(model, batch)
        case Classifier(head=Categorical()):
            found = ((row, None, *each) for row, each in enumerate(_halves(model.log_probs(batch), batch)))
        case _:
            return _of_rows(model, batch)
    return [each for part in found for each in _best(*part, guesses)]


#: A row, its step of the first prediction (None if it has none), distributions and what was wanted.
_Part = tuple[int, int | None, Float[Tensor, "N C"], Int[Tensor, "N"]]


def _best(
    row: int, first: int | None, log_probs: Float[Tensor, "N C"], wanted: Int[Tensor, "N"], guesses: int
) -> Iterator[Prediction]:
    best = log_probs.topk(min(guesses, log_probs.shape[1]), -1)
    values, classes = best.values.exp().tolist(), best.indices.tolist()
    for k, target in enumerate(wanted.tolist()):
        if 0 <= target < log_probs.shape[1]:
            step = None if first is None else first + k
            nats = -float(log_probs[k, target])
            yield Prediction(row, step, nats, target, tuple(zip(classes[k], values[k], strict=True)))


def _halves(log_probs: Float[Tensor, "B C"], batch: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Each row's distribution and class."""
    return ((log_probs[k : k + 1], batch.targets[k : k + 1]) for k in range(len(log_probs)))


def _of_text(model: LanguageModel, batch: Any) -> Iterator[_Part]:
    features, _ = model.features(batch.inputs, model.begin(len(batch.inputs)))
    for row, (each, wanted) in enumerate(zip(features, batch.targets, strict=True)):
        for first in range(0, len(wanted), PIECE):
            piece = slice(first, first + PIECE)
            yield row, first, model.head.log_probs(each[piece]), wanted[piece]


def _of_tags(model: Tagger | FrameTagger, batch: Any) -> Iterator[_Part]:
    features = model.features(batch)
    marginals = model.head.marginals(features, batch.lengths)
    for row, length in enumerate(batch.lengths.tolist()):
        yield row, 0, marginals[row, :length].log(), batch.targets[row, :length]


def _of_pairs(model: Seq2Seq | TransformerSeq2Seq, batch: Any) -> Iterator[_Part]:
    state: Any = model.begin(batch.source, batch.source_lengths)
    inputs = batch.inputs.masked_fill(batch.targets == -100, 0)
    steps = []
    for tokens in inputs.T:
        log_probs, state = model.step(tokens, state)
        steps.append(log_probs)
    log_probs = torch.stack(steps, 1)
    for row, length in enumerate(batch.target_lengths.tolist()):
        yield row, 0, log_probs[row, :length], batch.targets[row, :length]


def _of_rows(model: nn.Module, batch: Any) -> list[Prediction]:
    if not isinstance(batch, ExampleBatch):
        raise ConfigError(
            f"the loss of {type(model).__name__} is that of a whole {type(batch).__name__}, which has no "
            "rows to take apart: look with one of the tasks' models"
        )
    losses = [model.loss(each) for each in batch.split()]  # type: ignore[operator]
    return [Prediction(row, None, float(loss.mean)) for row, loss in enumerate(losses) if loss.count]
