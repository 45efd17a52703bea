"""A step of training of whole models beside the same models in plain torch, side by side in one process.

A step is the loss of a batch with dropout, its gradient, clipping, and Adam. The two sides have the same
weights, and are compared in loss and all gradients before anything is timed. They take turns.

- tagger: `Tagger` on about 1,000 words at a time, beside `torch.nn.LSTM` on packed sequences
- seq2seq: `Seq2Seq` on 64 pairs of about 15 tokens on each side, beside `torch.nn.LSTM`, packed on the source

    python benchmarks/tasks.py [--seconds 20] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line sets it, for all contenders

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from throughtime.bench.comparison import TOLERANCES
from throughtime.bench.machine import describe
from throughtime.bench.report import ADVICE, check_folder
from throughtime.bench.timing import Timing, time_in_turns
from throughtime.data.spellings import spell
from throughtime.data.tokens import Characters
from throughtime.errors import StoppedError, ThroughTimeError
from throughtime.heads.per_step import PerStep
from throughtime.models import Seq2Seq, Tagger
from throughtime.nn import Recurrent
from throughtime.storage import write

FOLDER = Path(__file__).parent

#: The loss per token of a model in its present mode.
Loss = Callable[[], Tensor]


@dataclass(frozen=True)
class Side:
    """A model and its loss on the batch of the problem."""

    model: nn.Module
    loss: Loss


@dataclass(frozen=True)
class Problem:
    """The same model twice, on a batch of so many tokens."""

    name: str
    tokens: int
    ours: Side
    torch: Side


@dataclass(frozen=True)
class Row:
    """Tokens per second of training: medians over the turns; the ratio is that of two turns of one round."""

    problem: str
    tokens: int
    ours: float
    torch: float
    ratio: float
    ratio_spread: float


#: As in a tagged corpus of tweets: 15,000 different words, most of them rare, and some links among them.
WORDS, CHARACTERS, TAGS = 15_000, 94, 13
#: A batch holds sentences of about equal length.
SENTENCES, SHORTEST, LONGEST = 50, 15, 25
DROPOUT = 0.5


class TorchTagger(nn.Module):
    """What `Tagger` computes, in torch's layers."""

    def __init__(self, ours: Tagger) -> None:
        super().__init__()
        self.embedding = nn.Embedding(*ours.embedding.weight.shape)
        self.speller = nn.Module()
        self.speller.embedding = nn.Embedding(*ours.speller.embedding.weight.shape)
        self.speller.recurrence = _lstm(ours.speller.forwards, bidirectional=True)
        self.recurrence = _lstm(ours.recurrence, bidirectional=True)
        self.head = nn.Module()
        self.head.categorical = nn.Linear(*reversed(ours.head.categorical.weight.shape))
        self.load_state_dict(as_torch(dict(ours.named_parameters()), torch.zeros_like))

    def loss(self, batch: Any) -> Tensor:
        characters = self.speller.embedding(batch.spellings)
        lengths = batch.spelling_lengths
        packed = pack_padded_sequence(characters, lengths, batch_first=True, enforce_sorted=False)
        _, (final, _) = self.speller.recurrence(packed)
        spelt = torch.cat([final[0], final[1]], -1)
        x = torch.cat([self.embedding(batch.words), F.embedding(batch.spelling_of, spelt)], -1)
        x = F.dropout(x, DROPOUT, self.training)
        packed = pack_padded_sequence(x, batch.lengths, batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.recurrence(packed)[0], batch_first=True)
        logits = self.head.categorical(F.dropout(y, DROPOUT, self.training))
        return F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())


def tagger() -> Problem:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    batch = tagged_sentences(generator)
    ours = Tagger(WORDS, CHARACTERS, TAGS, head=PerStep, dropout=DROPOUT)
    theirs = TorchTagger(ours)
    tokens = int(batch.lengths.sum())
    return Problem(
        "tagger",
        tokens,
        Side(ours, lambda: ours.loss(batch).mean),
        Side(theirs, lambda: theirs.loss(batch)),
    )


