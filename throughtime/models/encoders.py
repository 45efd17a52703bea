"""A sequence to one vector, in the ways that differ in what they keep of it.

Each reads vectors [B, T, E] with `lengths` [B] and gives [B, F]; `throughtime.nn.Pooling("mean", E)`, the
bag of words, is one of them too. Padding is not read, and a sequence without steps gives a constant.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from throughtime.nn.pooling import Kind, Pooling
from throughtime.nn.recurrent import Recurrent
from throughtime.nn.transformer import TransformerEncoder


class Window(nn.Module):
    """h = relu(Σ_p W_p x_{n-p} + b) over the last `size` of n steps (Bengio et al. 2003).

    Each place p, counted from the end, has a matrix of its own: what is learned of a word at one place says
    nothing of it at another, and what stands before the window is not seen. Places before the first step
    hold zeros.
    """

    def __init__(self, features: int, size: int, hidden: int) -> None:
        super().__init__()
        self.size = size
        self.linear = nn.Linear(size * features, hidden)

    def forward(self, x: Float[Tensor, "B T E"], lengths: Int[Tensor, "B"]) -> Float[Tensor, "B F"]:
        """One vector for each row of x."""
        size = min(self.size, x.shape[1])  # what no row of the batch reaches holds zeros
        places = lengths[:, None] + torch.arange(size, device=x.device)
        before = F.pad(x, (0, 0, size, 0))
        seen = before.gather(1, places[..., None].expand(-1, -1, x.shape[2]))
        weight = self.linear.weight[:, (self.size - size) * x.shape[2] :]
        return F.linear(seen.flatten(1), weight, self.linear.bias).relu()


class RecurrentEncoder(nn.Module):
    """A recurrence, and a pooling of what it puts out at each step."""

    def __init__(self, recurrence: Recurrent, pooling: Kind = "last") -> None:
        super().__init__()
        self.recurrence = recurrence
        halves = recurrence.bidirectional and recurrence.merge == "concat"
        self.pooling = Pooling(pooling, recurrence.output_size, bidirectional=halves)

    def forward(self, x: Float[Tensor, "B T E"], lengths: Int[Tensor, "B"]) -> Float[Tensor, "B F"]:
        """One vector for each row of x."""
        y, _ = self.recurrence(x, lengths=lengths)
        return self.pooling(y, lengths)


class TransformerMean(nn.Module):
    """The mean of what a transformer puts out at each step."""

    def __init__(self, transformer: TransformerEncoder) -> None:
        super().__init__()
        self.transformer = transformer
        self.pooling = Pooling("mean", transformer.features)

    def forward(self, x: Float[Tensor, "B T E"], lengths: Int[Tensor, "B"]) -> Float[Tensor, "B E"]:
        """One vector for each row of x."""
        return self.pooling(self.transformer(x, lengths), lengths)


class FeedForward(nn.Sequential):
    """h_k = dropout(relu(W_k h_{k-1} + b_k)) for each of `layers`, h_0 a row of numbers [B, columns]."""

    def __init__(self, columns: int, hidden: int, layers: int = 1, dropout: float = 0.0) -> None:
        widths = [columns] + [hidden] * layers
        parts: list[nn.Module] = []
        for below, above in pairwise(widths):
            parts += [nn.Linear(below, above), nn.ReLU(), nn.Dropout(dropout)]
        super().__init__(*parts[:-1])
