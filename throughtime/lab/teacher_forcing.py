"""Trained on the truth, used on its own outputs: how fast do mistakes grow, and what helps?

    teacher forcing: x̂_{t+1} = f(x_t, h_t)          free running: x̂_{t+1} = f(x̂_t, h_t)

A model that always read the truth in training (Williams & Zipser 1989) has never seen a mistake of its own,
and gets further from what it knows with every step (exposure bias). In scheduled sampling it reads its own
outputs ever more often as training goes on, as if they were given (Bengio et al. 2015); or all are its own,
and the gradient goes through them; or noise is added to the truth.

A GRU foretells sums of two sines of unknown phases and amplitudes. It reads 20 true steps, then runs freely.
Ways of training are compared after as many steps; those that read only truth need a fifth of the time for a
step, and are compared with each other after five times as many too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from throughtime.cells.gru import gru
from throughtime.lab.experiment import Claim, Finding, held
from throughtime.lab.training import Readout, one_thread, train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PERIODS, AMPLITUDES, WHOLE_TURN = (25.0, 9.0), (0.3, 0.7), 2 * math.pi
#: Steps that are always true, steps after them in training, and steps after them in the test.
WARM, TAUGHT, TESTED = 20, 30, 100
UNITS, ROWS, STEPS, LEARNING_RATE = 32, 32, 400, 1e-2
LONGER, NOISE = 5, 0.05
HELD_OUT = 500
#: Steps ahead that the claims speak of; how many times the error has to be larger there to have grown, and by
#: what a way of training has to divide it to make up for that.
AHEAD, LARGER, SMALLER = (20, 40, 100), 5, 2


class Way(NamedTuple):
    """A way of training.

    own    which inputs after the first are the model's own: none, ever more or all.
    noise  the standard deviation of what is added to true inputs.
    times  as many steps of training as others.
    """

    own: Literal["none", "more", "all"] = "none"
    noise: float = 0.0
    times: int = 1


TRUTH, SAMPLING, OWN = "teacher forcing", "scheduled sampling", "own outputs"
LONG_TRUTH, LONG_NOISE = f"teacher forcing, {LONGER} × steps", f"with noise, {LONGER} × steps"
WAYS = {
    TRUTH: Way(),
    SAMPLING: Way("more"),
    OWN: Way("all"),
    LONG_TRUTH: Way(times=LONGER),
    LONG_NOISE: Way(noise=NOISE, times=LONGER),
}


class Batch(NamedTuple):
    """What is read [B, T], what has to be said [B, T], and which inputs are to be the model's own [B, T]."""

    inputs: Tensor
    targets: Tensor
    own: Tensor


class Errors(NamedTuple):
    """Root mean squared errors: of the next step after the truth, and of free running, by steps ahead."""

    one_step: float
    free: list[float]


def run(seed: int) -> Finding:
    """A model for each way of training."""
    errors = {name: measure(learn(way, seed), seed) for name, way in WAYS.items()}
    rows = [
        {"trained_by": name, "steps_ahead": ahead, "error": error, "one_step_error": each.one_step}
        for name, each in errors.items()
        for ahead, error in enumerate(each.free, 1)
    ]
    claims = [
        _grows(errors[TRUTH], errors[LONG_TRUTH]),
        _next_step(errors),
        _helps("Scheduled sampling makes up for it.", errors, TRUTH, SAMPLING),
        _helps(
            "To train it on all its own outputs, with the gradient through them, makes up for it.",
            errors,
            TRUTH,
            OWN,
        ),
        _helps("Noise on the true inputs makes up for it.", errors, LONG_TRUTH, LONG_NOISE),
    ]
    return Finding(claims, rows, lambda: _draw(errors))


def waves(rows: int, steps: int, generator: torch.Generator) -> Tensor:
    """x_t = Σ_k a_k sin(2π t / period_k + φ_k) [B, T], phases and amplitudes uniform."""
    turns = WHOLE_TURN * torch.arange(float(steps)) / torch.tensor(PERIODS)[:, None]
    phases = WHOLE_TURN * torch.rand(rows, len(PERIODS), 1, generator=generator)
    low, high = AMPLITUDES
    amplitudes = low + (high - low) * torch.rand(rows, len(PERIODS), 1, generator=generator)
    return (amplitudes * torch.sin(turns + phases)).sum(1)


