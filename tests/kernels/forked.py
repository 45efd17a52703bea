"""A process of its own, `python forked.py recurrence|shares THREADS`: it computes, forks, and computes again.

A fork copies one thread, and the locks of all the others as they are: here no other test has left any.
"""

import faulthandler
import multiprocessing
import os
import sys
import traceback

import torch
from agreement import same
from conftest import draw_problem
from test_threads import SHARE, once, product, run, shares

from throughtime.cells.library import CELLS
from throughtime.kernels import machine

PATIENCE = 20


def recurrence(threads):
    problem = draw_problem(CELLS["gru"], 4, 5, 3, 16)
    expected = problem.answer(problem.run("llvm"))
    return lambda: same(problem.answer(problem.run("llvm")), expected)


def each_share_once(threads):
    share = machine.load("share", lambda: SHARE, ["share"]).function("share")

    def check():
        block = run(share, threads)
        assert shares(block) == once(threads), list(block)

    product()
    check()
    return check


def child(check):
    """Should it hang, it says where and ends."""
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    torch.set_num_threads(1)  # torch's own products hang in a forked process on more
    check()
    faulthandler.cancel_dump_traceback_later()


def by_os(check):
    process = os.fork()
    if process == 0:
        try:
            child(check)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])]


def by_multiprocessing(check):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=child, args=(check,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def main(name, threads):
    torch.set_num_threads(threads)
    check = {"recurrence": recurrence, "shares": each_share_once}[name](threads)
    for fork in (by_os, by_multiprocessing):
        codes = fork(check)
        assert not any(codes), f"{name} on {threads} threads, forked {fork.__name__}: exit codes {codes}"
        check()  # and the parent goes on as before


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
