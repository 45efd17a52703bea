"""Where balls will be: from the pixels of some frames, and from their coordinates in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from rich.console import Console
from torch import Tensor

from throughtime.config import Config
from throughtime.data.balls import Numbers, draw_balls, make_balls, simulate
from throughtime.data.batches import Buckets, ExampleBatch
from throughtime.models.ball_predictor import BallPredictor
from throughtime.models.clips import FrameEncoder
from throughtime.nn.convolution import Convolution, PictureGrid
from throughtime.tasks.forecaster import (
    ForecastConfig,
    ForecasterConfig,
    ForecasterModelConfig,
    ForecasterTask,
    ForecasterTraining,
    SeriesConfig,
)
from throughtime.tasks.table import load
from throughtime.train.checkpoint import load_weights, read_tensors
from throughtime.train.config import TrainingConfig
from throughtime.train.fit import fit
from throughtime.train.metrics import evaluating
from throughtime.train.run import Run

#: Frames that are seen, and steps that are predicted.
SEEN, STEPS = 10, 20
#: Pixels of a frame's side.
SIZE = 32
#: Clips to train on and to choose the best weights by, and how many at a time.
TRAIN, VALID, BATCH = 3000, 200, 50


class BallConfig(Config):
    """Everything that decides a training from pixels."""

    task: Literal["ball"] = "ball"
    balls: int = Field(1, ge=1, le=3, description="Balls in the box.")
    channels: tuple[int, ...] = Field((8, 16, 32), min_length=1, description="Channels of the convolutions.")
    features: int = Field(64, ge=1, description="Features of a frame.")
    hidden: int = Field(128, ge=1, description="Units of the recurrence.")
    training: TrainingConfig = TrainingConfig(learning_rate=3e-3)


@dataclass(frozen=True, eq=False)
class BallClips:
    """N clips of SEEN frames, and where the balls are in them and in the STEPS frames after them.

    pixels     [N, SEEN, SIZE, SIZE], grey.
    positions  [N, SEEN + STEPS, K, 2].
    radius     [N, K].
    """

    pixels: NDArray[np.uint8]
    positions: Numbers
    radius: Numbers


def make_clips(count: int, balls: int, seed: int) -> BallClips:
    """Clips by chance; number k depends on the seed and k alone."""
    worlds = [make_balls(np.random.default_rng([seed, k]), balls) for k in range(count)]
    positions = np.stack([simulate(world, SEEN + STEPS)[0] for world in worlds])
    pixels = [
        draw_balls(each[:SEEN], world.radius, SIZE) for each, world in zip(positions, worlds, strict=True)
    ]
    return BallClips(np.stack(pixels), positions, np.stack([world.radius for world in worlds]))


@dataclass(frozen=True, kw_only=True)
class ClipBatch(ExampleBatch):
    """Clips as numbers; see `throughtime.models.ball_predictor`."""

    frames: Tensor
    positions: Tensor

    @property
    def steps(self) -> int:
        """Frames, seen and predicted."""
        return self.positions.shape[0] * self.positions.shape[1]


def batch_of(clips: BallClips, rows: list[int], number: int = 0) -> ClipBatch:
    """Some clips; all three colours are the grey of the picture."""
    frames = torch.from_numpy(clips.pixels[rows])[:, :, None].expand(-1, -1, 3, -1, -1)
    positions = torch.from_numpy(clips.positions[rows]).float().flatten(2)
    return ClipBatch(number=number, frames=frames, positions=positions)


def train_on_pixels(folder: Path, config: BallConfig, console: Console) -> BallPredictor | None:
    """The model of a new run that learned to see balls and to predict them, with its best weights.

    None where Ctrl-C stopped the training.
    """
    train, valid = (make_clips(*each) for each in ((TRAIN, config.balls, 0), (VALID, config.balls, 1)))
    torch.manual_seed(config.training.seed)
    grid = PictureGrid(Convolution(config.channels), config.channels[-1])
    model = BallPredictor(FrameEncoder(grid, SIZE, config.features), config.balls, hidden=config.hidden)
    everything = batch_of(valid, list(range(VALID)))

    def validate() -> dict[str, float]:
        batch = everything.to(next(model.parameters()).device)
        with evaluating(model):
            errors = distances(model.predict(batch.frames, STEPS).cpu(), valid)
            loss = model.loss(batch)
        return {"loss": loss.total.item() / loss.count, "error": float(errors.mean())}

    run = Run.create(folder, config.to_toml(), {})
    _, finished = fit(
        model,
        Buckets([1] * TRAIN, BATCH, lambda rows, number: batch_of(train, rows, number), config.training.seed),
        run,
        config.training,
        validate=validate,
        validation_tokens=everything.steps,
        score=lambda metrics: metrics["error"],
        sample=lambda: f"{validate()['error']:.4f} box widths from the truth",
        read=lambda loss: f"{loss:.4f} box widths",
        console=console,
    )
    if not finished:
        return None
    load_weights(model, read_tensors(run.model)[0])
    return model.cpu().eval()


def train_on_coordinates(folder: Path, balls: int, minutes: float, console: Console) -> ForecasterTask | None:
    """The forecaster of a new run, with a mixture of Gaussians over all coordinates at once.

    None where Ctrl-C stopped the training.
    """
    files = folder.with_name("train.csv"), folder.with_name("valid.csv")
    for path, count, seed in zip(files, (TRAIN, VALID), (0, 1), strict=True):
        write_positions(path, make_clips(count, balls, seed).positions)
    config = ForecasterConfig(
        data=SeriesConfig(
            paths=(files[0],), valid=(files[1],), targets=targets(balls), time="frame", series="clip"
        ),
        model=ForecasterModelConfig(
            head="mixture",
            horizon=STEPS,
            context=SEEN,
            centre="global",
            scale="global",
            hidden=128,
            lags=(),
        ),
        search=ForecastConfig(samples=1),
        training=ForecasterTraining(max_minutes=minutes, learning_rate=3e-3),
    )
    if not ForecasterTask.train(config, folder, console).finished:
        return None
    task: ForecasterTask = load(folder)
    return task


def forecast(task: ForecasterTask, clips: BallClips, folder: Path) -> Numbers:
    """Where the forecaster says the balls of clips will be [N, STEPS, 2 K]."""
    path = folder / "seen.csv"
    write_positions(path, clips.positions[:, :SEEN])
    answers = task.predict(task.inputs(path))
    points = [[values["point"] for values in answer["forecast"].values()] for answer in answers]
    return np.array(points).transpose(0, 2, 1)


def targets(balls: int) -> tuple[str, ...]:
    """The names of the columns of coordinates."""
    return tuple(f"{axis}{k}" for k in range(balls) for axis in "xy")


def write_positions(path: Path, positions: Numbers) -> None:
    """A table of positions [N, T, K, 2]: clip, frame, and the coordinates of each ball."""
    lines = [",".join(["clip", "frame", *targets(positions.shape[2])])]
    for clip, frames in enumerate(positions.reshape(*positions.shape[:2], -1).tolist()):
        for frame, row in enumerate(frames):
            lines.append(",".join([str(clip), str(frame), *(f"{value:.6f}" for value in row)]))
    path.write_text("\n".join(lines) + "\n", "utf-8")


def constant_velocity(positions: Numbers) -> Numbers:
    """Where balls would be that go on as between the last two frames that were seen [N, STEPS, 2 K]."""
    last, before = positions[:, SEEN - 1], positions[:, SEEN - 2]
    steps = np.arange(1, STEPS + 1)[:, None, None]
    straight: Numbers = (last[:, None] + steps * (last - before)[:, None]).reshape(len(last), STEPS, -1)
    return straight


def distances(predicted: Any, clips: BallClips) -> Numbers:
    """How far balls are predicted from where they are, in box widths [N, STEPS, K]."""
    true = clips.positions[:, SEEN:]
    found: Numbers = np.linalg.norm(np.asarray(predicted).reshape(true.shape) - true, axis=-1)
    return found
