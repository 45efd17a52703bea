"""Clips: frames in order, every so many, and what is wrong with them named with its file."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from throughtime.data.clips import Sampling, pad_clips, read_clip, read_clips, read_labelled_clips
from throughtime.data.video import write_video
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
    with pytest.raises(DataError, match="which has no times: take --every"):
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


def test_a_video_that_breaks_off_is_named_or_shorter(tmp_path):
    random = np.random.default_rng(0)
    frames = [Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(9)]
    write_video(tmp_path / "a.mkv", frames)
    whole = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(whole[: len(whole) // 20])
    with pytest.raises(DataError, match=r"a\.mkv"):
        read_clip(tmp_path / "a.mkv", 8)


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
