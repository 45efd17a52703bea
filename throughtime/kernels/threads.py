"""Machine code on several threads at once: on those that torch itself uses."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch

Function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
"""Machine code `void f(block *)`. Other Python threads go on while it runs."""

PROCESS = os.getpid()
"""A process that was forked from this one has another, and does not have the threads of this one."""


def run(function: Any, block: Any, threads: int) -> None:
    """Call a `Function` with the address of `block` `threads` times, at once as far as possible.

    `block` is a ctypes array or structure that begins with an int64, which is set to 0 here. Each call adds
    1 to it atomically, first of all, and what was there tells it which share of the work is its own.

    One thread is a plain call. More should always be `torch.get_num_threads()`: a team that changes its
    size can cost milliseconds. Where torch has no team of OpenMP threads, and in a forked process, the calls
    follow one another on this thread. No call is still running when an exception, such as
    KeyboardInterrupt, comes out of here.
    """
    taken = ctypes.c_int64.from_buffer(block)
    taken.value = 0
    address = ctypes.addressof(block)
    team = _team() if threads > 1 and os.getpid() == PROCESS else None
    if team is not None:
        team(function, address, threads, 0)
    for _ in range(threads - taken.value):  # OpenMP may give fewer threads than it is asked for
        function(address)


@cache
def _team() -> Any:
    """GOMP_parallel(function, argument, threads, flags) of the OpenMP library under torch, or None.

    OpenMP's idle threads spin for milliseconds, so threads of another pool, be it another copy of OpenMP,
    would have to share the cores with them: after a product on 2 cores they come too late to help.
    Asked through torch's own library, the linker finds the very copy that torch calls: GNU's, or LLVM's,
    which knows this function too.
    """
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        library = Path(torch.__file__).parent / "lib" / name
        if library.exists():
            team = getattr(ctypes.CDLL(str(library)), "GOMP_parallel", None)
            if team is not None:
                team.argtypes = (Function, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
                team.restype = None
            return team
    return None
