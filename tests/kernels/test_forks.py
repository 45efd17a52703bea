"""A forked process computes as its parent does. The process of the tests, full of threads, never forks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from throughtime.kernels import machine

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
if machine.unsupported():
    pytest.skip(machine.unsupported(), allow_module_level=True)


@pytest.mark.parametrize(("claim", "threads"), [("recurrence", 1), ("recurrence", 2), ("shares", 2)])
def test_after_a_fork_by_the_system_and_by_multiprocessing(claim, threads):
    script = Path(__file__).with_name("forked.py")
    command = [sys.executable, str(script), claim, str(threads)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
