"""Turns, samples and medians, by a clock that the contenders move."""

import gc

import pytest

from throughtime.bench.timing import TURN, Timing, time_in_turns
from throughtime.errors import StoppedError


class Clock:
    def __init__(self):
        self.now, self.calls = 0.0, []

    def __call__(self):
        return self.now

    def contender(self, name, *seconds):
        """Takes these times, one after the other, the last of them for ever."""
        waiting = list(seconds)

        def run():
            self.calls.append(name)
            self.now += waiting.pop(0) if len(waiting) > 1 else waiting[0]

        return run


def test_contenders_take_turns_after_two_runs_that_do_not_count():
    clock = Clock()
    contenders = {"a": clock.contender("a", 9.0, 9.0, 1.0), "b": clock.contender("b", 7.0, 7.0, 2.0)}
    timings = time_in_turns(contenders, seconds=0, rounds=3, clock=clock)
    assert clock.calls == ["a", "b"] * (2 + 3)
    assert timings["a"].samples == (1.0,) * 3 and timings["b"].samples == (2.0,) * 3


def test_rounds_go_on_until_the_time_is_over():
    clock = Clock()
    timings = time_in_turns({"a": clock.contender("a", 1.0)}, seconds=8, rounds=2, clock=clock)
    assert len(timings["a"].samples) == 8


def test_a_quick_contender_runs_several_times_in_a_turn_and_its_first_run_does_not_weigh():
    clock = Clock()
    quick = clock.contender("a", 0, 0, TURN * 0.4, TURN * 0.1)
    timings = time_in_turns({"a": quick}, seconds=0, rounds=1, clock=clock)
    assert len(clock.calls) >= 2 + 6
    assert timings["a"].samples == pytest.approx((TURN * 0.1,))


def test_median_and_spread():
    timing = Timing((1.0, 2.0, 3.0, 4.0, 100.0))
    assert timing.median == 3.0
    assert timing.spread == pytest.approx((4.0 - 2.0) / 2 / 3.0)
    assert Timing((2.0,)).spread == 0


def test_garbage_is_not_collected_meanwhile_and_is_again_afterwards():
    states = []
    with pytest.raises(ZeroDivisionError):
        time_in_turns({"a": lambda: states.append(gc.isenabled()) or 1 / 0}, seconds=0)
    assert states == [False] and gc.isenabled()


@pytest.mark.parametrize("runs", [0, 1, 2, 5])
def test_a_measurement_can_be_stopped_before_every_run(runs):
    clock = Clock()
    with pytest.raises(StoppedError):
        time_in_turns(
            {"a": clock.contender("a", 1.0)}, seconds=9, clock=clock, stopped=lambda: len(clock.calls) == runs
        )
    assert len(clock.calls) == runs
