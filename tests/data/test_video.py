"""Video files: what is written is read back, and what cannot be read is named."""

import sys

import numpy as np
import pytest
from PIL import Image

from throughtime.data.video import RATE, read_video, write_video
from throughtime.errors import ConfigError, DataError


@pytest.fixture
def frames():
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)) for _ in range(5)]


def test_what_is_written_is_read_back(tmp_path, frames):
    write_video(tmp_path / "a.mkv", frames)
    seconds, back = zip(*read_video(tmp_path / "a.mkv"), strict=True)
    assert seconds == pytest.approx([k / RATE for k in range(5)], abs=1e-3)
    assert all((np.asarray(a) == np.asarray(b)).all() for a, b in zip(frames, back, strict=True))


@pytest.mark.parametrize("content", [b"", b"no video at all" * 99])
def test_what_is_no_video_is_named(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.mp4 cannot be read as a video"):
        list(read_video(tmp_path / "a.mp4"))


def test_a_video_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.mp4 cannot be read as a video: No such file"):
        list(read_video(tmp_path / "gone.mp4"))


def test_sound_alone_is_no_video(tmp_path):
    import av

    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(DataError, match=r"a\.wav has no pictures in it"):
        list(read_video(tmp_path / "a.wav"))


def test_without_the_library_the_extra_is_named(tmp_path, frames, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"pip install 'throughtime\[video\]'"):
        list(read_video(tmp_path / "a.mkv"))
