"""What recording costs: a layer with all its gates recorded beside the same layer alone, in turns.

Forward passes in evaluation mode, and forward and backward passes in training mode, these also with dL/dh_t
at every step. What comes out is compared bit by bit before anything is timed.

    python benchmarks/recording.py [--seconds 3] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line sets it

import torch
from torch import Tensor

from throughtime.bench.machine import describe
from throughtime.bench.problems import Size
from throughtime.bench.report import ADVICE, check_folder
from throughtime.bench.timing import time_in_turns
from throughtime.cells.library import CELLS
from throughtime.insight.recorder import Recorder
from throughtime.nn import Recurrent
from throughtime.storage import write

#: Cells whose gates are of each kind: kept, computed again, and two states.
NAMES = ("lstm", "gru", "peephole_lstm", "layer_norm_lstm", "recurrent_highway", "slstm")
SIZES = (Size(50, 64, 128, 128), Size(100, 32, 256, 256))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    check_folder(options.output)
    rows = []
    for size in SIZES:
        for name in NAMES:
            rows += measure(name, size, options.seconds)
    text = json.dumps({"machine": describe(), "rows": rows}, indent=1)
    write(options.output / "recording.json", lambda new: new.write_text(text, "utf-8"), ADVICE)


def measure(name: str, size: Size, seconds: float) -> list[dict[str, Any]]:
    """The time of a layer that is recorded, as a multiple of that of the layer alone."""
    generator = torch.Generator().manual_seed(0)
    layer = Recurrent(CELLS[name], size.inputs, size.hidden, generator=generator)
    x = torch.randn(size.batch, size.steps, size.inputs, generator=generator)
    rows = []
    for kind, step, names in (
        ("in use", used, ("gates",)),
        ("in training", trained, ("gates",)),
        ("in training", trained, ("gates", "gradient h")),
    ):
        alone = partial(step, layer, x)
        watched = partial(recorded, alone, layer, names)
        for one, other in zip(alone(), watched(), strict=True):
            assert torch.equal(one, other), f"{name}: recording changed a result"
        times = time_in_turns({"alone": alone, "recorded": watched}, seconds)
        ratio = times["recorded"].median / times["alone"].median
        shape = f"{size.steps}, {size.batch}, {size.inputs}, {size.hidden}"
        print(f"{shape:20} {name:18} {kind:12} {' and '.join(names):22} {ratio:.2f}", flush=True)
        rows.append({"cell": name, "size": shape, "pass": kind, "recorded": names, "ratio": round(ratio, 3)})
    return rows


def used(layer: Recurrent, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        y, state = layer.eval()(x)
    return [y, *state[0]]


def trained(layer: Recurrent, x: Tensor) -> list[Tensor]:
    layer.train().zero_grad()
    y, _ = layer(x)
    y.square().sum().backward()
    return [y.detach(), *(p.grad.clone() for p in layer.parameters() if p.grad is not None)]


def recorded(step: Callable[[], list[Tensor]], layer: Recurrent, names: tuple[str, ...]) -> list[Tensor]:
    with Recorder(layer, *names):
        return step()


if __name__ == "__main__":
    main()
