"""Layers in the terms of torch."""

from throughtime.nn.recurrent import Recurrent, State, map_state

__all__ = [
    "Recurrent",
    "State",
    "map_state",
]
