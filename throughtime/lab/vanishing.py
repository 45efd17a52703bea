"""How much of the gradient of a loss at the last step is left d steps before it, cell by cell.

dL/dh_{T-d} = dL/dh_T ∂h_T/∂h_{T-1} ... ∂h_{T-d+1}/∂h_{T-d}, a product of d Jacobians. That of the vanilla RNN
is diag(σ'(a_t)) W with σ' <= 1, so that ‖dL/dh_{T-d}‖ <= (‖W‖ max σ')^d ‖dL/dh_T‖.

The loss is a random projection of the last output, of cells as they begin. Every state that the equations
compute is measured by itself, the memory c of an LSTM too, relative to the gradient of the last output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from throughtime.cells.cell import Cell
from throughtime.cells.elman import rnn
from throughtime.lab.experiment import Claim, Finding, held
from throughtime.nn.recurrent import Recurrent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FURTHEST, ROWS, FEATURES, UNITS = 100, 32, 8, 64
#: Distances that the claims speak of, in steps.
NEAR, MIDDLE, FAR = 20, 50, 100
#: What is below this one step back is no gradient: the state is not carried, or its scale changes nothing.
ROUNDING = 1e-12
#: How many times as much of the gradient is much more.
MUCH = 10
#: Norms of the recurrent matrix of the vanilla RNN, which begins as an orthogonal matrix times this.
NORMS = (0.5, 1.0, 1.5, 2.0)

#: What is left at distance 0, 1, ... of the gradient of the last output, by state.
Left = dict[str, list[float]]


def run(seed: int, cells: list[Cell]) -> Finding:
    """Each cell as it begins, and the vanilla RNN with recurrent matrices of several norms."""
    by_cell = {cell.name: gradient_left(cell, seed) for cell in cells}
    by_norm = {norm: gradient_left(rnn, seed, norm)["h"] for norm in NORMS}
    vanilla = by_norm[1.0]
    claims = [_shrinks(vanilla), _bounded(by_norm), _explodes(by_norm)]
    if others := {name: left for name, left in by_cell.items() if name != rnn.name}:
        claims.append(_more_than(vanilla, others))
    if identities := {
        cell.name: by_cell[cell.name] for cell in cells if cell.initial.recurrent == "identity"
    }:
        claims.append(_constant(identities))
    curves = {f"{name}, {state}": left for name, states in by_cell.items() for state, left in states.items()}
    rows = [
        {"what": what, "distance": distance, "left": value}
        for what, left in (curves | {f"rnn, ‖W‖ = {norm:g}": left for norm, left in by_norm.items()}).items()
        for distance, value in enumerate(left)
    ]
    return Finding(claims, rows, lambda: _draw(curves, by_norm))


def gradient_left(cell: Cell, seed: int, factor: float = 1.0) -> Left:
    """‖dL/ds_{T-d}‖ / ‖dL/dy_T‖ for d = 0 ... of each state s that is carried, `factor` times its W."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, FURTHEST + 1, FEATURES, generator=generator).double()
    direction = torch.randn(ROWS, UNITS, generator=generator).double()
    layer = Recurrent(cell, FEATURES, UNITS, generator=generator).double().eval()
    if factor != 1.0:
        layer.get_parameter("weight_hh_l0").data *= factor
    left: Left = {}
    for state in cell.graph.driven:

        def keep(gradient: Tensor, state: str = state) -> None:
            left[state] = (gradient.norm(dim=(0, 2)).flip(0) / direction.norm()).tolist()

        layer.register_state_hook(keep, state)
    y, _ = layer(x)
    (y[:, -1] * direction).sum().backward()
    return {state: left[state] for state in cell.graph.driven if left[state][1] > ROUNDING}


def decay(left: Sequence[float]) -> tuple[float, float]:
    """The factor per step of the line through log(left), and the share R² of its variance on that line."""
    logs = torch.tensor(left, dtype=torch.float64).log()
    both = torch.stack([torch.arange(len(left), dtype=torch.float64), logs])
    slope = torch.cov(both)[0, 1] / both[0].var()
    return math.exp(slope), float(torch.corrcoef(both)[0, 1] ** 2)


def _shrinks(vanilla: list[float]) -> Claim:
    rate, straight = decay(vanilla)
    return Claim(
        "In a vanilla RNN the gradient shrinks exponentially with the distance from the loss.",
        f"{_numbers(vanilla)} of it is left after {NEAR}, {MIDDLE} and {FAR} steps; a line through its "
        f"logarithm falls by the factor {rate:.3f} per step, R² = {straight:.3f}.",
        held(rate < 1 and straight > 0.98, part=rate < 1),
    )


