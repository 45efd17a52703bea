"""How far back an input still changes the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tyro.conf import arg

from throughtime.errors import ConfigError
from throughtime.insight.reading import Reading, read
from throughtime.insight.view import Subject, View
from throughtime.models.language_model import LanguageModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 400
#: Shares of the first change at which an input counts as forgotten in part, and wholly.
SHARES = (0.1, 0.01)
#: Distances of the table.
SHOWN = (0, 1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000)
#: Rows that are read at a time, and distances that have a linear axis.
ROWS, LINEAR = 32, 20


@dataclass(frozen=True)
class Options:
    """What the view takes."""

    places: Annotated[int, arg(help="Steps whose input is replaced, one at a time.")] = 64
    draws: Annotated[int, arg(help="Inputs that each of them is replaced by.")] = 2
    seed: Annotated[int, arg(help="Draws these inputs.")] = 0


def look(subject: Subject, options: Options) -> View:
    """The change of the output k steps after an input was replaced, for each distance k.

        change_k = mean ‖y'_{j+k} - y_{j+k}‖ / mean ‖y‖        kl_k = mean KL(p_{j+k} ‖ p'_{j+k})

    y is the output of the last layer of what the model reads with, and p the next-token distribution of a
    language model, in nats. y' and p' are the same after x_j, the vector that is read at step j, was swapped
    for that of another step of the same data where it is a different one. The means run over places j, which
    stand in the first half of their row or document, and over draws of the other step. A change never counts
    beyond the end of its document. Distances go as far as half of the places reach.
    """
    for name, value in (("places", options.places), ("draws", options.draws)):
        if value < 1:
            raise ConfigError(f"--{name} must be 1 or more, got {value}")
    reading = read(subject.model, subject.batch)
    with torch.no_grad():
        plain = _outputs(reading)
        rows, steps, reach = _places(reading, options.places)
        others = _draw(reading, rows, steps, options)
        head = subject.model.head if isinstance(subject.model, LanguageModel) else None
        found = _measure(reading, plain, head, rows, steps, reach, others)
    farthest = int(reach.sort().values[(len(reach) - 1) // 2])
    curves = {name: _curve(values[..., : farthest + 1]) for name, values in found.items()}
    count = (reach[:, None] >= torch.arange(farthest + 1, device=reach.device)).sum(0).tolist()
    rows_shown = [
        {"distance": k} | {name: curve["mean"][k] for name, curve in curves.items()} | {"places": count[k]}
        for k in sorted({k for k in SHOWN if k <= farthest} | {farthest})
    ]
    details = {"curves": curves, "reach": {name: _reaches(curve["mean"]) for name, curve in curves.items()}}
    lines = [line for name, curve in curves.items() for line in _lines(name, curve["mean"])]
    return View(lines, rows_shown, {"memory": partial(_draw_curves, curves)}, details=details)


def _outputs(reading: Reading) -> Float[Tensor, "B T O"]:
    """What is put out where nothing is replaced; raises `ConfigError` where that is not one at each step."""
    if reading.x.dim() < 3 or reading.x.shape[1] < 2:
        raise ConfigError(
            f"{reading.path} reads one step alone at a time, so that none is before another: "
            "the view attention or saliency shows what it looks at"
        )
    out = reading.again(reading.x, torch.arange(len(reading.x), device=reading.x.device))
    if out.dim() != 3:
        raise ConfigError(
            f"{reading.path}, a {type(reading.module).__name__}, makes one vector of a whole row and has no "
            "memory to measure: the view saliency shows which inputs count"
        )
    return out


def _places(reading: Reading, most: int) -> tuple[Int[Tensor, "N"], Int[Tensor, "N"], Int[Tensor, "N"]]:
    """The rows and steps that are replaced, evenly spread, and how many steps stand behind each."""
    begins, ends = reading.documents()
    steps = torch.arange(begins.shape[1], device=begins.device)
    behind = ends - 1 - steps
    real = steps < reading.lengths[:, None]
    rows, columns = (real & (behind >= 1) & (behind >= steps - begins)).nonzero(as_tuple=True)
    if not len(rows):
        raise ConfigError("no row has two steps: give more of the data, with --text or --file")
    chosen = torch.linspace(0, len(rows) - 1, min(most, len(rows)), device=rows.device).round().long()
    rows, columns = rows[chosen], columns[chosen]
    return rows, columns, behind[rows, columns]


def _draw(
    reading: Reading, rows: Int[Tensor, "N"], steps: Int[Tensor, "N"], options: Options
) -> Float[Tensor, "N D F"]:
    """For each place some vectors that are read at other steps and differ from its own."""
    real = torch.arange(reading.x.shape[1], device=reading.x.device) < reading.lengths[:, None]
    pool = reading.x[real]
    generator = torch.Generator().manual_seed(options.seed)
    drawn = []
    for own in reading.x[rows, steps]:
        differs = (pool != own).any(-1).nonzero()[:, 0]
        if not len(differs):
            raise ConfigError("all steps read the same: give data in which they differ")
        drawn.append(pool[differs[torch.randint(len(differs), (options.draws,), generator=generator)]])
    return torch.stack(drawn)


def _measure(
    reading: Reading,
    plain: Float[Tensor, "B T O"],
    head: Any,
    rows: Int[Tensor, "N"],
    steps: Int[Tensor, "N"],
    reach: Int[Tensor, "N"],
    others: Float[Tensor, "N D F"],
) -> dict[str, Float[Tensor, "N D K"]]:
    """The change, and the divergence if there is a head, after each replacement; NaN beyond its document."""
    real = torch.arange(plain.shape[1], device=plain.device) < reading.lengths[:, None]
    size = plain[real].norm(dim=-1).mean().clamp(min=torch.finfo(plain.dtype).tiny)
    names = ("change", "kl")[: 1 if head is None else 2]
    found = {name: plain.new_full((*others.shape[:2], int(reach.max()) + 1), torch.nan) for name in names}
    cases = [(n, d) for n in range(len(rows)) for d in range(others.shape[1])]
    for piece in (cases[k : k + ROWS] for k in range(0, len(cases), ROWS)):
        n, d = torch.tensor(piece, device=rows.device).T
        x = reading.x[rows[n]].clone()
        x[torch.arange(len(n), device=x.device), steps[n]] = others[n, d]
        for after, a, b in zip(reading.again(x, rows[n]), n.tolist(), d.tolist(), strict=True):
            seen = slice(int(steps[a]), int(steps[a] + reach[a]) + 1)
            before, after = plain[rows[a], seen], after[seen]
            found["change"][a, b, : len(after)] = (after - before).norm(dim=-1) / size
            if head is not None:
                p, q = head.log_probs(before), head.log_probs(after)
                found["kl"][a, b, : len(after)] = (p.exp() * (p - q)).sum(-1).clamp(min=0)
    return found


def _curve(values: Float[Tensor, "N D K"]) -> dict[str, list[float]]:
    """Mean and spread at each distance."""
    flat = values.double().flatten(0, 1)
    low, high = (flat.nanquantile(q, 0) for q in (0.1, 0.9))
    return {"mean": flat.nanmean(0).tolist(), "low": low.tolist(), "high": high.tolist()}


def _first(mean: Sequence[float]) -> float:
    """What later changes are compared with: the larger of those at the step itself and at the next."""
    return max(mean[:2])


def _reaches(mean: Sequence[float]) -> dict[str, int | None]:
    """For each share the distance from which on the change stays below it; None where it never does."""
    return {f"{share:g}": _reach(mean, share * _first(mean)) for share in SHARES}


def _reach(mean: Sequence[float], bound: float) -> int | None:
    above = [k for k, value in enumerate(mean) if value >= bound and value > 0]
    beyond = above[-1] + 1 if above else 0
    return beyond if beyond < len(mean) else None


def _lines(name: str, mean: Sequence[float]) -> list[str]:
    kinds = {"change": "the output of its last layer", "kl": "the distribution of the next token"}
    if not _first(mean):
        return [f"No input changes {kinds[name]} at all."]
    unit = f"{mean[0]:.3g} nats (KL)" if name == "kl" else f"{mean[0]:.0%} of its size"
    reached = [
        f"{share:.0%} of that for good after {beyond} steps"
        if (beyond := _reach(mean, share * _first(mean))) is not None
        else f"{share:.0%} of that nowhere within {len(mean) - 1} steps"
        for share in SHARES
    ]
    return [
        f"Another last input changes {kinds[name]} by {unit}; what it changes falls below {reached[0]}, "
        f"and below {reached[1]}."
    ]


def _draw_curves(curves: dict[str, dict[str, list[float]]]) -> Figure:
    """A panel for each measure: mean and spread against the distance."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    from throughtime.insight.figures import COLOURS, LETTERS, WIDTH, line, slide

    labels = {
        "change": "change of the last layer's output\n(share of its size)",
        "kl": "KL divergence (nats)",
    }
    figure, panels = slide(columns=len(curves), width=WIDTH if len(curves) == 1 else 1.4 * WIDTH)
    for index, (panel, (name, curve)) in enumerate(zip(panels, curves.items(), strict=True)):
        distances, first = range(len(curve["mean"])), _first(curve["mean"])
        panel.fill_between(
            distances,
            curve["low"],
            curve["high"],
            color=COLOURS[index],
            alpha=0.2,
            linewidth=0,
            label="10% to 90% of the replacements",
        )
        panel.plot(distances, curve["mean"], **line(index), label="mean")
        if len(distances) > LINEAR:
            panel.set_xscale("symlog", linthresh=1, linscale=0.3)
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        else:
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_xlim(0, max(len(curve["mean"]) - 1, 1))
        panel.set_yscale("log")
        panel.set_xlabel("distance k to the replaced input (steps)")
        panel.set_ylabel(labels[name])
        if not first:
            continue
        lowest = max(first * 1e-6, min(v for v in curve["mean"] if v > 0) / 3)
        panel.set_ylim(min(lowest, SHARES[-1] * first / 2), first * 4)
        for share in SHARES:
            panel.axhline(share * first, color="black", linestyle=(0, (1, 2)), linewidth=1.2)
            panel.annotate(
                f"{share:.0%} of the first", (0.02, share * first), xycoords=("axes fraction", "data"),
                xytext=(0, 3), textcoords="offset points", fontsize=LETTERS - 2,
            )  # fmt: skip
        panel.legend(loc="upper right")
    return figure
