"""What experiments that train have in common: a recurrence with a readout, and a loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughtime.cells.cell import Cell
from throughtime.nn.recurrent import Recurrent

B = TypeVar("B")


class Readout(nn.Module):
    """V h_t + b after every step of a recurrence, or after its last step alone.

    inputs, outputs  features of x and of the answer, [B, T, inputs] to [B, T, outputs], or [B, outputs] where
                     only the last is read. Tokens [B, T] are read as one-hot vectors.
    generator        draws the first weights.
    """

    def __init__(
        self, cell: Cell, inputs: int, hidden: int, outputs: int, generator: torch.Generator, *, last: bool
    ) -> None:
        super().__init__()
        self.inputs, self.last = inputs, last
        self.recurrent = Recurrent(cell, inputs, hidden, generator=generator)
        self.output = nn.Linear(hidden, outputs)
        nn.init.xavier_uniform_(self.output.weight, generator=generator)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The answers to x."""
        if not x.is_floating_point():
            x = F.one_hot(x, self.inputs).to(self.output.weight.dtype)
        h, _ = self.recurrent(x)
        return self.output(h[:, -1] if self.last else h)


def train(
    model: nn.Module,
    draw: Callable[[], B],
    loss: Callable[[B], Tensor],
    steps: int,
    learning_rate: float = 3e-3,
    clip: float = 1.0,
) -> list[float]:
    """Train with Adam on a fresh batch at every step, and leave the model in evaluation; returns the losses.

    draw           makes a batch.
    learning_rate  the peak: it is reached after 5 % of the steps, and falls to nothing along a cosine.
    clip           the norm to which the gradient is clipped; a step at which it is not finite is left out.

    It runs on one thread: more are no faster for models of this size, and many times slower on busy cores.
    """
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    losses = []
    model.train()
    with one_thread():
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = learning_rate * _one_cycle((step + 0.5) / steps)
            optimizer.zero_grad()
            value = loss(draw())
            value.backward()
            if nn.utils.clip_grad_norm_(model.parameters(), clip).isfinite():
                optimizer.step()
            losses.append(value.item())
    model.eval()
    return losses


def _one_cycle(done: float, warm: float = 0.05) -> float:
    """The learning rate, as a share of its peak, when this share of the steps is done."""
    if done < warm:
        return done / warm
    return 0.5 + 0.5 * math.cos(math.pi * (done - warm) / (1 - warm))


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it torch has one thread; afterwards as many as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it torch's global generator begins at `seed`; afterwards it is where it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
