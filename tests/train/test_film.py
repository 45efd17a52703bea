"""The film of balls: what moves in the data moves in the picture."""

import numpy as np
import pytest
from PIL import Image

from throughtime.train.film import draw_film


def test_the_film_of_balls_moves(tmp_path):
    positions = np.linspace(0.2, 0.8, 6)[None, :, None, None] * np.ones((2, 1, 1, 2))
    draw_film(tmp_path / "a.gif", {"truth": positions, "model": positions[:, ::-1]}, np.full((2, 1), 0.1), 3)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 6
        frames = []
        for k in range(6):
            film.seek(k)
            frames.append(np.asarray(film.convert("L"), dtype=float))
    height, width = frames[0].shape
    left, right = (slice(width // 2), slice(width // 2, None))

    def middle(frame, half):
        """Where the bright pixels of the first row of boxes are from left to right."""
        return np.argwhere(frame[20 : height // 2, half] > 240)[:, 1].mean()

    assert middle(frames[5], left) - middle(frames[0], left) == pytest.approx(0.6 * 108, abs=3)
    assert middle(frames[5], right) - middle(frames[0], right) == pytest.approx(-0.6 * 108, abs=3)
