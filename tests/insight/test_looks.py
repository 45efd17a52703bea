"""Figures of captioned pictures."""

import io

import numpy as np
import pytest

from throughtime.insight.looks import COLUMNS, WORDS, draw_captions, draw_looks, enlarge

PICTURE = np.full((3, 32, 32), 200, dtype=np.uint8)


def images(figure):
    figure.savefig(io.BytesIO())  # it can be drawn
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


def test_the_map_is_as_large_as_the_picture_and_its_peak_is_one():
    weights = np.zeros((4, 4), dtype=np.float32)
    weights[1, 2] = 0.3
    large = enlarge(weights, (32, 32))
    assert large.shape == (32, 32) and large.max() == 1 and large.min() == 0
    y, x = np.unravel_index(large.argmax(), large.shape)
    assert 8 <= y < 16 and 16 <= x < 24
    assert (enlarge(np.zeros((2, 2), dtype=np.float32), (8, 8)) == 0).all()


def test_the_picture_is_bright_where_a_word_was_looked_for():
    weights = np.zeros((2, 16))
    weights[0, 0] = weights[1, 15] = 1
    whole, first, second = images(draw_looks(PICTURE, ["a", "$b_"], weights, (4, 4)))
    assert (whole == 200).all()
    assert first[2, 2, 0] > 150 and first[28, 28, 0] < 60
    assert second[3, 3, 0] < 60 and second[29, 29, 0] > 150


@pytest.mark.parametrize("words", [1, COLUMNS, WORDS + 9])
def test_any_number_of_words_has_a_picture_each(words):
    figure = draw_looks(PICTURE, ["word"] * words, np.ones((words, 4)), (2, 2))
    assert len(images(figure)) == 1 + min(words, WORDS)


def test_pictures_stand_under_their_captions():
    figure = draw_captions([PICTURE] * 7, [f"caption {k}" for k in range(7)])
    assert len(images(figure)) == 7
    assert [axes.get_title() for axes in figure.axes][:7] == [f"caption {k}" for k in range(7)]
