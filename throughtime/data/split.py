"""Keeping some of the examples for validation or test."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from throughtime.errors import DataError


def hold_out(
    count: int, share: float, seed: int, labels: Sequence[Hashable] | None = None
) -> tuple[list[int], list[int]]:
    """The examples 0 to count - 1 in two parts, the second of which has the share `share`, in order.

    They are drawn at random from `seed`; with `labels`, of each label the same share (stratified), but
    one is always left. Raises `DataError` where a part would be empty.
    """
    random = np.random.default_rng(seed)
    groups: dict[Hashable, list[int]] = {}
    for k in range(count):
        groups.setdefault(None if labels is None else labels[k], []).append(k)
    held: set[int] = set()
    for group in groups.values():
        ranks = (np.arange(len(group)) + random.random(len(group))) / len(group)
        wanted = min(int((ranks < share).sum()), len(group) - 1)
        held.update(random.permutation(group)[:wanted].tolist())
    parts = [k for k in range(count) if k not in held], sorted(held)
    if not all(parts):
        raise DataError(
            f"{count} examples are too few to keep {share:.0%} of them apart: give more, or files for "
            "validation and test with --valid and --test"
        )
    return parts
