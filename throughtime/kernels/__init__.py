"""How a recurrence runs: one door, `unroll`, and the backends behind it."""

from throughtime.kernels.unroll import BACKENDS, Choice, explain, unroll

__all__ = [
    "BACKENDS",
    "Choice",
    "explain",
    "unroll",
]
