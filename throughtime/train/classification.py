"""How well a classifier predicts: counts of what was taken for what, F1, and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from throughtime.errors import ShapeError

#: Intervals of confidence that calibration is looked at in.
BINS = 15


def class_metrics(
    probs: Float[Tensor, "N K"], targets: Int[Tensor, "N"]
) -> tuple[dict[str, float], Int[Tensor, "K K"]]:
    """Accuracy, macro F1 and expected calibration error of N predictions, and their confusion matrix.

    `probs` are the probabilities of the K classes; the most probable one is what is predicted, the first of
    equal ones. Macro F1 is the mean over the classes that occur, as targets or as predictions. Raises
    `ShapeError` where there are no predictions or where targets do not fit them.
    """
    _check(probs, targets, targets.dim() == 1 and len(targets) == len(probs), "[N]")
    classes = probs.shape[1]
    if targets.is_floating_point() or targets.min() < 0 or targets.max() >= classes:
        raise ShapeError(f"targets must be integers of 0..{classes - 1}")
    confusion = confusion_matrix(probs.argmax(1), targets, classes)
    outcomes = _outcomes(confusion)
    occurs = torch.stack(outcomes).any(0)
    metrics = {
        "accuracy": confusion.trace().item() / len(targets),
        "macro_f1": float(_f1(*outcomes)[occurs].mean()),
        "calibration_error": calibrate(probs, targets).error,
    }
    return metrics, confusion


def multi_label_metrics(
    probs: Float[Tensor, "N K"], targets: Float[Tensor, "N K"] | Int[Tensor, "N K"] | Bool[Tensor, "N K"]
) -> dict[str, float]:
    """Micro and macro F1 and the share of exact matches of N predictions of K labels.

    `probs` are the probabilities of each label, which is predicted from 0.5 on; `targets` [N, K] are 1 (or
    True) where a label is there. Micro F1 counts all labels together, macro F1 is the mean over all labels,
    0 for one that is never there and never predicted; a match has all labels of a row right. Raises
    `ShapeError` where there are no predictions or targets do not fit them.
    """
    _check(probs, targets, targets.shape == probs.shape, "[N, K]")
    outcomes = _label_outcomes(probs, targets)
    return {
        "micro_f1": float(_f1(*(count.sum() for count in outcomes))),
        "macro_f1": float(_f1(*outcomes).mean()),
        "exact_match": float(((probs >= 0.5) == targets.bool()).all(1).double().mean()),
    }


def confusion_matrix(
    predicted: Int[Tensor, "N"], targets: Int[Tensor, "N"], classes: int
) -> Int[Tensor, "K K"]:
    """How often each class (row) was taken for each class (column)."""
    return (targets * classes + predicted).bincount(minlength=classes**2).view(classes, classes)


def class_rows(confusion: Int[Tensor, "K K"], names: Sequence[str]) -> list[dict[str, Any]]:
    """Of each class, as rows of a table: precision, recall, F1, and how often it occurs.

    Precision is the share of its predictions that are right, recall the share of it that is found, and

        F1 = 2 · precision · recall / (precision + recall) = 2 tp / (2 tp + fp + fn).

    Where a share is of nothing it is 0.
    """
    return _rows(names, *_outcomes(confusion))


def label_rows(
    probs: Float[Tensor, "N K"], targets: Float[Tensor, "N K"], names: Sequence[str]
) -> list[dict[str, Any]]:
    """The same of each of K labels of which a row may have several; see `multi_label_metrics`."""
    return _rows(names, *_label_outcomes(probs, targets))


@dataclass(frozen=True)
class Calibration:
    """Predictions by confidence, in intervals of equal width from 0 to 1.

    count       how many there are in each.
    confidence  their mean confidence, which is the probability of the predicted class; 0 of none.
    accuracy    the share of them that is right; 0 of none.
    """

    count: Int[Tensor, "M"]
    confidence: Float[Tensor, "M"]
    accuracy: Float[Tensor, "M"]

    @property
    def error(self) -> float:
        """The expected calibration error, Σ_m count_m / N · |accuracy_m - confidence_m|."""
        gaps = (self.accuracy - self.confidence).abs()
        return float(_share((self.count * gaps).sum(), self.count.sum()))


def calibrate(probs: Float[Tensor, "N K"], targets: Int[Tensor, "N"], bins: int = BINS) -> Calibration:
    """How right the predictions of each confidence are (Guo et al. 2017).

    Interval m of `bins` holds the confidences in (m / bins, (m + 1) / bins].
    """
    confidence, predicted = probs.double().max(1)
    inner = torch.arange(1, bins, dtype=torch.float64, device=probs.device) / bins
    index = torch.bucketize(confidence, inner)
    count = index.bincount(minlength=bins)
    sums = [index.bincount(value, minlength=bins) for value in (confidence, (predicted == targets).double())]
    return Calibration(count, *(_share(total, count) for total in sums))


def _outcomes(confusion: Int[Tensor, "K K"]) -> tuple[Tensor, Tensor, Tensor]:
    """Of each class: how often it was found, predicted in error, and missed."""
    hits = confusion.diagonal()
    return hits, confusion.sum(0) - hits, confusion.sum(1) - hits


def _label_outcomes(probs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same of each label."""
    predicted, there = probs >= 0.5, targets.bool()
    return (predicted & there).sum(0), (predicted & ~there).sum(0), (~predicted & there).sum(0)


def _rows(names: Sequence[str], hits: Tensor, false: Tensor, missed: Tensor) -> list[dict[str, Any]]:
    shares = _share(hits, hits + false), _share(hits, hits + missed), _f1(hits, false, missed)
    return [
        {"class": name, "precision": p, "recall": r, "f1": f, "support": n}
        for name, p, r, f, n in zip(names, *(each.tolist() for each in (*shares, hits + missed)), strict=True)
    ]


def _f1(hits: Tensor, false: Tensor, missed: Tensor) -> Float[Tensor, "..."]:
    return _share(2 * hits, 2 * hits + false + missed)


def _share(part: Tensor, whole: Tensor) -> Float[Tensor, "..."]:
    return torch.where(whole > 0, part.double() / whole.clamp(min=1), 0.0)


def _check(probs: Tensor, targets: Tensor, fits: bool, wanted: str) -> None:
    if probs.dim() != 2 or not probs.is_floating_point() or not len(probs):
        raise ShapeError(
            f"probs must be floating point of shape [N, K] with N of 1 or more, got {probs.dtype} of shape "
            f"{list(probs.shape)}"
        )
    if not fits:
        raise ShapeError(
            f"targets must have shape {wanted}, got {list(targets.shape)} for probs of {list(probs.shape)}"
        )
