"""Projection, loss and prediction in one object."""

from throughtime.heads.categorical import Categorical, Loss

__all__ = [
    "Categorical",
    "Loss",
]
