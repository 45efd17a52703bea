"""Batches of examples of about equal length, as many in one epoch as in another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

B = TypeVar("B")


@dataclass(frozen=True, kw_only=True)
class ExampleBatch:
    """What every batch of examples has: its place in the epoch."""

    #: Fields of tensors that do not have a row for each example.
    shared: ClassVar[frozenset[str]] = frozenset()
    number: int = 0

    @property
    def steps(self) -> int:
        """Time steps over all rows, without padding."""
        raise NotImplementedError

    def to(self, device: torch.device) -> Self:
        """The same batch on a device."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        moved = {n: v.to(device) if isinstance(v, Tensor) else v for n, v in values.items()}
        return type(self)(**moved)  # type: ignore[arg-type]

    def split(self) -> list[Self]:
        """Each example as a batch of its own, with the padding that it has here."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        tensors = {n: v for n, v in values.items() if isinstance(v, Tensor) and n not in self.shared}
        count = len(next(iter(tensors.values())))
        rows = [values | {n: v[k : k + 1] for n, v in tensors.items()} for k in range(count)]
        return [type(self)(**row) for row in rows]


class Buckets(Generic[B]):
    """Examples in batches of about equal length, in an order that is new in every epoch.

    The examples are sorted by length, equal ones in random order, and cut where `longest x rows` would
    exceed `tokens`, so that there is little padding and every epoch has the same number of batches. Their
    order is random. Both are drawn from `seed` and the epoch alone, which makes resuming exact.
    `make(indices, number)` makes a batch of the examples that `indices` names.
    """

    def __init__(
        self, lengths: Sequence[int], tokens: int, make: Callable[[list[int], int], B], seed: int
    ) -> None:
        self.lengths, self.make, self.seed = np.asarray(lengths, dtype=np.int64), make, seed
        self._cuts = cuts(np.sort(self.lengths), tokens)
        self._drawn: tuple[int, list[NDArray[np.int64]]] | None = None

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._cuts) - 1

    def batch(self, number: int, epoch: int) -> B:
        """Batch `number` of an epoch."""
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = (epoch, self._draw(epoch))
        return self.make(self._drawn[1][number].tolist(), number)

    def _draw(self, epoch: int) -> list[NDArray[np.int64]]:
        random = np.random.default_rng([self.seed, epoch])
        shuffled = random.permutation(len(self.lengths))
        order = shuffled[np.argsort(self.lengths[shuffled], kind="stable")]
        pieces = [order[a:b] for a, b in pairwise(self._cuts)]
        return [pieces[k] for k in random.permutation(len(pieces))]


def cuts(ordered: NDArray[np.int64], tokens: int) -> list[int]:
    """Where sorted lengths are cut so that `longest x rows` stays within `tokens`, 0 and the end among them.

    An example longer than that stands alone. Length 0 counts as 1.
    """
    found, start = [0], 0
    for k, length in enumerate(np.maximum(ordered, 1).tolist()):
        if k > start and length * (k + 1 - start) > tokens:
            found.append(k)
            start = k
    return [*found, len(ordered)] if len(ordered) else found


def by_length(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """The indices of all examples, in groups of about equal length that stay within `tokens`."""
    known = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(known, kind="stable")
    bounds = cuts(known[order], tokens)
    return (order[a:b].tolist() for a, b in pairwise(bounds))


def pad(rows: Sequence[ArrayLike], value: int = 0) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B"]]:
    """Rows of whole numbers side by side, filled up with `value`, and their lengths."""
    arrays = [np.asarray(row, dtype=np.int64) for row in rows]
    lengths = [len(array) for array in arrays]
    padded = np.full((len(arrays), max(lengths, default=0)), value, dtype=np.int64)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(padded), torch.tensor(lengths, dtype=torch.int64)
