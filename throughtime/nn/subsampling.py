"""Fewer steps for a recurrence: a strided convolution over time that looks back and never ahead."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from throughtime.cells.initial import glorot
from throughtime.nn.options import check_sizes


class Subsampling(nn.Module):
    """y_j = relu(W [x_{js-k+1} ; ... ; x_{js}] + b): a convolution of k = 2s + 1 steps with stride s.

    Steps before the first are zeros. y_j is known as soon as x_{js} is: of T steps there are ceil(T / s),
    whatever comes after them, so that padding at the end changes none of them and a stream gives the same.

    features    of x.
    outputs     features of y.
    stride      s; with 1 the number of steps stays.
    """

    def __init__(
        self, features: int, outputs: int, stride: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        check_sizes(features=features, outputs=outputs, stride=stride)
        self.features, self.stride, self.width = features, stride, 2 * stride + 1
        self.project = nn.Linear(features * self.width, outputs)
        self.project.weight.data = glorot(outputs, features * self.width, generator)
        nn.init.zeros_(self.project.bias)

    def lengths(self, lengths: Int[Tensor, "*B"]) -> Int[Tensor, "*B"]:
        """How many steps there are of so many."""
        return (lengths + self.stride - 1) // self.stride

    def begin(self, batch: int) -> Float[Tensor, "B K M"]:
        """The steps before the first that the first output looks at."""
        return self.project.weight.new_zeros(batch, self.width - 1, self.features)

    def forward(
        self, x: Float[Tensor, "B T M"], before: Float[Tensor, "B K M"] | None = None
    ) -> tuple[Float[Tensor, "B S O"], Float[Tensor, "B K M"]]:
        """The outputs that x completes, and the steps from where the next one begins to look.

        `before` is what an earlier call returned second, or `begin`.
        """
        x = torch.cat([self.begin(len(x)) if before is None else before, x], 1)
        count = max(0, (x.shape[1] - self.width) // self.stride + 1)
        rest = x[:, count * self.stride :]
        if not count:
            return x.new_zeros(len(x), 0, self.project.out_features), rest
        windows = x.unfold(1, self.width, self.stride).transpose(2, 3).flatten(2)
        return self.project(windows).relu(), rest
