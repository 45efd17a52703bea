"""A small model, text and run for the tests of training."""

import math
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from throughtime.data import Streams
from throughtime.models import LanguageModel
from throughtime.train.config import TrainingConfig
from throughtime.train.fit import fit
from throughtime.train.run import Run

CLASSES = 7


def toy_model(seed: int = 0, dropout: float = 0.2, cell: str = "lstm") -> LanguageModel:
    torch.manual_seed(seed)
    return LanguageModel(CLASSES, 0, 1, cell=cell, hidden=12, dropout=dropout)


def toy_streams(length: int = 400, rows: int = 4, steps: int = 5) -> Streams:
    tokens = np.random.default_rng(0).integers(2, CLASSES, length).astype(np.uint16)
    return Streams(tokens, rows, steps, fresh=8)


def toy_fit(model, batches, folder: Path, resume: bool = False, validate=None, **options):
    config = TrainingConfig(**{"max_epochs": 2, "learning_rate": 0.01} | options)
    run = Run(folder)
    torch.manual_seed(99 if resume else 0)
    folder.mkdir(exist_ok=True)
    return fit(
        model,
        batches,
        run,
        config,
        validate=validate or (lambda: {"loss": 1.0}),
        validation_tokens=0,
        score=lambda metrics: metrics["loss"],
        sample=lambda: "sample",
        read=lambda loss: f"{math.exp(loss):.1f}",
        resume=resume,
        console=Console(quiet=True),
    )
