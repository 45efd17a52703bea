"""The cliff in the loss of a recurrence, descent that goes over it, and clipping the norm of the gradient.

One unit, h_t = w σ(h_{t-1}) + b from h_0 = 1/2, and the loss (σ(h_50) - 0.7)²: where the unit changes from
one resting value to another the loss is a wall, and its gradient grows like a product of 50 derivatives.
Clipping takes g min(1, c / ‖g‖) in place of the gradient g: the same direction, and no step longer than c
times the learning rate.

The same is done to a vanilla RNN that begins with an orthogonal matrix times 1.5 and learns by plain gradient
descent to say what it read three steps before.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from throughtime.cells.elman import rnn
from throughtime.lab.experiment import Claim, Finding, held
from throughtime.lab.training import Readout, one_thread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The unit: its steps and target, where (w, b) are looked at, how finely, and how descent goes there.
DEEP, TARGET = 50, 0.7
WIDTH, HEIGHT, POINTS = (4.2, 5.4), (-2.8, -1.8), 161
START, RATE, LIMIT, DESCENT = (5.0, -2.2), 0.1, 0.5, 100
#: The network: its size, its task, and how it is trained.
UNITS, ROWS, STEPS, BACK, NORM = 32, 16, 100, 3, 1.5
RATES, CLIP, UPDATES, WINDOW = (0.003, 0.01, 0.03, 0.1, 0.3), 1.0, 300, 20
#: The error of the network that always answers 0.
BLIND = 1.0
#: The learning rate whose updates are drawn.
SHOWN = 0.1
WAYS = {"not clipped": math.inf, "clipped": 1.0}


class Point(NamedTuple):
    """A step of descent on the unit: where it is, and the loss and the norm of the gradient there."""

    w: float
    b: float
    loss: float
    norm: float


class Training(NamedTuple):
    """The loss at each update of a network and the length of each update; it ends where it is not finite."""

    losses: list[float]
    lengths: list[float]

    @property
    def error(self) -> float:
        """The mean loss over the last updates, infinite if training broke off."""
        return sum(self.losses[-WINDOW:]) / WINDOW if len(self.losses) == UPDATES else math.inf


def run(seed: int) -> Finding:
    """The unit's landscape and two descents on it; the network with each learning rate, both ways."""
    losses, norms = landscape()
    paths = {way: descend(LIMIT * limit) for way, limit in WAYS.items()}
    trainings = {
        way: {rate: train_plainly(rate, CLIP * limit, seed) for rate in RATES} for way, limit in WAYS.items()
    }
    rows = [
        {"what": "unit", "gradient": way, "step": step, **point._asdict()}
        for way, path in paths.items()
        for step, point in enumerate(path)
    ]
    rows += [
        {
            "what": "network",
            "gradient": way,
            "learning_rate": rate,
            "error": training.error,
            "longest_update": max(training.lengths),
        }
        for way, by_rate in trainings.items()
        for rate, training in by_rate.items()
    ]
    errors = {
        way: {rate: training.error for rate, training in by_rate.items()}
        for way, by_rate in trainings.items()
    }
    claims = [_cliff(norms), _thrown(paths), _diverges(errors), _no_harm(errors)]
    return Finding(claims, rows, lambda: _draw(losses, paths, trainings))


def unit_loss(w: Tensor, b: Tensor) -> Tensor:
    """The loss of the unit after all steps, for any number of (w, b) at once."""
    h = torch.full_like(w, 0.5)
    for _ in range(DEEP):
        h = w * torch.sigmoid(h) + b
    return (torch.sigmoid(h) - TARGET).square()


def landscape() -> tuple[Tensor, Tensor]:
    """The loss of the unit and the norm of its gradient on a grid, [b, w]."""
    axes = [torch.linspace(*ends, POINTS, dtype=torch.float64) for ends in (HEIGHT, WIDTH)]
    b, w = (axis.clone().requires_grad_() for axis in torch.meshgrid(*axes, indexing="ij"))
    loss = unit_loss(w, b)
    gradient = torch.autograd.grad(loss.sum(), (w, b))
    return loss.detach(), torch.stack(gradient).norm(dim=0)


def descend(limit: float) -> list[Point]:
    """Gradient descent on the unit, the norm of its gradient clipped to `limit`."""
    place, path = torch.tensor(START, dtype=torch.float64), []
    for _ in range(DESCENT):
        place.requires_grad_()
        loss = unit_loss(place[0], place[1])
        (gradient,) = torch.autograd.grad(loss, place)
        norm = gradient.norm().item()
        place = place.detach()
        path.append(Point(place[0].item(), place[1].item(), loss.item(), norm))
        place = place - RATE * gradient * min(1.0, limit / norm if norm > 0 else 1.0)
    return path


