"""Whether a backend may be timed: its outputs, final states and all gradients beside `reference`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from throughtime.bench.problems import Size
from throughtime.cells.cell import Cell
from throughtime.cells.initial import initial_weights
from throughtime.errors import ThroughTimeError
from throughtime.kernels.unroll import unroll

#: Awkward for blocks of rows and for vectors: some whole ones, and a rest.
SIZE = Size(steps=7, batch=21, inputs=13, hidden=37)
#: How far the answer in each type may be from `reference` in float64, as a share of max(1, largest value).
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4}


@dataclass(frozen=True)
class Comparison:
    """The largest error of a backend beside its tolerance, and where it stands.

    `refusal` says why the backend may not be timed, or is None.
    """

    error: float
    where: str
    refusal: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the backend may be timed."""
        return self.refusal is None

    def as_json(self) -> dict[str, bool | float | str | None]:
        """The comparison in numbers; an error that is not finite is None."""
        error = self.error if math.isfinite(self.error) else None
        return {"ok": self.ok, "worst_error": error, "where": self.where}


def compare(cell: Cell, backend: str, seed: int = 0) -> Comparison:
    """Compare a backend with `reference`: full rows and unequal lengths, float64 and float32, both passes."""
    worst = (-1.0, 0.0, "")
    weights, x, state, cotangents = _draw(cell, seed)
    for lengths in (None, _lengths()):
        kind = "full rows" if lengths is None else "lengths"
        truth = _answer(cell, "reference", weights, x, state, cotangents, lengths, torch.float64)
        for dtype, tolerance in TOLERANCES.items():
            try:
                given = _answer(cell, backend, weights, x, state, cotangents, lengths, dtype)
            except (ThroughTimeError, RuntimeError) as failure:
                return Comparison(math.inf, kind, f"{backend} does not run ({kind}): {failure}")
            for name, value in given.items():
                error = _error(value, truth[name])
                where = f"{name}, {str(dtype).removeprefix('torch.')}, {kind}"
                if not error <= tolerance:
                    return Comparison(error, where, f"{backend} is off reference by {error:.1e} ({where})")
                worst = max(worst, (error / tolerance, error, where))
    return Comparison(worst[1], worst[2])


def _draw(cell: Cell, seed: int) -> tuple[dict[str, Tensor], Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Weights a little off how they begin, x, a nonzero state, and gradients of y and the final states."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    weights = {
        name: weight + 0.1 * normal(*weight.shape)
        for name, weight in initial_weights(cell, SIZE.inputs, SIZE.hidden, generator).items()
    }
    state = tuple(normal(SIZE.batch, SIZE.hidden) for _ in cell.states)
    cotangents = (
        normal(SIZE.steps, SIZE.batch, SIZE.hidden),
        *(normal(SIZE.batch, SIZE.hidden) for _ in cell.states),
    )
    return weights, normal(SIZE.steps, SIZE.batch, SIZE.inputs), state, cotangents


def _lengths() -> Tensor:
    """0 to T and back, all of them, in no order that a backend could count on."""
    return torch.arange(SIZE.batch) * 3 % (SIZE.steps + 1)


def _answer(
    cell: Cell,
    backend: str,
    weights: dict[str, Tensor],
    x: Tensor,
    state: tuple[Tensor, ...],
    cotangents: tuple[Tensor, ...],
    lengths: Tensor | None,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """y and the final states, with gradients and without, and all gradients, by name."""

    def leaf(value: Tensor) -> Tensor:
        return value.detach().to(dtype).requires_grad_()

    leaves = {"x": leaf(x), **{name: leaf(weight) for name, weight in weights.items()}}
    begin = tuple(map(leaf, state))
    own = {name: leaves[name] for name in weights}
    y, final = unroll(cell, own, leaves["x"], begin, lengths, backend=backend)
    with torch.no_grad():
        again, final_again = unroll(cell, own, leaves["x"], begin, lengths, backend=backend)
    wanted = {**leaves, **{f"initial {name}": value for name, value in zip(cell.states, begin, strict=True)}}
    gradients = torch.autograd.grad(
        (y, *final), list(wanted.values()), [c.to(dtype) for c in cotangents], materialize_grads=True
    )
    names = ["y", *(f"final {name}" for name in cell.states)]
    return {
        **dict(zip(names, (y, *final), strict=True)),
        **{f"{n} without gradients": v for n, v in zip(names, (again, *final_again), strict=True)},
        **{f"gradient of {name}": value for name, value in zip(wanted, gradients, strict=True)},
    }


def _error(value: Tensor, truth: Tensor) -> float:
    """The largest difference, as a share of the largest value or of 1; NaN where either holds one."""
    return ((value.double() - truth).abs().max() / truth.abs().max().clamp(min=1)).item()
