"""Video files by PyAV, which the extra `video` installs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from throughtime.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL import Image

#: Frames per second of the videos that are written.
RATE = 8


def read_video(path: Path) -> Iterator[tuple[float, Image.Image]]:
    """The frames of a video file as RGB pictures, each with its time in seconds from the first one.

    Raises `DataError` where the file cannot be read, where there is no picture in it, and where it breaks off
    or is damaged on the way; `ConfigError` without the extra `video`.
    """
    av = _library()
    begin: float | None = None
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path} has no pictures in it: give a video")
            for number, frame in enumerate(container.decode(video=0)):
                seconds = frame.time if frame.time is not None else number / RATE
                begin = seconds if begin is None else begin
                yield seconds - begin, frame.to_image()
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{path} cannot be read as a video: {error.strerror or error}") from None


def write_video(path: Path, frames: Sequence[Image.Image]) -> None:
    """A video of frames of one size, without loss (FFV1): what is read back is what was written.

    The suffix of the path says the container, and .mkv holds this. Raises `ConfigError` without the extra.
    """
    av = _library()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=RATE)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())


def _library() -> Any:
    try:
        import av
    except ImportError:
        raise ConfigError("videos are read and written by PyAV: pip install 'throughtime[video]'") from None
    return av