def tagged_sentences(generator: torch.Generator) -> Any:
    """Made-up words, the k-th with probability ∝ 1 / k: of 1 to 9 letters, and one in 50 of 20 to 40."""

    def below(high: int, shape: tuple[int, ...], low: int = 0) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    lengths = below(LONGEST + 1, (SENTENCES,), SHORTEST)
    letters = [chr(ord("!") + k) for k in range(CHARACTERS - 2)]
    usual, long = below(10, (WORDS,), 1), below(41, (WORDS,), 20)
    sizes = torch.where(below(50, (WORDS,)) == 0, long, usual).tolist()
    spelt = ["".join(letters[k] for k in below(len(letters), (size,)).tolist()) for size in sizes]
    frequency = 1 / torch.arange(1.0, WORDS - 1)
    drawn = frequency.multinomial(int(lengths.sum()), replacement=True, generator=generator)
    sentences = drawn.split(lengths.tolist())
    spellings, spelling_lengths, spelling_of = spell(
        [[spelt[k] for k in sentence.tolist()] for sentence in sentences], Characters(letters)
    )
    tags = below(TAGS, (int(lengths.sum()),)).split(lengths.tolist())
    return SimpleNamespace(
        words=nn.utils.rnn.pad_sequence([sentence + 2 for sentence in sentences], batch_first=True),
        lengths=lengths,
        spellings=torch.from_numpy(spellings),
        spelling_lengths=torch.from_numpy(spelling_lengths),
        spelling_of=torch.from_numpy(spelling_of),
        targets=nn.utils.rnn.pad_sequence(tags, batch_first=True, padding_value=-100),
    )


#: As in captions of pictures and their translations, cut into 6,000 pieces that both languages share.
PIECES, BOUNDARY, PAIRS = 6_000, 0, 64
#: Pieces of a source: their mean, standard deviation and bounds; a target differs by so much from its source.
MEAN, SPREAD, BOUNDS, DIFFERENCE = 14, 4, (8, 25), 2
FEATURES, PAIR_DROPOUT = 384, 0.4


class TorchSeq2Seq(nn.Module):
    """What `Seq2Seq` computes, in torch's layers."""

    def __init__(self, ours: Seq2Seq) -> None:
        super().__init__()
        self.target_embedding = nn.Embedding(PIECES, FEATURES)
        self.encoder = _lstm(ours.encoder, bidirectional=True)
        self.decoder = _lstm(ours.decoder, bidirectional=False)
        self.attention = nn.Module()
        self.attention.weight_memory = nn.Parameter(torch.empty(FEATURES, FEATURES))
        self.join = nn.Linear(2 * FEATURES, FEATURES, bias=False)
        self.head = nn.Module()
        self.head.bias = nn.Parameter(torch.empty(PIECES))
        self.load_state_dict(as_torch(dict(ours.named_parameters()), torch.zeros_like))

    def loss(self, batch: Any) -> Tensor:
        packed = pack_padded_sequence(
            self.embed(batch.source), batch.source_lengths, batch_first=True, enforce_sorted=False
        )
        packed, finals = self.encoder(packed)
        memory, _ = pad_packed_sequence(packed, batch_first=True)
        begin = tuple(torch.cat([final[0], final[1]], -1)[None] for final in finals)
        # Not packed: torch then has oneDNN run it, in no more time with the padding than packed without.
        h, _ = self.decoder(self.embed(batch.inputs), begin)
        scores = h @ F.linear(memory, self.attention.weight_memory).transpose(1, 2)
        padding = torch.arange(memory.shape[1]) >= batch.source_lengths[:, None]
        weights = scores.masked_fill(padding[:, None], -torch.inf).softmax(-1)
        # Without the padding: with it, and `ignore_index`, a step takes a third more time.
        real = batch.targets != -100
        features = self.join(torch.cat([weights @ memory, h], -1)[real]).tanh()
        features = F.dropout(features, PAIR_DROPOUT, self.training)
        logits = F.linear(features, self.target_embedding.weight, self.head.bias)
        return F.cross_entropy(logits, batch.targets[real])

    def embed(self, tokens: Tensor) -> Tensor:
        return F.dropout(self.target_embedding(tokens), PAIR_DROPOUT, self.training)


def seq2seq() -> Problem:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    batch = pairs(generator)
    ours = Seq2Seq(PIECES, PIECES, BOUNDARY, hidden=FEATURES, dropout=PAIR_DROPOUT, shared=True)
    theirs = TorchSeq2Seq(ours)
    return Problem(
        "seq2seq",
        int(batch.source_lengths.sum() + batch.target_lengths.sum()),
        Side(ours, lambda: ours.loss(batch).mean),
        Side(theirs, lambda: theirs.loss(batch)),
    )


def pairs(generator: torch.Generator) -> Any:
    """Made-up pairs, the k-th piece with probability ∝ 1 / k, with a boundary at each end."""

    def normal(mean: Tensor, spread: float) -> Tensor:
        return torch.normal(mean, spread, generator=generator).round().clamp(*BOUNDS)

    def draw(lengths: Tensor) -> list[Tensor]:
        frequency = 1 / torch.arange(1.0, PIECES)
        drawn = 1 + frequency.multinomial(int(lengths.sum()), replacement=True, generator=generator)
        return list(drawn.split(lengths.int().tolist()))

    def pad(rows: list[Tensor], value: int = 0) -> Tensor:
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)

    source_lengths = normal(torch.full((PAIRS,), float(MEAN)), SPREAD)
    target_lengths = normal(source_lengths, DIFFERENCE)
    targets, boundary = draw(target_lengths), torch.tensor([BOUNDARY])
    return SimpleNamespace(
        source=pad([torch.cat([row, boundary]) for row in draw(source_lengths)]),
        source_lengths=source_lengths.long() + 1,
        inputs=pad([torch.cat([boundary, row]) for row in targets]),
        targets=pad([torch.cat([row, boundary]) for row in targets], -100),
        target_lengths=target_lengths.long() + 1,
    )


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "tagger": tagger,
    "seq2seq": seq2seq,
}


