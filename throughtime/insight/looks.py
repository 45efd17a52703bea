"""Figures of captioned pictures: what was said of them, and where each word was looked for."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image

#: Inches of a picture, pictures in a row, and words that are shown.
INCHES, COLUMNS, WORDS = 1.7, 6, 48
#: How much of a picture is seen where nothing was looked at.
DARK = 0.25


def draw_captions(pictures: Sequence[NDArray[np.uint8]], captions: Sequence[str]) -> Figure:
    """Pictures [3, H, W], each with its caption above it."""
    figure, places = _places(len(pictures), title=0.75)
    for axes, picture, caption in zip(places, pictures, captions, strict=False):
        axes.imshow(picture.transpose(1, 2, 0))
        axes.set_title(fill(caption, 26), fontsize=8, parse_math=False)
    return figure


def draw_looks(
    picture: NDArray[np.uint8], words: Sequence[str], weights: ArrayLike, grid: tuple[int, int]
) -> Figure:
    """The picture [3, H, W] once for each word, bright where the model looked as it said the word.

    weights  [T, S]: the attention of each word to each of the S = rows x columns places of `grid`. It is made
    as large as the picture (bicubic), and relative to its peak.
    """
    maps = np.asarray(weights, dtype=np.float32).reshape(len(words), *grid)[:WORDS]
    figure, places = _places(1 + len(maps), title=0.25)
    shown = picture.transpose(1, 2, 0)
    places[0].imshow(shown)
    for axes, word, each in zip(places[1:], words, maps, strict=False):
        bright = enlarge(each, shown.shape[:2])[..., None]
        axes.imshow((shown * (DARK + (1 - DARK) * bright)).astype(np.uint8))
        axes.set_title(word, fontsize=9, parse_math=False)
    return figure


def enlarge(weights: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A map of attention [h, w] with as many rows and columns as `shape`, 0 to 1 where the most is."""
    image = Image.fromarray(weights).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    large = np.asarray(image).clip(min=0)
    peak: NDArray[np.float32] = large / max(large.max(), np.finfo(np.float32).tiny)
    return peak


def _places(count: int, title: float) -> tuple[Figure, Sequence[Axes]]:
    """A figure with room for so many pictures, with `title` inches above each."""
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(columns * INCHES, rows * (INCHES + title)), layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axes in places:
        axes.set_axis_off()
    return figure, places
