"""The table of views."""

from __future__ import annotations

import importlib
from types import ModuleType

from throughtime.errors import ConfigError

#: Each view and what it shows. `throughtime.insight.NAME` has `Options`, a dataclass of its own options, and
#: `look(subject, options)`, which returns a `View`.
VIEWS = {
    "gradients": "The gradient of the loss by the hidden state of every layer at every time step.",
    "jacobian": "How far a change of the state lives: dh_j/dh_k, singular values, spectral radius, Lyapunov.",
    "gates": "How open the gates are over the input, and which are saturated.",
    "neurons": "Units that track something: quotes, brackets, the length of the line, indentation.",
    "states": "Passages where a chosen pattern of units is on.",
    "memory": "How far back an input still changes the output.",
    "attention": "Where the model looks.",
    "saliency": "Which inputs an answer rests on (integrated gradients).",
    "errors": "Where the model is worst.",
    "graph": "The computational graph of the model, rolled and unrolled.",
    "weights": "The weights: norms, singular values, spectral radii.",
}


def find_view(name: str) -> ModuleType:
    """The module of a view; raises `ConfigError` where there is none of that name."""
    if name not in VIEWS:
        raise ConfigError(f'there is no view "{name}": there are {", ".join(VIEWS)}')
    return importlib.import_module(f"throughtime.insight.{name}")
