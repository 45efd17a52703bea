"""The mean of a model's weights over the steps of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The mean of the parameters after each step since it began (Polyak & Juditsky 1992).

    Averaged stochastic gradient descent, with any optimiser in place of the descent: the noise of single
    steps is averaged out, so that the mean is often better than the last of the weights.

    values  the mean of each parameter.
    count   how many steps are in it.
    """

    def __init__(self, values: dict[str, Tensor], count: int) -> None:
        self.values, self.count = values, count

    @classmethod
    def begin(cls, model: nn.Module) -> Average:
        """A mean of no steps yet."""
        return cls({name: p.detach().clone() for name, p in model.named_parameters()}, 0)

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        """Take the present weights into the mean."""
        self.count += 1
        parameters = dict(model.named_parameters())
        torch._foreach_lerp_(
            list(self.values.values()), [parameters[name] for name in self.values], 1 / self.count
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
        for name, p in model.named_parameters():
            kept = p.detach().clone()
            p.copy_(self.values[name])
            self.values[name] = kept
