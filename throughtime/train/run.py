"""A run on disk: a folder that holds everything needed to use a model, and no pickle."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throughtime.errors import RunError, StorageError


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Failures to write `path` as `StorageError`."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}; what was saved before is still there. "
            "Make room, then go on with --resume"
        ) from None


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Let `save` write a file next to `path`, then put it in its place at once.

    A process killed in between leaves the old file whole. Raises `StorageError`.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(descriptor)
        new = Path(name)
        try:
            save(new)
            with new.open("rb+") as file:
                os.fsync(file.fileno())
            new.chmod(0o644)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


@dataclass(frozen=True)
class Run:
    """The folder of a run and the names in it."""

    folder: Path

    @property
    def config(self) -> Path:
        """The whole configuration, with the name of the task."""
        return self.folder / "config.toml"

    @property
    def processor(self) -> Path:
        """What turns raw input to numbers and back: vocabulary, scaling."""
        return self.folder / "processor.json"

    @property
    def model(self) -> Path:
        """The weights that validated best."""
        return self.folder / "model.safetensors"

    @property
    def last(self) -> Path:
        """Where training stands: weights, optimiser, carried state, position."""
        return self.folder / "checkpoints" / "last.safetensors"

    @property
    def best(self) -> Path:
        """The same as `last` for the step that validated best."""
        return self.folder / "checkpoints" / "best.safetensors"

    @property
    def metrics(self) -> Path:
        """One JSON object for each record of training or validation."""
        return self.folder / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        """What the model made as training went on."""
        return self.folder / "samples.txt"

    @property
    def curves(self) -> Path:
        """The figure of the metrics."""
        return self.folder / "curves.png"

    @staticmethod
    def check_new(folder: Path) -> None:
        """Raise `RunError` where `folder` already holds something."""
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(
                f"{folder} exists and is not empty: choose another --out"
                + (f", or go on with --resume {folder}" if (folder / "config.toml").exists() else "")
            )

    @classmethod
    def create(cls, folder: Path, config: str, processor: dict[str, Any]) -> Run:
        """A new run; raises `RunError` where the folder already holds something."""
        cls.check_new(folder)
        run = cls(folder)
        write(run.processor, lambda path: path.write_text(json.dumps(processor, ensure_ascii=False), "utf-8"))
        run.update_config(config)
        return run

    def update_config(self, config: str) -> None:
        """Write the configuration anew."""
        write(self.config, lambda path: path.write_text(config, "utf-8"))

    @classmethod
    def open(cls, folder: Path) -> Run:
        """A run that is there; raises `RunError` with what is missing where it is not one."""
        run = cls(folder)
        if not folder.is_dir():
            raise RunError(f"{folder} is not a run: there is no such folder")
        for path in (run.config, run.processor):
            if not path.is_file():
                raise RunError(f"{folder} is not a run: it has no {path.name}; give the folder of a training")
        return run

    def read_processor(self) -> dict[str, Any]:
        """The content of `processor`; raises `RunError` where it is damaged."""
        try:
            data: dict[str, Any] = json.loads(self.processor.read_text("utf-8"))
            return data
        except (OSError, ValueError) as error:
            raise RunError(f"{self.processor} is damaged: {error}") from None

    def append(self, path: Path, text: str) -> None:
        """Add text at the end of a file of this run."""
        with storage_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(text)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The records of `metrics`; a torn last line is left out."""
        if not self.metrics.exists():
            return []
        records = []
        for line in self.metrics.read_text("utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def best_metrics(self) -> dict[str, float]:
        """The metrics of the best validation; empty before the first."""
        valid = [record["valid"] for record in self.read_metrics() if "valid" in record]
        return min(valid, key=lambda metrics: metrics["loss"], default={})

    def forget_after(self, step: int) -> None:
        """Drop records of steps after `step`, which a resumed run will make again."""
        kept = [record for record in self.read_metrics() if record["step"] <= step]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        write(self.metrics, lambda path: path.write_text(text, "utf-8"))


@dataclass(frozen=True)
class Trained:
    """What a training came to: metrics of the best weights, and where the run stands."""

    folder: Path
    valid: dict[str, float]
    test: dict[str, float]
    steps: int
    seconds: float
    finished: bool


def new_folder(task: str) -> Path:
    """The first of runs/TASK-1, runs/TASK-2, ... that is not there."""
    number = 1
    while (folder := Path("runs") / f"{task}-{number}").exists():
        number += 1
    return folder
