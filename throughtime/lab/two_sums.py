"""Backpropagation through time as two sums, over the steps t of the loss and the steps k of the state:

dL/dW = Σ_t Σ_{k<=t} ∂L_t/∂s_t · ∂s_t/∂s_k · ∂⁺s_k/∂W,    ∂s_t/∂s_k = ∂s_t/∂s_{t-1} ... ∂s_{k+1}/∂s_k.

∂⁺ is the immediate derivative, with s_{k-1} held fixed, and s all states of the cell together. Each term is
computed by itself, by the Jacobians of single steps, one after the other. Their sum must be what autograd
finds for the whole sequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from throughtime.cells.cell import Cell
from throughtime.lab.experiment import Claim, Finding, held
from throughtime.nn.recurrent import Recurrent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS, ROWS, FEATURES, UNITS = 24, 4, 3, 16
#: What the sum may differ from autograd's gradient, as a share of it.
EQUAL = 1e-10
#: Terms within this many steps of their loss are near.
NEAR = 5


class Sums(NamedTuple):
    """The norms [t, k] of all terms, their sum, and the gradient of autograd, both over all weights."""

    norms: Tensor
    total: Tensor
    autograd: Tensor


def run(seed: int, cells: list[Cell]) -> Finding:
    """All terms for each cell as it begins, with a squared error at every step."""
    sums = {cell.name: two_sums(cell, seed) for cell in cells}
    rows = [
        {"cell": name, "loss step": t, "state step": k, "norm": float(each.norms[t, k])}
        for name, each in sums.items()
        for t in range(STEPS)
        for k in range(t + 1)
    ]
    wrong = {name: float((s.total - s.autograd).norm() / s.autograd.norm()) for name, s in sums.items()}
    near = {name: near_share(each.norms) for name, each in sums.items()}
    claims = [
        Claim(
            "The gradient is the sum over all pairs of a loss step and a state step before it.",
            f"the sum of {STEPS * (STEPS + 1) // 2} terms differs from autograd's gradient, as a share of "
            "its norm, by " + ", ".join(f"{value:.0e} for {name}" for name, value in wrong.items()) + ".",
            held(all(value < EQUAL for value in wrong.values())),
        ),
        Claim(
            "The terms get smaller with the distance t - k, so that near steps make up nearly all of it.",
            f"terms with t - k < {NEAR} have this share of the sum of all norms: "
            + ", ".join(f"{name} {share:.2f}" for name, share in near.items())
            + f"; they are {near_share(torch.ones(STEPS, STEPS).tril()):.2f} of all terms.",
            held(
                all(share > 0.9 for share in near.values()), part=any(share > 0.9 for share in near.values())
            ),
        ),
    ]
    return Finding(claims, rows, lambda: _draw({name: each.norms for name, each in sums.items()}))


def two_sums(cell: Cell, seed: int) -> Sums:
    """Every term by itself, by products with the Jacobians of single steps from the last step back.

    The loss of step t is half the squared error of y_t against noise, mean over the rows.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, STEPS, FEATURES, generator=generator).double()
    target = torch.randn(ROWS, STEPS, UNITS, generator=generator).double()
    layer = Recurrent(cell, FEATURES, UNITS, backend="reference", generator=generator).double().eval()
    weights = list(layer.parameters())
    y, _ = layer(x)
    loss = 0.5 * (y - target).square().sum() / ROWS
    autograd = _flat(torch.autograd.grad(loss, weights, materialize_grads=True))
    before = _states_before(layer, x)
    norms, total = torch.zeros(STEPS, STEPS), torch.zeros_like(autograd)
    adjoints: dict[int, tuple[Tensor, ...]] = {}  # by t: ∂L_t/∂s_k, k the step the loop is at
    for k in reversed(range(STEPS)):
        _, (after,) = layer(x[:, k : k + 1], (before[k],))
        error = (after[0].detach() - target[:, k]) / ROWS
        adjoints[k] = (error, *(torch.zeros_like(state) for state in after[1:]))
        for t, adjoint in adjoints.items():
            products = torch.autograd.grad(
                after, [*before[k], *weights], adjoint, retain_graph=True, materialize_grads=True
            )
            adjoints[t] = products[: len(after)]
            term = _flat(products[len(after) :])
            norms[t, k] = term.norm()
            total += term
    return Sums(norms, total, autograd)


def near_share(norms: Tensor) -> float:
    """The share of terms [t, k] with t - k < NEAR in the sum of all norms."""
    return float(norms.triu(1 - NEAR).sum() / norms.sum())


def _states_before(layer: Recurrent, x: Tensor) -> list[tuple[Tensor, ...]]:
    """The states before each step, cut off from those before them."""
    before = [layer.begin(ROWS)[0]]
    for t in range(STEPS - 1):
        before.append(layer(x[:, t : t + 1], (before[-1],))[1][0])
    return [tuple(state.detach().requires_grad_() for state in states) for states in before]


def _flat(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


def _draw(norms: dict[str, Tensor]) -> Figure:
    from matplotlib.colors import LogNorm

    from throughtime.insight.figures import SEQUENTIAL, slide

    largest = max(float(each.max()) for each in norms.values())
    scale = LogNorm(largest * 1e-4, largest)
    columns = min(len(norms), 3)
    rows = -(-len(norms) // columns)
    figure, panels = slide(columns, rows, height=1.4 + 3.5 * rows, sharex=True, sharey=True)
    for panel in panels[len(norms) :]:
        panel.remove()
    for panel, (name, each) in zip(panels, norms.items(), strict=False):
        shown = torch.where(torch.ones_like(each).tril() > 0, each.clamp(min=scale.vmin), torch.nan)
        image = panel.imshow(shown.numpy(), norm=scale, cmap=SEQUENTIAL, origin="lower")
        panel.set(title=name, xlabel="step k of the state")
        panel.grid(visible=False)
    for panel in panels[::columns]:
        panel.set_ylabel("step t of the loss")
    figure.colorbar(
        image,
        ax=panels[: len(norms)],
        location="bottom",
        extend="min",
        aspect=40,
        label="norm of the term (t, k) of dL/dW",
    )
    return figure
