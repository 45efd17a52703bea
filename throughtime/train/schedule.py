"""The learning rate as a function of how much of the run is done, in epochs or in minutes alike."""

from __future__ import annotations

import math

from throughtime.train.config import TrainingConfig

#: What is left of the learning rate at the end of a cosine.
FLOOR = 0.02


def learning_rate(config: TrainingConfig, done: float) -> float:
    """The learning rate after the share `done`, 0 to 1, of a run.

    It rises linearly to `learning_rate` over `warmup` and falls to 2 % of it along half a cosine
    (Loshchilov & Hutter 2017), or stays.
    """
    rise = min(1.0, done / config.warmup) if config.warmup else 1.0
    if rise < 1 or config.schedule == "constant":
        return config.learning_rate * max(rise, FLOOR)
    fallen = (done - config.warmup) / (1 - config.warmup)
    return config.learning_rate * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(fallen, 1.0))))
