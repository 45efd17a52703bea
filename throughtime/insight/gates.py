"""How open the gates of a recurrence are while it reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor
from tyro.conf import arg

from throughtime.errors import ConfigError
from throughtime.insight.recorder import Recorder, place_of
from throughtime.insight.view import Subject, View, step_names
from throughtime.nn.recurrent import Recurrent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 200
#: A sigmoid is shut below the first and open above the second; a tanh is saturated beyond ± the second.
SHUT, OPEN = 0.1, 0.9
#: The operators that a gate can be saturated by.
BOUNDED = ("sigmoid", "tanh")
#: Steps and units of a heat map.
SHOWN, UNITS = 50, 64


@dataclass(frozen=True)
class Options:
    """What the view takes."""

    layer: Annotated[int, arg(help="Layer whose gates are drawn over the input, from 0.")] = 0
    gate: Annotated[str | None, arg(help="Gate that is drawn; all of the layer if not given.")] = None
    row: Annotated[int, arg(help="Row of the batch that is drawn, from 0.")] = 0


def look(subject: Subject, options: Options) -> View:
    """For each gate the share of its units and steps that are shut, open and between; and heat maps.

    A sigmoid lies in 0 .. 1: shut below 0.1, open above 0.9. A tanh lies in -1 .. 1: "shut" and "open" are
    then the shares below -0.9 and above 0.9, where it is saturated. A gate that is always shut or open is a
    constant, and no gradient goes through a saturated one. What is neither, as the product m of a GRU, has
    its mean alone. The heat map of a gate has the units in the order of their mean, the steps from left to
    right.
    """
    ends_in = operators(subject.recurrences)
    with Recorder(subject.model, "gates") as seen, torch.no_grad():
        subject.model.loss(subject.batch)  # type: ignore[operator]
    if not len(seen):
        raise ConfigError("the cells of this model have no gates: look at the states, with the view neurons")
    rows = [shares(key, seen.last(key)[seen.real(key)], ends_in[key]) for key in seen]
    drawn = {key: seen.last(key) for key in seen if _wanted(key, options)}
    if not drawn:
        raise ConfigError(
            f"there is no gate {options.gate or ''} in layer {options.layer}: there are {', '.join(seen)}"
        )
    value = next(iter(drawn.values()))
    if not 0 <= options.row < len(value):
        raise ConfigError(f"there is no row {options.row}: the batch has {len(value)}, numbered from 0")
    names = step_names(subject, options.row, value.shape[1])
    shown = {key: each[options.row, :SHOWN].cpu() for key, each in drawn.items()}
    figures = {"gates-over-input": partial(_draw_maps, shown, ends_in, names[:SHOWN])}
    bounded = [row for row in rows if row["operator"] in BOUNDED]
    if not bounded:
        return View(["No gate is a sigmoid or a tanh: none can be shut, open or saturated."], rows, figures)
    figures["gates"] = partial(_draw_shares, bounded)
    worst = max(bounded, key=lambda row: row["shut"] + row["open"])
    lines = ["No gate is saturated: fewer than 5 % of its values are near an end."]
    if worst["shut"] + worst["open"] >= 0.05:
        lines = [
            f"{worst['gate']} is the most saturated: {worst['shut']:.0%} below {worst['below']:g}, "
            f"{worst['open']:.0%} above {OPEN:g}; {worst['constant_units']} of its {worst['units']} units "
            "are one or the other at nine steps of ten."
        ]
    return View(lines, rows, figures)


def _wanted(key: str, options: Options) -> bool:
    """Whether a gate is drawn: it is of the layer, and of that name if one is given."""
    *_, layer, gate = key.replace(".reverse", "").split(".")
    return layer == str(options.layer) and options.gate in (None, gate)


def operators(recurrences: Mapping[str, Recurrent]) -> dict[str, str]:
    """The operator that each gate ends in, "sigmoid", "tanh", ..., by the keys of `Recorder`."""
    return {
        f"{place_of(path, index, reverse)}.{name}": node.op
        for path, layer in recurrences.items()
        for index, cell in enumerate(layer.cells)
        for reverse in (False, True)[: layer.directions]
        for name, node in cell.graph.quantities.items()
    }


def shares(key: str, values: Float[Tensor, "N H"], operator: str) -> dict[str, Any]:
    """How much of a gate is shut, open and between, over N steps; and how many units are constant.

    What is neither a sigmoid nor a tanh has no bounds to be near to: there these are NaN.
    """
    row = {"gate": key, "operator": operator, "mean": values.mean().item(), "units": values.shape[1]}
    if operator not in BOUNDED:
        return row | dict.fromkeys(("below", "shut", "between", "open", "constant_units"), math.nan)
    below = -OPEN if operator == "tanh" else SHUT
    shut, wide = (values < below).float(), (values > OPEN).float()
    stuck = torch.maximum(shut.mean(0), wide.mean(0)) >= 0.9
    return row | {
        "below": below,
        "shut": shut.mean().item(),
        "between": 1 - shut.mean().item() - wide.mean().item(),
        "open": wide.mean().item(),
        "constant_units": int(stuck.sum()),
    }


def _draw_shares(rows: list[dict[str, Any]]) -> Figure:
    from throughtime.insight.figures import COLOURS, slide

    figure, [panel] = slide(height=1.6 + 0.5 * len(rows))
    left = [0.0] * len(rows)
    names = [row["gate"] for row in rows]
    for share, colour, hatch in (
        ("shut", COLOURS[0], "//"),
        ("between", "#dddddd", ""),
        ("open", COLOURS[4], ".."),
    ):
        widths = [100 * row[share] for row in rows]
        panel.barh(names, widths, left=left, color=colour, hatch=hatch, edgecolor="white", label=share)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    panel.invert_yaxis()
    panel.grid(axis="y", visible=False)
    panel.set_xlabel(
        f"share of units and steps (%)\nshut: below {SHUT:g} (tanh: below -{OPEN:g}), open: above {OPEN:g}"
    )
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def _draw_maps(values: Mapping[str, Tensor], ends_in: Mapping[str, str], names: list[str]) -> Figure:
    """A heat map for each gate: units from the most shut to the most open, steps as columns."""
    from throughtime.insight.figures import DIVERGING, SEQUENTIAL, WIDTH, name_steps, slide

    figure, panels = slide(rows=len(values), width=1.4 * WIDTH, height=0.8 + 1.7 * len(values), sharex=True)
    for panel, (key, value) in zip(panels, values.items(), strict=True):
        ordered = value[:, value.mean(0).argsort()]
        chosen = torch.linspace(0, ordered.shape[1] - 1, min(UNITS, ordered.shape[1])).round().long()
        gate = ends_in[key] == "sigmoid"
        high = 1.0 if ends_in[key] in BOUNDED else float(value.abs().max())
        image = panel.imshow(
            ordered[:, chosen].T.numpy(),
            aspect="auto",
            vmin=0.0 if gate else -high,
            vmax=high,
            cmap=SEQUENTIAL if gate else DIVERGING,
        )
        panel.grid(visible=False)
        panel.set_yticks([])
        of_all = f"{len(chosen)} of {ordered.shape[1]} units,\nby their mean"
        panel.set_ylabel(
            f"{key.rpartition('.')[2]}\n{of_all}", rotation=0, ha="right", va="center", fontsize="small"
        )
        figure.colorbar(image, ax=panel, pad=0.01)
    name_steps(panels[-1], names)
    return figure
