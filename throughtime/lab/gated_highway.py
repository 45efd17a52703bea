"""Gates as a way through time: with c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t, ∂c_T/∂c_t = f_T ⊙ ... ⊙ f_{t+1} along c.

A forget gate f = σ(b) keeps f^t of a state after t steps, and so remembers for about 1 / (1 - f) of them:
for 2 steps with b = 0, for 21 with b = 3. The chrono way to begin draws b = log(u), u uniform in 1 ... T - 1,
and gives the input gate -b, so that the units remember for anything between 2 and T steps.

A recurrent highway carries 1 - t of its state through each of its micro-steps, t its transform gate.
Measured are the products of gates, the gradient, and whether a sign is learned that was marked 60 steps
before.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from throughtime.cells.cell import Cell
from throughtime.cells.deep import recurrent_highway
from throughtime.cells.lstm import lstm
from throughtime.lab.experiment import Claim, Finding, held
from throughtime.lab.training import Readout, train
from throughtime.lab.truncation import Batch, draw_batch, measure
from throughtime.lab.vanishing import gradient_left
from throughtime.nn.recurrent import Recurrent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Biases of the forget gate, and of the transform gates of the highway.
FORGET, TRANSFORM = (0.0, 1.0, 2.0, 3.0), (0.0, -2.0, -4.0)
CHRONO = "chrono"
#: The delay to be learned, and the training.
DELAY, UNITS, ROWS, UPDATES, LEARNING_RATE = 60, 32, 32, 400, 5e-3
LEARNED = 0.95
#: The recurrence whose gates are looked at.
STEPS, FEATURES = 100, 8
#: What the gradient may differ from the product of gates, as a share of it.
EQUAL = 1e-10

Way = float | str


def run(seed: int) -> Finding:
    """LSTMs with each forget bias and the chrono way, highways with each transform bias."""
    left = {way: kept(lstm_layer(way, FEATURES, seed), seed) for way in (*FORGET, CHRONO)}
    wrong = {reads: against_gates(reads, seed) for reads in (False, True)}
    passed = {bias: gradient_left(highway(bias), seed)["h"] for bias in TRANSFORM}
    learned = {f"LSTM, {label(way)}": learn(lstm_layer(way, 2, seed), seed) for way in left}
    learned |= {
        f"highway, {label(bias)}": learn(Recurrent(highway(bias), 2, UNITS, generator=_generator(seed)), seed)
        for bias in TRANSFORM
    }
    rows = [
        {"what": f"forget gates, {label(way)}", "steps": t, "left": value}
        for way, values in left.items()
        for t, value in enumerate(values)
    ]
    rows += [
        {"what": f"gradient of the highway, {label(bias)}", "steps": t, "left": value}
        for bias, values in passed.items()
        for t, value in enumerate(values)
    ]
    rows += [{"what": what, "steps": DELAY, "accuracy": value} for what, value in learned.items()]
    claims = [
        _product(wrong),
        _time_scale(left),
        _bias_of_one(learned),
        _chrono(learned),
        _highway(passed, learned),
    ]
    return Finding(claims, rows, lambda: _draw(left, passed, learned))


def lstm_layer(way: Way, inputs: int, seed: int) -> Recurrent:
    """An LSTM with this forget bias, or begun the chrono way for the delay."""
    generator = _generator(seed)
    bias = 0.0 if isinstance(way, str) else way
    cell = lstm.variant("lstm", "LSTM with a forget bias of its own.", bias={"f": bias})
    layer = Recurrent(cell, inputs, UNITS, generator=generator)
    if way == CHRONO:
        scales = torch.empty(UNITS).uniform_(1, DELAY - 1, generator=generator)
        gates = dict(zip(cell.graph.bias_blocks, layer.get_parameter("bias_l0").data.chunk(4), strict=True))
        gates["f"].copy_(scales.log())
        gates["i"].copy_(-scales.log())
    return layer


def highway(bias: float) -> Cell:
    """The recurrent highway with this bias in all its transform gates."""
    return recurrent_highway.variant(
        "highway", "Highway with a transform bias of its own.", bias=dict.fromkeys(("t1", "t2", "t3"), bias)
    )


def forget_gates(layer: Recurrent, x: Tensor, h: Tensor) -> Tensor:
    """f_t of an LSTM at all steps [B, T, H], from x and its outputs h."""
    block = layer.cells[0].graph.bias_blocks.index("f")
    u, w, b = (weight.chunk(4)[block] for weight in layer.parameters())
    before = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], dim=1)
    return torch.sigmoid(x @ u.T + before @ w.T + b)


@torch.no_grad()
def kept(layer: Recurrent, seed: int) -> list[float]:
    """Mean over units and rows of the product of the forget gates of the last t steps, for t = 0, 1, ..."""
    x = torch.randn(ROWS, STEPS, FEATURES, generator=_generator(seed))
    gates = forget_gates(layer, x, layer(x)[0]).double()
    return [1.0, *gates.flip(1).cumprod(1).mean(dim=(0, 2)).tolist()]


def against_gates(reads: bool, seed: int) -> float:
    """How far ∂c_T/∂c_t is from the product of forget gates, as a share of that, at the worst step.

    The gates read h as they begin, or not at all: then their recurrent weights are 0.
    """
    layer = lstm_layer(1.0, FEATURES, seed).double()
    if not reads:
        layer.get_parameter("weight_hh_l0").data.zero_()
    x = torch.randn(ROWS, STEPS, FEATURES, generator=_generator(seed)).double()
    found: list[Tensor] = []
    layer.register_state_hook(found.append, "c")
    h, ((_, c),) = layer(x)
    c.sum().backward()
    gates = forget_gates(layer, x, h).detach()
    product = torch.cat([gates[:, 1:].flip(1).cumprod(1).flip(1), torch.ones_like(gates[:, :1])], dim=1)
    differences = (found[0] - product).norm(dim=(0, 2)) / product.norm(dim=(0, 2))
    return differences.max().item()


def learn(layer: Recurrent, seed: int) -> float:
    """Train on the marked sign; the accuracy on new sequences."""
    generator = _generator(seed + 1)
    model = Readout(layer.cells[0], 2, UNITS, 1, generator, last=True)
    model.recurrent = layer

    def loss(batch: Batch) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(batch[0]).squeeze(-1), batch[1])

    train(model, partial(draw_batch, DELAY, ROWS, generator), loss, UPDATES, LEARNING_RATE)
    return measure(model, DELAY, seed)


def time_scale(left: list[float]) -> float:
    """The steps after which 1/e is left, the logarithm taken as straight between two; at most all of them."""
    for t, (one, other) in enumerate(pairwise(left)):
        if other < 1 / math.e:
            return t + (math.log(one) + 1) / (math.log(one) - math.log(other))
    return float(len(left) - 1)


def label(way: Way) -> str:
    """How a way to begin is called."""
    return way if isinstance(way, str) else f"b = {way:g}"


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _product(wrong: dict[bool, float]) -> Claim:
    return Claim(
        "The gradient along c is the product of the forget gates.",
        f"over up to {STEPS - 1} steps it differs by at most {wrong[False]:.0e} of the product where the "
        f"gates do not read h, and by up to {wrong[True]:.1g} times the product where they do: c also goes "
        "through h into later gates.",
        held(all(value < EQUAL for value in wrong.values()), part=wrong[False] < EQUAL),
    )


def _time_scale(left: dict[Way, list[float]]) -> Claim:
    found = {bias: time_scale(left[bias]) for bias in FORGET}
    taught = {bias: 1 + math.exp(bias) for bias in FORGET}  # 1 / (1 - σ(b))
    return Claim(
        "A forget gate with bias b remembers for about 1 / (1 - σ(b)) steps.",
        "1/e is left after "
        + ", ".join(f"{found[bias]:.1f} steps at b = {bias:g} ({taught[bias]:.1f})" for bias in FORGET)
        + f"; begun the chrono way {left[CHRONO][DELAY]:.2f} is left after {DELAY} steps.",
        held(all(abs(found[bias] - taught[bias]) < 0.25 * taught[bias] + 1 for bias in FORGET)),
    )


def _bias_of_one(learned: dict[str, float]) -> Claim:
    values = {bias: learned[f"LSTM, {label(bias)}"] for bias in FORGET}
    return Claim(
        "A forget bias of 1 lets an LSTM learn what it does not learn with 0.",
        f"accuracy at a delay of {DELAY} steps: "
        + ", ".join(f"{value:.2f} at b = {bias:g}" for bias, value in values.items())
        + ".",
        held(
            values[1.0] > LEARNED > values[0.0],
            part=max(values.values()) > LEARNED > values[0.0],
        ),
    )


def _chrono(learned: dict[str, float]) -> Claim:
    accuracy = learned[f"LSTM, {CHRONO}"]
    return Claim(
        "Forget gates whose time scales are spread up to the length of the dependency learn it.",
        f"begun the chrono way an LSTM has accuracy {accuracy:.2f} at a delay of {DELAY} steps.",
        held(accuracy > LEARNED),
    )


def _highway(passed: dict[float, list[float]], learned: dict[str, float]) -> Claim:
    values = {bias: learned[f"highway, {label(bias)}"] for bias in TRANSFORM}
    shut = [value > LEARNED for bias, value in values.items() if bias < 0]
    return Claim(
        "A highway whose transform gates begin nearly shut passes the gradient and learns.",
        f"left of the gradient after {DELAY} steps, and accuracy: "
        + "; ".join(f"{passed[bias][DELAY]:.0e} and {values[bias]:.2f} at b = {bias:g}" for bias in TRANSFORM)
        + ".",
        held(all(shut) and values[0.0] < LEARNED, part=any(shut) and values[0.0] < LEARNED),
    )


def _draw(
    left: dict[Way, list[float]], passed: dict[float, list[float]], learned: dict[str, float]
) -> Figure:
    from throughtime.insight.figures import COLOURS, line, slide

    figure, (gates, gradients, task) = slide(3, height=4.8)
    for k, (way, values) in enumerate(left.items()):
        gates.plot(values, label=label(way), **line(k))
    for k, (bias, values) in enumerate(passed.items()):
        gradients.plot(values, label=label(bias), **line(k))
    gates.set(title="LSTM: forget gates", ylabel="mean product (share of c left)")
    gradients.set(title="highway: gradient", ylabel="‖dL/dh‖, as a share of the last")
    for panel in (gates, gradients):
        panel.set(xlabel="steps back", yscale="log", ylim=(1e-33, 10))
        panel.legend()
    task.barh(list(learned), list(learned.values()), color=COLOURS[0])
    task.axvline(0.5, color="0.3", linewidth=1)
    task.set(title=f"delay of {DELAY} steps", xlabel="accuracy (share of signs)", xlim=(0, 1))
    task.invert_yaxis()
    return figure
