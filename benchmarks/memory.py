"""Memory and time of training on one long sequence, with checkpoints in time and without.

Each variant runs in a process of its own: an LSTM over T steps of one row, forward and back to the gradients
of x and of all weights. Memory is the peak of the process over what it was before the run.

    python benchmarks/memory.py [--steps 100000]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

# torch is imported by the processes that measure, and here after them: Linux counts the peak of the
# process that starts another into the peak of that other.

RESULT = Path(__file__).with_suffix(".json")
SIZE = {"B": 1, "I": 16, "H": 64}
VARIANTS: dict[str, str | int | None] = {"None": None, "auto": "auto"}


def measure(steps: int, checkpoint_every: str | int | None) -> dict[str, float]:
    """Megabytes over what the process held before, and seconds; run in a process of its own."""
    import torch

    from throughtime.cells import find_cell
    from throughtime.cells.initial import initial_weights
    from throughtime.kernels import unroll

    generator = torch.Generator().manual_seed(0)
    cell = find_cell("lstm")
    weights = {
        name: weight.requires_grad_()
        for name, weight in initial_weights(cell, SIZE["I"], SIZE["H"], generator).items()
    }

    def train(steps: int) -> None:
        x = torch.randn(steps, SIZE["B"], SIZE["I"], generator=generator, requires_grad=True)
        y, _ = unroll(cell, weights, x, checkpoint_every=checkpoint_every)
        torch.autograd.grad(y, [x, *weights.values()], torch.ones_like(y))

    train(100)  # machine code and threads are there before anything is counted
    before, began = peak(), time.perf_counter()
    train(steps)
    return {"megabytes": peak() - before, "seconds": time.perf_counter() - began}


def peak() -> float:
    """The most memory that this process has had, in megabytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def in_a_process(steps: int, variant: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--steps", str(steps), "--variant", variant]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant is not None:
        print(json.dumps(measure(options.steps, VARIANTS[options.variant])))
        return
    measured = {variant: in_a_process(options.steps, variant) for variant in VARIANTS}

    from throughtime.bench.machine import describe

    result = {
        "machine": describe(),
        "cell": "lstm",
        "size": {"T": options.steps, **SIZE},
        "checkpoint_every": measured,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{'checkpoint_every':16}  {'MB':>8}  {'seconds':>8}")
    for variant, row in measured.items():
        print(f"{variant:16}  {row['megabytes']:8.1f}  {row['seconds']:8.2f}")


if __name__ == "__main__":
    main()
