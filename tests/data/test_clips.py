"""Clips: frames in order, every so many, and what is wrong with them named with its file."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from throughtime.data.clips import (
    Sampling,
    _from_video,
    pad_clips,
    read_clip,
    read_clips,
    read_labelled_clips,
)
from throughtime.data.video import upright, write_video
from throughtime.errors import DataError


def grey(level, size=(16, 16), mode="RGB"):
    return Image.new("RGB", size, (level,) * 3).convert(mode)


def film(folder, levels=(10, 20, 30), names=None):
    folder.mkdir(parents=True)
    for level, name in zip(levels, names or [f"{k}.png" for k in range(len(levels))], strict=True):
        grey(level).save(folder / name)
    return folder


def levels(frames):
    return frames.pixels[:, 0, 0, 0].tolist()


def test_frames_are_in_natural_order(tmp_path):
    names = ["frame 10.png", "frame 9.png", "frame 1.png", "frame 02.png"]
    frames = read_clip(film(tmp_path / "a", (100, 90, 10, 20), names), 8)
    assert levels(frames) == [10, 20, 90, 100] and frames.pixels.shape == (4, 3, 8, 8)
    assert frames.chosen == [0, 1, 2, 3] and frames.total == 4


def test_every_so_many_frames_are_read(tmp_path):
    folder = film(tmp_path / "a", range(10, 80, 10))
    write_video(tmp_path / "a.mkv", [grey(level) for level in range(10, 80, 10)])
    for path in (folder, tmp_path / "a.mkv"):
        frames = read_clip(path, 16, Sampling(every=3))
        assert levels(frames) == [10, 40, 70] and (frames.chosen, frames.total) == ([0, 3, 6], 7)


def test_a_video_is_read_at_a_rate(tmp_path):
    """It has 8 frames per second: of 4 per second every second one is read, of 16 all, of 3 those not before
    0, 1/3, 2/3 seconds."""
    write_video(tmp_path / "a.mkv", [grey(level) for level in range(10, 90, 10)])
    chosen = {rate: read_clip(tmp_path / "a.mkv", 16, Sampling(rate=rate)).chosen for rate in (4, 16, 3)}
    assert chosen == {4: [0, 2, 4, 6], 16: [*range(8)], 3: [0, 3, 6]}


def test_a_folder_has_no_rate(tmp_path):
    with pytest.raises(
        DataError, match="which has no times, and 2 frames per second are to be read: give videos"
    ):
        read_clip(film(tmp_path / "a"), 8, Sampling(rate=2))


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/notes.txt").write_text("no picture")
    with pytest.raises(DataError, match=r"a has no frames: give a folder of PNG or JPEG files"):
        read_clip(tmp_path / "a", 8)


def test_a_clip_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="gone is not there: give a folder of frames or a video"):
        read_clip(tmp_path / "gone", 8)


def test_frames_of_other_sizes_are_named(tmp_path):
    grey(0, (16, 12)).save(film(tmp_path / "a") / "7.png")
    with pytest.raises(DataError, match=r"7\.png is of 16 x 12 pixels and 0\.png of 16 x 16 pixels"):
        read_clip(tmp_path / "a", 8)


def test_a_damaged_frame_is_named(tmp_path):
    file = film(tmp_path / "a") / "1.png"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DataError, match=r"1\.png"):
        read_clip(tmp_path / "a", 8)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_video_that_breaks_off_is_named(tmp_path, share):
    random = np.random.default_rng(0)
    frames = [Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(40)]
    write_video(tmp_path / "a.mkv", frames)
    whole = (tmp_path / "a.mkv").read_bytes()
    assert read_clip(tmp_path / "a.mkv", 8).total == 40
    (tmp_path / "a.mkv").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=r"a\.mkv (breaks off \d\.\d s before its end|cannot be read)"):
        read_clip(tmp_path / "a.mkv", 8)


def test_the_rate_is_kept_to_where_times_are_rounded_or_frames_are_missing(monkeypatch, tmp_path):
    def chosen(times, rate):
        picture = Image.new("RGB", (8, 8))
        monkeypatch.setattr("throughtime.data.clips.read_video", lambda path: ((t, picture) for t in times))
        return _from_video(tmp_path / "a.mkv", 8, Sampling(rate=rate)).chosen

    rounded = [round(k / 30, 3) for k in range(31)]
    assert chosen(rounded, 15) == list(range(0, 31, 2)) and chosen(rounded, 3) == [0, 10, 20, 30]
    assert chosen(rounded, 30) == list(range(31))
    slow = [0, 0.1, 0.2, 0.3, *(5 + k / 30 for k in range(31))]
    assert chosen(slow, 2) == [0, 4, 19, 34]


def test_a_picture_is_no_clip(tmp_path):
    folder = film(tmp_path / "a")
    with pytest.raises(DataError, match="is one picture: give a folder of frames or a video"):
        read_clip(folder / "1.png", 8)


def test_a_video_is_turned_as_the_camera_was_held():
    """-90 degrees is how telephones write that they were held upright: what is on the right is below."""
    picture = Image.new("RGB", (16, 8))
    picture.paste((255, 255, 255), (8, 0, 16, 8))  # the right half
    shown = upright(picture, -90)
    assert shown.size == (8, 16)
    assert np.asarray(shown)[8:].mean() > 250 and np.asarray(shown)[:8].mean() < 5


def test_frames_that_are_no_rgb_are_made_so_and_counted(tmp_path, caplog):
    folder = film(tmp_path / "a")
    grey(90, mode="L").save(folder / "8.png"), grey(90, mode="RGBA").save(folder / "9.png")
    [frames], _ = read_clips([folder], 8)
    assert levels(frames) == [10, 20, 30, 90, 90]
    assert "2 of 5 frames were made RGB: 1 grey, 1 alpha" in caplog.text


def table(folder, rows):
    path = folder / "clips.jsonl"
    path.write_text(
        "".join(json.dumps(dict(zip(("clip", "labels"), row, strict=True))) + "\n" for row in rows)
    )
    return path


def test_labels_are_a_list_or_a_text(tmp_path):
    film(tmp_path / "a"), film(tmp_path / "b", (1, 2))
    path = table(tmp_path, [["a", ["still", "moves left", "up"]], ["b", "still  up"]])
    part = read_labelled_clips([path], 8)
    assert part.labels == [["still", "moves left", "up"], ["still", "up"]]
    assert [len(frames) for frames in part.frames] == [3, 2]
    assert part.select([1]).labels == [["still", "up"]] and len(part.select([1])) == 1


def test_labels_of_frames_that_are_not_read_are_not_read(tmp_path):
    film(tmp_path / "a", range(5))
    part = read_labelled_clips([table(tmp_path, [["a", "a b c d e"]])], 8, sampling=Sampling(every=2))
    assert part.labels == [["a", "c", "e"]]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("a b", r"line 1: 2 labels for .*a, which has 3 frames: give one for each"),
        (["a"] * 4, r"line 1: 4 labels for .*a, which has 3 frames"),
        ("", r"line 1: labels is ''"),
        (None, r"line 1: labels is None"),
        (7, r"line 1: labels is 7"),
        (["a", "", "b"], r"line 1: labels is \['a', '', 'b'\]"),
    ],
)
def test_other_labels_than_frames_are_named(tmp_path, labels, said):
    film(tmp_path / "a")
    with pytest.raises(DataError, match=said):
        read_labelled_clips([table(tmp_path, [["a", labels]])], 8)


def test_damaged_clips_are_refused_or_left_out_with_their_number(tmp_path, caplog):
    film(tmp_path / "a")
    (tmp_path / "b.mp4").write_bytes(b"nothing")
    path = table(tmp_path, [["b.mp4", "x y"], ["a", "x y z"]])
    with pytest.raises(DataError, match=r"1 of 2 clips cannot be read; the first: .*line 1: .*b\.mp4"):
        read_labelled_clips([path], 8)
    part = read_labelled_clips([path], 8, skip_damaged=True)
    assert part.labels == [["x", "y", "z"]] and "they are left out" in caplog.text


def test_the_digest_is_of_frames_and_labels(tmp_path):
    film(tmp_path / "one/a"), film(tmp_path / "two/a"), film(tmp_path / "three/a", (10, 20, 31))
    digests = [
        read_labelled_clips([table(tmp_path / name, [["a", labels]])], 8).digest
        for name, labels in (("one", "x y z"), ("two", "x y z"), ("three", "x y z"), ("one", "x y y"))
    ]
    assert digests[0] == digests[1] and len(set(digests)) == 3


def test_clips_stand_side_by_side(tmp_path):
    one, other = np.ones((2, 3, 4, 4), np.uint8), np.full((1, 3, 4, 4), 7, np.uint8)
    frames, lengths = pad_clips([one, other])
    assert frames.shape == (2, 2, 3, 4, 4) and lengths.tolist() == [2, 1]
    assert torch.equal(frames[1, 0], torch.full((3, 4, 4), 7, dtype=torch.uint8)) and not frames[1, 1].any()
