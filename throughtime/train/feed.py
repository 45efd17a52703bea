"""Batches without end, from any point of any epoch on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch


class Batch(Protocol):
    """A batch of an epoch, whatever is in it."""

    @property
    def number(self) -> int:
        """Its place in the epoch, from 0."""

    @property
    def steps(self) -> int:
        """How many time steps it has, over all rows."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""


class Batches(Protocol):
    """The batches of each epoch, as many in one as in another."""

    def __len__(self) -> int:
        """How many there are."""

    def batch(self, number: int, epoch: int) -> Batch:
        """Batch `number` of an epoch: the same whenever it is asked for."""


@dataclass(frozen=True)
class Fed:
    """A batch and the epoch it belongs to."""

    epoch: int
    batch: Batch


class Feed:
    """An iterable over the batches of one epoch after another.

    `seek` moves it; `stop` ends it. Every batch carries its epoch and number, so that one fetched ahead
    of a move can be told from the one that is due.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self._next = (0, 0)
        self.stopped = False

    def seek(self, epoch: int, number: int) -> None:
        """Go on with batch `number` of `epoch`."""
        self._next = (epoch, number)

    def stop(self) -> None:
        """Give no more batches."""
        self.stopped = True

    def after(self, epoch: int, number: int) -> tuple[int, int]:
        """The epoch and number that follow."""
        return (epoch, number + 1) if number + 1 < len(self.batches) else (epoch + 1, 0)

    def __iter__(self) -> Iterator[Fed]:
        while not self.stopped:
            epoch, number = self._next
            self._next = self.after(epoch, number)
            yield Fed(epoch, self.batches.batch(number, epoch))
