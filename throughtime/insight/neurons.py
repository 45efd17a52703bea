"""Units that track something: found by correlation, shown over the text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tyro.conf import arg

from throughtime.errors import ConfigError
from throughtime.insight.pages import needs_spaces, page, token
from throughtime.insight.reading import read
from throughtime.insight.recorder import Recorder
from throughtime.insight.traits import TRAITS, of_tokens
from throughtime.insight.view import Subject, View, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 2000
#: Least tokens that differ from the most usual value of a trait, in each half, for a unit to be looked for.
LEAST = 20
#: The least |r| that is called following.
FOLLOWS = 0.3
#: Units and tokens that the page shows; columns and lines of the figure.
PAGES, SHOWN, COLUMNS, LINES = 12, 1500, 60, 12


@dataclass(frozen=True)
class Options:
    """What the view takes."""

    trait: Annotated[
        str | None,
        arg(help='Show the unit that tracks this best, as "in quotes"; of all the best if not given.'),
    ] = None


class Unit(NamedTuple):
    """The unit of a state that follows a trait best.

    found  Pearson's correlation in the half of the text in which it was looked for.
    held   the same in the other half.
    """

    trait: str
    state: str
    unit: int
    found: float
    held: float


class Reading(NamedTuple):
    """What was read, row after row, and the states after each token.

    states  [tokens, H] each, by their keys.
    rows    how many tokens each row has.
    """

    tokens: list[str]
    states: dict[str, Float[Tensor, "N H"]]
    rows: list[int]

    @property
    def half(self) -> int:
        """Where the second half of the rows begins, or of the only row."""
        first = len(self.rows) // 2
        return sum(self.rows[:first]) if first else len(self.tokens) // 2

    @property
    def slices(self) -> list[slice]:
        """Where each row stands among the tokens."""
        ends = [0, *itertools.accumulate(self.rows)]
        return [slice(a, b) for a, b in itertools.pairwise(ends)]


def look(subject: Subject, options: Options) -> View:
    """For each trait of the text the unit of any state that follows it best: by Pearson's correlation r.

    r is between a trait, such as the position in the line, and the value of the unit after each token. Of
    some hundred units one will follow anything a little by chance: units are looked for in the first half of
    the rows (of the only row), and `held` is r in the other half, which the choice has not seen.
    """
    reading = read_states(subject)
    found = sorted(track(reading), key=lambda unit: -abs(unit.held))
    if not found:
        raise ConfigError(
            f"no trait tells {LEAST} of the {len(reading.tokens)} tokens from the others: give more text, "
            "with --file or --steps"
        )
    chosen = _choose(found, options.trait)
    lines = [
        f'Unit {unit.unit} of {unit.state} follows "{unit.trait}": r = {unit.held:.2f} in text that it was '
        "not chosen by."
        for unit in dict.fromkeys([chosen, *found[:3]])
        if abs(unit.held) >= FOLLOWS
    ] or [f"No unit follows a trait: |r| is below {FOLLOWS:g} in text that they were not chosen by."]
    pages = {"neurons": _page(reading, dict.fromkeys([chosen, *found[:PAGES]]))}
    figures = {"neurons": partial(_draw, chosen, reading)}
    return View(lines, [unit._asdict() for unit in found], figures, pages)


def read_states(subject: Subject) -> Reading:
    """The states of all layers while the model reads; raises `ConfigError` where it reads no tokens."""
    if not subject.inputs:
        raise ConfigError("what this model reads has no names, and units are looked for over text")
    reads = read(subject.model, subject.batch).path
    if reads not in subject.recurrences:
        raise ConfigError(f"{reads or 'this model'} reads without a recurrence, and has no states to look at")
    with Recorder(subject.model, "states") as seen, torch.no_grad():
        subject.model.loss(subject.batch)  # type: ignore[operator]
    lengths = [len(row) for row in subject.inputs]
    states = {
        key: torch.cat([seen.last(key)[row, :n] for row, n in enumerate(lengths)]).double().cpu()
        for key in seen
        if key.startswith(f"{reads}.".lstrip(".")) and seen.real(key).sum(1).tolist() == lengths
    }
    if not states:
        raise ConfigError(f"the states of {reads or 'the model'} are not one for each token that has a name")
    return Reading([token for row in subject.inputs for token in row], states, lengths)


def track(reading: Reading) -> Iterator[Unit]:
    """For each trait the unit with the largest |r| in the first half, and its r in the second."""
    half = reading.half
    for name, trait in _traits(reading).items():
        halves = trait[:half], trait[half:]
        if any(int((each != each.mode().values).sum()) < LEAST for each in halves if len(each)):
            continue
        r = {
            key: torch.stack([correlation(halves[0], state[:half]), correlation(halves[1], state[half:])])
            for key, state in reading.states.items()
        }
        key = max(r, key=lambda key: float(r[key][0].abs().max()))
        unit = int(r[key][0].abs().argmax())
        yield Unit(name, key, unit, float(r[key][0, unit]), float(r[key][1, unit]))


def _traits(reading: Reading) -> dict[str, Float[Tensor, "N"]]:
    """Each trait of every token in its row; a row is a text of its own."""
    of_rows = [of_tokens(reading.tokens[row]) for row in reading.slices]
    return {
        name: torch.from_numpy(np.concatenate([row[name] for row in of_rows])).double() for name in TRAITS
    }


def correlation(trait: Float[Tensor, "N"], states: Float[Tensor, "N H"]) -> Float[Tensor, "H"]:
    """Pearson's r of each unit with the trait; 0 where one of them does not vary."""
    a, b = trait - trait.mean(), states - states.mean(0)
    sizes = a.norm() * b.norm(dim=0)
    return torch.where(sizes > 0, a @ b / sizes.clamp(min=torch.finfo(sizes.dtype).tiny), 0.0)


