"""Passages where a pattern of units is on (as LSTMVis finds them, Strobelt et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from tyro.conf import arg

from throughtime.errors import ConfigError
from throughtime.insight.neurons import Reading, read_states
from throughtime.insight.pages import needs_spaces, page, token
from throughtime.insight.view import Subject, View, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 2000
#: Passages that are told, tokens around each, and passages of the figure.
MOST, AROUND, DRAWN = 40, 16, 12
#: Characters of a line of the figure.
COLUMNS = 70


@dataclass(frozen=True)
class Options:
    """What the view takes."""

    like: Annotated[
        str | None, arg(help="A passage of the text: the units that are on in it, and off beside it.")
    ] = None
    units: Annotated[tuple[int, ...], arg(help="Or the numbers of the units themselves.")] = ()
    state: Annotated[
        str | None,
        arg(help='State they are of, as "recurrence.0.c"; the output of the last layer if not given.'),
    ] = None
    threshold: Annotated[float, arg(help="A unit is on above this value.")] = 0.3
    share: Annotated[float, arg(help="Share of the units that must be on in a passage.")] = 0.8


class Passage(NamedTuple):
    """Tokens from `start` to before `stop`, in which so large a share of the units is on, on average."""

    start: int
    stop: int
    share: float


def look(subject: Subject, options: Options) -> View:
    """The passages where the units of a pattern are on together, the fullest and longest first.

    The pattern is given by its units, or by a passage, of which it takes the units that are on at each of its
    tokens and off at the token before or after it. A passage is a run of tokens at each of which `share` of
    the units are above `threshold`.
    """
    if (options.like is None) == (not options.units):
        raise ConfigError('give a passage, --like "some words", or the units, --units 12 57')
    if not 0 < options.share <= 1:
        raise ConfigError(f"--share must lie in 0 to 1, got {options.share:g}")
    reading = read_states(subject)
    key = _state(reading, options.state)
    on = reading.states[key] > options.threshold
    units = _units(reading, on, options)
    level = on[:, units].double().mean(1)
    found = find_passages(level, options.share, reading.slices)
    rows = [_row(passage, reading) for passage in found[:MOST]]
    numbers = ", ".join(map(str, units[:12])) + (" and others" if len(units) > 12 else "")
    lines = [
        f"{len(units)} units of {key} make the pattern: {numbers}.",
        f"{len(found)} passages of {len(reading.tokens)} tokens have {options.share:.0%} of them above "
        f"{options.threshold:g}.",
    ]
    shown = {"states": _page(found[:MOST], reading, level.tolist())}
    distinct = list({_text(reading, p.start, p.stop): p for p in reversed(found)}.values())[::-1]
    figures = {"states": partial(_draw, distinct[:DRAWN], reading, level.tolist(), key)} if found else {}
    return View(lines, rows, figures, shown, {"units": units, "state": key})


def find_passages(level: Float[Tensor, "N"], share: float, rows: Sequence[slice]) -> list[Passage]:
    """The runs of a row's tokens whose level is at least `share`: the fullest first, then the longest."""
    found = []
    for row in rows:
        high = torch.cat([torch.zeros(1), (level[row] >= share).float(), torch.zeros(1)]).diff()
        starts, stops = (high > 0).nonzero()[:, 0] + row.start, (high < 0).nonzero()[:, 0] + row.start
        for a, b in zip(starts.tolist(), stops.tolist(), strict=True):
            found.append(Passage(a, b, float(level[a:b].mean())))
    return sorted(found, key=lambda passage: (-round(passage.share, 3), passage.start - passage.stop))


def _state(reading: Reading, wanted: str | None) -> str:
    """The key of the state that is looked at."""
    keys = list(reading.states)
    if wanted is None:
        last = keys[-1].rpartition(".")[0]
        return next(key for key in keys if key.startswith(f"{last}."))
    if wanted not in keys:
        raise ConfigError(f'there is no state "{wanted}": there are {", ".join(keys)}')
    return wanted


