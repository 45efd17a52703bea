"""How well captions agree with what people said of the same: BLEU-1 to BLEU-4 and chrF."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from throughtime.train.metrics import Metrics


def caption_metrics(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> Metrics:
    """BLEU of runs of up to 1, 2, 3 and 4 words (Papineni et al. 2002), chrF (Popović 2015), and accuracy.

    BLEU and chrF, 0 to 100, compare with all references of an output, of which it may have any number from 1.
    Accuracy is the share of outputs that are one of their references to the letter.
    """
    streams = [list(stream) for stream in zip_longest(*references)]
    scores = {name: metric.corpus_score(outputs, streams).score for name, metric in _metrics().items()}
    right = sum(output in told for output, told in zip(outputs, references, strict=True))
    return scores | {"accuracy": right / len(outputs)}


def caption_signatures() -> dict[str, str]:
    """The signature of each metric, which says how it was computed, for any number of references."""
    signatures = {}
    for name, metric in _metrics().items():
        metric.corpus_score(["a", "a"], [["a", "a"], ["a", None]])  # it counts the references only then
        signatures[name] = str(metric.get_signature())
    return signatures


def _metrics() -> dict[str, Any]:
    from sacrebleu.metrics import BLEU, CHRF

    return {f"bleu_{n}": BLEU(force=True, max_ngram_order=n) for n in range(1, 5)} | {"chrf": CHRF()}
