"""How the steps of rows of different lengths stand in memory: side by side, and no padding."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from throughtime.errors import ShapeError

#: The least rows of a piece: products with fewer are slower.
LEAST_ROWS = 256


@dataclass(frozen=True, eq=False)
class Layout:
    """N steps of B rows, one after the other in time, and within a step the longest row first.

    start, count   [T + 1], [T]: where the rows of a step begin, and how many it has.
    order          [B], the row of each rank, longest first; None where all are full.
    lengths        [B], by rank; None where all are full.
    index          [N], for each step of a row where it stands in [T, B]; None where all are full.
    reset          [N] bytes, not 0 where a row begins anew; None where none does.
    """

    steps: int
    batch: int
    start: Tensor
    count: Tensor
    order: Tensor | None
    lengths: Tensor | None
    index: Tensor | None
    reset: Tensor | None

    @classmethod
    def of(cls, steps: int, batch: int, lengths: Tensor | None, reset: Tensor | None) -> Layout:
        """The layout for `lengths` [B] and `reset` [T, B]."""
        layout = _full(steps, batch) if lengths is None else _ragged(steps, batch, tuple(lengths.tolist()))
        if reset is None:
            return layout
        flags = reset.reshape(-1) if layout.index is None else reset.reshape(-1)[layout.index]
        return replace(layout, reset=flags.to(torch.uint8))

    @cached_property
    def rows(self) -> int:
        """N."""
        return int(self.start[-1])

    @property
    def regular(self) -> bool:
        """Whether the state before every step but the first is that of the step before."""
        return self.index is None and self.reset is None

    def first_row(self, step: int) -> int:
        """Where the rows of `step` begin."""
        return step * self.batch if self.index is None else int(self.start[step])

    def pieces(self, rows: int, from_end: bool = False) -> list[tuple[int, int]]:
        """All steps in pieces of as many steps each, of about `rows` rows or `LEAST_ROWS` if that is more.

        Cut `from_end` every piece but the first has an even number of steps.
        """
        count = max(1, -(-self.rows // max(rows, LEAST_ROWS)))
        size = -(-self.steps // count)
        backwards = range(self.steps, 0, -(size + size % 2))
        cuts = backwards if from_end else range(0, self.steps, size)
        return list(itertools.pairwise(sorted({0, self.steps, *cuts})))

    def cuts(self, threads: int) -> Tensor:
        """[threads + 1]: the ranks divided among threads so that each has as many steps."""
        if self.lengths is None:
            return _even_cuts(self.batch, threads)
        done = self.lengths.cumsum(0)
        shares = torch.arange(1, threads, device="cpu") * int(done[-1]) // threads
        inner = torch.searchsorted(done, shares)
        ends = torch.tensor([0, self.batch], device="cpu")
        return torch.cat([ends[:1], inner, ends[1:]])

    def by_rank(self, rows: Tensor) -> Tensor:
        """[B, ...] with the longest row first."""
        return rows if self.order is None else rows[self.order]

    def from_rank(self, rows: Tensor) -> Tensor:
        """`by_rank` undone."""
        return rows.clone() if self.order is None else torch.empty_like(rows).index_copy_(0, self.order, rows)

    def pack(self, values: Tensor) -> Tensor:
        """[T, B, F] as [N, F]."""
        flat = values.reshape(self.steps * self.batch, values.shape[2])
        return flat if self.index is None else flat.index_select(0, self.index)

    def unpack(self, values: Tensor) -> Tensor:
        """[N, F] as [T, B, F], zeros where there is no step."""
        if self.index is not None:
            flat = values.new_zeros(self.steps * self.batch, values.shape[1])
            values = flat.index_copy_(0, self.index, values)
        return values.view(self.steps, self.batch, values.shape[1])

    def finals(self, history: Tensor, initial: Tensor) -> Tensor:
        """[B, H]: the state after each row's last step."""
        if self.lengths is None:
            return history[self.rows - self.batch : self.rows].clone()
        last = self.start[(self.lengths - 1).clamp(min=0)] + torch.arange(self.batch, device="cpu")
        rows = history[last.clamp(max=len(history) - 1)]
        return self.from_rank(torch.where((self.lengths > 0)[:, None], rows, initial))

    def before(self, history: Tensor, initial: Tensor, start: int, stop: int) -> Tensor:
        """[rows, H]: the state before every step from `start` to before `stop`."""
        first, last = self.first_row(start), self.first_row(stop)
        counts = torch.cat([self.count.new_zeros(1), self.count[:-1]])[start:stop]
        rows = torch.arange(first, last, device="cpu") - counts.repeat_interleave(self.count[start:stop])
        values = history.index_select(0, rows)
        if start == 0:
            begin = int(self.count[0])
            values[:begin] = initial[:begin]
        if self.reset is not None:
            values[self.reset[first:last].bool()] = 0.0
        return values


def _starts(count: Tensor) -> Tensor:
    return torch.cat([count.new_zeros(1), count.cumsum(0)])


@lru_cache(maxsize=64)
def _full(steps: int, batch: int) -> Layout:
    count = torch.full((steps,), batch, device="cpu")
    return Layout(steps, batch, _starts(count), count, None, None, None, None)


@lru_cache(maxsize=64)
def _even_cuts(batch: int, threads: int) -> Tensor:
    return torch.arange(threads + 1, device="cpu") * batch // threads


# The recurrences of a model, forwards and backwards, read the same few batches one after another.
@lru_cache(maxsize=4)
def _ragged(steps: int, batch: int, lengths: tuple[int, ...]) -> Layout:
    if max(lengths, default=0) > steps:
        raise ShapeError(f"lengths must lie in 0..{steps}, got {list(lengths)}")
    ordered, order = torch.tensor(lengths, dtype=torch.long, device="cpu").sort(descending=True, stable=True)
    active = torch.arange(steps, device="cpu")[:, None] < ordered
    count = active.sum(1)
    step, rank = active.nonzero(as_tuple=True)
    index = step * batch + order[rank]
    return Layout(steps, batch, _starts(count), count, order, ordered, index, None)
