"""What tasks of pictures and clips share: where the files are, and which frames are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from throughtime.data.clips import Sampling
from throughtime.errors import ConfigError
from throughtime.tasks.task import DataConfig


def check_channels(size: int, channels: Sequence[int]) -> None:
    """Raise `ConfigError` where so many channels cannot halve pictures of this size, or leave one place."""
    if size <= (step := 2 ** len(channels)) or size % step:
        raise ConfigError(
            f"with {len(channels)} channels, each of which halves a picture, --size must be a multiple of "
            f"{step} from {2 * step} on, got {size}"
        )


class SeenConfig(DataConfig):
    """Pictures or clips that a table names."""

    folder: Path | None = Field(
        None, description="Where the table's paths begin; the folder of their table if not given."
    )
    every: int = Field(1, ge=1, description="Read every so many frames of a clip.")
    rate: float | None = Field(
        None, gt=0, description="Frames per second that are read of a video, in place of --every."
    )
    skip_damaged: bool = Field(False, description="Leave out what cannot be read, with a warning.")

    @model_validator(mode="after")
    def _check_sampling(self) -> Self:
        if self.rate is not None and self.every != 1:
            raise ValueError("--every and --rate both say which frames are read: give one of them")
        return self

    @property
    def sampling(self) -> Sampling:
        """Which frames of a clip are read."""
        return Sampling(self.every, self.rate)

    def absolute(self) -> Self:
        """The same with absolute paths, which hold from any folder."""
        known = super().absolute()
        return known if self.folder is None else known.model_copy(update={"folder": self.folder.absolute()})