def as_torch(values: dict[str, Tensor], second: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Weights, or their gradients, as torch's side names them: `second` makes its second bias of ours.

    Two layers `forwards` and `backwards` are the directions of its `recurrence`.
    """
    named = {}
    for name, value in values.items():
        name = name.replace(".forwards.", ".recurrence.")
        if ".backwards." in name:
            name = name.replace(".backwards.", ".recurrence.") + "_reverse"
        before, bias, suffix = name.rpartition("bias_l")
        if bias:
            named[f"{before}bias_ih_l{suffix}"] = value
            named[f"{before}bias_hh_l{suffix}"] = second(value)
        else:
            named[name] = value
    return named


def _lstm(ours: Recurrent, bidirectional: bool) -> nn.LSTM:
    (hidden,) = set(ours.hidden_sizes)
    return nn.LSTM(ours.input_size, hidden, ours.layers, batch_first=True, bidirectional=bidirectional)


def check_agreement(problem: Problem) -> None:
    """Raise `ThroughTimeError` where the sides differ in the loss, or in the gradient of a parameter."""
    answers = []
    for side in (problem.ours, problem.torch):
        side.model.eval()  # for dropout draws differ
        loss = side.loss()
        names, parameters = zip(*side.model.named_parameters(), strict=True)
        answers.append({"loss": loss} | dict(zip(names, torch.autograd.grad(loss, parameters), strict=True)))
        side.model.train()
    mine, truth = as_torch(answers[0], lambda gradient: gradient), answers[1]
    if mine.keys() != truth.keys():
        raise ThroughTimeError(f"{problem.name}: only one side has {sorted(mine.keys() ^ truth.keys())}")
    for name, value in truth.items():
        error = ((mine[name] - value).abs().max() / value.abs().max()).item()
        if not error <= TOLERANCES[torch.float32]:
            raise ThroughTimeError(f"{problem.name} is off torch by {error:.1e} in {name}: it is not timed")


def step_of(side: Side) -> Callable[[], None]:
    """A step of training."""
    optimizer = torch.optim.Adam(side.model.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        side.loss().backward()
        nn.utils.clip_grad_norm_(side.model.parameters(), 5.0)
        optimizer.step()

    return step


def measure(problem: Problem, seconds: float) -> Row:
    timings = time_in_turns({"ours": step_of(problem.ours), "torch": step_of(problem.torch)}, seconds)
    ours, theirs = timings["ours"], timings["torch"]
    ratio = Timing(tuple(its / mine for mine, its in zip(ours.samples, theirs.samples, strict=True)))
    speeds = problem.tokens / ours.median, problem.tokens / theirs.median
    return Row(problem.name, problem.tokens, *speeds, ratio.median, ratio.spread)


def as_table(rows: list[Row]) -> Table:
    table = Table("model", box=None, pad_edge=False)
    for name in ("tokens in a batch", "tokens/s, ours", "tokens/s, torch", "ratio", "±"):
        table.add_column(name, justify="right")
    for row in rows:
        speeds = f"{row.tokens:,}", f"{row.ours:,.0f}", f"{row.torch:,.0f}"
        table.add_row(row.problem, *speeds, f"{row.ratio:.2f}", f"{row.ratio_spread:.0%}")
    return table


def run(seconds: float, output: Path) -> None:
    """Check and measure each problem, write the result, and print it."""
    check_folder(output)
    rows = []
    for make in PROBLEMS.values():
        problem = make()
        check_agreement(problem)
        rows.append(measure(problem, seconds))
    result = {"machine": describe(), "seconds": seconds, "rows": [asdict(row) for row in rows]}
    text = json.dumps(result, indent=2) + "\n"
    write(output / "tasks.json", partial(Path.write_text, data=text, encoding="utf-8"), ADVICE)
    Console().print(as_table(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of timing for each problem")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder for tasks.json")
    given = parser.parse_args()
    try:
        run(given.seconds, given.output)
    except KeyboardInterrupt:
        print("stopped: nothing is written", file=sys.stderr)
        sys.exit(StoppedError.exit_code)
    except ThroughTimeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