def foretell(model: Readout, batch: Batch, through: bool = False) -> Tensor:
    """What the model says at each step [B, T]; the gradient goes through its own inputs if it is told to."""
    truth = batch.inputs.shape[1] if not batch.own.any() else WARM
    h, state = model.recurrent(batch.inputs[:, :truth, None])
    said = [model.output(h)]
    for t in range(truth, batch.inputs.shape[1]):
        before = said[-1][:, -1] if through else said[-1][:, -1].detach()
        x = torch.where(batch.own[:, t, None], before, batch.inputs[:, t, None])
        h_t, state = model.recurrent.step(x, state)
        said.append(model.output(h_t)[:, None])
    return torch.cat(said, 1)[..., 0]


def learn(way: Way, seed: int) -> Readout:
    """Train a model in this way."""
    generator = torch.Generator().manual_seed(seed)
    model = Readout(gru, 1, UNITS, 1, generator, last=False)
    steps = STEPS * way.times
    shares = iter(torch.linspace(0, 1, steps).tolist())

    def draw() -> Batch:
        x = waves(ROWS, WARM + TAUGHT + 1, generator)
        share = {"none": 0.0, "more": next(shares), "all": 1.0}[way.own]
        inputs = x[:, :-1] + way.noise * torch.randn(ROWS, WARM + TAUGHT, generator=generator)
        return Batch(inputs, x[:, 1:], torch.rand(inputs.shape, generator=generator) < share)

    def loss(batch: Batch) -> Tensor:
        return F.mse_loss(foretell(model, batch, through=way.own == "all"), batch.targets)

    train(model, draw, loss, steps, LEARNING_RATE)
    return model


@torch.no_grad()
def measure(model: Readout, seed: int) -> Errors:
    """The errors of a model on other waves, the same for all."""
    x = waves(HELD_OUT, WARM + TESTED, torch.Generator().manual_seed(seed + 1))
    own = torch.ones_like(x[:, 1:], dtype=torch.bool)
    with one_thread():
        one_step, free = (
            (foretell(model, Batch(x[:, :-1], x[:, 1:], mask)) - x[:, 1:])[:, WARM - 1 :]
            .square()
            .mean(0)
            .sqrt()
            for mask in (~own, own)
        )
    return Errors(float(one_step.square().mean().sqrt()), free.tolist())


def _grows(truth: Errors, longer: Errors) -> Claim:
    return Claim(
        "What teacher forcing trained is good at the next step, and running freely makes growing mistakes.",
        f"error {truth.one_step:.4f} at the next step after the truth; {_ahead(truth)} steps ahead. With "
        f"{LONGER} times the training {longer.one_step:.4f}, and {_ahead(longer)} steps ahead.",
        held(
            all(each.free[AHEAD[0] - 1] > LARGER * each.one_step for each in (truth, longer)),
            part=truth.free[AHEAD[0] - 1] > truth.one_step,
        ),
    )


def _next_step(errors: dict[str, Errors]) -> Claim:
    others = {name: errors[name].one_step for name in (SAMPLING, OWN)}
    better = [errors[TRUTH].one_step < error for error in others.values()]
    return Claim(
        "For the next step after the truth teacher forcing is the best.",
        f"error at the next step {errors[TRUTH].one_step:.4f} by teacher forcing, "
        + ", ".join(f"{error:.4f} by {name}" for name, error in others.items())
        + f", after {STEPS} steps of training each.",
        held(all(better), part=any(better)),
    )


def _helps(claim: str, errors: dict[str, Errors], before: str, after: str) -> Claim:
    factors = [errors[before].free[ahead - 1] / errors[after].free[ahead - 1] for ahead in AHEAD]
    return Claim(
        claim,
        f"{after}: {_ahead(errors[after])} steps ahead; {before}: {_ahead(errors[before])}. To make up for "
        f"it is to divide all three by {SMALLER} or more.",
        held(min(factors) >= SMALLER, part=min(factors) > 1),
    )


def _ahead(each: Errors) -> str:
    return ", ".join(f"{each.free[ahead - 1]:.3f} at {ahead}" for ahead in AHEAD)


def _draw(errors: dict[str, Errors]) -> Figure:
    from throughtime.insight.figures import line, slide

    figure, (panel,) = slide(1)
    for k, (name, each) in enumerate(errors.items()):
        panel.plot(range(1, TESTED + 1), each.free, label=name, **line(k))
    panel.axvline(TAUGHT, color="0.3", linewidth=1.5, linestyle=":", label="most steps ahead in training")
    panel.set(title="two sines, running freely after 20 true steps", yscale="log")
    panel.set(xlabel="steps ahead (steps)", ylabel="root mean squared error")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
