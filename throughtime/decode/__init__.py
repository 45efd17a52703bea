"""Searches over a step function, and probabilities mixed with those of the past: they never see a model."""

from throughtime.decode.beam import beam_search
from throughtime.decode.cache import Cache, with_cache
from throughtime.decode.completion import complete_words, typed_part
from throughtime.decode.ctc import Fusion, Transcript, align, greedy_search, prefix_beam_search
from throughtime.decode.sampling import filtered, sample
from throughtime.decode.sequences import Hypothesis, length_normalised, sample_sequences

__all__ = [
    "Cache",
    "Fusion",
    "Hypothesis",
    "Transcript",
    "align",
    "beam_search",
    "complete_words",
    "filtered",
    "greedy_search",
    "length_normalised",
    "prefix_beam_search",
    "sample",
    "sample_sequences",
    "typed_part",
    "with_cache",
]
