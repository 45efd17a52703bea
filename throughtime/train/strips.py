"""Film strips: the frames of clips with a label for each, and where the words of a caption looked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

#: Inches of a frame, and of a line of text.
FRAME, LINE = 0.62, 0.17
#: The most frames and words that are shown.
FRAMES, WORDS = 32, 40


def draw_strips(
    clips: Sequence[NDArray[np.uint8]],
    labels: Sequence[Sequence[str]],
    right: Sequence[Sequence[str]] | None = None,
) -> Figure:
    """Clips [T, 3, H, W] as rows of frames, each with its label below it.

    With `right`, a label that is another stands in red, and the right one below it. Of a clip the first
    `FRAMES` frames are shown.
    """
    columns = min(max(map(len, clips)), FRAMES)
    lines = 1 if right is None else 2
    figure = Figure(figsize=(columns * FRAME, len(clips) * (FRAME + (lines + 0.5) * LINE)))
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(clips), columns, squeeze=False)
    figure.subplots_adjust(0.01, (lines + 0.5) * LINE / figure.get_figheight(), 0.99, 0.99, 0.06, 0.6)
    for row, (clip, told) in enumerate(zip(clips, labels, strict=True)):
        true = told if right is None else right[row]
        for column, place in enumerate(axes[row]):
            place.set_axis_off()
            if column < len(clip):
                _show(place, clip[column])
                _label(place, told[column], true[column])
    return figure


def draw_told_strips(clips: Sequence[NDArray[np.uint8]], captions: Sequence[str]) -> Figure:
    """Clips [T, 3, H, W] as rows of frames, each clip with its caption above it."""
    columns = min(max(map(len, clips)), FRAMES)
    figure = Figure(figsize=(columns * FRAME, len(clips) * (FRAME + 1.5 * LINE)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(clips), 1, squeeze=False)[:, 0]
    for axes, clip, caption in zip(rows, clips, captions, strict=True):
        blank = np.full((columns - len(clip[:columns]), *clip.shape[1:]), 255, np.uint8)
        axes.imshow(_film(np.concatenate([clip[:columns], blank])), interpolation="nearest")
        axes.set_title(caption, fontsize=8, loc="left", pad=2, parse_math=False)
        axes.set_axis_off()
    return figure


def draw_temporal_attention(clip: NDArray[np.uint8], words: Sequence[str], weights: ArrayLike) -> Figure:
    """The frames of a clip [T, 3, H, W] above the attention [words, T] of each word to each of them."""
    shown, looks = clip[:FRAMES], np.asarray(weights)[:WORDS, :FRAMES]
    width, height = len(shown) * FRAME + 1.2, FRAME + len(looks) * 1.3 * LINE + 0.2
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    left, top = 1.1 / width, FRAME / height
    film = figure.add_axes((left, 1 - top, 1 - left - 0.01, top))
    film.imshow(_film(shown), aspect="auto", interpolation="nearest")
    film.set_axis_off()
    below = figure.add_axes((left, 0.02, 1 - left - 0.01, 1 - top - 0.04))
    below.imshow(looks, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    below.set_yticks(range(len(looks)), words[: len(looks)], fontsize=8, parse_math=False)
    below.set_xticks([])
    below.tick_params(length=0)
    return figure


def _film(clip: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames [T, 3, H, W] side by side, [H, T (W + 1), 3], a white line behind each."""
    apart = np.pad(clip, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=255)
    return np.concatenate([*apart], axis=2).transpose(1, 2, 0)


def _show(place: Axes, frame: NDArray[np.uint8]) -> None:
    place.imshow(frame.transpose(1, 2, 0), interpolation="nearest")


def _label(place: Axes, told: str, right: str) -> None:
    for line, (text, color) in enumerate([(told, "black" if told == right else "tab:red"), (right, "black")]):
        if line == 0 or told != right:
            place.text(
                0.5, -0.06 - line * 0.26, text, color=color, fontsize=7, parse_math=False,
                ha="center", va="top", transform=place.transAxes,
            )  # fmt: skip
