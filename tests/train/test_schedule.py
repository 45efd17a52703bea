import pytest

from throughtime.train.config import TrainingConfig
from throughtime.train.schedule import FLOOR, learning_rate


def test_warm_up_rises_linearly_and_cosine_falls_to_the_floor():
    config = TrainingConfig(learning_rate=1.0, warmup=0.1)
    assert learning_rate(config, 0.05) == pytest.approx(0.5)
    assert learning_rate(config, 0.1) == pytest.approx(1.0)
    assert learning_rate(config, 0.55) == pytest.approx(FLOOR + (1 - FLOOR) / 2)
    assert learning_rate(config, 1.0) == pytest.approx(FLOOR)


def test_constant_schedule_stays():
    config = TrainingConfig(learning_rate=1.0, warmup=0.0, schedule="constant")
    assert [learning_rate(config, done) for done in (0.0, 0.3, 1.0)] == [1.0, 1.0, 1.0]


def test_a_run_without_bounds_is_ten_epochs():
    assert TrainingConfig().epochs == 10
    assert TrainingConfig(max_minutes=1).epochs is None
    assert TrainingConfig(max_minutes=1, max_epochs=3).epochs == 3
