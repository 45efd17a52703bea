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
#: Seconds that the last picture may be early without the file having been cut off.
LATE = 0.3


def read_video(path: Path) -> Iterator[tuple[float, Image.Image]]:
    """The frames of a video file as RGB pictures, each with its time in seconds from the first one.

    They are turned as the file says that the camera was held. Raises `DataError` where the file cannot be
    read, where there is no picture in it, where it is damaged on the way, and where it breaks off, as far as
    it says how long it is (GIF and MPEG-PS do not); `ConfigError` without the extra `video`.
    """
    av = _library()
    begin: float | None = None
    seconds = 0.0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path} has no pictures in it: give a video")
            for number, frame in enumerate(container.decode(video=0)):
                seconds = frame.time if frame.time is not None else number / RATE
                begin = seconds if begin is None else begin
                yield seconds - begin, upright(frame.to_image(), frame.rotation)
            missing = 0.0 if begin is None else _duration(container) - (seconds - begin)
            if missing > LATE:
                raise DataError(f"{path} breaks off {missing:.1f} s before its end: give the whole file")
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{path} cannot be read as a video: {error.strerror or error}") from None


def upright(picture: Image.Image, rotation: int) -> Image.Image:
    """A picture turned by so many degrees against the clock, as the file says that it is to be shown."""
    return picture.rotate(rotation, expand=True) if rotation else picture


def _duration(container: Any) -> float:
    """The seconds from the first to the last picture that a file says it has; 0 where it does not say."""
    stream = container.streams.video[0]
    frame = float(1 / stream.average_rate) if stream.average_rate else 0.0
    if stream.duration is not None:
        return float(stream.duration * stream.time_base) - frame
    # What a file of sound and pictures lasts may be the sound.
    return container.duration / 1e6 - frame if container.duration and len(container.streams) == 1 else 0.0


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


def check_video() -> None:
    """Raise `ConfigError` where videos cannot be written."""
    _library()


def _library() -> Any:
    """PyAV; raises `ConfigError` where it is not installed."""
    try:
        import av
    except ImportError:
        raise ConfigError("videos are read and written by PyAV: pip install 'throughtime[video]'") from None
    return av
