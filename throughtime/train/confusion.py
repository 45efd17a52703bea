"""The figure of a classifier: what was taken for what, and how right it is when it is how sure."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from throughtime.errors import ShapeError
from throughtime.insight.alignment import thinned
from throughtime.train.classification import Calibration

#: Inches of a cell of the matrix where there are many, of all cells where there are few, and of a letter.
CELL, CELLS, LETTER = 0.36, 2.6, 0.1
#: The most classes whose cells are so large: those of more share the same room, without counts.
MOST = 80
#: Inches of the reliability diagram, and of the histogram below it.
RELIABILITY, HISTOGRAM = 3.2, 0.9
#: Letters of a class name that are shown.
LETTERS = 20


def draw_confusion(confusion: Int[Tensor, "K K"], names: Sequence[str], calibration: Calibration) -> Figure:
    """A confusion matrix and, beside it, a reliability diagram (Guo et al. 2017).

    Cells hold counts, of up to `MOST` classes; their colour is the share of the row, which is the true class.
    The diagram shows the accuracy of the predictions of each confidence, and how many there are. Raises
    `ShapeError` where there is not one name for each class.
    """
    if confusion.shape != (len(names), len(names)):
        raise ShapeError(
            f"confusion must have a row and a column for each of {len(names)} names, "
            f"got shape {list(confusion.shape)}"
        )
    shown = [name if len(name) <= LETTERS else name[: LETTERS - 1] + "…" for name in names]
    cell = min(max(CELL, CELLS / len(names)), MOST * CELL / len(names))
    beside = LETTER * max(map(len, shown))
    side = cell * len(names) + beside + 0.7
    height = max(side, RELIABILITY + HISTOGRAM + 0.7)
    figure = Figure(figsize=(side + RELIABILITY + 0.6, height), layout="constrained")
    FigureCanvasAgg(figure)
    matrix, diagram = figure.subfigures(1, 2, squeeze=False, width_ratios=(side, RELIABILITY + 0.6))[0]
    _draw_matrix(matrix.subplots(), confusion, shown, cell)
    rows = diagram.add_gridspec(
        3, 1, height_ratios=(RELIABILITY, HISTOGRAM, height - RELIABILITY - HISTOGRAM)
    )
    reliability = diagram.add_subplot(rows[0])
    _draw_reliability(reliability, diagram.add_subplot(rows[1], sharex=reliability), calibration)
    return figure


def _draw_matrix(axes: Axes, confusion: Int[Tensor, "K K"], names: Sequence[str], cell: float) -> None:
    """Blues grow darker evenly, so that they are told apart without colour vision and in print."""
    shares = confusion / confusion.sum(1, keepdim=True).clamp(min=1)
    axes.imshow(shares.cpu().numpy(), cmap="Blues", vmin=0, vmax=1)
    turned = LETTER * max(map(len, names)) > cell
    axes.set_xticks(*thinned(names, MOST), rotation=90 if turned else 0, parse_math=False)
    axes.set_yticks(*thinned(names, MOST), parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(names) > MOST:
        return
    size = min(10, 95 * cell / max(len(str(int(confusion.max()))), 2))
    for row, (counts, of_row) in enumerate(zip(confusion.tolist(), shares.tolist(), strict=True)):
        for column, (count, share) in enumerate(zip(counts, of_row, strict=True)):
            if count:
                color = "white" if share > 0.7 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=size)


def _draw_reliability(reliability: Axes, histogram: Axes, calibration: Calibration) -> None:
    some = calibration.count > 0
    confidence, accuracy = calibration.confidence[some].tolist(), calibration.accuracy[some].tolist()
    bins = len(calibration.count)
    middles = [(index + 0.5) / bins for index in range(bins)]
    reliability.plot([0, 1], [0, 1], "--", color="tab:gray", lw=1, label="perfect")
    reliability.plot(confidence, accuracy, "o-", ms=4, lw=1, label="observed")
    reliability.set_ylabel("accuracy")
    reliability.set_ylim(0, 1.02)
    reliability.set_title(f"calibration error {calibration.error:.3f}", fontsize=10)
    reliability.legend()
    histogram.bar(middles, calibration.count.tolist(), width=0.9 / bins)
    reliability.tick_params(labelbottom=False)
    histogram.set_xlim(0, 1.02)
    histogram.set_xlabel("confidence")
    histogram.set_ylabel("predictions")
    for axes in (reliability, histogram):
        axes.grid(alpha=0.3)
