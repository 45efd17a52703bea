"""What the options of the layers cost, and the layers beside torch's, side by side in one process.

- each option of `Recurrent` against the plain layer, forward and backward in training mode
- one step of a stream against `torch.nn.LSTM` and `GRU` called with a single step
- padded batches against `torch.nn.LSTM` on packed sequences
- linear recurrences by backend

What computes the same is compared in values and gradients before anything is timed.

    python benchmarks/layers.py [--seconds 2] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line sets it, for all contenders

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import throughtime.nn
from throughtime.bench.comparison import TOLERANCES
from throughtime.bench.machine import describe
from throughtime.bench.problems import Size, spread_lengths
from throughtime.bench.report import ADVICE, check_folder
from throughtime.bench.timing import Timing, time_in_turns
from throughtime.errors import StoppedError, ThroughTimeError
from throughtime.nn import AttentionPooling, Recurrent, activation_penalty, temporal_activation_penalty
from throughtime.storage import write

FOLDER = Path(__file__).parent
DOCS = FOLDER.parent / "docs"

#: What a contender computed, by name; tensors with one name in two contenders must agree.
Answer = dict[str, Tensor]
Contender = Callable[[], Answer]
#: x [B, T, I] to all that the loss depends on.
Forward = Callable[[Tensor], tuple[Tensor, ...]]

OPTION_SIZES = (Size(50, 64, 128, 128), Size(100, 32, 256, 256))
STEP_SIZES = (Size(1, 1, 64, 64), Size(1, 1, 256, 256), Size(1, 1, 512, 512))
PADDED_SIZES = (Size(100, 32, 128, 128), Size(50, 64, 256, 256))
LINEAR_SIZES = (Size(50, 64, 128, 128), Size(784, 32, 1, 100), Size(4096, 1, 64, 64))

#: Seconds of a run from which on `reference` is not timed.
LONGEST = 3.0

#: The tables of the page, and what stands above them.
SECTIONS = {
    "Options": "Forward and backward in training mode. The ratio is to the time of what stands in the "
    'column "against".',
    "Streaming": "One step of one row without gradients, in evaluation mode. The ratio is to torch's layer, "
    "called with a sequence of one step.",
    "Padded batches": "Two layers in both directions over rows whose lengths are spread evenly, so that half "
    "of the steps are padding; forward and backward. The ratio is to torch's layer with the packing before "
    "it and the padding after it.",
    "Linear recurrences": "`min_gru` forward and backward by backend. The ratio is to `llvm`, which `auto` "
    f"takes on a processor. `reference` is left out where a run takes {LONGEST:.0f} s or more.",
}


@dataclass(frozen=True)
class Comparison:
    """Contenders to be timed in turns, the baseline first; `bars` holds the ratios some should reach."""

    section: str
    size: Size
    contenders: dict[str, Contender]
    bars: dict[str, float] = field(default_factory=dict)
    gradients: bool = True


@dataclass(frozen=True)
class Row:
    """A contender's time, as a ratio to that of the one it stands against: medians over the turns."""

    section: str
    name: str
    against: str
    size: str
    milliseconds: float
    ratio: float
    ratio_spread: float
    bar: float | None

    @property
    def missed(self) -> bool:
        return self.bar is not None and self.ratio > self.bar


# Contenders


