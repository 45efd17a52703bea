"""The world in motion: labels and captions are what happens in the pixels."""

import json
from itertools import groupby, pairwise

import numpy as np
import pytest
from PIL import Image

from throughtime.data.motion import ACTIONS, NOTHING, label_frames, make_clip, paint_clip, write_clips
from throughtime.data.shapes import Thing
from throughtime.data.video import read_video

SIZE = 48


def drawn(seed):
    random = np.random.default_rng([3, seed])
    clip = make_clip(random, SIZE)
    return clip, [np.asarray(frame, dtype=float) for frame in paint_clip(clip, SIZE, random)]


def spot(clip, picture):
    """Where the thing is (x, y) and the square root of its pixels; None where there is none."""
    there = np.abs(picture - np.array(clip.background)).max(-1) > 40
    if there.sum() < 9:
        return None
    y, x = np.argwhere(there).mean(0)
    return np.array([x, y, np.sqrt(there.sum())])


@pytest.mark.parametrize("seed", range(40))
def test_a_label_is_how_the_pixels_changed(seed):
    clip, pictures = drawn(seed)
    assert len(pictures) == len(clip.labels) and 8 <= len(pictures) <= 24
    spots = [spot(clip, picture) for picture in pictures]
    for label, before, now in zip(clip.labels, [None, *spots], spots, strict=False):
        assert (label == NOTHING) == (now is None)
        if before is None or now is None:
            assert label in ("still", NOTHING)
            continue
        moved = now - before
        ways = np.array(ACTIONS[label])
        if label in ("grow", "shrink"):
            assert moved[2] * ways[2] > 0.2
        else:
            # The centre of a triangle's pixels moves by less than a pixel's fraction when it stands still.
            assert np.sign(np.where(np.abs(moved[:2]) > 0.8, moved[:2], 0)).tolist() == ways[:2].tolist()


@pytest.mark.parametrize("seed", range(40))
def test_the_caption_tells_the_labels_in_order(seed):
    clip, _ = drawn(seed)
    a, colour, shape, *rest = clip.caption.split()
    assert a == "a" and {(t.colour, t.shape) for t in clip.frames if t} == {(colour, shape)}
    told = [phrase.split()[-1] for phrase in " ".join(rest).split(" then ")]
    said = {"stops": "still", "waits": "still", "grows": "grow", "shrinks": "shrink"}
    said |= {"appears": NOTHING, "disappears": NOTHING}
    happens = [label for label, _ in groupby(clip.labels)]
    # A thing is still in the frame in which it comes, whatever it does next.
    told = [said.get(word, word) for word in told]
    expected = []
    for label in told:
        expected += (
            ["still", label] if label not in ("still", NOTHING) and expected in ([], [NOTHING]) else [label]
        )
    assert happens == expected


@pytest.mark.parametrize("seed", range(20))
def test_words_tell_of_frames(seed):
    clip, _ = drawn(seed)
    words = clip.caption.split()
    assert len(words) == len(clip.said)
    assert all(span is None for word, span in zip(words, clip.said, strict=True) if word in ("a", "then"))
    spans = list(dict.fromkeys(span for span in clip.said if span))
    assert spans[0][0] == 0 and spans[-1][1] == len(clip.frames)
    assert all(one[1] == other[0] for one, other in pairwise(spans))
    for word, span in zip(words, clip.said, strict=True):
        if word in ("left", "right", "up", "down"):
            assert set(clip.labels[span[0] + 1 : span[1]]) == {word}


def test_every_action_is_done_and_direction_is_not_to_be_seen_in_a_frame():
    clips = [make_clip(np.random.default_rng(k)) for k in range(200)]
    assert {label for clip in clips for label in clip.labels} == {*ACTIONS, NOTHING}
    thing = Thing("red", "circle", (10.0, 10.0, 20.0, 20.0), (200, 0, 0))
    moved = thing._replace(box=(12.0, 10.0, 22.0, 20.0))
    assert label_frames([thing, moved]) == ("still", "right")
    assert label_frames([moved, thing]) == ("still", "left")
    assert label_frames([None, moved, moved, None]) == (NOTHING, "still", "still", NOTHING)


def test_a_world_is_made_of_its_seed_as_folders_or_videos(tmp_path):
    write_clips(tmp_path / "one", 3, 32, seed=1)
    write_clips(tmp_path / "more", 5, 32, seed=1, video=True)
    write_clips(tmp_path / "other", 3, 32, seed=2)
    one, more, other = (
        [json.loads(line) for line in (tmp_path / name / "clips.jsonl").read_text().splitlines()]
        for name in ("one", "more", "other")
    )
    assert [row["caption"] for row in one] == [row["caption"] for row in more[:3]]
    assert one != other
    for row, filmed in zip(one, more, strict=False):
        files = sorted((tmp_path / "one" / row["clip"]).iterdir())
        frames = [frame for _, frame in read_video(tmp_path / "more" / filmed["clip"])]
        assert len(files) == len(frames) == len(row["labels"]) == len(filmed["labels"])
        for file, frame in zip(files, frames, strict=True):
            with Image.open(file) as picture:
                assert (np.asarray(picture) == np.asarray(frame)).all()
