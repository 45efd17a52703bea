"""The gradient of the loss by the hidden states, at every layer and time step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from tyro.conf import arg

from throughtime.insight.recorder import GRADIENT, Recorder
from throughtime.insight.view import Subject, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 200
#: Below this share of its norm at the loss a gradient has vanished; above this multiple it has exploded.
VANISHED, EXPLODED = 1e-3, 1e3
#: Distances from the loss that the table tells.
DISTANCES = (10, 50, 100)


@dataclass(frozen=True)
class Options:
    """What the view takes."""

    state: Annotated[
        str | None, arg(help="State whose gradient is taken, as c; what the cells put out if not given.")
    ] = None


def look(subject: Subject, options: Options) -> View:
    """‖dL/ds_t‖ of each layer and direction at each step, L in nats per token: the mean over rows.

    Twice, where the loss is a sum over steps (language models, encoder-decoders): of the whole loss, which
    meets the states at every step; and of its part at the last step alone, against the distance from it,
    which tells how far credit reaches, within its document. Where the loss meets every step and cannot be
    taken apart, as of tags, there is the first alone; where it stands at the end, the second alone.
    There a gradient has vanished where it is below a thousandth of its norm at the loss, and exploded where
    it is a thousand times that. `rate` is the factor from a step to the one before it, by the exponential
    that fits best until it has vanished: 1 keeps a gradient, 0.9 halves it in 7 steps; `left` is what is left
    at the farthest step. From the training's records: how often its gradient was clipped.
    """
    names = [f"{GRADIENT}{name}" for name in _states(subject, options.state)]
    whole = gradient_norms(subject.model, subject.batch, names)
    means = {_name(key): _mean(norms, real) for key, (norms, real) in whole.items()}
    last = _last_alone(subject.batch)
    figures: dict[str, Callable[[], Figure]] = {}
    if last is None and _wanted_at_steps(subject.batch):
        far: dict[str, list[float]] = {}
        rows = [{"state": _name(key)} | quarters(norms, real) for key, (norms, real) in whole.items()]
        lines = ["The loss has a part at every step, and cannot be taken apart here: no distance is told."]
    else:
        ends = whole if last is None else gradient_norms(subject.model, last, names)
        far = {
            _name(key): _by_distance(norms, real, key)
            for key, (norms, real) in ends.items()
            if last is None or not (_reverse(key) or _encodes(subject.model, key))
        }
        rows = [_row(key, values) for key, values in far.items()]
        lines = [_told(row) for row in rows]
        if len(far) < len(ends):
            lines.append(
                "The last step's loss has no distance from directions from the end, or from an encoder."
            )
    figures["gradients"] = partial(_draw, means if last is not None or not far else {}, far)
    if clipped := [record for record in subject.records if record.get("clipped") is not None]:
        share = sum(record["clipped"] for record in clipped) / len(clipped)
        lines.append(f"In training {share:.0%} of the steps had their gradient clipped.")
        figures["gradients-in-training"] = partial(_draw_training, clipped)
    return View(lines, rows, figures, details={"whole": means, "by_distance": far})


def gradient_norms(
    model: nn.Module, batch: Any, names: Sequence[str] = ("gradients",)
) -> dict[str, tuple[Float[Tensor, "B T"], Tensor]]:
    """‖dL/ds_t‖ of each row and step, and which steps are those of the row's last document.

    By the keys of `Recorder`. L is the mean loss of `batch`. The gradients that stand in the model's
    parameters stay as they are.
    """
    with without_trace(model), Recorder(model, "reset", *names) as seen:
        loss = model.loss(batch)  # type: ignore[operator]
        (loss.total / max(loss.count, 1)).backward()
        found = {}
        for key in seen:
            if GRADIENT in key:
                begins = seen.last(f"{key.partition(f'.{GRADIENT}')[0]}.reset")[..., 0].cpu() > 0
                found[key] = seen.last(key).norm(dim=-1).cpu(), seen.real(key) & _in_last_document(begins)
        return found


def quarters(norms: Float[Tensor, "B T"], real: Bool[Tensor, "B T"]) -> dict[str, float | None]:
    """The mean norm in each quarter of the steps; None where no row reaches it."""
    found: dict[str, float | None] = {}
    parts = zip(norms.tensor_split(4, 1), real.tensor_split(4, 1), strict=True)
    for k, (part, mask) in enumerate(parts, start=1):
        found[f"quarter_{k}"] = float(part[mask].mean()) if mask.any() else None
    return found


@contextmanager
def without_trace(model: nn.Module) -> Iterator[None]:
    """A backward pass within leaves the gradients of the parameters as they were, and may need none."""
    before = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in before:
        parameter.grad = None
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient


def _states(subject: Subject, state: str | None) -> list[str]:
    """The states whose gradient is taken: the one that is named, or what each cell puts out."""
    if state is not None:
        return [state]
    cells = [cell for layer in subject.recurrences.values() for cell in layer.cells]
    return list(dict.fromkeys(cell.states[0] for cell in cells))


def _last_alone(batch: Any) -> Any:
    """The batch with the last target of each row alone, where its loss is a sum over steps; else None."""
    inputs, targets = getattr(batch, "inputs", None), getattr(batch, "targets", None)
    if not isinstance(inputs, Tensor) or not isinstance(targets, Tensor) or inputs.shape != targets.shape:
        return None
    steps = torch.arange(targets.shape[1], device=targets.device)
    last = torch.where(targets != -100, steps, -1).amax(1, keepdim=True)
    return dataclasses.replace(batch, targets=targets.where(steps == last, -100))


def _in_last_document(begins: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """The steps from the last one on before which a row begins anew: before it stands another sequence."""
    return begins.flip(1).cumsum(1).flip(1) - begins.long() == 0


def _wanted_at_steps(batch: Any) -> bool:
    """Whether something is wanted at every step: targets are a number for each."""
    targets = getattr(batch, "targets", None)
    return isinstance(targets, Tensor) and targets.dim() == 2 and not targets.is_floating_point()


def _reverse(key: str) -> bool:
    """Whether a key is of a direction from the end."""
    return ".reverse." in f".{key}"


def _encodes(model: nn.Module, key: str) -> bool:
    """Whether a key is of what reads the source of a decoder, which has steps of its own."""
    return hasattr(model, "decoder") and not key.startswith("decoder.")


def _name(key: str) -> str:
    """What stands before "gradient" in a key, and the state behind it."""
    return key.replace(f".{GRADIENT}", " ")


def _by_distance(norms: Float[Tensor, "B T"], real: Tensor, key: str) -> list[float]:
    """The mean norm at 0, 1, 2, ... steps from the end of each row, where the loss is."""
    if _reverse(key):  # this direction ends at the first step
        ends = [(row[mask].tolist()) for row, mask in zip(norms, real, strict=True)]
    else:
        ends = [row[mask].flip(0).tolist() for row, mask in zip(norms, real, strict=True)]
    longest = max(map(len, ends), default=0)
    columns = ([row[k] for row in ends if k < len(row)] for k in range(longest))
    return [sum(column) / len(column) for column in columns]


def _mean(norms: Float[Tensor, "B T"], real: Tensor) -> list[float]:
    """The mean norm at each step over the rows that have it."""
    return (norms.sum(0) / real.sum(0).clamp(min=1)).tolist()


def _row(key: str, far: list[float]) -> dict[str, Any]:
    start = far[0] if far and far[0] > 0 else math.nan
    gone = next((k for k, value in enumerate(far) if not value > VANISHED * start), None)
    kept = far[:gone]
    rate = _slope(kept)
    row: dict[str, Any] = {"state": key, "steps": len(far), "at_the_loss": start}
    row |= {f"{k}_before": far[k] / start if k < len(far) else math.nan for k in DISTANCES}
    return row | {
        "left": far[-1] / start if far else math.nan,
        "rate": rate,
        "vanishes_at": gone,
        "vanished": sum(value <= VANISHED * start for value in far) / max(len(far), 1),
        "exploded": sum(value >= EXPLODED * start for value in far) / max(len(far), 1),
    }


def _slope(norms: Sequence[float]) -> float:
    """The factor per step of the exponential that fits the norms best, by their logarithms."""
    if len(norms) < 2:
        return math.nan
    logs = torch.tensor(norms, dtype=torch.float64).log()
    steps = torch.arange(len(norms), dtype=torch.float64)
    steps, logs = steps - steps.mean(), logs - logs.mean()
    return math.exp(float(steps @ logs / (steps @ steps)))


def _told(row: Mapping[str, Any]) -> str:
    if math.isnan(row["at_the_loss"]):
        return f"{row['state']}: no gradient: the loss is as low as it can be, or does not depend on it."
    if row["steps"] < 2:
        return f"{row['state']}: one step was read, which has no distance: give more input."
    if row["exploded"]:
        return f"{row['state']}: explodes, by a factor of {row['rate']:.3g} a step going back."
    if row["vanishes_at"] is None:
        return (
            f"{row['state']}: does not vanish in what was read: {row['left']:.2g} of it is left at the "
            f"farthest of {row['steps']} steps."
        )
    return (
        f"{row['state']}: below a thousandth of what it is at the loss {row['vanishes_at']} steps before it; "
        f"{row['rate']:.3g} of it is left per step until there."
    )


def _draw(whole: Mapping[str, list[float]], far: Mapping[str, list[float]]) -> Figure:
    """The curves of the whole loss over the steps, and of its end over the distance, where there are some."""
    from throughtime.insight.figures import line, slide

    first = {key: (range(1, len(values) + 1), values) for key, values in whole.items()}
    second = {key: (range(len(values)), values) for key, values in far.items()}
    shown = [
        (curves, title, label)
        for curves, title, label in (
            (first, "of the whole loss", "step t"),
            (second, "of the loss at the last step" if whole else "of the loss", "steps before the last one"),
        )
        if curves
    ]
    figure, panels = slide(len(shown))
    names = list(dict.fromkeys(key for curves, *_ in shown for key in curves))
    for panel, (curves, title, label) in zip(panels, shown, strict=True):
        for key, (places, values) in curves.items():
            panel.plot(places, values, label=key, **line(names.index(key)))
        panel.set(title=title, xlabel=label, ylabel="‖dL/ds‖ (nats per unit of the state)", yscale="log")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 3))
    return figure


def _draw_training(records: Sequence[Mapping[str, Any]]) -> Figure:
    from throughtime.insight.figures import line, slide

    figure, (norm, share) = slide(rows=2, sharex=True)
    steps = [record["step"] for record in records]
    norm.plot(steps, [record["gradient_norm"] for record in records], **line(0))
    norm.set(ylabel="norm before\nclipping", yscale="log")
    share.plot(steps, [100 * record["clipped"] for record in records], **line(1))
    share.set(ylabel="steps clipped (%)", xlabel="step of training", ylim=(-3, 103))
    return figure