def training(forward: Forward, size: Size, *modules: nn.Module) -> Contender:
    """Forward, and backward to x and all parameters; all contenders of a size have the same x and dy."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size.batch, size.steps, size.inputs, generator=generator).requires_grad_()
    with torch.no_grad():
        cotangents = [torch.randn(value.shape, generator=generator) for value in forward(x)]
    leaves = {"x": x} | {name: weight for module in modules for name, weight in module.named_parameters()}

    def run() -> Answer:
        for leaf in leaves.values():
            leaf.grad = None
        outputs = forward(x)
        torch.autograd.backward(outputs, cotangents)
        return {"y": outputs[0]} | {f"gradient of {name}": leaf.grad for name, leaf in leaves.items()}

    return run


def streaming(step: Callable[[Tensor, Any], tuple[Tensor, Any]], *shape: int) -> Contender:
    """One step after another: each call takes the state that the last one left."""
    x, state = torch.randn(shape, generator=torch.Generator().manual_seed(0)), None

    def run() -> Answer:
        nonlocal state
        y, state = step(x, state)
        return {"y": y.flatten()}

    return run


def recurrent(cell: str, size: Size, **options: Any) -> Recurrent:
    generator = torch.Generator().manual_seed(0)
    return Recurrent(cell, size.inputs, size.hidden, generator=generator, **options)


def plain(layer: nn.Module, size: Size) -> Contender:
    return training(lambda x: (layer(x)[0],), size, layer)


def as_torch(layer: Recurrent) -> dict[str, Tensor]:
    """The weights of an LSTM or GRU as torch names them: it has two biases, and only the GRU needs both."""
    weights = {}
    for suffix in layer.suffixes:
        names = ("weight_ih" + suffix, "weight_hh" + suffix)
        weights |= {name: getattr(layer, name).detach() for name in names}
        bias, gates = getattr(layer, "bias" + suffix).detach(), len(weights[names[0]])
        apart = len(bias) - gates
        weights["bias_ih" + suffix] = bias[:gates]
        weights["bias_hh" + suffix] = torch.cat([bias.new_zeros(gates - apart), bias[gates:]])
    return weights


def like(layer: Recurrent, kind: type[nn.RNNBase]) -> nn.RNNBase:
    """A layer of torch's or the drop-in with the same weights."""
    (hidden,) = set(layer.hidden_sizes)
    options = {"num_layers": layer.layers, "bidirectional": layer.bidirectional}
    copy = kind(layer.input_size, hidden, batch_first=True, **options)
    copy.load_state_dict(as_torch(layer))
    return copy


# Options


def half_padded(layer: Recurrent, size: Size) -> Contender:
    lengths = spread_lengths(size, torch.Generator().manual_seed(0))
    return training(lambda x: (layer(x, lengths=lengths)[0],), size, layer)


def with_resets(layer: Recurrent, size: Size) -> Contender:
    reset = torch.rand(size.batch, size.steps, generator=torch.Generator().manual_seed(0)) < 0.02
    return training(lambda x: (layer(x, reset=reset)[0],), size, layer)


def with_hook(layer: Recurrent, size: Size) -> Contender:
    layer.register_state_hook(lambda gradient: None)
    return plain(layer, size)


def penalised(layer: Recurrent, size: Size) -> Contender:
    def forward(x: Tensor) -> tuple[Tensor, ...]:
        y = layer(x)[0]
        return y, activation_penalty(y), temporal_activation_penalty(y)

    return training(forward, size, layer)


def attended(layer: Recurrent, size: Size) -> Contender:
    pooling = AttentionPooling(layer.output_size)
    return training(lambda x: (pooling(layer(x)[0])[0],), size, layer, pooling)


@dataclass(frozen=True)
class Option:
    """A way to make a layer or to call it; it is timed against plain LSTMs, as many as `layers` says."""

    name: str
    make: dict[str, Any] = field(default_factory=dict)
    cell: str = "lstm"
    layers: int = 1
    call: Callable[[Recurrent, Size], Contender] = plain
    bar: float | None = None


PLAIN = {1: "plain LSTM", 2: "two plain LSTMs"}
OPTIONS = (
    Option(
        "variational dropout, input and output",
        {"input_dropout": 0.25, "output_dropout": 0.25, "variational": True},
        bar=1.3,
    ),
    Option("recurrent dropout", {"recurrent_dropout": 0.25}),
    Option("weight dropout", {"weight_dropout": 0.5}),
    Option("zoneout", {"zoneout": 0.1}, bar=1.3),
    Option("`layer_norm_lstm`", cell="layer_norm_lstm", bar=1.3),
    Option("`peephole_lstm`", cell="peephole_lstm", bar=1.3),
    Option("`coupled_lstm`", cell="coupled_lstm"),
    Option("learned state", {"learned_state": True}),
    Option("lengths, half of the steps padded", call=half_padded),
    Option("resets, at one step in 50", call=with_resets),
    Option("checkpoints in time", {"checkpoint_every": "auto"}),
    Option("state hook", call=with_hook),
    Option("activation penalties", call=penalised),
    Option("attention pooling", call=attended),
    Option(
        "variational dropout, input, between and output",
        {"layers": 2, "input_dropout": 0.25, "dropout": 0.25, "output_dropout": 0.25, "variational": True},
        layers=2,
        bar=1.3,
    ),
    Option("residual connection", {"layers": 2, "connection": "residual"}, layers=2),
    Option("highway connection", {"layers": 2, "connection": "highway"}, layers=2),
    Option("bidirectional, concat", {"bidirectional": True}, layers=2),
    Option("bidirectional, sum", {"bidirectional": True, "merge": "sum"}, layers=2),
)


