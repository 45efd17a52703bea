"""What went bad first when training meets NaN or Inf."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from throughtime.heads.categorical import Loss
from throughtime.nn.state import State
from throughtime.train.checkpoint import weights_of
from throughtime.train.feed import Batch


def diagnose(model: nn.Module, batch: Batch, carried: State | None) -> str:
    """Name the first tensor that is not finite when `batch` is run again, with layer, row and time step.

    Looked at in the order in which they come to be: weights, carried state, what each layer puts out,
    the loss and its penalty; then, backwards, the gradient of what each layer put out and of each weight.
    """
    for name, value in weights_of(model).items():
        if not value.isfinite().all():
            return f"{_kind(value)} in the weight {name}"
    for k, values in enumerate(carried or ()):
        for value in values:
            if not value.isfinite().all():
                return f"{_kind(value)} in the state carried into layer {k}, {_place(value)}"
    found: list[str] = []
    model.zero_grad()
    with torch.enable_grad(), _watch(model, found):
        loss: Loss = model.loss(batch, carried)  # type: ignore[operator]
        parts = {"loss": loss.mean, "penalty": torch.as_tensor(loss.penalty)}
        found += [f"{_kind(part)} in the {name}" for name, part in parts.items() if not part.isfinite()]
        if not found:
            (loss.mean + loss.penalty).backward()
    gradients = ((name, p.grad) for name, p in model.named_parameters() if p.grad is not None)
    found += [f"{_kind(g)} in the gradient of {name}" for name, g in gradients if not g.isfinite().all()]
    model.zero_grad()
    return found[0] if found else "a value beyond the range of the number type in the norm of the gradient"


@contextmanager
def _watch(model: nn.Module, found: list[str]) -> Iterator[None]:
    """Note every layer whose output, or its gradient, is not finite."""

    def after(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            if not isinstance(value, Tensor) or not value.is_floating_point():
                return
            if not value.isfinite().all():
                found.append(f"{_kind(value)} in the output of {name}, {_place(value)}")
            elif value.requires_grad:
                value.register_hook(lambda gradient: backward(name, gradient))

        return hook

    def backward(name: str, gradient: Tensor) -> None:
        if not gradient.isfinite().all():
            found.append(f"{_kind(gradient)} in the gradient of the output of {name}, {_place(gradient, -1)}")

    hooks = [module.register_forward_hook(after(name)) for name, module in model.named_modules() if name]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _kind(value: Tensor) -> str:
    return "NaN" if value.isnan().any() else "Inf"


def _place(value: Tensor, which: int = 0) -> str:
    """Row, and time step where there is one, of the first bad element in time, or the last."""
    bad = (~value.isfinite()).nonzero()
    if value.dim() < 3:
        return f"row {int(bad[0, 0])}"
    order = bad[:, 1].argsort(stable=True)
    row, step = bad[order[which], :2].tolist()
    return f"row {row}, time step {step}"
