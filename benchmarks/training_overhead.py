"""Tokens per second of `train` against a bare torch loop over nn.LSTM, side by side in one process.

Both train a character model of the same size on the same chunks of the Python standard library, with the
same optimiser, clipping and dropout; they take turns. What `train` adds is Lightning, the schedule, the NaN
guard, records, and the run on disk. Validation and samples are not counted.

    python benchmarks/training_overhead.py [--seconds 20] [--rounds 3]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line sets it, for both sides

import torch
from rich.console import Console
from torch import nn
from torch.nn import functional as F

from throughtime.bench.machine import describe
from throughtime.cli.demo import standard_library
from throughtime.data import Streams, encode, fit_tokeniser, open_text
from throughtime.tasks.language_model import LanguageModelConfig, LanguageModelTask, TextConfig
from throughtime.train.config import StreamTraining
from throughtime.train.run import Run

RESULT = Path(__file__).with_suffix(".json")


class Bare(nn.Module):
    """The same model in plain torch."""

    def __init__(self, classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, hidden)
        nn.init.normal_(self.embedding.weight, std=hidden**-0.5)
        self.lstm = nn.LSTM(hidden, hidden)
        self.output = nn.Linear(hidden, classes)
        self.output.weight = self.embedding.weight
        self.dropout = dropout

    def forward(self, tokens: torch.Tensor, state: tuple[torch.Tensor, ...] | None) -> tuple:
        x = F.dropout(self.embedding(tokens), self.dropout)
        y, state = self.lstm(x, state)
        return self.output(F.dropout(y, self.dropout)), state


def bare_speed(config: LanguageModelConfig, seconds: float) -> float:
    """Tokens per second of a plain loop."""
    text = open_text(config.data.paths).split(config.data.valid_share)[0]
    tokeniser = fit_tokeniser("char", text.blocks())
    streams = Streams(encode(text, tokeniser), config.training.batch_size, config.training.chunk_length)
    model = Bare(tokeniser.size, config.model.hidden, config.model.dropout)
    optimizer = torch.optim.AdamW(
        model.parameters(), config.training.learning_rate, betas=(0.9, 0.99), fused=True
    )
    tokens, state, number, began = 0, None, 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        chunk = streams.batch(number % len(streams))
        logits, state = model(chunk.inputs.T, state)
        loss = F.cross_entropy(logits.flatten(0, 1), chunk.targets.T.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.training.clip_norm)
        optimizer.step()
        state = tuple(value.detach() for value in state)
        loss.item()
        tokens, number = tokens + chunk.steps, number + 1
    return tokens / (time.perf_counter() - began)


def train_speed(config: LanguageModelConfig, seconds: float) -> float:
    """Tokens per second of `train`, without its validation and samples."""
    training = config.training.model_copy(update={"max_minutes": seconds / 60})
    quiet = Console(quiet=True)
    with tempfile.TemporaryDirectory() as folder:
        LanguageModelTask.train(config.model_copy(update={"training": training}), Path(folder) / "run", quiet)
        records = [r for r in Run(Path(folder) / "run").read_metrics() if "tokens_per_second" in r]
    steps = [b["step"] - a["step"] for a, b in itertools.pairwise([{"step": 0}, *records])]
    spent = sum(n / r["tokens_per_second"] for n, r in zip(steps, records, strict=True))
    return sum(steps) / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    config = LanguageModelConfig(data=TextConfig(paths=tuple(standard_library())), training=StreamTraining())
    bare_speed(config, 2.0)  # warm up: files, threads, machine code of oneDNN
    bare, train = [], []
    for _ in range(options.rounds):
        bare.append(bare_speed(config, options.seconds))
        train.append(train_speed(config, options.seconds))
    model, training = config.model, config.training
    result = {
        "machine": describe(),
        "model": {"cell": model.cell, "hidden": model.hidden},
        "batch": {"size": training.batch_size, "chunk": training.chunk_length},
        "tokens_per_second": {"bare": bare, "train": train},
        "ratio": statistics.median(a / b for a, b in zip(train, bare, strict=True)),
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"bare torch loop  {statistics.median(bare):9,.0f} tokens/s")
    print(f"train            {statistics.median(train):9,.0f} tokens/s   {result['ratio']:.3f} of bare")


if __name__ == "__main__":
    main()
