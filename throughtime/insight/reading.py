"""What a model reads sequences with: its first recurrence, or what stands in its place."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from throughtime.errors import ConfigError
from throughtime.models.encoders import FeedForward, Window
from throughtime.models.history import BagHistory, WindowHistory
from throughtime.models.tagger import Speller
from throughtime.nn.pooling import Pooling
from throughtime.nn.recurrent import Recurrent
from throughtime.nn.state import select_rows
from throughtime.nn.transformer import TransformerEncoder
from throughtime.nn.window_transformer import WindowTransformer

#: What reads sequences of vectors [B, T, F]; the last one reads rows of numbers [B, C].
READERS = (
    Recurrent,
    WindowTransformer,
    TransformerEncoder,
    WindowHistory,
    BagHistory,
    Window,
    Pooling,
    FeedForward,
)


@dataclass(frozen=True)
class Reading:
    """The first call of what a model reads with, while it computed the loss of a batch.

    path       the name of the module in the model.
    module     one of `READERS`.
    arguments  what it was called with, by name.
    """

    path: str
    module: nn.Module
    arguments: dict[str, Any]

    @property
    def x(self) -> Tensor:
        """What it read: [B, T, F], or [B, C]."""
        read: Tensor = self.arguments[self._first]
        return read

    @property
    def lengths(self) -> Int[Tensor, "B"]:
        """How many steps of each row are real."""
        lengths = self.arguments.get("lengths")
        x = self.x
        return torch.full((len(x),), x.shape[1], device=x.device) if lengths is None else lengths

    def documents(self) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
        """For each step where its document begins, and the step behind its last: a reset, or the end."""
        steps = torch.arange(self.x.shape[1], device=self.x.device).expand(self.x.shape[:2])
        reset = self.arguments.get("reset")
        reset = torch.zeros_like(steps, dtype=torch.bool) if reset is None else reset
        begins = torch.where(reset, steps, 0).cummax(1).values
        ends = torch.where(reset, steps, self.lengths[:, None])
        ends = torch.cat([ends[:, 1:], self.lengths[:, None]], 1)
        return begins, ends.flip(1).cummin(1).values.flip(1)

    def again(self, x: Float[Tensor, "R T F"], rows: Int[Tensor, "R"]) -> Tensor:
        """What the module puts out where it reads x, all else being as in these rows of the batch."""
        arguments = {name: _rows_of(value, rows) for name, value in self.arguments.items()}
        out = self.module(**(arguments | {self._first: x}))
        return out[0] if isinstance(out, tuple) else out

    @property
    def _first(self) -> str:
        return next(iter(self.arguments))


def read(model: nn.Module, batch: Any) -> Reading:
    """How the model reads a batch; raises `ConfigError` where it does so with none of `READERS`."""
    path, module = _first_reader(model)
    found: list[dict[str, Any]] = []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not found:
            found.append(dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments))

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with torch.no_grad():
            model.loss(batch)  # type: ignore[operator]
    finally:
        handle.remove()
    return Reading(path, module, found[0])


@contextmanager
def reads_instead(module: nn.Module, x: Tensor) -> Iterator[None]:
    """Within it the first call of the module reads x in place of what it is given."""
    waiting = [x]

    def replace(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return ((waiting.pop(), *args[1:]), kwargs) if waiting else None

    handle = module.register_forward_pre_hook(replace, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _first_reader(model: nn.Module) -> tuple[str, nn.Module]:
    """The first of `READERS` in a model that does not read the characters of words."""
    spellers = [f"{path}." for path, module in model.named_modules() if isinstance(module, Speller)]
    for path, module in model.named_modules():
        if isinstance(module, READERS) and not any(path.startswith(speller) for speller in spellers):
            return path, module
    raise ConfigError(
        f"{type(model).__name__} reads with none of {', '.join(kind.__name__ for kind in READERS)}: "
        "the view weights shows such models"
    )


def _rows_of(value: Any, rows: Int[Tensor, "R"]) -> Any:
    """The rows of a tensor or of a state."""
    if isinstance(value, Tensor):
        return value[rows]
    return select_rows(value, rows) if isinstance(value, tuple) else value
