"""Searches over a step function, and probabilities mixed with those of the past: they never see a model."""

from throughtime.decode.beam import beam_search
from throughtime.decode.cache import Cache, with_cache
from throughtime.decode.completion import complete_words, typed_part
from throughtime.decode.sampling import filtered, sample
from throughtime.decode.sequences import Hypothesis, length_normalised, sample_sequences

__all__ = [
    "Cache",
    "Hypothesis",
    "beam_search",
    "complete_words",
    "filtered",
    "length_normalised",
    "sample",
    "sample_sequences",
    "typed_part",
    "with_cache",
]
