"""What cells can keep in mind: the adding problem, and digits read pixel by pixel.

Adding (Hochreiter & Schmidhuber 1997; as in Le, Jaitly & Hinton 2015): a sequence of random numbers, two of
them marked; the answer, after the last step, is the sum of the two. To answer 1 always costs 1/6. Each cell
is trained for the same number of steps with one learning rate after the other, the same for all cells, until
one of them solves it on validation data; the best of them there is tested on fresh data.

Digits: MNIST images as sequences of 784 pixels, row by row or in one fixed random order; the class is read
off the last state. Training stops after a stated time, so that the result depends on the machine. The gates
of the GRU begin open for spans of up to the whole sequence (Tallec & Ollivier 2018).

    OMP_NUM_THREADS=1 python benchmarks/long_memory.py [--only adding|digits] [--minutes 9] [--data PATH]

One thread is the fastest for layers of this size. Results of parts that are not run again stay in the JSON.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughtime.bench.machine import describe
from throughtime.errors import DataError
from throughtime.nn.recurrent import Recurrent

RESULT = Path(__file__).with_suffix(".json")
DATA = Path("data")
CLIP_NORM = 1.0

Batch = tuple[Tensor, Tensor]


class LastState(nn.Module):
    """A recurrence over [batch, time, feature] and an affine map of its last state."""

    def __init__(self, cell: str, inputs: int, hidden: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.recurrent = Recurrent(cell, inputs, hidden, generator=generator)
        self.output = nn.Linear(hidden, outputs)
        nn.init.xavier_uniform_(self.output.weight, generator=generator)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.recurrent(x)[0][:, -1])


def one_cycle(share: float, warm: float = 0.05) -> float:
    """The learning rate, as a share of its peak, when this share of the budget is spent."""
    if share < warm:
        return share / warm
    return 0.5 + 0.5 * math.cos(math.pi * (share - warm) / (1 - warm))


def fit(
    model: nn.Module,
    batches: Iterator[Batch],
    loss: Callable[[Tensor, Tensor], Tensor],
    peak: float,
    spent: Callable[[int, float], float],
    report: Callable[[int, float], None],
) -> dict[str, int | float]:
    """Train with Adam until the budget is spent; the steps, and the seconds without those of `report`.

    `spent(steps, seconds)` says which share of the budget is gone; `report(steps, seconds)` is called after
    each tenth. A step whose gradient is not finite is left out. Seconds are by the clock; those of the
    processor are fewer where others use the machine too.
    """
    optimizer = torch.optim.Adam(model.parameters())
    seconds, processor_seconds, steps, tenths = 0.0, 0.0, 0, 1
    while (share := spent(steps, seconds)) < 1:
        began, processor_began = time.perf_counter(), time.process_time()
        for group in optimizer.param_groups:
            group["lr"] = peak * one_cycle(share)
        x, target = next(batches)
        optimizer.zero_grad()
        loss(model(x), target).backward()
        if nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM).isfinite():
            optimizer.step()
        steps += 1
        seconds += time.perf_counter() - began
        processor_seconds += time.process_time() - processor_began
        if spent(steps, seconds) >= tenths / 10:
            report(steps, seconds)
            tenths += 1
    return {
        "steps": steps,
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor_seconds, 1),
    }


# ---- adding


@dataclass(frozen=True)
class Adding:
    length: int = 150
    hidden: int = 100
    batch: int = 32
    steps: int = 5000
    learning_rates: tuple[float, ...] = (3e-3, 3e-4, 1e-3)
    held_out: int = 2000
    solved: float = 0.01


ADDING_CELLS = ("lstm", "irnn", "rnn")


def adding_batch(length: int, batch: int, generator: torch.Generator) -> Batch:
    """Numbers in [0, 1) and the marks of two of them, one in each half; the sums of the marked."""
    numbers = torch.rand(batch, length, generator=generator)
    half, rows = length // 2, torch.arange(batch)
    marks = torch.zeros(batch, length)
    marks[rows, torch.randint(0, half, (batch,), generator=generator)] = 1
    marks[rows, torch.randint(half, length, (batch,), generator=generator)] = 1
    return torch.stack([numbers, marks], -1), (numbers * marks).sum(1, keepdim=True)


def endless_adding(settings: Adding, generator: torch.Generator) -> Iterator[Batch]:
    while True:
        yield adding_batch(settings.length, settings.batch, generator)


@torch.no_grad()
def squared_error(model: nn.Module, data: Batch) -> float:
    return F.mse_loss(model(data[0]), data[1]).item()


def train_adding(cell: str, learning_rate: float, settings: Adding, seed: int) -> dict[str, Any]:
    """One training; errors on validation and test data."""
    generator = torch.Generator().manual_seed(seed)
    model = LastState(cell, 2, settings.hidden, 1, generator)
    batches = endless_adding(settings, generator)
    held_out = torch.Generator().manual_seed(seed + 1)
    valid, test = (adding_batch(settings.length, settings.held_out, held_out) for _ in range(2))
    curve: dict[int, float] = {}

    def report(steps: int, seconds: float) -> None:
        curve[steps] = squared_error(model, valid)
        print(f"  {cell} {learning_rate:g}: {steps} steps, {seconds:.0f} s, {curve[steps]:.4f}", flush=True)

    spent = fit(model, batches, F.mse_loss, learning_rate, lambda steps, _: steps / settings.steps, report)
    return {
        "learning_rate": learning_rate,
        **spent,
        "valid_mse_after_steps": curve,
        "valid_mse": squared_error(model, valid),
        "test_mse": squared_error(model, test),
    }


def run_adding(seed: int) -> None:
    settings = Adding()
    for cell in ADDING_CELLS:
        tried = []
        for learning_rate in settings.learning_rates:
            tried.append(train_adding(cell, learning_rate, settings, seed))
            if tried[-1]["valid_mse"] < settings.solved:
                break
        best = min(tried, key=itemgetter("valid_mse"))
        keep(
            "adding",
            cell,
            {**asdict(settings), "seed": seed, "machine": machine(), "best": best, "tried": tried},
        )


# ---- digits


@dataclass(frozen=True)
class Digits:
    hidden: int
    batch: int
    learning_rate: float


DIGITS = {"gru": Digits(64, 32, 3e-3), "irnn": Digits(100, 32, 3e-4)}
ORDERS = ("row by row", "permuted")


@dataclass(frozen=True)
class Images:
    """Pixels in [0, 1] as [image, 784], and the classes, of each part of the data."""

    train: Batch
    valid: Batch
    test: Batch


def read_idx(path: Path) -> Tensor:
    """The array of a compressed idx file of bytes."""
    if not path.is_file():
        raise DataError(f"there is no {path}: give the folder that holds digits/ as --data")
    data = lzma.decompress(path.read_bytes())
    shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape)).reshape(shape).copy())


def read_digits(folder: Path) -> Images:
    """55,000 images to train on, the last 5,000 of that file to validate on, and the test images."""
    parts = []
    for name in ("train", "test3000"):
        pixels, classes = (
            read_idx(folder / "digits" / f"{name}-{kind}.xz")
            for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
        )
        parts.append((pixels.flatten(1) / 255, classes.long()))
    (x, y), test = parts
    return Images((x[:-5000], y[:-5000]), (x[-5000:], y[-5000:]), test)


def endless_digits(data: Batch, batch: int, order: Tensor, generator: torch.Generator) -> Iterator[Batch]:
    while True:
        for rows in torch.randperm(len(data[0]), generator=generator).split(batch):
            yield data[0][rows][:, order, None], data[1][rows]


@torch.no_grad()
def accuracy(model: nn.Module, data: Batch, order: Tensor) -> float:
    """The share of images, in percent, whose class is right."""
    right = [
        (model(x[:, order, None]).argmax(1) == y).sum().item()
        for x, y in zip(data[0].split(100), data[1].split(100), strict=True)
    ]
    return 100 * sum(right) / len(data[0])


@torch.no_grad()
def open_gates(layer: Recurrent, steps: int, generator: torch.Generator) -> None:
    """Biases of a GRU's update gate for memories of 1 to `steps` steps (Tallec & Ollivier 2018)."""
    block = layer.cell.graph.bias_blocks.index("z")
    spans = torch.empty(layer.hidden_size).uniform_(1, steps - 1, generator=generator)
    layer.get_parameter("bias_l0").view(-1, layer.hidden_size)[block] = spans.log()


