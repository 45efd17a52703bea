"""Figures of attention matrices: what each output token looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

#: The most tokens of a side that each have a label and a place of their own: a picture stays of a size that
#: can be drawn.
MOST = 180
#: Points of the letters beside a head.
SMALL = 10


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
    axes.grid(visible=False)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=0)
    axes.set_xlabel("input")
    axes.set_ylabel("output")
    figure.colorbar(image, ax=axes, shrink=0.7, label="attention")
    return figure


def draw_heads(
    input_tokens: Sequence[str], output_tokens: Sequence[str], heads: Mapping[str, Sequence[Sequence[float]]]
) -> Figure:
    """The same for each of several heads, by their names; darkness is the root of the attention."""
    rows, columns = len(output_tokens), len(input_tokens)
    beside = min(len(heads), 2)
    below = -(-len(heads) // beside)
    size = max(4.0, 1.4 + 0.18 * columns), 1.6 + 0.18 * rows
    turned = 90 if max(map(len, input_tokens), default=0) > 1 else 0
    figure = Figure(figsize=(beside * size[0] + 1, below * size[1]), layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(below, beside, squeeze=False).flatten().tolist()
    for axes, (name, weights) in zip(places, heads.items(), strict=False):
        image = axes.imshow(weights, cmap="Greys", norm=PowerNorm(0.5, 0, 1), aspect="equal")
        axes.set_xticks(*thinned(input_tokens, MOST), rotation=turned, fontsize=SMALL, parse_math=False)
        axes.set_yticks(*thinned(output_tokens, MOST), fontsize=SMALL, parse_math=False)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.set_title(name, parse_math=False)
        axes.set_xlabel("looked at")
        axes.set_ylabel("from")
    for axes in places[len(heads) :]:
        axes.set_axis_off()
    figure.colorbar(image, ax=places, shrink=0.5, label="attention")
    return figure


def thinned(labels: Sequence[str], most: int) -> tuple[range, list[str]]:
    """Where labels stand, and which: all, or every second, third, ..., so that there are at most `most`."""
    where = range(0, len(labels), -(-len(labels) // most) or 1)
    return where, [labels[k] for k in where]
