"""Film strips: frames with labels, captions and attention."""

import numpy as np

from throughtime.train.curves import save_figure
from throughtime.train.strips import FRAMES, draw_strips, draw_temporal_attention, draw_told_strips

CLIPS = [np.full((count, 3, 8, 8), 40 * count, np.uint8) for count in (3, 5)]


def texts(figure):
    return [(text.get_text(), text.get_color()) for axes in figure.axes for text in axes.texts]


def test_a_wrong_label_stands_in_red_above_the_right_one(tmp_path):
    told, right = [["a", "b", "c"], ["d"] * 5], [["a", "x", "c"], ["d"] * 5]
    found = texts(draw_strips(CLIPS, told, right))
    assert [text for text, _ in found] == ["a", "b", "x", "c", *["d"] * 5]
    assert [text for text, color in found if color == "tab:red"] == ["b"]
    save_figure(draw_strips(CLIPS, told), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size


def test_of_a_long_clip_the_first_frames_are_shown():
    clip = np.zeros((FRAMES + 9, 3, 8, 8), np.uint8)
    assert len(texts(draw_strips([clip], [["a"] * len(clip)]))) == FRAMES


def test_a_caption_stands_above_its_clip():
    figure = draw_told_strips(CLIPS, ["one $", "two"])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["one $", "two"]
    first, second = (axes.images[0].get_array() for axes in figure.axes)
    assert first.shape == second.shape == (8, 45, 3)
    for t in range(5):  # the clip has three frames, with a white line behind each
        assert (first[:, 9 * t : 9 * t + 8] == (120 if t < 3 else 255)).all()
        assert (first[:, 9 * t + 8] == 255).all()


def test_attention_stands_below_its_frames():
    weights = np.eye(3)
    figure = draw_temporal_attention(CLIPS[0], ["a", "red", "<end>"], weights)
    film, below = figure.axes
    assert film.images[0].get_array().shape == (8, 27, 3)
    assert (below.images[0].get_array() == weights).all()
    assert [label.get_text() for label in below.get_yticklabels()] == ["a", "red", "<end>"]
