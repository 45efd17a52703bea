"""The figure of a transcript: the sound as the model reads it, and when it heard which token."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from throughtime.insight.alignment import MOST, thinned


def draw_transcript(
    frames: Float[Tensor, "T M"],
    posteriors: Float[Tensor, "S K"],
    labels: Sequence[str],
    *,
    seconds: float,
    highest: float,
    title: str,
) -> Figure:
    """Log-mel frames above, below the probability of each of K labels at each step, the darker the more.

    Both are over `seconds`; `highest` is where the last mel band ends, in Hz.
    """
    figure = Figure(
        figsize=(min(4 + 3 * seconds, 24), 3.4 + 0.2 * min(len(labels), MOST)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 0.4 + 0.2 * len(labels)))
    ends = (0.0, max(seconds, 1e-3))
    above.imshow(
        frames.T.numpy(),
        origin="lower",
        aspect="auto",
        cmap="magma",
        extent=(*ends, 0, frames.shape[1]),
        rasterized=True,
    )
    above.set_ylabel(f"mel band\n(to {highest:g} Hz)")
    above.set_title(title, parse_math=False, loc="left", fontsize=10, wrap=True)
    below.imshow(
        posteriors.T.numpy(),
        aspect="auto",
        cmap="Greys",
        vmin=0,
        vmax=1,
        extent=(*ends, len(labels) - 0.5, -0.5),
        interpolation="nearest",
    )
    below.set_yticks(*thinned(labels, MOST), parse_math=False, fontsize=8)
    below.tick_params(axis="y", length=0)
    below.set_ylabel("probability")
    below.set_xlabel("seconds")
    return figure
