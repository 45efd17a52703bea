"""How well a model predicts a text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from throughtime.data.streams import Streams
from throughtime.models.language_model import LanguageModel

Metrics = dict[str, float]


def text_metrics(nats: float, tokens: int, characters: int) -> Metrics:
    """Loss (nats per token), perplexity, and bits per character of so many nats over a text."""
    loss = nats / tokens
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "bits_per_character": nats / math.log(2) / characters,
    }


def evaluate_text(model: LanguageModel, streams: Streams, characters: int) -> Metrics:
    """The metrics of a text of so many characters, read from beginning to end without dropout.

    `streams` has one row, so that the state is carried through the whole text.
    """
    device = model.head.weight.device
    total, count, state = 0.0, 0, None
    with evaluating(model):
        for chunk in streams:
            loss = model.loss(chunk.to(device), state)
            total, count, state = total + loss.total.item(), count + loss.count, loss.state
    return text_metrics(total, count, characters)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout and gradients for a while."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