def train_digits(
    cell: str, permuted: bool, settings: Digits, images: Images, minutes: float, seed: int
) -> dict[str, Any]:
    """One training; accuracies on validation and test images."""
    generator = torch.Generator().manual_seed(seed)
    pixels = images.train[0].shape[1]
    order = torch.randperm(pixels, generator=torch.Generator().manual_seed(seed))
    order = order if permuted else torch.arange(pixels)
    model = LastState(cell, 1, settings.hidden, 10, generator)
    if cell == "gru":
        open_gates(model.recurrent, pixels, generator)
    batches = endless_digits(images.train, settings.batch, order, generator)
    curve: dict[int, float] = {}

    def report(steps: int, seconds: float) -> None:
        curve[steps] = accuracy(model, tuple(part[:1000] for part in images.valid), order)
        print(f"  {cell}: {steps} steps, {seconds:.0f} s, {curve[steps]:.1f} %", flush=True)

    spent = fit(
        model,
        batches,
        F.cross_entropy,
        settings.learning_rate,
        lambda _, seconds: seconds / (60 * minutes),
        report,
    )
    return {
        **asdict(settings),
        **spent,
        "epochs": round(spent["steps"] * settings.batch / len(images.train[0]), 2),
        "valid_accuracy_of_1000_after_steps": curve,
        "valid_accuracy": accuracy(model, images.valid, order),
        "test_accuracy": accuracy(model, images.test, order),
    }


