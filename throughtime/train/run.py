"""A run on disk: a folder that holds everything needed to use a model, and no pickle."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throughtime.errors import RunError
from throughtime.storage import finite, storage_errors, write

#: What to do when a run cannot be written.
ADVICE = "what was saved before is still there. Make room and go on with --resume, or give another --out"


@dataclass(frozen=True)
class Run:
    """The folder of a run and the names in it.

    listeners  get every record too.
    """

    folder: Path
    listeners: tuple[Callable[[dict[str, Any]], object], ...] = ()

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
    def board(self) -> Path:
        """The records once more, for TensorBoard."""
        return self.folder / "tensorboard"

    @property
    def curves(self) -> Path:
        """The figure of the metrics."""
        return self.folder / "curves.png"

    @staticmethod
    def check_new(folder: Path) -> None:
        """Raise `RunError` where `folder` already holds something."""
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            resumable = Run(folder).last.exists()
            raise RunError(
                f"{folder} exists and is not empty: choose another --out"
                + (f", or go on with --resume {folder}" if resumable else ", or delete it")
            )

    @classmethod
    def create(cls, folder: Path, config: str, processor: dict[str, Any]) -> Run:
        """A new run; raises `RunError` where the folder already holds something."""
        cls.check_new(folder)
        run = cls(folder)
        text = json.dumps(processor, ensure_ascii=False)
        write(run.processor, lambda path: path.write_text(text, "utf-8"), ADVICE)
        run.update_config(config)
        return run

    def update_config(self, config: str) -> None:
        """Write the configuration anew."""
        write(self.config, lambda path: path.write_text(config, "utf-8"), ADVICE)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """A run that is there; raises `RunError` with what is missing where it is not one."""
        run = cls(folder)
        try:
            there = folder.is_dir()
        except OSError as error:  # a text in place of a folder may be too long for a name
            raise RunError(f"{str(folder)[:60]} is not a run: {error.strerror}") from None
        if not there:
            raise RunError(f"{folder} is not a run: there is no such folder")
        for path in (run.config, run.processor):
            if not path.is_file():
                raise RunError(f"{folder} is not a run: it has no {path.name}; give the folder of a training")
        return run

    def read_processor(self) -> dict[str, Any]:
        """The content of `processor`; raises `RunError` where it is damaged."""
        try:
            data = json.loads(self.processor.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.processor} is damaged: {error}") from None
        if not isinstance(data, dict):
            raise RunError(f"{self.processor} is damaged: it holds no JSON object")
        return data

    def append(self, path: Path, text: str) -> None:
        """Add text at the end of a file of this run."""
        with storage_errors(path, ADVICE), path.open("a", encoding="utf-8") as file:
            file.write(text)

    def record(self, values: dict[str, Any]) -> None:
        """Add a line to `metrics`; numbers that are not finite become null, as JSON has none."""
        record = finite(values)
        self.append(self.metrics, json.dumps(record) + "\n")
        for listen in self.listeners:
            listen(record)

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
        """The metrics of the best validation; empty before the first whose score is finite."""
        valid = [record for record in self.read_metrics() if record.get("score") is not None]
        best: dict[str, Any] = min(valid, key=lambda record: record["score"], default={})
        return best.get("valid", {})

    def forget_after(self, step: int) -> None:
        """Drop records of steps after `step`, which a resumed run will make again."""
        kept = [record for record in self.read_metrics() if record["step"] <= step]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        write(self.metrics, lambda path: path.write_text(text, "utf-8"), ADVICE)


@dataclass(frozen=True)
class Trained:
    """What a training came to: metrics of the best weights, and where the run stands.

    parts  the same class by class, or beside what needs no model, as rows of a table.
    """

    folder: Path
    valid: dict[str, float]
    test: dict[str, float]
    steps: int
    seconds: float
    finished: bool
    parts: Sequence[dict[str, Any]] = ()


def new_folder(task: str) -> Path:
    """The first of runs/TASK-1, runs/TASK-2, ... that is not there."""
    number = 1
    while (folder := Path("runs") / f"{task}-{number}").exists():
        number += 1
    return folder
