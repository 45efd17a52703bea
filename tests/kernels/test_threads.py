"""Machine code on several threads: each share of the work is done once, by torch's own threads."""

import ctypes
import os
import signal
import sys
import threading as python_threads
import time
from pathlib import Path

import pytest
import torch

from throughtime.kernels import machine, threads

pytest.importorskip("llvmlite")
if machine.unsupported():
    pytest.skip(machine.unsupported(), allow_module_level=True)

Block = ctypes.c_int64 * 64
WAIT, COUNTS, SEEN = 1, 8, 24

# The share t, of the ticket: waits until block[WAIT] tickets are taken, but for no more than block[WAIT + 1]
# looks; counts in block[COUNTS + t] that it was done, and leaves the tickets that it saw in block[SEEN + t].
SHARE = f"""
    define void @share(ptr %block) {{
    entry:
        %ticket = atomicrmw add ptr %block, i64 1 monotonic
        %wanted_at = getelementptr i64, ptr %block, i64 {WAIT}
        %wanted = load i64, ptr %wanted_at
        %patience_at = getelementptr i64, ptr %block, i64 {WAIT + 1}
        %patience = load i64, ptr %patience_at
        br label %look
    look:
        %looks = phi i64 [ 0, %entry ], [ %more, %look ]
        %taken = load atomic i64, ptr %block monotonic, align 8
        %more = add i64 %looks, 1
        %missing = icmp slt i64 %taken, %wanted
        %patient = icmp slt i64 %more, %patience
        %again = and i1 %missing, %patient
        br i1 %again, label %look, label %done
    done:
        %counts = getelementptr i64, ptr %block, i64 {COUNTS}
        %count_at = getelementptr i64, ptr %counts, i64 %ticket
        %old = atomicrmw add ptr %count_at, i64 1 monotonic
        %seen = getelementptr i64, ptr %block, i64 {SEEN}
        %seen_at = getelementptr i64, ptr %seen, i64 %ticket
        store i64 %taken, ptr %seen_at
        ret void
    }}
"""
# Leaves the number of the thread, in Linux, in the word after the ticket.
WHO = """
    declare i32 @gettid()
    define void @who(ptr %block) {
        %ticket = atomicrmw add ptr %block, i64 1 monotonic
        %number = call i32 @gettid()
        %wide = sext i32 %number to i64
        %next = add i64 %ticket, 1
        %at = getelementptr i64, ptr %block, i64 %next
        store i64 %wide, ptr %at
        ret void
    }
"""
needs_team = pytest.mark.skipif(threads._team() is None, reason="torch has no OpenMP team here")


@pytest.fixture(scope="module")
def share():
    return machine.load("share", lambda: SHARE, ["share"]).function("share")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def product():
    """Work that torch itself does on its threads."""
    x = torch.ones(512, 512)
    return (x @ x).relu()


def run(share, count, wait=0, patience=0):
    block = Block()
    block[WAIT], block[WAIT + 1] = wait, patience
    threads.run(share, block, count)
    return block


def shares(block):
    return list(block[COUNTS:SEEN])


def once(count):
    return [1] * count + [0] * (SEEN - COUNTS - count)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_share_is_done_once(share, count):
    for _ in range(20):
        block = run(share, count)
        assert block[0] == count
        assert shares(block) == once(count)


def test_a_block_can_be_used_again(share):
    block = Block()
    for rounds in range(1, 4):
        threads.run(share, block, 2)
        assert shares(block)[:3] == [rounds, rounds, 0]


def test_a_block_may_be_a_structure(share):
    class Arguments(ctypes.Structure):
        _fields_ = (("ticket", ctypes.c_int64), ("others", Block))

    arguments = Arguments()
    threads.run(share, arguments, 2)
    assert arguments.ticket == 2


@needs_team
@pytest.mark.parametrize("count", [2, 4])
def test_the_shares_are_done_at_once(share, count):
    """Each waits for all the others; where they follow one another, the first sees itself alone."""
    block = run(share, count, wait=count, patience=1 << 30)
    assert list(block[SEEN : SEEN + count]) == [count] * count


@needs_team
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_threads_are_those_of_torch(two_threads):
    who = machine.load("who", lambda: WHO, ["who"]).function("who")
    product()
    of_torch = {int(task.name) for task in Path("/proc/self/task").iterdir()}
    block = Block()
    threads.run(who, block, 2)
    assert block[1] != block[2]
    assert {block[1], block[2]} <= of_torch


def test_a_team_that_is_too_small(share, monkeypatch):
    monkeypatch.setattr(threads, "_team", lambda: lambda function, block, count, flags: function(block))
    assert shares(run(share, 4)) == once(4)


def test_no_team(share, monkeypatch):
    monkeypatch.setattr(threads, "_team", lambda: None)
    assert shares(run(share, 4)) == once(4)


def test_from_several_python_threads(share):
    wrong = []

    def work(count):
        for _ in range(30):
            if shares(run(share, count)) != once(count):
                wrong.append(count)

    workers = [python_threads.Thread(target=work, args=(count,)) for count in (1, 2, 2, 4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_python_goes_on_meanwhile(share):
    """The GIL is released: another Python thread takes the ticket that this call waits for."""
    block = Block()
    block[WAIT], block[WAIT + 1] = 2, 1 << 32
    worker = python_threads.Thread(target=threads.run, args=(share, block, 1))
    worker.start()
    while block[0] == 0:
        time.sleep(0.001)
    block[0] = 2
    worker.join()
    assert block[SEEN] == 2


class Interrupt(Exception):
    pass


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=needs_team)])
def test_an_interrupt_waits_for_the_shares(share, count):
    """It comes while all shares are under way, and they go on for a while."""
    block = Block()
    block[WAIT], block[WAIT + 1] = 64, 1 << 34

    def interrupt(*_):
        raise Interrupt

    def disturb():
        while block[0] < count:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.05)
        block[0] = 64

    before = signal.signal(signal.SIGUSR1, interrupt)
    disturber = python_threads.Thread(target=disturb)
    try:
        with pytest.raises(Interrupt):
            disturber.start()
            threads.run(share, block, count)
            disturber.join()
        done = shares(block)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert done == once(count)
