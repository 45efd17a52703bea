"""h_t = W h_{t-1}: after t steps h_t = W^t h_0 = Q Λ^t Q⁻¹ h_0, so the eigenvalues of W decide what is left.

What lies along an eigenvector shrinks or grows by its eigenvalue at every step: what is below 1 in absolute
value vanishes, what is above explodes. The spectral radius, the largest of them, wins in the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from throughtime.cells.cell import cell
from throughtime.kernels.unroll import unroll
from throughtime.lab.experiment import Claim, Finding, held

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The example: its eigenvalues are the golden ratio 1.618 and -0.618.
EXAMPLE = ((1.0, 1.0), (1.0, 0.0))
STEPS, UNITS = 10, 64
#: Spectral radii of the random matrices, and the steps these are taken for.
RADII, LONG = (0.9, 1.0, 1.1), 60


@cell(state="h")
def linear(x, s, w):  # type: ignore[no-untyped-def]
    """Linear recurrence (h_t = W h_{t-1} + U x_t)."""
    return w.h(x, s.h, bias=False)


def run(seed: int) -> Finding:
    """The tenth power of the 2 x 2 example, and random matrices of 64 units over 60 steps."""
    matrix = torch.tensor(EXAMPLE, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(matrix)
    power = torch.linalg.matrix_power(matrix, STEPS)
    by_cell = _by_the_recurrence(matrix)
    along = torch.stack(
        [(vectors.T @ torch.linalg.matrix_power(matrix, t)).norm(dim=1) for t in range(STEPS + 1)]
    )
    rows = [
        {"matrix": "example", "step": t, "eigenvalue": round(float(value), 3), "left": float(along[t, k])}
        for k, value in enumerate(values)
        for t in range(STEPS + 1)
    ]
    generator = torch.Generator().manual_seed(seed)
    growth = {radius: _growth(radius, generator) for radius in RADII}
    rows += [
        {"matrix": f"random, radius {radius:g}", "step": t, "eigenvalue": radius, "left": value}
        for radius, left in growth.items()
        for t, value in enumerate(left)
    ]
    golden, small = float(values[1]), float(values[0])
    wrong = float((by_cell - power).abs().max() / power.abs().max())
    grown = {radius: (left[-1] / left[-21]) ** (1 / 20) for radius, left in growth.items()}
    claims = [
        Claim(
            "[[1, 1], [1, 0]] has the eigenvalues -0.618 and 1.618; to the tenth power what lies along the "
            "first is 0.008 of what it was, along the second 123 times as much.",
            f"eigenvalues {small:.3f} and {golden:.3f}; factors {along[-1, 0]:.4f} and {along[-1, 1]:.2f}; "
            f"the recurrence run for ten steps differs from W^10 by {wrong:.0e} of it.",
            held(
                abs(float(along[-1, 0]) - 0.618034**10) < 1e-4
                and abs(float(along[-1, 1]) - 1.618034**10) < 1e-2
                and wrong < 1e-12
            ),
        ),
        Claim(
            "The spectral radius decides whether a product of Jacobians vanishes or explodes, at its rate.",
            "growth of ||W^t|| per step over the last 20 of 60 steps, "
            + ", ".join(f"radius {radius:g}: {rate:.3f}" for radius, rate in grown.items())
            + ".",
            held(all(abs(rate - radius) < 0.02 for radius, rate in grown.items())),
        ),
        Claim(
            "A radius below 1 lets every product shrink at once.",
            f"at radius 0.9 the largest ||W^t|| is {max(growth[0.9]):.2f}, at step "
            f"{growth[0.9].index(max(growth[0.9]))}: a matrix that is not normal may grow first.",
            held(max(growth[0.9]) <= 1.0, part=growth[0.9][-1] < 1.0),
        ),
    ]
    return Finding(claims, rows, lambda: _draw(values.tolist(), along.tolist(), growth))


def _by_the_recurrence(matrix: torch.Tensor) -> torch.Tensor:
    """W^10 by the recurrence itself: each row of h_0 is an axis."""
    weights = {"weight_ih": torch.zeros(2, 1, dtype=torch.float64), "weight_hh": matrix}
    x = torch.zeros(STEPS, 2, 1, dtype=torch.float64)
    _, (final,) = unroll(linear, weights, x, (torch.eye(2, dtype=torch.float64),))
    return final.T


def _growth(radius: float, generator: torch.Generator) -> list[float]:
    """||W^t|| for t = 0 ... 60 of a random W with this spectral radius."""
    matrix = torch.randn(UNITS, UNITS, generator=generator, dtype=torch.float64)
    matrix *= radius / torch.linalg.eigvals(matrix).abs().max()
    norms, power = [], torch.eye(UNITS, dtype=torch.float64)
    for _ in range(LONG + 1):
        norms.append(float(torch.linalg.matrix_norm(power, 2)))
        power = matrix @ power
    return norms


def _draw(values: list[float], along: list[list[float]], growth: dict[float, list[float]]) -> Figure:
    from throughtime.insight.figures import line, points, slide

    figure, (left, right) = slide(2)
    for k in (1, 0):
        left.plot([step[k] for step in along], label=f"along λ = {values[k]:.3f}", **points(1 - k))
    left.set(
        title="[[1, 1], [1, 0]] to the power t", xlabel="step t", ylabel="what is left of a vector (factor)"
    )
    for k, (radius, norms) in enumerate(growth.items()):
        right.plot(norms, label=f"spectral radius {radius:g}", **line(k))
    right.set(
        title=f"random matrix of {UNITS} units", xlabel="step t", ylabel="‖Wᵗ‖ (largest singular value)"
    )
    for panel in (left, right):
        panel.set_yscale("log")
        panel.legend()
    return figure
