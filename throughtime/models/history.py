"""What stood before each step, in the ways that are no recurrence: each loses something that one keeps.

They are called as `throughtime.nn.Recurrent` is, `y, state = history(x, state, lengths, reset)`, and keep the
same promises: the answer depends neither on padding nor on the pieces that a sequence is fed in.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from throughtime.nn.masks import padding_mask
from throughtime.nn.options import check_sizes
from throughtime.nn.state import State


class WindowHistory(nn.Module):
    """h_t = relu(Σ_p W_p x_{t-p} + b), p = 0 .. size - 1, within the document (Bengio et al. 2003).

    What stands before the window is not seen, and what is learned of a word at one place says nothing of it
    at another.
    """

    def __init__(self, features: int, hidden: int, size: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_sizes(features=features, hidden=hidden, size=size)
        self.features, self.size = features, size
        self.linear = nn.Linear(size * features, hidden)
        self.dropout = nn.Dropout(dropout)

    def begin(self, batch: int) -> State:
        """The state before the first step: the window before it, and how much of that is of its document."""
        past = self.linear.weight.new_zeros(batch, self.size - 1, self.features)
        return ((past, torch.zeros(batch, dtype=torch.long, device=past.device)),)

    def forward(
        self,
        x: Float[Tensor, "B T E"],
        state: State | None = None,
        lengths: Int[Tensor, "B"] | None = None,
        reset: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T H"], State]:
        """y of all steps, zero in padding, and the state after the last real one of each row."""
        [(past, lived)] = self.begin(len(x)) if state is None else state
        ends, padding = _ends(x, lengths)
        x = self.dropout(x).masked_fill(padding, 0)
        starts = _document_starts(x, lived, reset)
        age = torch.arange(x.shape[1], device=x.device) - starts
        steps = torch.cat([past, x], 1)
        y = self.linear.bias.expand(*x.shape[:2], -1)
        for p, weight in enumerate(self.linear.weight.split(self.features, 1)):
            shifted = steps[:, self.size - 1 - p :][:, : x.shape[1]]
            y = y + F.linear(shifted.masked_fill((age < p)[..., None], 0), weight)
        kept = ends[:, None] + torch.arange(self.size - 1, device=x.device)
        past = steps.gather(1, kept[..., None].expand(-1, -1, self.features))
        lived = (ends - _at_end(starts, ends, -lived)).clamp(max=self.size - 1)
        return y.relu().masked_fill(padding, 0), ((past, lived),)


class BagHistory(nn.Module):
    """h_t = relu(W (x_1 + .. + x_t) / t + b) over the document so far: the order is lost."""

    def __init__(self, features: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_sizes(features=features, hidden=hidden)
        self.features = features
        self.linear = nn.Linear(features, hidden)
        self.dropout = nn.Dropout(dropout)

    def begin(self, batch: int) -> State:
        """The state before the first step: the sum of the steps of its document, and how many there were."""
        total = self.linear.weight.new_zeros(batch, self.features)
        return ((total, torch.zeros(batch, dtype=torch.long, device=total.device)),)

    def forward(
        self,
        x: Float[Tensor, "B T E"],
        state: State | None = None,
        lengths: Int[Tensor, "B"] | None = None,
        reset: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T H"], State]:
        """y of all steps, zero in padding, and the state after the last real one of each row."""
        [(total, count)] = self.begin(len(x)) if state is None else state
        ends, padding = _ends(x, lengths)
        x = self.dropout(x).masked_fill(padding, 0)
        starts = _document_starts(x, count, reset)
        # Sums from the first step of the piece on; a document that began within it leaves out those before.
        sums = torch.cat([x.new_zeros(len(x), 1, self.features), x.cumsum(1)], 1)
        before = sums.gather(1, starts.clamp(min=0)[..., None].expand_as(x))
        totals = sums[:, 1:] - before + total[:, None] * (starts < 0)[..., None]
        counts = torch.arange(1, x.shape[1] + 1, device=x.device) - starts
        y = self.linear(totals / counts.clamp(min=1)[..., None]).relu()
        after = _at_end(totals, ends, total), _at_end(counts, ends, count)
        return y.masked_fill(padding, 0), (after,)


def _ends(x: Tensor, lengths: Tensor | None) -> tuple[Int[Tensor, "B"], Bool[Tensor, "B T 1"]]:
    """How many steps of each row are real, and which are not."""
    if lengths is None:
        lengths = torch.full((len(x),), x.shape[1], device=x.device)
    return lengths, padding_mask(lengths, x.shape[1])[..., None]


def _document_starts(x: Tensor, lived: Int[Tensor, "B"], reset: Tensor | None) -> Int[Tensor, "B T"]:
    """The step at which the document of each step begins; below 0 where it began before the first one."""
    starts = (-lived)[:, None].expand(x.shape[:2])
    if reset is None:
        return starts
    return torch.where(reset, torch.arange(x.shape[1], device=x.device), starts).cummax(1).values


def _at_end(values: Tensor, ends: Int[Tensor, "B"], otherwise: Tensor) -> Tensor:
    """[B, ...]: what stands at the last real step of each row; `otherwise` where there is none."""
    if not values.shape[1]:
        return otherwise
    last = values[torch.arange(len(ends), device=ends.device), (ends - 1).clamp(min=0)]
    return torch.where((ends > 0).view(-1, *[1] * (last.dim() - 1)), last, otherwise)
