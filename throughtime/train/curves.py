"""The figure of a run: loss of training and validation, and the norm of the gradient."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from throughtime.storage import write
from throughtime.train.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: What would do where a figure cannot be written.
ADVICE = "make room, or give another place for the picture"


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure at once or not at all, in the format that the name ends with."""
    kind = path.suffix.removeprefix(".") or "png"
    write(path, lambda new: figure.savefig(new, dpi=120, format=kind), ADVICE)


def draw_curves(run: Run) -> None:
    """Draw metrics.jsonl into curves.png; nothing where there is no record yet."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = run.read_metrics()
    train = [record for record in records if "loss" in record]
    valid = [record for record in records if "valid" in record and record["valid"]["loss"] is not None]
    if not records:
        return
    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)
    loss, norm = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    loss.plot(_column(train, "step"), _column(train, "loss"), lw=1, label="training")
    losses = [record["valid"]["loss"] for record in valid]
    loss.plot(_column(valid, "step"), losses, "o-", ms=4, label="validation")
    if losses:
        best = min(valid, key=lambda record: record["valid"]["loss"])
        loss.annotate(
            f"{best['valid']['loss']:.3f}",
            (best["step"], best["valid"]["loss"]),
            textcoords="offset points",
            xytext=(0, 6),
            ha="right",
        )
    loss.set_ylabel("loss (nats)")
    loss.legend()
    norm.plot(_column(train, "step"), _column(train, "gradient_norm"), lw=1, color="tab:gray")
    norm.set_yscale("log")
    norm.set_ylabel("gradient norm")
    norm.set_xlabel("step")
    for axes in (loss, norm):
        axes.grid(alpha=0.3)
    save_figure(figure, run.curves)


def _column(records: list[dict[str, Any]], name: str) -> list[float]:
    return [record[name] for record in records]
