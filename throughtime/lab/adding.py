"""The adding problem: x_t = (a_t, m_t), a_t uniform in [0, 1), two marks m_t = 1, the answer y = Σ a_t m_t.

One mark is in the first half of T steps, one in the second, and the answer is read after the last step. To
answer always 1 costs E(y - 1)² = 1/6, and is within 0.04 of y in 1 - 0.96² = 7.8 % of all sequences. Each
cell is trained anew for every T, always for as many steps and with the same learning rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from throughtime.cells.cell import Cell
from throughtime.cells.elman import rnn
from throughtime.lab.experiment import Claim, Finding, held
from throughtime.lab.training import Readout, train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LENGTHS = (10, 30, 60, 100)
UNITS, ROWS, STEPS, LEARNING_RATE = 32, 32, 1200, 1e-2
HELD_OUT = 2000
#: The error that counts as right (Hochreiter & Schmidhuber 1997), and the squared error that is solved.
CLOSE, SOLVED = 0.04, 0.01
#: Of always answering 1: the squared error, and the share that is right.
BLIND, BLIND_RIGHT = 1 / 6, 1 - (1 - CLOSE) ** 2


class Score(NamedTuple):
    """The mean squared error, and the share of answers within 0.04."""

    error: float
    right: float


#: Scores by length.
Scores = dict[int, Score]


def run(seed: int, cells: list[Cell]) -> Finding:
    """Each cell at each length, and the vanilla RNN to compare them with."""
    chosen = {cell.name: cell for cell in (rnn, *cells)}
    scores = {
        name: {length: learn(cell, length, seed) for length in LENGTHS} for name, cell in chosen.items()
    }
    rows = [
        {"cell": name, "length": length, "squared_error": score.error, "right": score.right}
        for name, by_length in scores.items()
        for length, score in by_length.items()
    ]
    claims = [_vanilla(scores[rnn.name])]
    if others := {name: by_length for name, by_length in scores.items() if name != rnn.name}:
        claims += [_further(scores[rnn.name], others), _to_the_end(others)]
    return Finding(claims, rows, lambda: _draw(scores))


def adding_batch(length: int, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Numbers and marks [B, T, 2], and the sums of the marked numbers [B, 1]."""
    numbers = torch.rand(rows, length, generator=generator)
    marks = torch.zeros(rows, length)
    for begin, end in ((0, length // 2), (length // 2, length)):
        marks.scatter_(1, torch.randint(begin, end, (rows, 1), generator=generator), 1.0)
    return torch.stack([numbers, marks], -1), (numbers * marks).sum(1, keepdim=True)


def learn(cell: Cell, length: int, seed: int) -> Score:
    """Train on fresh sequences of this length; the score on others."""
    generator = torch.Generator().manual_seed(seed)
    model = Readout(cell, 2, UNITS, 1, generator, last=True)
    train(
        model,
        lambda: adding_batch(length, ROWS, generator),
        lambda batch: F.mse_loss(model(batch[0]), batch[1]),
        STEPS,
        LEARNING_RATE,
    )
    x, sums = adding_batch(length, HELD_OUT, generator)
    with torch.no_grad():
        error = (model(x) - sums).abs()
    return Score(float(error.square().mean()), float((error < CLOSE).float().mean()))


def reach(scores: Scores) -> int:
    """The longest length that is solved, as all shorter ones are; 0 where none is."""
    furthest = 0
    for length, score in sorted(scores.items()):
        if score.error > SOLVED:
            break
        furthest = length
    return furthest


def _vanilla(scores: Scores) -> Claim:
    shortest, longest = scores[min(scores)].error, scores[max(scores)].error
    fails = longest > 0.9 * BLIND
    return Claim(
        "A vanilla RNN learns to add what is near, and is no better than to answer always 1 where it is far.",
        f"squared error {_by_length(scores)}; always to answer 1 has {BLIND:.3f}.",
        held(shortest < SOLVED and fails, part=fails),
    )


def _further(vanilla: Scores, others: dict[str, Scores]) -> Claim:
    reached = {name: reach(scores) for name, scores in others.items()}
    further = [length > reach(vanilla) for length in reached.values()]
    return Claim(
        "Gates, or a matrix that begins as the identity, let a cell look further back than a vanilla RNN.",
        f"solved (squared error below {SOLVED:g}) are lengths up to {reach(vanilla)} by rnn, "
        + ", ".join(f"{length} by {name}" for name, length in reached.items())
        + f", after {STEPS} steps of training.",
        held(all(further), part=any(further)),
    )


def _to_the_end(others: dict[str, Scores]) -> Claim:
    solved = [reach(scores) == max(LENGTHS) for scores in others.values()]
    return Claim(
        "They bridge a hundred steps and more.",
        f"share of answers within {CLOSE:g} at length {max(LENGTHS)}: "
        + ", ".join(f"{name} {scores[max(LENGTHS)].right:.0%}" for name, scores in others.items())
        + f"; always to answer 1 has {BLIND_RIGHT:.0%}.",
        held(all(solved), part=any(solved)),
    )


def _by_length(scores: Scores) -> str:
    return ", ".join(f"{score.error:.4f} at {length} steps" for length, score in scores.items())


def _draw(scores: dict[str, Scores]) -> Figure:
    from throughtime.insight.figures import points, slide

    figure, (errors, shares) = slide(2)
    for k, (name, by_length) in enumerate(scores.items()):
        errors.plot(LENGTHS, [by_length[length].error for length in LENGTHS], label=name, **points(k))
        shares.plot(LENGTHS, [100 * by_length[length].right for length in LENGTHS], **points(k))
    errors.axhline(BLIND, color="0.45", linewidth=1, label="always 1")
    shares.axhline(100 * BLIND_RIGHT, color="0.45", linewidth=1)
    errors.set(title="error", ylabel="mean squared error", yscale="log")
    shares.set(title=f"right within {CLOSE:g}", ylabel="share of sequences (%)", ylim=(0, 102))
    for panel in (errors, shares):
        panel.set(xlabel="length of the sequence (steps)", xticks=LENGTHS)
    figure.legend(loc="outside lower center", ncols=5)
    return figure
