"""Contiguous streams of tokens: what truncated backpropagation through time reads, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from throughtime.data.corpus import Tokens
from throughtime.data.tokens import BOUNDARY
from throughtime.errors import DataError


@dataclass(frozen=True)
class Chunk:
    """The next tokens of every row: `inputs` and the tokens after them, `targets`, both [B, T].

    `number` counts the chunks of an epoch from 0.
    """

    inputs: Tensor
    targets: Tensor
    number: int

    @property
    def steps(self) -> int:
        """Predictions in the chunk, over all rows."""
        return self.targets.numel()

    def to(self, device: torch.device) -> Chunk:
        """The same chunk on a device."""
        return Chunk(self.inputs.to(device), self.targets.to(device), self.number)


class Streams:
    """A text cut into rows that are read side by side, in chunks of `steps` tokens.

    Chunk k + 1 goes on in every row where chunk k ended, so that the state carries over. All rows are
    equally long; where the text does not divide, neighbours share a few tokens rather than lose any. A
    text too short for `rows` rows of a whole chunk has fewer rows.

    Where `fresh` is given, each row begins anew every so many chunks, and all do in the first: a boundary
    stands there in place of the token before. A model that is only ever shown a carried state does not
    know how to begin. Raises `DataError` for fewer than two tokens.
    """

    def __init__(self, tokens: Tokens, rows: int, steps: int, fresh: int | None = None) -> None:
        predictions = len(tokens) - 1
        if predictions < 1:
            raise DataError(f"a text of {len(tokens)} tokens has nothing to predict: give a longer one")
        self.tokens, self.steps = tokens, steps
        self.rows = max(1, min(rows, predictions // steps))
        self.length = -(-predictions // self.rows)
        self.fresh = fresh
        self._starts = np.linspace(0, predictions - self.length, self.rows).round().astype(np.int64)

    def __len__(self) -> int:
        """Chunks in an epoch."""
        return -(-self.length // self.steps)

    def batch(self, number: int, epoch: int = 0) -> Chunk:
        """Chunk `number`, the same in every epoch; the last may be shorter."""
        start = number * self.steps
        stop = min(start + self.steps, self.length)
        read = np.stack([self.tokens[s + start : s + stop + 1] for s in self._starts]).astype(np.int64)
        both = torch.from_numpy(read)
        if self.fresh is not None:
            turn = np.arange(self.rows) * self.fresh // self.rows
            both[torch.from_numpy(((number - turn) % self.fresh == 0) | (number == 0)), 0] = BOUNDARY
        return Chunk(both[:, :-1], both[:, 1:], number)

    def __iter__(self) -> Iterator[Chunk]:
        return (self.batch(number) for number in range(len(self)))
