"""Copying after a delay: read s_1 ... s_K, then D steps of something else, then a signal, and say them again.

Each of the K symbols is one of 8, so that guessing is right in 1/8. In the delay either nothing is said (a
blank symbol) or noise: random symbols of an alphabet of their own, which have to be ignored. What the state
keeps over the delay of a vanilla RNN that begins orthogonal is W^D h, turned but not shrunk while nothing is
added to it; a gate can also keep new things out: c_t = f ⊙ c_{t-1} + i ⊙ g with i = 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from throughtime.cells.cell import Cell
from throughtime.cells.elman import rnn
from throughtime.lab.experiment import Claim, Finding, held
from throughtime.lab.training import Readout, train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Tokens: the symbols, as many that are noise, the blank and the signal.
SYMBOLS, SAID = 8, 2
BLANK, SIGNAL, TOKENS = 2 * SYMBOLS, 2 * SYMBOLS + 1, 2 * SYMBOLS + 2
DELAYS = (10, 20, 40)
UNITS, ROWS, STEPS, LEARNING_RATE = 64, 32, 600, 5e-3
HELD_OUT = 1000
CHANCE = 1 / SYMBOLS
#: The share of right symbols that is called bridged, and the steps that a vanilla RNN is said to bridge.
BRIDGED, FEW_STEPS = 0.95, 10
#: The loss of this share to noise is called disturbed.
DISTURBED = 0.05
CONDITIONS = {False: "silence", True: "noise"}

#: The share of right symbols by cell, by whether there is noise, and by delay.
Right = dict[tuple[str, bool, int], float]


def run(seed: int, cells: list[Cell]) -> Finding:
    """Each cell at each delay, in silence and in noise, and the vanilla RNN to compare them with."""
    chosen = {cell.name: cell for cell in (rnn, *cells)}
    right = {
        (name, noise, delay): learn(cell, delay, noise, seed)
        for (name, cell), noise, delay in product(chosen.items(), CONDITIONS, DELAYS)
    }
    rows = [
        {"cell": name, "delay_holds": CONDITIONS[noise], "delay": delay, "right": share}
        for (name, noise, delay), share in right.items()
    ]
    claims = [_vanilla_forgets(right)]
    if others := [name for name in chosen if name != rnn.name]:
        claims += [_gates_keep(right, others), _gates_protect(right, others)]
    return Finding(claims, rows, lambda: _draw(list(chosen), right))


def copy_batch(delay: int, noise: bool, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What is read [B, K + D + K] and what has to be said at its last K steps [B, K]."""
    said = torch.randint(0, SYMBOLS, (rows, SAID), generator=generator)
    between = torch.randint(SYMBOLS, 2 * SYMBOLS, (rows, delay), generator=generator)
    signal = torch.tensor([SIGNAL] + [BLANK] * (SAID - 1)).expand(rows, -1)
    return torch.cat([said, between if noise else torch.full_like(between, BLANK), signal], 1), said


def learn(cell: Cell, delay: int, noise: bool, seed: int) -> float:
    """Train on fresh sequences with this delay; the share of right symbols of others."""
    generator = torch.Generator().manual_seed(seed)
    model = Readout(cell, TOKENS, UNITS, SYMBOLS, generator, last=False)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0])[:, -SAID:].flatten(0, 1), batch[1].flatten())

    train(model, lambda: copy_batch(delay, noise, ROWS, generator), loss, STEPS, LEARNING_RATE)
    tokens, said = copy_batch(delay, noise, HELD_OUT, generator)
    with torch.no_grad():
        return float((model(tokens)[:, -SAID:].argmax(-1) == said).float().mean())


def _vanilla_forgets(right: Right) -> Claim:
    lost = [
        right[rnn.name, noise, delay] < BRIDGED
        for noise, delay in product(CONDITIONS, DELAYS)
        if delay > FEW_STEPS
    ]
    return Claim(
        f"A vanilla RNN does not learn to bridge more than 5 to {FEW_STEPS} steps.",
        f"right after {_list(DELAYS)} steps: {_shares(right, rnn.name)}; guessing has {CHANCE:.0%}.",
        held(all(lost), part=any(lost)),
    )


def _gates_keep(right: Right, others: list[str]) -> Claim:
    longer = [
        right[name, noise, max(DELAYS)] > right[rnn.name, noise, max(DELAYS)]
        for name, noise in product(others, CONDITIONS)
    ]
    return Claim(
        "Gated cells keep them for longer.",
        f"right after {_list(DELAYS)} steps: "
        + "; ".join(f"{name} {_shares(right, name)}" for name in others)
        + f", all after {STEPS} steps of training.",
        held(all(longer), part=any(longer)),
    )


def _gates_protect(right: Right, others: list[str]) -> Claim:
    lost = {
        name: right[name, False, max(DELAYS)] - right[name, True, max(DELAYS)] for name in (rnn.name, *others)
    }
    safe = [lost[name] < DISTURBED and right[name, True, max(DELAYS)] > 2 * CHANCE for name in others]
    return Claim(
        "What is irrelevant and comes later disturbs what a vanilla RNN keeps; gates protect it.",
        f"noise in place of silence in a delay of {max(DELAYS)} steps takes from "
        + ", ".join(f"{name} {100 * loss:.0f}" for name, loss in lost.items())
        + f" percentage points; to lose {100 * DISTURBED:.0f} is to be disturbed. A cell that only guesses "
        "has nothing to lose, and does not count as safe.",
        held(all(safe) and lost[rnn.name] >= DISTURBED, part=any(safe)),
    )


def _shares(right: Right, name: str) -> str:
    return " and ".join(
        f"{_list(f'{right[name, noise, delay]:.0%}' for delay in DELAYS)} in {label}"
        for noise, label in CONDITIONS.items()
    )


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _draw(names: list[str], right: Right) -> Figure:
    from throughtime.insight.figures import points, slide

    figure, panels = slide(2, sharey=True)
    for panel, (noise, label) in zip(panels, CONDITIONS.items(), strict=True):
        for k, name in enumerate(names):
            shares = [100 * right[name, noise, delay] for delay in DELAYS]
            panel.plot(DELAYS, shares, label=None if noise else name, **points(k))
        panel.axhline(100 * CHANCE, color="0.45", linewidth=1, label=None if noise else "guessing")
        panel.set(title=f"delay of {label}", xlabel="delay (steps)", xticks=DELAYS, ylim=(0, 103))
    panels[0].set_ylabel("symbols said right (%)")
    figure.legend(loc="outside lower center", ncols=5)
    return figure
