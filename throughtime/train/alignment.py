"""The figure of an attention matrix: what each output token looked at."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

#: The most inches of a side: libraries refuse pictures of more than some ten thousand pixels.
LARGEST = 60.0


def draw_alignment(
    input_tokens: Sequence[str], output_tokens: Sequence[str], weights: Sequence[Sequence[float]]
) -> Figure:
    """Input tokens from left to right, output tokens from top to bottom, the darker the more attention."""
    rows, columns = len(output_tokens), len(input_tokens)
    figure = Figure(
        figsize=(min(2 + 0.32 * columns, LARGEST), min(1.6 + 0.32 * rows, LARGEST)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="equal")
    axes.set_xticks(range(columns), [_plain(token) for token in input_tokens], rotation=60, ha="left")
    axes.set_yticks(range(rows), [_plain(token) for token in output_tokens])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_xlabel("input")
    axes.set_ylabel("output")
    figure.colorbar(image, ax=axes, shrink=0.7, label="attention")
    return figure


def _plain(token: str) -> str:
    return token.replace("$", r"\$")  # which matplotlib would read as the beginning of a formula
