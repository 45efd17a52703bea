"""Agreement at a distance: which form of the verb follows, n words after the noun it agrees with.

A fixed window reads the last w words, h = relu(Σ_p W_p x_{n-p} + b), p = 0 ... w - 1. What stands before them
does not exist for it: with w or more words between noun and verb it can only guess. A recurrence,
h_t = f(h_{t-1}, x_t), has no such bound. The words between say nothing of the number of the noun.

All are trained on the same sentences, with up to 15 words between, and tested with many more too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from throughtime.cells.cell import Cell
from throughtime.lab.experiment import Claim, Finding, held
from throughtime.lab.training import seeded, train
from throughtime.models.classifier import Classifier, make_classifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Tokens: padding, the unknown, the subjects (singular, then plural), and words that may stand between.
SUBJECTS, BETWEEN = 20, 30
FIRST_SUBJECT = 2
FIRST_BETWEEN = FIRST_SUBJECT + 2 * SUBJECTS
WORDS = FIRST_BETWEEN + BETWEEN
#: Words between noun and verb: the most of them in training, and those that are tested.
MOST_TAUGHT, TESTED = 15, (0, 1, 2, 3, 4, 5, 7, 9, 10, 12, 15, 20, 30, 50, 75, 100)
TICKS = (0, 1, 2, 5, 10, 20, 50, 100)
WINDOWS = (5, 10)
EMBEDDING, UNITS, ROWS, STEPS, LEARNING_RATE = 16, 32, 64, 800, 1e-2
HELD_OUT = 2000
#: Accuracies that are called knowing and guessing.
KNOWS, GUESSES = 0.95, 0.55

#: Share of right verbs, by the words between.
Right = dict[int, float]


class Sentences(NamedTuple):
    """Tokens [B, T] padded with 0, the length of each row [B], and whether the noun is plural [B]."""

    tokens: Tensor
    lengths: Tensor
    targets: Tensor


def run(seed: int, cells: list[Cell]) -> Finding:
    """Two windows and each cell."""
    windows = {f"window of {size}": learn(size, seed) for size in WINDOWS}
    recurrent = {cell.name: learn(cell, seed) for cell in cells}
    rows = [
        {"model": name, "between": distance, "right": share}
        for name, right in (windows | recurrent).items()
        for distance, share in right.items()
    ]
    claims = [_window(windows), _recurrence(recurrent), _beyond(recurrent)]
    return Finding(claims, rows, lambda: _draw(windows, recurrent))


def sentences(distances: Tensor, generator: torch.Generator) -> Sentences:
    """One sentence for each number of words [B] between noun and verb, up to the verb."""
    rows = len(distances)
    plural = torch.randint(0, 2, (rows,), generator=generator)
    noun = FIRST_SUBJECT + plural * SUBJECTS + torch.randint(0, SUBJECTS, (rows,), generator=generator)
    between = torch.randint(FIRST_BETWEEN, WORDS, (rows, int(distances.max())), generator=generator)
    padding = torch.arange(between.shape[1]) >= distances[:, None]
    tokens = torch.cat([noun[:, None], between.masked_fill(padding, 0)], 1)
    return Sentences(tokens, distances + 1, plural)


def learn(reader: Cell | int, seed: int) -> Right:
    """Train a cell, or a window of so many words, and test it at each distance."""
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed):
        model = make_classifier(
            "fixed-window" if isinstance(reader, int) else "recurrent",
            classes=2,
            words=WORDS,
            embedding=EMBEDDING,
            hidden=UNITS,
            window=reader if isinstance(reader, int) else None,
            cell="rnn" if isinstance(reader, int) else reader,
        )

    def draw() -> Sentences:
        return sentences(torch.randint(0, MOST_TAUGHT + 1, (ROWS,), generator=generator), generator)

    train(model, draw, lambda batch: model.loss(batch).mean, STEPS, LEARNING_RATE)
    return {distance: _test(model, distance, generator) for distance in TESTED}


@torch.no_grad()
def _test(model: Classifier, distance: int, generator: torch.Generator) -> float:
    batch = sentences(torch.full((HELD_OUT,), distance), generator)
    return float((model.log_probs(batch).argmax(1) == batch.targets).float().mean())


def _window(windows: dict[str, Right]) -> Claim:
    inside, outside = [], []
    for size, right in zip(WINDOWS, windows.values(), strict=True):
        inside += [share for distance, share in right.items() if distance < size]
        outside += [share for distance, share in right.items() if distance >= size]
    return Claim(
        "A fixed window of w words knows the noun while fewer than w words follow it, and guesses beyond.",
        f"windows of {' and '.join(map(str, WINDOWS))} are right about {min(inside):.1%} or more within, and "
        f"about {min(outside):.1%} to {max(outside):.1%} beyond.",
        held(min(inside) > KNOWS and max(outside) < GUESSES, part=max(outside) < min(inside)),
    )


def _recurrence(recurrent: dict[str, Right]) -> Claim:
    worst = {
        name: min(share for distance, share in right.items() if distance <= MOST_TAUGHT)
        for name, right in recurrent.items()
    }
    good = [share > KNOWS for share in worst.values()]
    return Claim(
        "A recurrence has no such bound: it holds the noun over all words between.",
        f"right at the worst of the distances in training, up to {MOST_TAUGHT} words: "
        + ", ".join(f"{name} {share:.1%}" for name, share in worst.items())
        + ".",
        held(all(good), part=any(good)),
    )


def _beyond(recurrent: dict[str, Right]) -> Claim:
    far = max(TESTED)
    good = [right[far] > KNOWS for right in recurrent.values()]
    return Claim(
        "And over more words than it ever saw in training.",
        f"right with {2 * MOST_TAUGHT} and with {far} words between, of {MOST_TAUGHT} in training at most: "
        + ", ".join(
            f"{name} {right[2 * MOST_TAUGHT]:.1%} and {right[far]:.1%}" for name, right in recurrent.items()
        )
        + ".",
        held(all(good), part=any(right[2 * MOST_TAUGHT] > KNOWS for right in recurrent.values())),
    )


def _draw(windows: dict[str, Right], recurrent: dict[str, Right]) -> Figure:
    from throughtime.insight.figures import points, slide

    figure, (panel,) = slide(1)
    for k, (name, right) in enumerate((windows | recurrent).items()):
        look = points(k) | {"markersize": max(4, 13 - 3 * k)}  # where lines lie upon each other, all are seen
        panel.plot(list(right), [100 * share for share in right.values()], label=name, **look)
    panel.axhline(50, color="0.45", linewidth=1, label="guessing")
    panel.axvline(MOST_TAUGHT, color="0.45", linewidth=1, linestyle=":")
    panel.annotate(
        "longest in training",
        (MOST_TAUGHT, 1),
        (6, -4),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="top",
        color="0.3",
    )
    panel.set(title="the number of the verb", ylabel="verbs right (%)", ylim=(40, 108))
    panel.set(xlabel="distance between the noun and its verb (words)", xscale="symlog")
    panel.set(xticks=TICKS, xticklabels=TICKS, xlim=(-0.3, 1.1 * max(TICKS)))
    figure.legend(loc="outside lower center", ncols=5)
    return figure
