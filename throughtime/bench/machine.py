"""The machine that a result was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import torch

from throughtime.bench.timing import time_in_turns


def describe() -> dict[str, str | int | float]:
    """Processor, cores and versions."""
    info = Path("/proc/cpuinfo")
    models = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.exists()
        else []
    )
    return {
        "processor": models[0] if models else platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: version for name in ("llvmlite", "jax") if (version := _version(name))},
    }


def matmul_gflops(size: int = 2048, seconds: float = 1.0) -> float:
    """What `torch.mm` reaches on two square matrices in float32: the bound of anything made of products."""
    a, b, out = (torch.ones(size, size) for _ in range(3))
    timing = time_in_turns({"mm": lambda: torch.mm(a, b, out=out)}, seconds)["mm"]
    return 2 * size**3 / timing.median / 1e9


def use_threads(count: int) -> None:
    """Let torch, and jax if it has not begun, use `count` threads."""
    torch.set_num_threads(count)
    os.environ["NPROC"] = str(count)  # what XLA reads to size its pool


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
