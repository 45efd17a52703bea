"""The figure of an attention matrix: what each output token looked at."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

#: The most tokens of a side that each have a label and a place of their own: a picture stays of a size that
#: can be drawn.
MOST = 180


def draw_alignment(
    input_tokens: Sequence[str], output_tokens: Sequence[str], weights: Sequence[Sequence[float]]
) -> Figure:
    """Input tokens from left to right, output tokens from top to bottom, the darker the more attention."""
    rows, columns = len(output_tokens), len(input_tokens)
    figure = Figure(
        figsize=(2 + 0.32 * min(columns, MOST), 1.6 + 0.32 * min(rows, MOST)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="equal")
    axes.set_xticks(*thinned(input_tokens, MOST), rotation=60, ha="left", parse_math=False)
    axes.set_yticks(*thinned(output_tokens, MOST), parse_math=False)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=0)
    axes.set_xlabel("input")
    axes.set_ylabel("output")
    figure.colorbar(image, ax=axes, shrink=0.7, label="attention")
    return figure


def thinned(labels: Sequence[str], most: int) -> tuple[range, list[str]]:
    """Where labels stand, and which: all, or every second, third, ..., so that there are at most `most`."""
    where = range(0, len(labels), -(-len(labels) // most) or 1)
    return where, [labels[k] for k in where]
