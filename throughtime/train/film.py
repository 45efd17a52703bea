"""An animated picture of balls: where they are, and where they were predicted, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from throughtime.data.balls import draw_balls
from throughtime.storage import write

#: Pixels of a box, between boxes, and of the line above them.
SIDE, GAP, TITLE = 108, 8, 16
#: Milliseconds that a frame is shown, and the last one.
SHOWN, LAST = 120, 1200
#: Grey around a box: while frames are seen, and while what comes is predicted.
SEEING, PREDICTING = 90, 230


def draw_film(
    path: Path, columns: Mapping[str, NDArray[np.float64]], radius: NDArray[np.float64], seen: int
) -> None:
    """Write a GIF with a column for each name, and a row for each of the clips [N, T, K, 2] in it.

    radius  of the balls [N, K].
    seen    how many of the T frames the predictions were made from.
    """
    boxes = np.stack(
        [
            [draw_balls(clip, size, SIDE) for clip, size in zip(clips, radius, strict=True)]
            for clips in columns.values()
        ]
    )
    frames = [
        _frame(boxes[:, :, t], list(columns), SEEING if t < seen else PREDICTING)
        for t in range(boxes.shape[2])
    ]
    times = [SHOWN] * (len(frames) - 1) + [LAST]
    write(
        path,
        lambda new: frames[0].save(
            new, format="GIF", save_all=True, append_images=frames[1:], duration=times, loop=0, optimize=True
        ),
        "make room, or give another place for the picture",
    )


def _frame(boxes: NDArray[np.uint8], names: list[str], around: int) -> Image.Image:
    """One moment of all boxes [columns, rows, SIDE, SIDE], in few shades, which keeps the file small."""
    columns, rows = boxes.shape[:2]
    canvas = Image.new("L", (columns * (SIDE + GAP) + GAP, TITLE + rows * (SIDE + GAP) + GAP), 30)
    pen = ImageDraw.Draw(canvas)
    for column, name in enumerate(names):
        left = GAP + column * (SIDE + GAP)
        pen.text((left + SIDE / 2, 2), name, fill=230, anchor="ma")
        for row in range(rows):
            top = TITLE + GAP + row * (SIDE + GAP)
            pen.rectangle((left - 2, top - 2, left + SIDE + 1, top + SIDE + 1), outline=around, width=2)
            canvas.paste(Image.fromarray(boxes[column, row]), (left, top))
    return canvas.quantize(16)