@one_thread()
def train_plainly(rate: float, limit: float, seed: int) -> Training:
    """Plain gradient descent of the network on fresh sequences, the norm of the gradient clipped."""
    generator = torch.Generator().manual_seed(seed)
    model = Readout(rnn, 1, UNITS, 1, generator, last=False)
    model.recurrent.get_parameter("weight_hh_l0").data *= NORM
    optimizer = torch.optim.SGD(model.parameters(), rate)
    losses: list[float] = []
    lengths: list[float] = []
    while len(losses) < UPDATES:
        x = torch.randn(ROWS, STEPS, 1, generator=generator)
        loss = (model(x)[:, BACK:] - x[:, :-BACK]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        norm = clip_grad_norm_(model.parameters(), limit).item()
        if not math.isfinite(loss.item()) or not math.isfinite(norm):
            break
        losses.append(loss.item())
        lengths.append(rate * min(norm, limit))
        optimizer.step()
    return Training(losses, lengths)


def _cliff(norms: Tensor) -> Claim:
    usual, largest = norms.median().item(), norms.max().item()
    share = (norms > 10 * usual).double().mean().item()
    return Claim(
        "The loss of a recurrence has cliffs: narrow walls with a gradient much larger than around them.",
        f"of one unit over {DEEP} steps the norm of the gradient is {usual:.2f} at the median of {POINTS}² "
        f"places, {largest:.0f} at the steepest, and more than ten times the median at {share:.1%} of them.",
        held(largest > 100 * usual and share < 0.1, part=largest > 10 * usual),
    )


def _thrown(paths: dict[str, list[Point]]) -> Claim:
    longest = {
        way: max(math.dist(one[:2], other[:2]) for one, other in pairwise(path))
        for way, path in paths.items()
    }
    away = {way: math.dist(path[-1][:2], START) for way, path in paths.items()}
    last = {way: sum(point.loss for point in path[-WINDOW:]) / WINDOW for way, path in paths.items()}
    free, clipped = WAYS
    return Claim(
        "At a cliff one step of descent throws the weights far away; with the norm clipped they stay near.",
        "; ".join(
            f"{way}: longest step {longest[way]:.2g}, in the end {away[way]:.2g} from where it began, the "
            f"gradient there {path[-1].norm:.1g} and the mean loss of the last {WINDOW} steps {last[way]:.3f}"
            for way, path in paths.items()
        )
        + f" (it began at {paths[free][0].loss:.3f}; the norm is clipped to {LIMIT:g}).",
        held(longest[free] > 1 > away[clipped] and last[clipped] < last[free], part=longest[free] > 1),
    )


def _diverges(errors: dict[str, dict[float, float]]) -> Claim:
    free, clipped = (errors[way] for way in WAYS)
    broken = [rate for rate in RATES if math.isinf(free[rate])]
    saved = [rate for rate in broken if clipped[rate] < BLIND]
    return Claim(
        "With a large learning rate training breaks down, and with the norm clipped it does not.",
        "error not clipped / clipped: "
        + "; ".join(
            f"learning rate {rate:g}: {_error(free[rate])} / {_error(clipped[rate])}" for rate in RATES
        )
        + f" (to answer 0 always has {BLIND:g}; the norm is clipped to {CLIP:g}).",
        held(bool(broken) and saved == broken, part=bool(saved)),
    )


def _no_harm(errors: dict[str, dict[float, float]]) -> Claim:
    free, clipped = (errors[way] for way in WAYS)
    stable = [rate for rate in RATES if math.isfinite(free[rate])]
    harmless = [rate for rate in stable if clipped[rate] < 1.1 * free[rate]]
    return Claim(
        "Clipping does no harm where training is stable without it.",
        "the error clipped is "
        + ", ".join(f"{clipped[rate] / free[rate]:.1f} times" for rate in stable)
        + f" that without at the learning rates {', '.join(f'{rate:g}' for rate in stable)}: clipped, the "
        "steps of a small rate are shorter still.",
        held(harmless == stable, part=bool(harmless)),
    )


def _error(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "broke off"


def _draw(
    losses: Tensor, paths: dict[str, list[Point]], trainings: dict[str, dict[float, Training]]
) -> Figure:
    from throughtime.insight.figures import line, points, slide

    figure, (surface, descent, updates, rates) = slide(2, 2, height=8.4)
    _draw_surface(surface, losses, paths)
    for k, (way, path) in enumerate(paths.items()):
        descent.plot([point.loss for point in path], label=way, **line(k))
    descent.set(title="descent on the unit", xlabel="step of descent", ylabel="loss", yscale="log")
    for k, (way, by_rate) in enumerate(trainings.items()):
        updates.plot(by_rate[SHOWN].lengths, label=way, **line(k))
        finite = {rate: each.error for rate, each in by_rate.items() if math.isfinite(each.error)}
        rates.plot(list(finite), list(finite.values()), label=way, **points(k))
        if broken := [rate for rate in by_rate if rate not in finite]:
            look = points(k) | {"linestyle": "none", "marker": "x", "markersize": 11}
            rates.plot(broken, [2.0] * len(broken), label="broke off", **look)
    updates.set(
        title=f"network, learning rate {SHOWN:g}",
        xlabel="update",
        ylabel="length of the update",
        yscale="log",
    )
    rates.set(title=f"network, after {UPDATES} updates", xlabel="learning rate", ylabel="squared error")
    rates.set(xscale="log", yscale="log", ylim=(0.01, 3.5))
    descent.legend(loc="lower left")
    updates.legend()
    rates.legend(loc="lower left")
    return figure


def _draw_surface(panel: Axes, losses: Tensor, paths: dict[str, list[Point]]) -> None:
    from throughtime.insight.figures import SEQUENTIAL, points

    image = panel.imshow(
        losses.numpy(), origin="lower", extent=(*WIDTH, *HEIGHT), aspect="auto", cmap=SEQUENTIAL
    )
    for k, (way, path) in enumerate(paths.items()):
        look = points(k) | {"color": ("#ffffff", "#D55E00")[k], "markersize": 3, "linewidth": 1.0}
        label = f"{way}, to ({path[-1].w:.1f}, {path[-1].b:.1f})"
        panel.plot([point.w for point in path], [point.b for point in path], label=label, **look)
    panel.set(title=f"one unit over {DEEP} steps: loss", xlabel="weight w", ylabel="bias b")
    panel.set(xlim=WIDTH, ylim=HEIGHT)
    panel.grid(visible=False)
    panel.legend(labelcolor="white", frameon=True, facecolor="black", loc="lower left", fontsize="small")
    panel.figure.colorbar(image, ax=panel)
