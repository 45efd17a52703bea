"""How well transcripts agree with what was said: word and character error rates."""

from __future__ import annotations

from collections.abc import Sequence

from throughtime.train.metrics import Metrics


def transcription_metrics(outputs: Sequence[str], right: Sequence[str]) -> Metrics:
    """WER and CER, (substitutions + deletions + insertions) / words or characters said, over all texts.

    Either may exceed 1. `accuracy` is the share of texts that are exactly right.
    """
    from torchmetrics.functional.text import char_error_rate, word_error_rate

    return {
        "wer": word_error_rate(list(outputs), list(right)).item(),
        "cer": char_error_rate(list(outputs), list(right)).item(),
        "accuracy": sum(a == b for a, b in zip(outputs, right, strict=True)) / len(right),
    }
