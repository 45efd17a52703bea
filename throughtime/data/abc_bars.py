"""The bars of a tune: whether they have the length of the meter, and in which order they are played."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from throughtime.data.abc_tune import Bar, Tune


class Bars(NamedTuple):
    """How many of the bars that a meter measures have its length."""

    right: int
    all: int


def count_bars(tune: Tune) -> Bars:
    """How many bars have the length of the meter, of those that have a meter.

    At the beginning and the end of a part a bar may be shorter: a tune that begins with a pickup ends so. A
    part is what stands between repeat signs, double lines, endings and changes of meter.
    """
    judged = [right for bars in tune.voices.values() for right in _judge(bars)]
    return Bars(sum(judged), len(judged))


def _judge(bars: Sequence[Bar]) -> list[bool]:
    edges = [True, *(_new_part(one, two) for one, two in pairwise(bars)), True]
    return [
        bar.time == bar.meter.bar or (bar.time < bar.meter.bar and (begins or ends))
        for bar, begins, ends in zip(bars, edges, edges[1:], strict=False)
        if bar.meter is not None
    ]


def _new_part(one: Bar, two: Bar) -> bool:
    return ends_part(one.closes) or not one.closes or one.ending != two.ending or one.meter != two.meter


def ends_part(line: str) -> bool:
    """Whether a bar line, as it is written, ends a part of the tune: a repeat, or another double line."""
    return any(sign in line for sign in (":", "||", "]", "["))


def played(bars: Sequence[Bar]) -> list[Bar]:
    """The bars in the order in which they are played: repeats twice, and each time with its ending.

    A repeat goes back to the last sign `|:`; where there is none behind the last repeat, to what follows
    that, or to the latest double line behind it. It is played as often as there are endings for it, and
    once more than its sign has colons.
    """
    parts: list[list[Bar]] = [[]]
    for bar, after in zip(bars, [*bars[1:], None], strict=True):
        if bar.opens.endswith(":") and not bar.ending:
            parts.append([])
        parts[-1].append(bar)
        opened = parts[-1][0].opens.endswith(":")
        ended = repeats(bar) or bar.ending or (ends_part(bar.closes) and not opened)
        if ended and not (after and after.ending):
            parts.append([])
    return [
        bar
        for part in parts
        for turn in range(1, _turns(part) + 1)
        for bar in part
        if not bar.ending or turn in bar.ending
    ]


def repeats(bar: Bar) -> int:
    """How often the line behind a bar goes back: as many times as it has colons, of which :: has one."""
    found = re.match(r":+(?=\|)|:", bar.closes)
    return len(found[0]) if found else 0


def _turns(part: Sequence[Bar]) -> int:
    return max(
        1 + max(map(repeats, part), default=0), *(number for bar in part for number in (*bar.ending, 0)), 0
    )
