"""How long a cell takes to become machine code: when it is new, and when the cache on disk has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from throughtime.cells.cell import Cell
from throughtime.kernels.machine import unsupported

_PROGRAM = """
import json, sys, time
import torch
import llvmlite.binding
from throughtime.kernels.unroll import explain
from throughtime.kernels import call, dense

start = time.perf_counter()
for backwards in (False, True):
    call.compiled(sys.argv[1], backwards, torch.float32)
dense.functions(False)
print(json.dumps(time.perf_counter() - start))
"""


def first_use(cell: Cell) -> dict[str, float] | None:
    """Seconds until both passes can run in float32 in a new process, "new" and "cached".

    Imports are not counted. None where no machine code can be made.
    """
    if unsupported() is not None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"XDG_CACHE_HOME": folder}
        command = [sys.executable, "-c", _PROGRAM, cell.graph.text]
        return {
            name: json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
            for name in ("new", "cached")
        }
