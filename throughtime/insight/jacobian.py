"""How far a change of the state lives: the products of the Jacobians of the steps."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tyro.conf import arg

from throughtime.errors import ConfigError
from throughtime.insight.recorder import Recorder, place_of
from throughtime.insight.view import Subject, View
from throughtime.insight.weights import block_names, check_finite
from throughtime.nn.recurrent import Recurrent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 101
#: Distances whose singular values are told, and how many Lyapunov exponents are computed.
DISTANCES, EXPONENTS = (1, 2, 5, 10, 20, 50, 100), 8
#: Below this share of the largest a singular value is rounding.
ROUNDING = 1e-14


@dataclass(frozen=True)
class Options:
    """What the view takes."""

    row: Annotated[
        int | None, arg(help="Row of the batch whose steps are taken, from 0; the longest if not given.")
    ] = None


class Path(NamedTuple):
    """What one direction of a layer went through, in its own order of time.

    layer    in double precision.
    place    the number of the layer, and whether the direction is the one from the end.
    x        [T, I].
    states   [T, H] each, after each step, those of the cell in their order.
    reset    [T], where the row begins anew before the step.
    """

    layer: Recurrent
    place: tuple[int, bool]
    x: Float[Tensor, "T I"]
    states: tuple[Float[Tensor, "T H"], ...]
    reset: Bool[Tensor, "T"]

    @property
    def driven(self) -> list[int]:
        """The numbers of the states that maps go into."""
        cell = self.layer.cells[self.place[0]]
        return [cell.states.index(name) for name in cell.graph.driven]


def look(subject: Subject, options: Options) -> View:
    """Of each layer and direction the product dh_j/dh_k = J_j ... J_{k+1}, J_t = ds_t/ds_{t-1}, along a row.

    s is all that the cell carries from step to step: h, and c where it has one. The largest singular value
    of the product bounds what a change at step k can make at step j, the smallest what it must; in between
    is the median. A Lyapunov exponent is the mean growth of a direction in nats per step, the largest first,
    by QR decompositions (Benettin et al. 1980): below 0 changes die out, above 0 they grow. Beside them the
    spectral radius of each recurrent matrix, which says as much of a linear recurrence alone.
    """
    check_finite(subject.model)
    found, rows = {}, []
    for key, path in paths(subject, options.row).items():
        jacobians = step_jacobians(path)
        found[key] = singular_values(jacobians)
        exponents = lyapunov(jacobians)
        row: dict[str, Any] = {"layer": key, "lyapunov": exponents[0]}
        row |= {f"σ at {d}": found[key].get(d, (math.nan,))[0] for d in DISTANCES}
        rows.append(row | {f"radius {name}": value for name, value in radii(path).items()})
    figures = {"jacobian": partial(_draw, found)}
    return View([_told(row) for row in rows], rows, figures, details={"singular_values": found})


def paths(subject: Subject, row: int | None = None) -> dict[str, Path]:
    """The path of every direction of every layer while the model reads a row of the batch, by its key.

    Without a row it is the longest. Raises `ConfigError` where there is no such row, or it has no two steps.
    """
    layers = subject.recurrences
    with Recorder(subject.model, "states", "x", "reset") as seen, torch.no_grad():
        subject.model.loss(subject.batch)  # type: ignore[operator]
    found = {}
    for path, layer in layers.items():
        double = copy.deepcopy(layer).double().requires_grad_(False)
        for index, reverse in itertools.product(range(layer.layers), (False, True)[: layer.directions]):
            key = place_of(path, index, reverse)
            states = layer.cells[index].states
            real = seen.real(f"{key}.x")
            chosen = int(real.sum(1).argmax()) if row is None else row
            steps = _steps(real, chosen, reverse)
            x, *values = (seen.last(f"{key}.{name}")[chosen, steps].double() for name in ("x", *states))
            begins = seen.last(f"{key}.reset")[chosen, steps, 0] > 0
            found[key] = Path(double, (index, reverse), x, tuple(values), begins)
    return found


def _steps(real: Bool[Tensor, "B T"], row: int, reverse: bool) -> Int[Tensor, "T"]:
    """The steps that a row has, in the order in which a direction takes them."""
    if not 0 <= row < len(real):
        raise ConfigError(f"there is no row {row}: the batch has {len(real)}, numbered from 0")
    steps = real[row].nonzero()[:, 0]
    if len(steps) < 2:
        raise ConfigError(
            f"row {row} has {len(steps)} steps, and a Jacobian lies between two: give more input"
        )
    return steps.flip(0) if reverse else steps


def step_jacobians(path: Path) -> list[Float[Tensor, "N N"]]:
    """J_t = ds_t/ds_{t-1} for t = 2 ... T, s the states that maps go into, one after another.

    One backward pass gives all of a step: of as many copies of the row as s has units, each for another unit.
    Where the row begins anew J is zero.
    """
    driven, units = path.driven, path.states[0].shape[1]
    count = len(driven) * units
    wanted = torch.eye(count, dtype=torch.float64, device=path.x.device).split(units, 1)
    found = []
    for t in range(1, len(path.x)):
        if path.reset[t]:
            found.append(torch.zeros(count, count, dtype=torch.float64, device=path.x.device))
            continue
        before = tuple(value[t - 1].repeat(count, 1) for value in path.states)
        for k in driven:
            before[k].requires_grad_()
        with torch.enable_grad():
            after = path.layer.step_layer(path.x[t].expand(count, -1), before, *path.place)
            outputs = [after[k] for k in driven]
            parts = torch.autograd.grad(
                outputs, [before[k] for k in driven], list(wanted), materialize_grads=True
            )
        found.append(torch.cat(parts, 1))
    return found


def singular_values(jacobians: Sequence[Float[Tensor, "N N"]]) -> dict[int, tuple[float, float, float]]:
    """The largest, the median and the smallest singular value of J_T ... J_{T-d+1}, by the distance d.

    At the distances 1 to 10, every fifth after that, and the last. What is less than 1e-14 of the largest is
    rounding, and is told as that much; the figure leaves it out.
    """
    found: dict[int, tuple[float, float, float]] = {}
    product, scale = torch.eye(len(jacobians[0]), dtype=torch.float64), 0.0
    for distance, jacobian in enumerate(reversed(jacobians), start=1):
        product = product @ jacobian.cpu()
        size = float(product.abs().max())
        if size > 0:
            product, scale = product / size, scale + math.log(size)
        if distance <= 10 or distance % 5 == 0 or distance == len(jacobians):
            values = torch.linalg.svdvals(product)
            three = torch.stack([values[0], values.median(), values[-1]])
            factor = torch.tensor(scale, dtype=torch.float64).exp()  # infinite where it is too large
            largest, median, smallest = torch.maximum(three, ROUNDING * values[0]) * factor
            found[distance] = float(largest), float(median), float(smallest)
    return found


def lyapunov(jacobians: Sequence[Float[Tensor, "N N"]]) -> list[float]:
    """The largest Lyapunov exponents along the path, in nats per step."""
    count = min(EXPONENTS, len(jacobians[0]))
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(len(jacobians[0]), count, dtype=torch.float64, generator=generator)
    directions, _ = torch.linalg.qr(start)
    grown = torch.zeros(count, dtype=torch.float64)
    for jacobian in jacobians:
        directions, r = torch.linalg.qr(jacobian.cpu() @ directions)
        grown += r.diagonal().abs().clamp(min=torch.finfo(torch.float64).tiny).log()
    return sorted((grown / len(jacobians)).tolist(), reverse=True)


def radii(path: Path) -> dict[str, float]:
    """The spectral radius of each recurrent matrix, by its name: W_hf is what f multiplies h with."""
    index, reverse = path.place
    weight = getattr(path.layer, f"weight_hh_l{index}{'_reverse' * reverse}", None)
    if weight is None:
        return {}
    names = block_names(path.layer.cells[index].graph)["weight_hh"]
    parts = weight.detach().cpu().chunk(len(names))
    return {
        name: float(torch.linalg.eigvals(part).abs().max()) for name, part in zip(names, parts, strict=True)
    }


def _told(row: Mapping[str, Any]) -> str:
    exponent = row["lyapunov"]
    if exponent < 0:
        return (
            f"{row['layer']}: a change of the state shrinks by {math.exp(exponent):.3g} a step in the long "
            f"run, to half in {math.log(0.5) / exponent:.1f} steps (Lyapunov exponent {exponent:.3f})."
        )
    return (
        f"{row['layer']}: a change of the state grows by {math.exp(exponent):.3g} a step in the long run "
        f"(Lyapunov exponent {exponent:.3f}): chaos, where it lasts."
    )


def _draw(found: Mapping[str, Mapping[int, tuple[float, float, float]]]) -> Figure:
    from throughtime.insight.figures import line, slide

    figure, panels = slide(len(found), sharey=True, width=max(10.0, 5.0 * len(found)))
    for panel, (key, values) in zip(panels, found.items(), strict=True):
        for k, name in enumerate(("largest", "median", "smallest")):
            shown = {d: each[k] for d, each in values.items() if each[k] > 1.01 * ROUNDING * each[0]}
            if shown:
                panel.plot(list(shown), list(shown.values()), label=name, **line(k))
        panel.set(title=key, xlabel="distance j - k (steps)", yscale="log")
    panels[0].set_ylabel("singular value of ds_j/ds_k")
    panels[0].legend()
    return figure
