"""The mean of a model's weights over the steps of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn


class Average:
    """The mean of the weights after each step since it began (Polyak & Juditsky 1992).

    Averaged stochastic gradient descent, with any optimiser in place of the descent: the noise of single
    steps is averaged out, so that the mean is often better than the last of the weights.

    values  the mean of each parameter, and of each buffer of floating point numbers: running statistics.
    count   how many steps are in it.
    """

    def __init__(self, values: dict[str, Tensor], count: int) -> None:
        self.values, self.count = values, count

    @classmethod
    def begin(cls, model: nn.Module) -> Average:
        """A mean of no steps yet."""
        return cls({name: value.detach().clone() for name, value in _floats(model).items()}, 0)

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        """Take the present weights into the mean."""
        self.count += 1
        weights = _floats(model)
        # A checkpoint brings the means back on the processor.
        self.values = {name: mean.to(weights[name].device) for name, mean in self.values.items()}
        torch._foreach_lerp_(
            list(self.values.values()), [weights[name] for name in self.values], 1 / self.count
        )

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """The model with the mean as its weights for a while."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        weights = _floats(model)
        for name, mean in self.values.items():
            self.values[name] = weights[name].detach().clone()
            weights[name].copy_(mean)


def _floats(model: nn.Module) -> dict[str, Tensor]:
    named = chain(model.named_parameters(), model.named_buffers())
    return {name: value for name, value in named if value.is_floating_point()}
