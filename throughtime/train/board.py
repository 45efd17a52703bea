"""Records of training for TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from throughtime.errors import ConfigError


class Board:
    """Writes every number of the records of a run into `folder`, for `tensorboard --logdir FOLDER` to show.

    What stands there of steps after `step`, where a run goes on, is not shown any more. Raises `ConfigError`
    where TensorBoard is not installed.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(
                "--tensorboard needs TensorBoard, which is not installed: "
                "pip install 'throughtime[tensorboard]'"
            ) from None
        self.writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def write(self, record: dict[str, Any]) -> None:
        """The numbers of a record at its step; those of training stand under "train"."""
        step = record["step"]
        values = record if {"valid", "watch"} & record.keys() else {"train": record}
        for name, value in _numbers(values):
            if name not in {"step", "epoch", "seconds", "train/step", "score"}:
                self.writer.add_scalar(name, value, step)
        self.writer.flush()


def _numbers(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number, by the names that lead to it."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", value
