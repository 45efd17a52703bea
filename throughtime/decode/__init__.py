"""Searches over a step function: they never see a model."""

from throughtime.decode.completion import complete_words, typed_part
from throughtime.decode.sampling import filtered, sample

__all__ = [
    "complete_words",
    "filtered",
    "sample",
    "typed_part",
]