def options(size: Size) -> Iterator[Comparison]:
    """torch's layer and the drop-in, then each option, each in turns with the plain layer of its own."""
    layer = recurrent("lstm", size)
    rivals = {"`torch.nn.LSTM`": nn.LSTM, "`throughtime.nn.LSTM`": throughtime.nn.LSTM}
    contenders = {PLAIN[1]: plain(layer, size)}
    contenders |= {name: plain(like(layer, kind), size) for name, kind in rivals.items()}
    check_agreement(contenders, size)
    yield Comparison("Options", size, contenders)
    for option in OPTIONS:
        baseline = plain(recurrent("lstm", size, layers=option.layers), size)
        contender = option.call(recurrent(option.cell, size, **option.make), size)
        contenders = {PLAIN[option.layers]: baseline, option.name: contender}
        bars = {} if option.bar is None else {option.name: option.bar}
        yield Comparison("Options", size, contenders, bars)


# The other sections


def streams(size: Size) -> Iterator[Comparison]:
    """`Recurrent.step`, torch's layer called with T = 1, and torch's cell, on one row."""
    for cell, kind, single in (("lstm", nn.LSTM, nn.LSTMCell), ("gru", nn.GRU, nn.GRUCell)):
        layer = recurrent(cell, size).eval()
        torch_layer, torch_cell = like(layer, kind).eval(), single(size.inputs, size.hidden).eval()
        weights = torch_layer.state_dict()
        torch_cell.load_state_dict({name.removesuffix("_l0"): value for name, value in weights.items()})
        ours = f'`Recurrent("{cell}").step`'
        contenders = {
            f"`torch.nn.{kind.__name__}`": streaming(torch_layer, 1, 1, size.inputs),
            f"`torch.nn.{single.__name__}`": streaming(partial(_cell_step, torch_cell), 1, size.inputs),
            ours: streaming(layer.step, 1, size.inputs),
        }
        with torch.no_grad():
            check_agreement(contenders, size, runs=5)
        yield Comparison("Streaming", size, contenders, {ours: 0.5}, gradients=False)


