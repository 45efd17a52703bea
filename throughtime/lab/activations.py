"""The derivatives of tanh, the sigmoid and ReLU, and what is left of their product over many steps.

tanh' = 1 - tanh² <= 1, σ' = σ (1 - σ) <= 1/4, and ReLU' is 0 or 1. One of them stands in every Jacobian
diag(f'(a_t)) W of a recurrence h_t = f(a_t), a_t = W h_{t-1} + U x_t. The product of f'(a_t) over the steps,
unit by unit, says what the activation alone leaves of a gradient on its way back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from throughtime.cells.initial import glorot, orthogonal
from throughtime.lab.experiment import Claim, Finding, held

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "ReLU": torch.relu,
}
#: The largest value of each derivative, as it is taught.
LARGEST = {"tanh": 1.0, "sigmoid": 0.25, "ReLU": 1.0}
STEPS, ROWS, FEATURES, UNITS = 50, 64, 8, 64
#: The times the input weights are larger in the recurrence that saturates.
SATURATING = 10.0
#: Where the derivatives are drawn, and how finely.
REACH, POINTS = 5.0, 1001
SATURATED = f"tanh, U x {SATURATING:g}"


def run(seed: int) -> Finding:
    """The derivatives on a grid, and their products over 50 steps of a recurrence on normal inputs."""
    grid = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)
    curves = {name: derivative(f, grid) for name, f in ACTIVATIONS.items()}
    slopes = {name: slopes_of(f, seed) for name, f in ACTIVATIONS.items()}
    slopes[SATURATED] = slopes_of(torch.tanh, seed, SATURATING)
    products = {name: each.cumprod(0) for name, each in slopes.items()}
    left = {name: each.mean(dim=(1, 2)).tolist() for name, each in products.items()}
    rows = [
        {"activation": name, "steps": t, "left": value}
        for name, values in left.items()
        for t, value in enumerate(values, start=1)
    ]
    claims = [_largest(curves), _bounded(products, left), _open(products["ReLU"], left), _saturates(slopes)]
    return Finding(claims, rows, lambda: _draw(grid, curves, left))


def derivative(activation: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
    """f'(a) at every point, by autograd."""
    a = a.detach().requires_grad_()
    return torch.autograd.grad(activation(a).sum(), a)[0]


def slopes_of(activation: Callable[[Tensor], Tensor], seed: int, factor: float = 1.0) -> Tensor:
    """f'(a_t) [T, B, H] from the last step back, with an orthogonal W and `factor` times a Glorot U."""
    generator = torch.Generator().manual_seed(seed)
    w = orthogonal(UNITS, UNITS, generator).double()
    u = factor * glorot(UNITS, FEATURES, generator).double()
    x = torch.randn(STEPS, ROWS, FEATURES, generator=generator).double()
    h, slopes = torch.zeros(ROWS, UNITS, dtype=torch.float64), []
    for x_t in x:
        a = h @ w.T + x_t @ u.T
        slopes.append(derivative(activation, a))
        h = activation(a)
    return torch.stack(slopes).flip(0)


def _largest(curves: dict[str, Tensor]) -> Claim:
    found = {name: float(curve.max()) for name, curve in curves.items()}
    return Claim(
        "The largest derivative is 1 for tanh, 1/4 for the sigmoid and 1 for ReLU.",
        f"at {POINTS} points from {-REACH:g} to {REACH:g}: "
        + ", ".join(f"{name} {value:.4f}" for name, value in found.items())
        + ".",
        held(all(abs(found[name] - largest) < 1e-6 for name, largest in LARGEST.items())),
    )


def _bounded(products: dict[str, Tensor], left: dict[str, list[float]]) -> Claim:
    bound = LARGEST["sigmoid"] ** torch.arange(1, STEPS + 1)[:, None, None].double()
    return Claim(
        "A sigmoid shrinks a gradient by 4 or more at every step; tanh, with 1 at best, shrinks it less.",
        f"mean product over 10 and {STEPS} steps: "
        + ", ".join(f"{name} {left[name][9]:.0e} and {left[name][-1]:.0e}" for name in ("sigmoid", "tanh"))
        + f"; (1/4)^{STEPS} is {float(bound[-1]):.0e}.",
        held(bool((products["sigmoid"] <= bound).all()) and left["tanh"][-1] > left["sigmoid"][-1]),
    )


def _open(relu: Tensor, left: dict[str, list[float]]) -> Claim:
    open_or_shut = bool(((relu == 0) | (relu == 1)).all())
    means = left["ReLU"]
    return Claim(
        "ReLU does not shrink a gradient: its derivative is 1 wherever the unit is active.",
        f"every product is {'exactly 0 or 1' if open_or_shut else 'not 0 or 1'}, but the share of units "
        f"that are active is {means[0]:.2f} at a step, {means[9]:.1e} at all of 10 steps and {means[-1]:.1e} "
        f"at all of {STEPS}; what tanh leaves over {STEPS} steps is {left['tanh'][-1]:.1e}.",
        held(open_or_shut and means[-1] > 0.5, part=open_or_shut),
    )


def _saturates(slopes: dict[str, Tensor]) -> Claim:
    usual, large = float(slopes["tanh"].mean()), float(slopes[SATURATED].mean())
    return Claim(
        "Large inputs saturate tanh, and a saturated unit passes next to no gradient.",
        f"mean derivative {usual:.2f} as it begins, {large:.2f} with input weights {SATURATING:g} times as "
        f"large, where {float((slopes[SATURATED] < 0.01).double().mean()):.0%} of all derivatives are below "
        f"0.01 (as it begins {float((slopes['tanh'] < 0.01).double().mean()):.0%}).",
        held(large < 0.5 * usual),
    )


def _draw(grid: Tensor, curves: dict[str, Tensor], left: dict[str, list[float]]) -> Figure:
    from throughtime.insight.figures import line, slide

    figure, (shapes, products) = slide(2)
    for k, (name, curve) in enumerate(curves.items()):
        shapes.plot(grid.tolist(), curve.tolist(), label=f"{name}′", **line(k))
    for k, (name, values) in enumerate(left.items()):
        products.plot(range(1, STEPS + 1), values, label=name, **line(k))
    shapes.set(title="derivative", xlabel="input a", ylabel="f′(a)", ylim=(-0.03, 1.3))
    products.set(
        title="product over a recurrence", xlabel="steps back", ylabel="mean product of f′(aₜ)", yscale="log"
    )
    shapes.legend(loc="upper left", ncols=2)
    products.legend()
    return figure