def run_digits(images: Images, minutes: float, seed: int) -> None:
    for cell, settings in DIGITS.items():
        for order in ORDERS:
            print(f"digits, {order}", flush=True)
            result = train_digits(cell, order == "permuted", settings, images, minutes, seed)
            keep("digits", f"{cell}, {order}", {"seed": seed, "machine": machine(), **result})


# ---- the result


def machine() -> dict[str, Any]:
    """The machine, and how many processes wanted its cores in the last 15 minutes."""
    return {**describe(), "load": round(os.getloadavg()[2], 1), "spins": os.environ.get("GOMP_SPINCOUNT")}


def read_result() -> dict[str, dict[str, Any]]:
    return json.loads(RESULT.read_text()) if RESULT.exists() else {}


def keep(part: str, name: str, row: dict[str, Any]) -> None:
    """Put one row into the JSON and leave the others as they are."""
    result = read_result()
    result.setdefault(part, {})[name] = row
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


def show(result: dict[str, dict[str, Any]]) -> None:
    print(f"{'task':8}  {'cell':18}  {'steps':>6}  {'minutes':>7}  result on test data")
    for cell, row in result.get("adding", {}).items():
        best = row["best"]
        print(
            f"{'adding':8}  {cell:18}  {best['steps']:6}  {best['seconds'] / 60:7.1f}  "
            f"squared error {best['test_mse']:.4f} (learning rate {best['learning_rate']:g})"
        )
    for name, row in result.get("digits", {}).items():
        print(
            f"{'digits':8}  {name:18}  {row['steps']:6}  {row['seconds'] / 60:7.1f}  "
            f"accuracy {row['test_accuracy']:.1f} %"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("adding", "digits"))
    parser.add_argument(
        "--minutes", type=float, default=9.0, help="of training for each of the four digit runs"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=DATA, help="folder that holds digits/ (MNIST as idx.xz)")
    options = parser.parse_args()
    torch.set_flush_denormal(True)  # gradients that vanish are slow to compute with on their way to 0
    try:
        images = None if options.only == "adding" else read_digits(options.data)
    except DataError as error:
        parser.exit(error.exit_code, f"{parser.prog}: {error}\n")
    if options.only != "digits":
        run_adding(options.seed)
    if images is not None:
        run_digits(images, options.minutes, options.seed)
    show(read_result())


if __name__ == "__main__":
    main()
