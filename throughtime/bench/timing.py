"""Timing several contenders side by side: they take turns, so that what disturbs one disturbs all."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from throughtime.errors import StoppedError

Contender = Callable[[], object]

#: Rounds that are made at least, however long they take.
ROUNDS = 5
#: Seconds a turn lasts at least; a contender quicker than that runs several times.
TURN = 0.02


@dataclass(frozen=True)
class Timing:
    """Seconds of one run, one sample for each turn."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the samples."""
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a share of the median."""
        if len(self.samples) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return (high - low) / 2 / self.median


def time_in_turns(
    contenders: Mapping[str, Contender],
    seconds: float,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, Timing]:
    """Time the contenders: rounds of a turn for each, for `seconds`, and `rounds` of them at least.

    Each runs twice first, uncounted, to compile and to warm up. A turn runs a contender for `TURN`
    seconds, and once at least; the sample is the median of its runs, so that the first one, which finds
    the caches full of another's data, counts only where it is the only one. Raises `StoppedError` before
    the first run for which `stopped` says so.
    """
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    with _no_garbage_collection():
        for contender in (*contenders.values(), *contenders.values()):
            check(stopped)
            contender()
        began = clock()
        while clock() - began < seconds or min(map(len, samples.values())) < rounds:
            for name, contender in contenders.items():
                check(stopped)
                samples[name].append(_turn(contender, clock))
    return {name: Timing(tuple(values)) for name, values in samples.items()}


def check(stopped: Callable[[], bool]) -> None:
    """Raise `StoppedError` where a person has stopped the measurement."""
    if stopped():
        raise StoppedError("the measurement was stopped")


def _turn(contender: Contender, clock: Callable[[], float]) -> float:
    runs: list[float] = []
    began = now = clock()
    while not runs or now - began < TURN:
        before, _, now = now, contender(), clock()
        runs.append(now - before)
    return statistics.median(runs)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
