"""How well outputs agree with what is right: BLEU and chrF as sacrebleu computes them (Post 2018)."""

from __future__ import annotations

from collections.abc import Sequence

from throughtime.train.metrics import Metrics


def translation_metrics(outputs: Sequence[str], right: Sequence[str]) -> Metrics:
    """BLEU (Papineni et al. 2002) and chrF (Popović 2015), 0 to 100, and the share of equal texts, 0 to 1.

    Both sides are whole texts, not cut into words: the metrics cut them by their own rules.
    """
    from sacrebleu.metrics import BLEU, CHRF

    return {
        "bleu": BLEU(force=True).corpus_score(outputs, [right]).score,
        "chrf": CHRF().corpus_score(outputs, [right]).score,
        "accuracy": sum(a == b for a, b in zip(outputs, right, strict=True)) / len(right),
    }


def metrics_by_length(
    inputs: Sequence[str], outputs: Sequence[str], right: Sequence[str], parts: int = 4
) -> list[dict[str, float]]:
    """The metrics by the number of words in the input: rows of about as many texts, from short to long.

    Texts of one length are in one row, so that there may be fewer.
    """
    lengths = [len(text.split()) for text in inputs]
    ordered = sorted(lengths)
    bounds = sorted({ordered[len(ordered) * k // parts] for k in range(parts)})
    rows = []
    for low, high in zip(bounds, [*bounds[1:], ordered[-1] + 1], strict=True):
        chosen = [k for k, length in enumerate(lengths) if low <= length < high]
        metrics = translation_metrics([outputs[k] for k in chosen], [right[k] for k in chosen])
        rows.append({"words_from": low, "words_to": high - 1, "texts": len(chosen)} | metrics)
    return rows


def translation_signatures() -> dict[str, str]:
    """The signature of each metric, which says how it was computed, for one reference."""
    from sacrebleu.metrics import BLEU, CHRF

    signatures = {}
    for name, metric in (("bleu", BLEU(force=True)), ("chrf", CHRF())):
        metric.corpus_score(["a"], [["a"]])  # the signature knows the number of references only then
        signatures[name] = str(metric.get_signature())
    return signatures
