"""Which inputs an answer rests on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor
from tyro.conf import arg

from throughtime.data.batches import ExampleBatch
from throughtime.errors import ConfigError
from throughtime.heads.crf import CRF
from throughtime.insight.pages import needs_spaces, page, token
from throughtime.insight.reading import Reading, read, reads_instead
from throughtime.insight.view import Subject, View, step_names, visible
from throughtime.models.captioner import Captioner
from throughtime.models.frame_tagger import FrameTagger
from throughtime.models.language_model import LanguageModel
from throughtime.models.seq2seq import Seq2Seq
from throughtime.models.tagger import Tagger
from throughtime.models.transformer import TransformerSeq2Seq

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 60
#: Models whose loss is one of steps, each of which can be left out.
STEPWISE = (LanguageModel, Tagger, FrameTagger, Seq2Seq, TransformerSeq2Seq)
#: Steps that a figure shows, and a gap, as a share of the difference, that is said to be large.
SHOWN, LARGE = 60, 0.05


@dataclass(frozen=True)
class Options:
    """What the view takes."""

    row: Annotated[int, arg(help="Row of the batch, from 0.")] = 0
    step: Annotated[
        int | None,
        arg(help="The answer at this step alone, from 0; -1 is the last, as for a language model."),
    ] = None
    points: Annotated[int, arg(help="Points of the way from the baseline at which gradients are taken.")] = (
        128
    )


def look(subject: Subject, options: Options) -> View:
    """Integrated gradients of what the model says of one row, by what it reads at each step.

        a_t = Σ_i x_ti ∫_0^1 ∂f(α x) / ∂x_ti dα

    f is minus the loss of the row: the log-probability of the right answer; x_t the vectors that the first
    recurrence (or what stands in its place) reads, and the baseline 0 for all of them (Sundararajan, Taly &
    Yan 2017). By Gauss-Legendre quadrature over `points`, by Captum. The sum over the steps must be f(x) -
    f(0); the gap is told. With `step` f is that of the answer at one step, by itself the last of a language
    model. Raises `ConfigError` where there is no such row or step, or Captum is missing.
    """
    if options.points < 2:
        raise ConfigError(f"--points must be 2 or more, got {options.points}")
    model, batch, step = subject.model, *_row(subject, options)
    reading = _read(model, batch)
    x = reading.x.detach()
    values = _attribute(subject, batch, reading, x, options.points)
    f, baseline = (_log_prob(model, batch, reading, each) for each in (x, torch.zeros_like(x)))
    length = int(reading.lengths[0]) if x.dim() == 3 else x.shape[1]
    shares, names = values[:length], step_names(subject, options.row, length)
    gap = f - baseline - values.sum().item()
    wanted = _wanted(subject, options.row, step)
    rows = [
        {"step": k, "input": name, "attribution": share}
        for k, (name, share) in enumerate(zip(names, shares.tolist(), strict=True))
    ]
    draw = partial(_draw, names[-SHOWN:], shares[-SHOWN:].tolist(), max(length - SHOWN, 0))
    pages = (
        {} if options.row >= len(subject.inputs) else {"saliency": _page(subject, options.row, rows, wanted)}
    )
    details = {"f": f, "baseline": baseline, "gap": gap, "row": options.row, "answer_step": step}
    lines = _lines(rows, f, baseline, gap, wanted)
    ordered = sorted(rows, key=lambda row: -abs(row["attribution"]))
    return View(lines, ordered, {"saliency": draw}, pages, details | {"attributions": shares.tolist()})


def _read(model: Any, batch: Any) -> Reading:
    reading = read(model, batch)
    if isinstance(model, Captioner) and reading.module is model.decoder:
        raise ConfigError("a captioner reads a picture and no steps: the view attention shows where it looks")
    return reading


def _row(subject: Subject, options: Options) -> tuple[Any, int | None]:
    """The row alone, with the answer at one step if it is of one; and that step."""
    batch = subject.batch
    if isinstance(batch, ExampleBatch):
        rows: list[Any] = batch.split()
    else:
        chunks = zip(batch.inputs.split(1), batch.targets.split(1), strict=True)
        rows = [replace(batch, inputs=inputs, targets=targets) for inputs, targets in chunks]
    if not 0 <= options.row < len(rows):
        raise ConfigError(f"there is no row {options.row}: the batch has {len(rows)}, numbered from 0")
    row = rows[options.row]
    step = -1 if options.step is None and isinstance(subject.model, LanguageModel) else options.step
    if step is None:
        return row, None
    if not isinstance(subject.model, STEPWISE) or isinstance(getattr(subject.model, "head", None), CRF):
        raise ConfigError(
            f"{type(subject.model).__name__} has one loss for all steps of a row: leave --step out"
        )
    return _at_step(row, step)


def _at_step(row: Any, step: int) -> tuple[Any, int]:
    """The row with no other target than that of one step."""
    targets = row.targets
    real = (targets[0] != -100).nonzero()[:, 0].tolist()
    place = step + len(real) if step < 0 else step
    if place not in real:
        raise ConfigError(f"there is no answer at step {step}: there are {len(real)}, numbered from 0")
    kept = torch.full_like(targets, -100)
    kept[0, place] = targets[0, place]
    return replace(row, targets=kept), place


def _log_prob(model: Any, batch: Any, reading: Reading, x: Tensor) -> float:
    with torch.no_grad(), reads_instead(reading.module, x):
        return -float(model.loss(batch).total)


def _attribute(subject: Subject, batch: Any, reading: Reading, x: Tensor, points: int) -> Float[Tensor, "T"]:
    """The attribution of each step of the only row of x."""
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        raise ConfigError(
            "integrated gradients are made by Captum, which is not installed: "
            "pip install 'throughtime[saliency]'"
        ) from None

    def minus_loss(each: Tensor) -> Tensor:
        """f of several x, each as the only row: models take a batch for one loss."""
        found = []
        for row in each.split(1):
            with reads_instead(reading.module, row):
                found.append(-subject.model.loss(batch).total)  # type: ignore[operator]
        return torch.stack(found)

    method = IntegratedGradients(minus_loss)
    values = method.attribute(x, torch.zeros_like(x), n_steps=points, internal_batch_size=8)
    return values.detach()[0].flatten(1).sum(1).cpu() if x.dim() == 3 else values.detach()[0].cpu()


def _wanted(subject: Subject, row: int, step: int | None) -> str:
    """What the answer is called."""
    names = list(subject.outputs[row]) if row < len(subject.outputs) else []
    if step is not None:
        return visible(names[step]) if step < len(names) else f"that of step {step}"
    return (" " if needs_spaces([names]) else "").join(names) or "what was wanted"


def _lines(rows: list[dict[str, Any]], f: float, baseline: float, gap: float, wanted: str) -> list[str]:
    most = sorted(rows, key=lambda row: -abs(row["attribution"]))[:3]
    told = ", ".join(f"{row['input']} (step {row['step']}, {row['attribution']:+.2f})" for row in most)
    close = abs(gap) <= LARGE * max(abs(f - baseline), 1e-6)
    return [
        f'"{wanted}" has the log-probability (minus the loss) {f:.2f} nats, and {baseline:.2f} where nothing '
        "is read.",
        f"Of the difference most is due to {told}.",
        f"The attributions miss it by {gap:+.2g} nats"
        + (
            ": they are complete."
            if close
            else ", which is much: take more --points, which helps unless layer norm makes the answer leap."
        ),
    ]


def _page(subject: Subject, row: int, rows: list[dict[str, Any]], wanted: str) -> str:
    largest = max((abs(each["attribution"]) for each in rows), default=0.0) or 1.0
    names = subject.inputs[row]
    shades = "".join(
        token(
            names[each["step"]] if each["step"] < len(names) else each["input"],
            each["attribution"] / largest,
            f"{each['attribution']:+.3f} nats",
            each["attribution"] < 0,
        )
        for each in rows
    )
    lines = ["Orange speaks for the answer, blue and underlined against it, each as much as it is deep."]
    spaced = needs_spaces([names])
    return page("What the answer rests on", lines, [(f"Answer: {visible(wanted)}", shades)], spaced)


def _draw(names: list[str], shares: list[float], first: int) -> Figure:
    """A bar for each step, up where it speaks for the answer and down where against it."""
    from throughtime.insight.figures import COLOURS, WIDTH, name_steps, slide

    figure, [panel] = slide(width=max(WIDTH, 0.24 * len(names)))
    places = range(len(names))
    bars = panel.bar(places, shares, color=[COLOURS[1] if share >= 0 else COLOURS[0] for share in shares])
    for bar, share in zip(bars, shares, strict=True):
        bar.set_hatch("" if share >= 0 else "//")
    panel.axhline(0, color="black", linewidth=1)
    panel.grid(axis="x", visible=False)
    panel.set_ylabel("attribution (nats)\nabove 0: for the answer")
    panel.set_xlabel("what is read" + (f" (the last {len(names)} steps)" if first else ""))
    name_steps(panel, names)
    panel.set_xlim(-0.6, len(names) - 0.4)
    return figure
