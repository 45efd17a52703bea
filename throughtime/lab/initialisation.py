"""How the recurrent matrix W of a ReLU recurrence begins: random, as the identity, or positive definite.

With h_t = ReLU(W h_{t-1} + U x_t) and W = I an active unit keeps its value and gradient for ever; its
authors begin with U near 0 (IRNN). W = (A + I) / e, with A = RᵀR / n and e the largest eigenvalue of A + I,
has eigenvalues in (0, 1] and the largest is 1 (np-RNN). Measured are the eigenvalues of W, the norms of h_t
and of dL/dh_t over 200 steps, and how soon the sum of two marked numbers among 60 is learned.

A cell that begins with small input weights is measured with the usual ones too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from throughtime.cells.cell import Cell
from throughtime.lab.adding import BLIND, adding_batch
from throughtime.lab.experiment import Claim, Finding, held
from throughtime.lab.training import Readout, train
from throughtime.nn.recurrent import Recurrent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STEPS, ROWS, FEATURES, UNITS = 200, 32, 8, 64
#: The adding problem, and how long it is trained.
LENGTH, LEARNERS, UPDATES, LEARNING_RATE = 60, 32, 1500, 3e-3
#: Updates over which the loss is averaged, and the mean below which the problem is solved.
WINDOW, SOLVED = 25, 0.01
#: The recurrent matrices that are said to be made for ReLU.
SPECIAL = {"identity", "normalized_positive_definite"}


class Begin(NamedTuple):
    """How a cell begins.

    eigenvalues  of all square blocks of its recurrent weights.
    states       root mean square of h_t over units and rows, for t = 1 ...
    gradients    ‖dL/dh_{T-d}‖ / ‖dL/dh_T‖, for d = 0 ...
    losses       on the adding problem, mean over every `WINDOW` updates.
    """

    eigenvalues: list[complex]
    states: list[float]
    gradients: list[float]
    losses: list[float]

    @property
    def radius(self) -> float:
        """The spectral radius."""
        return max(map(abs, self.eigenvalues), default=0.0)

    @property
    def solved(self) -> int | None:
        """The updates after which the adding problem was solved."""
        return next((WINDOW * (k + 1) for k, loss in enumerate(self.losses) if loss < SOLVED), None)


def run(seed: int, cells: list[Cell]) -> Finding:
    """Each cell, and those with small input weights with Glorot & Bengio's as well."""
    usual = {cell.name: f"{cell.name}, usual U" for cell in cells if cell.initial.input == "small"}
    others = [
        cell.variant(usual[cell.name], "With usual input weights.", input="glorot")
        for cell in cells
        if cell.name in usual
    ]
    begun = {cell.name: begin(cell, seed) for cell in (*cells, *others)}
    rows = [
        {"cell": name, "what": what, "index": index, "value": value}
        for name, each in begun.items()
        for what, values in (
            ("|eigenvalue|", sorted(map(abs, each.eigenvalues), reverse=True)),
            ("state", each.states),
            ("gradient", each.gradients),
            ("loss", each.losses),
        )
        for index, value in enumerate(values)
    ]
    special = [cell.name for cell in cells if cell.initial.recurrent in SPECIAL]
    random = [cell.name for cell in cells if cell.initial.recurrent not in SPECIAL]
    claims = [_radius_decides(begun)]
    if identities := [cell.name for cell in cells if cell.initial.recurrent == "identity"]:
        claims.append(_identity_keeps({name: begun[name] for name in identities}))
    if special and random:
        claims.append(_special_learn(begun, special, random))
    if usual:
        claims.append(_small_inputs(begun, usual))
    return Finding(claims, rows, lambda: _draw(begun))