def _bounded(by_norm: dict[float, list[float]]) -> Claim:
    ratios = {
        norm: max(value / norm**distance for distance, value in enumerate(left) if distance > 0)
        for norm, left in by_norm.items()
    }
    least = min(by_norm)
    return Claim(
        "It is bounded by (‖W‖ max σ')^d, so that it must vanish where ‖W‖ max σ' < 1.",
        "its largest ratio to the bound is "
        + ", ".join(f"{ratio:.2f} at ‖W‖ = {norm:g}" for norm, ratio in ratios.items())
        + f"; at ‖W‖ = {least:g} {by_norm[least][FAR]:.0e} is left after {FAR} steps, by the bound at most "
        f"{least**FAR:.0e}.",
        held(all(ratio < 1 + 1e-9 for ratio in ratios.values())),
    )


def _explodes(by_norm: dict[float, list[float]]) -> Claim:
    large = {norm: left[FAR] for norm, left in by_norm.items() if norm > 1}
    return Claim(
        "Where ‖W‖ max σ' > 1 the gradient explodes.",
        f"what is left after {FAR} steps is "
        + ", ".join(f"{value:.2g} at ‖W‖ = {norm:g}" for norm, value in large.items())
        + ": a norm above 1 is needed but is not enough, as σ' < 1 wherever a unit is not at 0.",
        held(all(value > 1 for value in large.values()), part=any(value > 1 for value in large.values())),
    )


def _more_than(vanilla: list[float], others: dict[str, Left]) -> Claim:
    best = {
        f"{name} by {state}": left
        for name, states in others.items()
        for state, left in sorted(states.items(), key=lambda item: -item[1][MIDDLE])[:1]
    }
    more = [left[MIDDLE] > MUCH * vanilla[MIDDLE] for left in best.values()]
    return Claim(
        "Gates, or a matrix that begins as the identity, keep much more of it than a vanilla RNN does.",
        f"left after {NEAR}, {MIDDLE} and {FAR} steps, of cells as they begin: "
        + "; ".join(f"{name} {_numbers(left)}" for name, left in ({"rnn by h": vanilla} | best).items())
        + f". Much more is {MUCH} times as much after {MIDDLE} steps.",
        held(bool(more) and all(more), part=any(more)),
    )


def _constant(identities: dict[str, Left]) -> Claim:
    left = min(
        (left for states in identities.values() for left in states.values()), key=lambda left: left[FAR]
    )
    return Claim(
        "With the identity as its recurrent matrix a ReLU RNN passes the gradient back unchanged.",
        f"{left[NEAR]:.2f}, {left[MIDDLE]:.2f} and {left[FAR]:.2f} of it is left after {NEAR}, {MIDDLE} and "
        f"{FAR} steps: the matrix keeps it, but a unit that the ReLU set to 0 at a step between lets none "
        "through.",
        held(abs(left[FAR] - 1) < 0.1, part=left[FAR] > 0.1),
    )


def _numbers(left: Sequence[float]) -> str:
    values = ", ".join(f"{left[distance]:.1e}" for distance in (NEAR, MIDDLE, FAR))
    rate = (left[FAR] / left[MIDDLE]) ** (1 / (FAR - MIDDLE)) if left[MIDDLE] > 0 else 0.0
    return f"{values} ({rate:.2f} per step at last)"


def _draw(curves: dict[str, list[float]], by_norm: dict[float, list[float]]) -> Figure:
    from throughtime.insight.figures import line, slide

    figure, (cells, norms) = slide(2)
    for k, (name, left) in enumerate(curves.items()):
        cells.plot(left, label=name, **line(k))
    for k, (norm, left) in enumerate(by_norm.items()):
        norms.plot(left, label=f"‖W‖ = {norm:g}", **line(k))
    for norm in by_norm:
        bound = [norm**distance for distance in range(FURTHEST + 1)]
        label = "bounds ‖W‖ᵈ" if norm == max(by_norm) else None
        norms.plot(bound, color="0.55", linewidth=1, zorder=1, label=label)
    cells.set(title="cells as they begin: cell, state", ylabel="‖dL/ds‖ at distance d, as a share of ‖dL/dy‖")
    norms.set(title="vanilla RNN, W = ‖W‖ times orthogonal")
    for panel in (cells, norms):
        panel.set_yscale("log")
        panel.set_xlabel("distance d from the loss (steps)")
        many = len(panel.lines) // 12
        panel.legend(ncols=1 + many, fontsize="xx-small" if many else None)
    return figure