def _units(reading: Reading, on: Tensor, options: Options) -> list[int]:
    """The units of the pattern."""
    if options.like is None:
        if wrong := [unit for unit in options.units if not 0 <= unit < on.shape[1]]:
            raise ConfigError(f"there is no unit {wrong[0]}: there are {on.shape[1]}, numbered from 0")
        return list(options.units)
    start, stop = _find(reading.tokens, options.like)
    throughout = on[start:stop].all(0)
    beside = [k for k in (start - 1, stop) if 0 <= k < len(on)]
    units = (throughout & ~on[beside].all(0)).nonzero()[:, 0].tolist()
    if not units:
        raise ConfigError(
            f'no unit is above {options.threshold:g} all through "{options.like}" and not beside it: give a '
            "lower --threshold, or a shorter passage"
        )
    return units


def _find(tokens: Sequence[str], text: str) -> tuple[int, int]:
    """The tokens that first spell a text, which words without white space do with a space between them."""
    joint = " " if needs_spaces([tokens]) else ""
    starts = [0]
    for each in tokens:
        starts.append(starts[-1] + len(each) + len(joint))
    place = joint.join(tokens).find(text)
    if not text or place < 0:
        raise ConfigError(
            f'"{text}" does not stand in the text that was read, which begins "{joint.join(tokens)[:60]}": '
            "give a passage of it, or other text with --text or --file"
        )
    inside = [
        k
        for k, start in enumerate(starts[:-1])
        if start + len(tokens[k]) > place and start < place + len(text)
    ]
    return inside[0], inside[-1] + 1


def _row(passage: Passage, reading: Reading) -> dict[str, object]:
    return {
        "start": passage.start,
        "tokens": passage.stop - passage.start,
        "on": passage.share,
        "before": _text(reading, max(passage.start - AROUND, 0), passage.start),
        "passage": _text(reading, passage.start, passage.stop),
        "after": _text(reading, passage.stop, passage.stop + AROUND),
    }


def _text(reading: Reading, start: int, stop: int) -> str:
    """What stands at some tokens, words with a space between them."""
    tokens = reading.tokens[start:stop]
    return visible((" " if needs_spaces([reading.tokens]) else "").join(tokens)) if tokens else ""


def _around(passage: Passage, tokens: Sequence[str]) -> range:
    return range(max(passage.start - AROUND, 0), min(passage.stop + AROUND, len(tokens)))


def _page(found: Sequence[Passage], reading: Reading, level: Sequence[float]) -> str:
    parts = []
    for passage in found:
        shades = "".join(
            token(reading.tokens[k], level[k], f"{level[k]:.0%} on", mark=passage.start <= k < passage.stop)
            for k in _around(passage, reading.tokens)
        )
        parts.append((f"token {passage.start}: {passage.share:.0%} on", shades))
    lines = ["The passages are underlined; the deeper the orange, the more units of the pattern are on."]
    return page("Passages where a pattern of units is on", lines, parts, needs_spaces([reading.tokens]))


def _draw(found: Sequence[Passage], reading: Reading, level: Sequence[float], key: str) -> Figure:
    """A line for each passage, its like once, with what stands around it; the deeper, the more units on."""
    from throughtime.insight.figures import slide, write_text

    figure, [panel] = slide(width=11.0, height=0.9 + 0.36 * len(found))
    lines = []
    for passage in found:
        line: list[tuple[str, float]] = []
        for k in _around(passage, reading.tokens):
            shown = visible(reading.tokens[k]) + " " * needs_spaces([reading.tokens])
            if sum(len(each) for each, _ in line) + len(shown) <= COLUMNS:
                line.append((shown, level[k]))
        lines.append(line)
    write_text(panel, lines, max(sum(len(shown) for shown, _ in line) for line in lines))
    panel.set_title(f"where the pattern of {key} is on (orange: all of its units)", parse_math=False)
    return figure