def _choose(found: Sequence[Unit], trait: str | None) -> Unit:
    """The unit of a trait, or the first."""
    if trait is None:
        return found[0]
    if trait not in TRAITS:
        raise ConfigError(f'there is no trait "{trait}": there are {", ".join(TRAITS)}')
    for unit in found:
        if unit.trait == trait:
            return unit
    raise ConfigError(
        f'too few tokens of this text tell "{trait}" from its absence: there are '
        f"{', '.join(unit.trait for unit in found)}; or give more text, with --file or --steps"
    )


def _values(unit: Unit, reading: Reading) -> Float[Tensor, "N"]:
    """What the unit is over the text, from -1 to 1, turned so that it is high where its trait is."""
    values = reading.states[unit.state][:, unit.unit]
    middle, spread = values.quantile(0.5), (values - values.quantile(0.5)).abs().quantile(0.98)
    sign = 1.0 if unit.held >= 0 else -1.0
    return (sign * (values - middle) / spread.clamp(min=1e-12)).clamp(-1, 1)


def _page(reading: Reading, units: Mapping[Unit, None]) -> str:
    """The text once for each unit."""
    tokens = reading.tokens[:SHOWN]
    parts = []
    for unit in units:
        values = _values(unit, reading).tolist()
        shades = "".join(
            token(each, value, f"{value:.2f}") for each, value in zip(tokens, values, strict=False)
        )
        way = "high" if unit.held >= 0 else "low"
        parts.append(
            (f"{unit.trait}: unit {unit.unit} of {unit.state}, r = {unit.held:.2f}, orange: {way}", shades)
        )
    lines = ["Each text is shaded by a unit: orange where it is as its trait would have it, blue where not."]
    return page("Units that track something", lines, parts, needs_spaces([tokens]))


def _draw(unit: Unit, reading: Reading) -> Figure:
    """The text in lines, each token on the colour of the unit after it."""
    from throughtime.insight.figures import slide, write_text

    figure, [panel] = slide(width=11.0, height=0.9 + 0.36 * LINES)
    lines: list[list[tuple[str, float]]] = [[]]
    for each, value in zip(reading.tokens, _values(unit, reading).tolist(), strict=True):
        if sum(len(shown) for shown, _ in lines[-1]) + len(each) > COLUMNS:
            lines.append([])
        lines[-1].append((visible(each), value))
        if each.endswith("\n"):
            lines.append([])
    write_text(panel, lines[:LINES], COLUMNS)
    high = "high" if unit.held >= 0 else "low"
    panel.set_title(
        f'unit {unit.unit} of {unit.state} follows "{unit.trait}", r = {unit.held:.2f} (orange: {high})',
        parse_math=False,
    )
    return figure
