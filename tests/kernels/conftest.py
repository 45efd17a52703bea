"""What the tests of the kernels share: a recurrence with random numbers, its answer and its gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import pytest
import torch
from agreement import draw_given, given_at
from torch import Tensor

from throughtime.cells.cell import Cell
from throughtime.kernels.unroll import unroll

Run = tuple[Tensor, tuple[Tensor, ...]]


@dataclass(frozen=True)
class Problem:
    """The arguments of `unroll`; x, states and weights are leaves that want a gradient."""

    cell: Cell
    weights: dict[str, Tensor]
    x: Tensor
    state: tuple[Tensor, ...]
    given: dict[str, Tensor]

    @property
    def leaves(self) -> dict[str, Tensor]:
        return {"x": self.x, **dict(zip(self.cell.states, self.state, strict=True)), **self.weights}

    def run(
        self,
        backend: str,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        checkpoint_every: int | Literal["auto"] | None = None,
    ) -> Run:
        return unroll(
            self.cell,
            self.weights,
            self.x,
            self.state,
            lengths,
            reset,
            backend,
            checkpoint_every,
            self.given,
        )

    def piece(self, rows: slice, steps: slice, state: tuple[Tensor, ...], backend: str) -> Run:
        """Some full rows and steps by themselves, begun with `state`."""
        given = given_at(self.cell.graph, self.given, steps, rows)
        return unroll(self.cell, self.weights, self.x[steps, rows], state, backend=backend, given=given)

    def with_x(self, x: Tensor) -> Problem:
        return replace(self, x=x.detach().requires_grad_())

    def answer(self, run: Run) -> dict[str, Tensor]:
        """y, the final states, and the gradient of every leaf for a loss that weighs all of them."""
        y, final = run
        loss = sum((value.square() + value).sum() for value in (y, *final))
        gradients = torch.autograd.grad(loss, list(self.leaves.values()), materialize_grads=True)
        finals = {f"final {name}": value for name, value in zip(self.cell.states, final, strict=True)}
        return {"y": y, **finals, **{f"d {n}": g for n, g in zip(self.leaves, gradients, strict=True)}}


def draw_problem(
    cell: Cell,
    steps: int,
    batch: int,
    inputs: int,
    hidden: int,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Problem:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        return drawn.requires_grad_()

    shapes = cell.graph.weight_shapes(inputs, hidden)
    return Problem(
        cell,
        weights={
            name: (normal(*shape).detach() / hidden**0.5).requires_grad_() for name, shape in shapes.items()
        },
        x=normal(steps, batch, inputs),
        state=tuple(normal(batch, hidden) for _ in cell.states),
        given={
            name: value.to(dtype) if value.is_floating_point() else value
            for name, value in draw_given(cell.graph, steps, batch, hidden, generator).items()
        },
    )


@pytest.fixture(scope="session")
def draw() -> Callable[..., Problem]:
    """`draw(cell, T, B, I, H, seed, dtype)`: a problem with normal numbers and a nonzero initial state."""
    return draw_problem


@pytest.fixture
def nan_filled():
    """Memory that torch hands out uninitialised is full of NaN, so that no one can read it unnoticed."""
    torch.use_deterministic_algorithms(True)
    assert torch.zeros(1).new_empty(99).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def threads():
    """`torch.set_num_threads`, for this test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