def _cell_step(cell: nn.Module, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    after = cell(x, state)
    return (after[0] if isinstance(after, tuple) else after), after


def padded(size: Size) -> Iterator[Comparison]:
    """Lengths of `Recurrent`, and packed sequences of the drop-in and of torch's layer."""
    lengths = spread_lengths(size, torch.Generator().manual_seed(0))
    layer = recurrent("lstm", size, layers=2, bidirectional=True)

    def packed(kind: type[nn.RNNBase]) -> Contender:
        copy = like(layer, kind)

        def forward(x: Tensor) -> tuple[Tensor, ...]:
            sequence = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return pad_packed_sequence(copy(sequence)[0], batch_first=True, total_length=size.steps)[:1]

        return training(forward, size, copy)

    contenders = {
        "`torch.nn.LSTM`, packed": packed(nn.LSTM),
        "`throughtime.nn.LSTM`, packed": packed(throughtime.nn.LSTM),
        "`Recurrent`, lengths": training(lambda x: (layer(x, lengths=lengths)[0],), size, layer),
    }
    check_agreement(contenders, size)
    yield Comparison("Padded batches", size, contenders)


def linear(size: Size) -> Iterator[Comparison]:
    """`min_gru` by each backend that can run it; `reference` where that does not take too long."""
    contenders = {
        f"`{backend}`": plain(recurrent("min_gru", size, backend=backend), size)
        for backend in ("llvm", "scan", "reference")
    }
    check_agreement(contenders, size)
    began = time.perf_counter()
    contenders["`reference`"]()
    if time.perf_counter() - began >= LONGEST:
        del contenders["`reference`"]
    yield Comparison("Linear recurrences", size, contenders)


def check_agreement(contenders: dict[str, Contender], size: Size, runs: int = 1) -> None:
    """Raise `ThroughTimeError` where the last answer of `runs` is not that of the first contender."""
    answers = {name: [contender() for _ in range(runs)][-1] for name, contender in contenders.items()}
    (first, truth), *others = answers.items()
    for name, answer in others:
        for key in truth.keys() & answer.keys():
            error = ((answer[key] - truth[key]).abs().max() / truth[key].abs().max().clamp(min=1)).item()
            if not error <= TOLERANCES[torch.float32]:
                raise ThroughTimeError(
                    f"{name} is off {first} by {error:.1e} in {key} at {size}: nothing is timed"
                )


# Timing and report


def comparisons() -> list[Comparison]:
    """All of them, checked."""
    grids = ((options, OPTION_SIZES), (streams, STEP_SIZES), (padded, PADDED_SIZES), (linear, LINEAR_SIZES))
    return [comparison for make, sizes in grids for size in sizes for comparison in make(size)]


def measure(comparison: Comparison, seconds: float) -> list[Row]:
    """A row for each contender. The ratio is that of two turns of one round: the machine's speed drifts."""
    with torch.set_grad_enabled(comparison.gradients):
        timings = time_in_turns(comparison.contenders, seconds)
    against, baseline = next(iter(timings.items()))
    rows = []
    for name, timing in timings.items():
        pairs = zip(timing.samples, baseline.samples, strict=True)
        ratio = Timing(tuple(mine / its for mine, its in pairs))
        size, bar = str(comparison.size), comparison.bars.get(name)
        times = timing.median * 1e3, ratio.median, ratio.spread
        rows.append(Row(comparison.section, name, against, size, *times, bar))
    return rows


def as_page(machine: dict[str, str | int | float], rows: list[Row]) -> str:
    """The page of the documentation."""
    lines = [
        "# What options cost",
        "",
        f"Measured on {machine['processor']} ({machine['instructions']}), {machine['threads']} threads, "
        f"torch {machine['torch']}, float32, by `python benchmarks/layers.py`, which writes this page. "
        "Contenders take turns in one process. A cell is the ratio of times, below 1 where the row is faster "
        "than what it stands against, and the row's milliseconds; columns are T, B, I, H.",
    ]
    for section, about in SECTIONS.items():
        chosen = [row for row in rows if row.section == section]
        lines += ["", f"## {section}", "", about, "", *as_table(chosen)]
    return "\n".join(lines) + "\n"


def as_table(rows: list[Row]) -> list[str]:
    """Contenders down and sizes across; a ratio above its bar is bold."""
    sizes = list(dict.fromkeys(row.size for row in rows))
    last = ["bar"] if any(row.bar is not None for row in rows) else []
    head = ["", "against", *(size.replace(",", ", ") for size in sizes), *last]
    lines = [_line(head), _line(["---", "---", *["---:"] * len(head[2:])])]
    for name, against in dict.fromkeys((row.name, row.against) for row in rows):
        cells = {row.size: row for row in rows if row.name == name}
        shown = [_shown(cells[size]) if size in cells else "-" for size in sizes]
        bar = next(iter(cells.values())).bar
        end = ["" if bar is None else f"{bar}" for _ in last]
        lines.append(_line([name, "" if name == against else against, *shown, *end]))
    return lines


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(row: Row) -> str:
    ratio = f"**{row.ratio:.2f}**" if row.missed else f"{row.ratio:.2f}"
    return f"{ratio} ({_milliseconds(row)} ms)"


def _milliseconds(row: Row) -> str:
    return f"{row.milliseconds:.0f}" if row.milliseconds >= 100 else f"{row.milliseconds:.3g}"


def run(seconds: float, output: Path | None) -> None:
    """Check, measure, print each row as it is done, and write the result."""
    targets = (output or FOLDER) / "layers.json", (output or DOCS) / "costs.md"
    for target in targets:
        check_folder(target.parent)
    machine, rows = describe(), {}
    for comparison in comparisons():
        for row in measure(comparison, seconds):
            key = (row.section, row.size, row.name)
            if key not in rows:  # a baseline stands beside many options and is shown once
                rows[key] = row
                bar = "" if row.bar is None else f"   bar {row.bar}{', missed' * row.missed}"
                print(
                    f"{row.section:18}  {row.size:15}  {row.name:46}  {_milliseconds(row):>7} ms  "
                    f"{row.ratio:6.2f} of {row.against}{bar}",
                    flush=True,
                )
    found = list(rows.values())
    result = {"machine": machine, "seconds": seconds, "rows": [asdict(row) for row in found]}
    texts = json.dumps(result, indent=2) + "\n", as_page(machine, found)
    for target, text in zip(targets, texts, strict=True):
        write(target, partial(Path.write_text, data=text, encoding="utf-8"), ADVICE)
    barred = [row for row in found if row.bar is not None]
    print(
        f"{sum(row.missed for row in barred)} of {len(barred)} bars missed; in {', '.join(map(str, targets))}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing for each comparison")
    parser.add_argument(
        "--output", type=Path, help="folder for layers.json and costs.md; benchmarks and docs if not given"
    )
    given = parser.parse_args()
    try:
        run(given.seconds, given.output)
    except KeyboardInterrupt:
        print("stopped: nothing is written", file=sys.stderr)
        sys.exit(StoppedError.exit_code)
    except ThroughTimeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
