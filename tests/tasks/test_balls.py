"""The clips of balls, what they are compared with, and that a predictor learns to see."""

import numpy as np
import pytest
import torch
from rich.console import Console

from throughtime.tasks import balls
from throughtime.train.config import TrainingConfig


def test_clips_are_made_of_their_seed():
    one, more, other = (balls.make_clips(count, 1, seed) for count, seed in ((3, 0), (5, 0), (3, 1)))
    assert (one.pixels == more.pixels[:3]).all() and (one.positions == more.positions[:3]).all()
    assert not (one.positions == other.positions).all()
    assert one.pixels.shape == (3, 10, 32, 32) and one.positions.shape == (3, 30, 1, 2)


def test_constant_velocity_is_right_until_something_is_met():
    clips = balls.make_clips(50, 1, 0)
    errors = balls.distances(balls.constant_velocity(clips.positions), clips)[..., 0]
    speed = np.diff(clips.positions[:, :, 0], axis=1)
    straight = (np.abs(np.diff(speed, axis=1)) < 1e-9).all(-1)  # [50, 28]: nothing met between t and t + 2
    free = np.cumprod(straight[:, balls.SEEN - 2 :], axis=1).astype(bool)
    assert errors.shape == (50, 20) and free.any() and not free.all()
    assert (errors[free] < 1e-9).all() and (errors[~free] > 1e-9).all()


def test_a_table_of_positions_is_what_a_forecaster_reads(tmp_path):
    positions = balls.make_clips(2, 2, 0).positions
    balls.write_positions(tmp_path / "a.csv", positions)
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0] == "clip,frame,x0,y0,x1,y1" and len(lines) == 1 + 2 * 30
    assert [float(each) for each in lines[31].split(",")[2:]] == pytest.approx(
        positions[1, 0].ravel(), abs=1e-6
    )


def test_a_predictor_learns_where_a_ball_is(tmp_path, monkeypatch):
    """After some epochs it is much nearer than the middle of the box, a third of a width away in the mean."""
    monkeypatch.setattr(balls, "TRAIN", 300)
    monkeypatch.setattr(balls, "VALID", 20)
    training = TrainingConfig(max_epochs=12, learning_rate=3e-3)
    config = balls.BallConfig(channels=(8, 16), features=32, hidden=32, training=training)
    model = balls.train_on_pixels(tmp_path / "run", config, Console(quiet=True))
    clips = balls.make_clips(50, 1, 9)
    with torch.no_grad():
        errors = balls.distances(model.predict(balls.batch_of(clips, list(range(50))).frames, 20), clips)
    assert errors[:, 0].mean() < 0.15


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_predictor_knows_the_walls(tmp_path):
    """Ten steps ahead it is less than half as far away as a ball that goes straight on."""
    config = balls.BallConfig(training=TrainingConfig(max_epochs=12, learning_rate=3e-3))
    model = balls.train_on_pixels(tmp_path / "run", config, Console(quiet=True))
    clips = balls.make_clips(200, 1, 9)
    found = model.predict(balls.batch_of(clips, list(range(200))).frames, 20)
    ours, straight = (
        balls.distances(each, clips).mean((0, 2))
        for each in (found, balls.constant_velocity(clips.positions))
    )
    assert ours[9] < 0.5 * straight[9], (ours, straight)