def begin(cell: Cell, seed: int) -> Begin:
    """Everything that is measured of a cell."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, STEPS, FEATURES, generator=generator).double()
    direction = torch.randn(ROWS, UNITS, generator=generator).double()
    layer = Recurrent(cell, FEATURES, UNITS, generator=generator).double().eval()
    found: list[Tensor] = []
    layer.register_state_hook(found.append, cell.states[0])
    y, _ = layer(x)
    (y[:, -1] * direction).sum().backward()
    return Begin(
        eigenvalues_of(layer),
        y.detach().square().mean(dim=(0, 2)).sqrt().tolist(),
        (found[0].norm(dim=(0, 2)).flip(0) / direction.norm()).tolist(),
        learn(cell, seed),
    )


def eigenvalues_of(layer: Recurrent) -> list[complex]:
    """The eigenvalues of each square block of the recurrent weights; none where there are no such weights."""
    weights = dict(layer.named_parameters()).get("weight_hh_l0")
    if weights is None:
        return []
    values: list[complex] = torch.linalg.eigvals(weights.detach().view(-1, UNITS, UNITS)).flatten().tolist()
    return values


def learn(cell: Cell, seed: int) -> list[float]:
    """The loss while the adding problem is learned, mean over every `WINDOW` updates."""
    generator = torch.Generator().manual_seed(seed)
    model = Readout(cell, 2, LEARNERS, 1, generator, last=True)
    losses = train(
        model,
        lambda: adding_batch(LENGTH, ROWS, generator),
        lambda batch: F.mse_loss(model(batch[0]), batch[1]),
        UPDATES,
        LEARNING_RATE,
    )
    return [sum(part) / len(part) for part in (losses[k : k + WINDOW] for k in range(0, UPDATES, WINDOW))]


def _radius_decides(begun: dict[str, Begin]) -> Claim:
    near = {name: each for name, each in begun.items() if abs(each.radius - 1) < 0.05}
    kept = [0.1 < each.gradients[-1] < 10 for each in near.values()]
    return Claim(
        "A recurrent matrix whose largest eigenvalue is 1 in absolute value keeps the gradient's size.",
        f"spectral radius, and what is left of the gradient after {STEPS - 1} steps: "
        + "; ".join(f"{name} {each.radius:.2f}, {each.gradients[-1]:.1e}" for name, each in begun.items())
        + ". ReLU takes what the matrix keeps.",
        held(bool(kept) and all(kept), part=any(kept)),
    )


def _identity_keeps(begun: dict[str, Begin]) -> Claim:
    ratios = [
        (each.states[-1] / each.states[STEPS // 2 - 1], each.gradients[-1], name)
        for name, each in begun.items()
    ]
    return Claim(
        "With the identity the state stays as it is, and the gradient too.",
        "; ".join(
            f"{name}: from step {STEPS // 2} to {STEPS} the state grows {state:.2f}-fold, and {gradient:.2f} "
            f"of the gradient is left after {STEPS - 1} steps"
            for state, gradient, name in ratios
        )
        + ". The inputs add up, and shut a unit at times.",
        held(
            all(0.9 < state < 1.1 and 0.9 < gradient < 1.1 for state, gradient, _ in ratios),
            part=all(0.5 < state < 2 and 0.01 < gradient < 100 for state, gradient, _ in ratios),
        ),
    )


def _special_learn(begun: dict[str, Begin], special: Sequence[str], random: Sequence[str]) -> Claim:
    only = all(begun[name].solved is None for name in random)
    learned = [begun[name].solved is not None for name in special]
    return Claim(
        "Begun as the identity or positive definite, a ReLU RNN learns long dependencies that it does not "
        "learn from a random matrix.",
        f"the adding problem over {LENGTH} steps is solved (error below {SOLVED:g}, blind {BLIND:.2f}) "
        + ", ".join(_solved(name, begun[name]) for name in (*random, *special))
        + ".",
        held(only and all(learned), part=only and any(learned)),
    )


def _small_inputs(begun: dict[str, Begin], pairs: dict[str, str]) -> Claim:
    better = [_updates(begun[small]) < _updates(begun[usual]) for small, usual in pairs.items()]
    return Claim(
        "The identity goes with input weights near 0, as its authors begin it.",
        "solved " + ", ".join(_solved(name, begun[name]) for pair in pairs.items() for name in pair) + "; "
        f"the size of the state after {STEPS} steps is "
        + ", ".join(f"{begun[name].states[-1]:.2g} for {name}" for pair in pairs.items() for name in pair)
        + ".",
        held(all(better), part=any(better)),
    )


def _updates(begun: Begin) -> int:
    return UPDATES + 1 if begun.solved is None else begun.solved


def _solved(name: str, begun: Begin) -> str:
    when = f"not in {UPDATES}" if begun.solved is None else f"in {begun.solved}"
    return f"{name} {when} updates"


def _draw(begun: dict[str, Begin]) -> Figure:
    from throughtime.insight.figures import COLOURS, MARKS, line, slide

    figure, (plane, states, gradients, losses) = slide(2, 2, height=8.4)
    for k, (name, each) in enumerate(begun.items()):
        look: dict[str, Any] = {"color": COLOURS[k % len(COLOURS)], "marker": MARKS[k % len(MARKS)]}
        plane.scatter(
            [value.real for value in each.eigenvalues],
            [value.imag for value in each.eigenvalues],
            s=24,
            facecolors="none",
            edgecolors=look.pop("color"),
            **look,
        )
        states.plot(range(1, STEPS + 1), each.states, **line(k))
        gradients.plot(each.gradients, **line(k))
        losses.plot([WINDOW * (j + 1) for j in range(len(each.losses))], each.losses, label=name, **line(k))
    losses.axhline(BLIND, color="0.55", linewidth=1, zorder=1)
    _name(plane, states, gradients, losses)
    return figure


def _name(plane: Axes, states: Axes, gradients: Axes, losses: Axes) -> None:
    plane.set(title="eigenvalues of W", xlabel="real part", ylabel="imaginary part", aspect="equal")
    states.set(title="state", xlabel="step t", ylabel="size of hₜ (root mean square)", yscale="log")
    gradients.set(
        title="gradient",
        xlabel="distance d from the loss (steps)",
        ylabel="‖dL/dh‖, as a share",
        yscale="log",
    )
    losses.set(
        title=f"adding problem, {LENGTH} steps", xlabel="updates", ylabel="squared error", yscale="log"
    )
    losses.legend()
