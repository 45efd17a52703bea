"""What is timed: the sizes, the two passes, and the tensors of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from throughtime.cells.cell import Cell
from throughtime.cells.initial import initial_weights
from throughtime.errors import ConfigError

#: train is forward and backward, infer is forward without gradients.
PASSES = ("train", "infer")


@dataclass(frozen=True)
class Size:
    """T steps of B rows with I features, and H units."""

    steps: int
    batch: int
    inputs: int
    hidden: int

    @classmethod
    def parse(cls, text: str) -> Size:
        """The size written as "T,B,I,H"; raises `ConfigError`."""
        parts = text.split(",")
        if len(parts) != 4 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            raise ConfigError(
                f'"{text}" is not a size: give steps, batch, inputs and hidden units, as in 50,64,128,128'
            )
        return cls(*map(int, parts))

    def __str__(self) -> str:
        return f"{self.steps},{self.batch},{self.inputs},{self.hidden}"


#: A language model's chunk, three larger ones, and a picture read pixel by pixel.
GRID = (
    Size(50, 64, 128, 128),
    Size(100, 32, 256, 256),
    Size(35, 20, 200, 200),
    Size(100, 64, 512, 512),
    Size(784, 32, 1, 100),
)


@dataclass(frozen=True)
class Problem:
    """A cell with the weights it begins with, normal x [T, B, I], and the gradient dy of y [T, B, H].

    Weights and x want gradients. `lengths` is None where every row is full.
    """

    cell: Cell
    size: Size
    weights: dict[str, Tensor]
    x: Tensor
    dy: Tensor
    lengths: Tensor | None = None

    @property
    def leaves(self) -> list[Tensor]:
        """What gradients are computed for."""
        return [self.x, *self.weights.values()]


def draw(cell: Cell, size: Size, half_padded: bool = False, seed: int = 0) -> Problem:
    """A problem in float32; the same seed gives the same one."""
    generator = torch.Generator().manual_seed(seed)
    weights = initial_weights(cell, size.inputs, size.hidden, generator)
    x = torch.randn(size.steps, size.batch, size.inputs, generator=generator)
    dy = torch.randn(size.steps, size.batch, size.hidden, generator=generator)
    lengths = spread_lengths(size, generator) if half_padded else None
    weights = {name: weight.requires_grad_() for name, weight in weights.items()}
    return Problem(cell, size, weights, x.requires_grad_(), dy, lengths)


def spread_lengths(size: Size, generator: torch.Generator | None = None) -> Tensor:
    """Lengths [B] spread evenly over 0 to T, in random order: half of all steps are padding.

    They are the middles of B equal parts of T, rounded up, so that none is zero.
    """
    middles = (torch.arange(size.batch) + 0.5) * size.steps / size.batch
    return middles.ceil().long()[torch.randperm(size.batch, generator=generator)]


def flops(cell: Cell, size: Size, kind: str) -> int:
    """Operations of the matrix products, and of nothing else: 2TB (n_x I + n_h H) H forward.

    n_x products take x and n_h another value. The backward pass has two products for each of them.
    """
    graph = cell.graph
    columns = len(graph.input_blocks) * size.inputs + len(graph.recurrent_blocks) * size.hidden
    forward = 2 * size.steps * size.batch * size.hidden * columns
    return 3 * forward if kind == "train" else forward


def distinct(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that can be timed, of those that differ only in how weights begin the first."""
    first: dict[object, Cell] = {}
    for cell in filter(can_be_timed, cells):
        first.setdefault(cell.equations, cell)
    return list(first.values())


def can_be_timed(cell: Cell) -> bool:
    """Whether x, the states and the weights are all that the cell needs: batch norm needs statistics too."""
    return not cell.graph.given
