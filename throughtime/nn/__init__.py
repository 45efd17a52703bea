"""Layers in the terms of torch, and all of `torch.nn` beside them.

A model that says `import throughtime.nn as nn` in place of `import torch.nn as nn` runs: LSTM, GRU and RNN
are ours, and every other name is torch's. docs/layers.md says what is not the same.
"""

from typing import Any

import torch

from throughtime.nn.drop_in import GRU, LSTM, RNN
from throughtime.nn.penalties import activation_penalty, temporal_activation_penalty
from throughtime.nn.pooling import AttentionPooling, Pooling, pool_last, pool_max, pool_mean
from throughtime.nn.recurrent import Recurrent
from throughtime.nn.state import (
    State,
    detach,
    join_rows,
    load_state,
    map_state,
    reset_rows,
    save_state,
    select_rows,
)

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AttentionPooling",
    "Pooling",
    "Recurrent",
    "State",
    "activation_penalty",
    "detach",
    "join_rows",
    "load_state",
    "map_state",
    "pool_last",
    "pool_max",
    "pool_mean",
    "reset_rows",
    "save_state",
    "select_rows",
    "temporal_activation_penalty",
]


def __getattr__(name: str) -> Any:
    """What is not ours is torch's."""
    try:
        return getattr(torch.nn, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(torch.nn)})
