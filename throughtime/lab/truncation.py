"""Backpropagation through time that goes back p steps from the loss and no further.

Of dL_T/dW = Σ_k ∂L_T/∂s_T · ∂s_T/∂s_k · ∂⁺s_k/∂W the terms with T - k <= p are kept: the state before step
T - p is taken as it is, without its gradient. Measured are the cosine and the relative error of what is left
against the full gradient, before training and after it, and what can be learned with it.

The task has one dependency, at distance d: the sign that was marked d steps before the end has to be told
among the signs of all other steps. d is more than the cell has units, so that its first weights, which keep
a trace of recent steps whatever they are, do not suffice to read it off.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughtime.cells.cell import Cell
from throughtime.lab.experiment import Claim, Finding, held
from throughtime.lab.training import Readout, train
from throughtime.nn.recurrent import Recurrent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: d, and the steps before the marked one.
DISTANCE, BEFORE = 20, 4
#: Steps that the gradient goes back in training; the last is all there are.
BACK = (0, 10, 15, 19, 20, 21, 24)
UNITS, ROWS, UPDATES, LEARNING_RATE = 16, 32, 500, 1e-2
#: Accuracies above and below which the task counts as learned, and as not learned; a coin has 0.5.
LEARNED, NOT_LEARNED, TEST_ROWS = 0.95, 0.65, 1000

Batch = tuple[Tensor, Tensor]


def run(seed: int, cells: list[Cell]) -> Finding:
    """Each cell: its gradients when it is new and when it has learned the task, and its accuracy by p."""
    gradients: dict[str, dict[str, list[tuple[float, float]]]] = {"new": {}, "trained": {}}
    accuracy: dict[str, dict[int, float]] = {}
    for cell in cells:
        model = new_model(cell, seed)
        gradients["new"][cell.name] = against_full(model, seed)
        accuracy[cell.name] = {}
        for p in BACK:
            model = trained(cell, p, seed)
            accuracy[cell.name][p] = measure(model, DISTANCE, seed)
        gradients["trained"][cell.name] = against_full(model, seed)
    rows = [
        {"cell": name, "weights": when, "back": p, "cosine": cosine, "error": error}
        for when, by_cell in gradients.items()
        for name, values in by_cell.items()
        for p, (cosine, error) in enumerate(values)
    ]
    rows += [
        {"cell": name, "back": p, "accuracy": value}
        for name, by_back in accuracy.items()
        for p, value in by_back.items()
    ]
    claims = [_direction(gradients), _far_enough(accuracy), _not_far_enough(accuracy)]
    return Finding(claims, rows, lambda: _draw(gradients, accuracy))


def draw_batch(distance: int, rows: int, generator: torch.Generator) -> Batch:
    """x [rows, T, 2], signs and the mark, and whether the marked sign is positive [rows], as 0 or 1."""
    signs = 2.0 * torch.randint(0, 2, (rows, BEFORE + 1 + distance), generator=generator) - 1
    mark = torch.zeros_like(signs)
    mark[:, BEFORE] = 1
    return torch.stack([signs, mark], dim=-1), (signs[:, BEFORE] > 0).to(signs.dtype)


def last_output(layer: Recurrent, x: Tensor, back: int) -> Tensor:
    """y of the last step, with the gradient through it and the `back` steps before it alone."""
    state, kept = None, back + 1
    if kept < x.shape[1]:
        with torch.no_grad():
            _, state = layer(x[:, :-kept])
    y, _ = layer(x[:, -kept:], state)
    return y[:, -1]


def loss_of(model: Readout, back: int, batch: Batch) -> Tensor:
    """The mean cross-entropy of the sign."""
    x, positive = batch
    logits = model.output(last_output(model.recurrent, x, back)).squeeze(-1)
    return F.binary_cross_entropy_with_logits(logits, positive)


def new_model(cell: Cell, seed: int) -> Readout:
    """A cell as it begins, with a readout."""
    return Readout(cell, 2, UNITS, 1, torch.Generator().manual_seed(seed), last=True)


def trained(cell: Cell, back: int, seed: int) -> Readout:
    """A model trained with gradients that go back so many steps."""
    model, generator = new_model(cell, seed), torch.Generator().manual_seed(seed + 1)
    draw = partial(draw_batch, DISTANCE, ROWS, generator)
    train(model, draw, partial(loss_of, model, back), UPDATES, LEARNING_RATE)
    return model


@torch.no_grad()
def measure(model: nn.Module, distance: int, seed: int) -> float:
    """The share of new sequences whose sign is told rightly."""
    x, positive = draw_batch(distance, TEST_ROWS, torch.Generator().manual_seed(seed + 2))
    return float(((model(x).squeeze(-1) > 0) == (positive > 0)).double().mean())


def against_full(model: Readout, seed: int) -> list[tuple[float, float]]:
    """For p = 0 ... T - 1: cosine and relative error of the truncated gradient of all weights of the cell."""
    model = model.double().eval()
    x, positive = draw_batch(DISTANCE, ROWS, torch.Generator().manual_seed(seed + 2))
    gradients = []
    for back in range(x.shape[1]):
        loss = loss_of(model, back, (x.double(), positive.double()))
        each = torch.autograd.grad(loss, list(model.recurrent.parameters()), materialize_grads=True)
        gradients.append(torch.cat([gradient.flatten() for gradient in each]))
    full = gradients[-1]
    return [
        (float(F.cosine_similarity(each, full, dim=0)), float((each - full).norm() / full.norm()))
        for each in gradients
    ]


def _direction(gradients: dict[str, dict[str, list[tuple[float, float]]]]) -> Claim:
    short = DISTANCE // 2
    cosines = {
        (name, when): values[short][0] for when, by in gradients.items() for name, values in by.items()
    }
    return Claim(
        "A gradient cut after a few steps points nearly where the full one does.",
        f"cosine with the full gradient at p = {short}, of new weights: "
        + ", ".join(f"{name} {value:.2f}" for (name, when), value in cosines.items() if when == "new")
        + f"; of weights that have learned to look {DISTANCE} steps back: "
        + ", ".join(f"{name} {value:.2f}" for (name, when), value in cosines.items() if when == "trained")
        + ".",
        held(all(value > 0.9 for value in cosines.values()), any(value > 0.9 for value in cosines.values())),
    )


def _far_enough(accuracy: dict[str, dict[int, float]]) -> Claim:
    enough = {name: {p: value for p, value in by.items() if p >= DISTANCE} for name, by in accuracy.items()}
    learned = [value > LEARNED for by in enough.values() for value in by.values()]
    return Claim(
        "A dependency at distance d is learned where the gradient goes back p >= d steps.",
        _by_back(enough) + ".",
        held(all(learned), part=any(learned)),
    )


def _not_far_enough(accuracy: dict[str, dict[int, float]]) -> Claim:
    cut = {name: {p: value for p, value in by.items() if p < DISTANCE} for name, by in accuracy.items()}
    not_learned = [value < NOT_LEARNED for by in cut.values() for value in by.values()]
    return Claim(
        "What lies further back than p cannot be learned.",
        f"{_by_back(cut)} (0.5 is chance). Above that, a trace of the sign stood in the state at the cut.",
        held(all(not_learned), part=any(not_learned)),
    )


def _by_back(accuracy: dict[str, dict[int, float]]) -> str:
    backs = ", ".join(map(str, next(iter(accuracy.values()))))
    return f"accuracy at d = {DISTANCE} with p = {backs}: " + "; ".join(
        f"{name} " + ", ".join(f"{value:.2f}" for value in by.values()) for name, by in accuracy.items()
    )


def _draw(
    gradients: dict[str, dict[str, list[tuple[float, float]]]], accuracy: dict[str, dict[int, float]]
) -> Figure:
    from throughtime.insight.figures import line, points, slide

    figure, (new, old, task) = slide(3, height=4.8, sharex=True)
    for panel, by_cell in ((new, gradients["new"]), (old, gradients["trained"])):
        for k, (name, values) in enumerate(by_cell.items()):
            panel.plot([cosine for cosine, _ in values], label=name, **line(k))
    for k, (name, by_back) in enumerate(accuracy.items()):
        task.plot(list(by_back), list(by_back.values()), label=name, **points(k))
    least = min(cosine for by in gradients.values() for values in by.values() for cosine, _ in values)
    limits = (min(least, 0.4) - 0.03, 1.03)
    new.set(title="gradient, new weights", ylabel="cosine with the full gradient", ylim=limits)
    old.set(title="gradient, trained weights", ylim=limits)
    task.set(title="trained with p steps back", ylabel="accuracy (share of signs)", ylim=(0.4, 1.03))
    for panel in (new, old, task):
        panel.axvline(DISTANCE, color="0.55", linewidth=1, zorder=1)
        panel.set_xlabel(f"p (steps back), d = {DISTANCE}")
    task.legend()
    return figure
