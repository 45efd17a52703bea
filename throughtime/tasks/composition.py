"""Making tunes with a language model of ABC notation, with the fields of the header that are asked for."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from throughtime.data.abc import Fault, check_tune, parse_tune
from throughtime.data.abc_bars import Bars, count_bars
from throughtime.data.abc_fields import MODES, default_length, read_key, read_length, read_meter, read_tempo
from throughtime.errors import ConfigError, RunError
from throughtime.tasks.language_model import LanguageModelTask

#: Tokens after which a tune that has not ended is given up.
LONGEST = 4000
#: Lines after which a header that has not ended is given up.
MOST_FIELDS = 30
#: How often a tune is drawn, until it parses.
TRIES = 10
#: Ways to write the same.
METERS = {"4/4": "C", "C": "4/4", "2/2": "C|", "C|": "2/2"}
MODE_NAMES = {
    "maj": ("", "maj", "major"),
    "min": ("m", "min", "minor"),
    "mix": ("mix", "mixolydian"),
    "dor": ("dor", "dorian"),
    "phr": ("phr", "phrygian"),
    "lyd": ("lyd", "lydian"),
    "loc": ("loc", "locrian"),
    "ion": ("ion", "ionian"),
    "aeo": ("aeo", "aeolian"),
}


@dataclass(frozen=True)
class Made:
    """A tune that was drawn, why it does not parse, if so, and how many of its bars are right."""

    abc: str
    fault: Fault | None
    bars: Bars

    @property
    def bars_right(self) -> bool:
        """Whether it parses and all its bars have the length of the meter."""
        return self.fault is None and self.bars.right == self.bars.all

    def to_json(self) -> dict[str, Any]:
        """The same as JSON."""
        reason = None if self.fault is None else _told(self.fault)
        bars = {"bars": self.bars.all, "right": self.bars.right}
        return {
            "abc": self.abc,
            "parses": self.fault is None,
            "reason": reason,
            "bars_right": self.bars_right,
        } | bars


class Composer:
    """A language model of tunes, what it is asked for, and a count of what it drew.

    fields       values of the fields of a header by their letters, as {"K": "D"}. The model writes
                 the header as the tunes that it learned from have it, these values in the spelling
                 that it finds the likeliest: "D Major" for "D" where those tunes say so.
    temperature  as in `LanguageModelTask.generate`.
    seed         makes the tunes repeatable.

    Raises `RunError` for a model that was not trained on tunes, `ConfigError` for a field that means nothing.
    """

    def __init__(
        self,
        task: LanguageModelTask,
        fields: Mapping[str, str],
        *,
        temperature: float = 0.8,
        seed: int | None = None,
    ) -> None:
        if task.documents != "tunes":
            raise RunError(
                "this model was not trained on tunes: give a run of train language-model over files of ABC "
                "notation, which end in .abc"
            )
        self.spellings = {name: _spellings(name, value.strip()) for name, value in fields.items()}
        self.task, self.temperature = task, temperature
        self.random = random.Random(seed)
        self.drawn = self.parsed = self.right = 0

    def tune(self, number: int, tries: int = TRIES) -> Made:
        """Tune `number`: the first that parses of so many drawn, else the last."""
        for _ in range(tries):
            made = self._draw(number)
            if made.fault is None:
                break
        return made

    def counts(self) -> dict[str, float]:
        """How many tunes were drawn, and which share of them parses and has all its bars right."""
        drawn = max(self.drawn, 1)
        return {
            "drawn": self.drawn,
            "parsed": self.parsed,
            "parsed_share": self.parsed / drawn,
            "bars_right_share": self.right / drawn,
        }

    def _draw(self, number: int) -> Made:
        text = self._header(f"X:{number}\n")
        pieces = list(self._stream(text, LONGEST))
        text += "".join(pieces)
        fault = check_tune(text)
        if fault is None and len(pieces) == LONGEST:
            fault = Fault(text.count("\n") + 1, 1, f"the tune does not end within {LONGEST} tokens")
        made = Made(text, fault, Bars(0, 0) if fault else count_bars(parse_tune(text)))
        self.drawn += 1
        self.parsed += fault is None
        self.right += made.bars_right
        return made

    def _header(self, text: str) -> str:
        """A header that begins with `text`, line by line; what is asked for replaces what is drawn."""
        wanted = dict(self.spellings)
        for _ in range(MOST_FIELDS):
            line = self._line(text)
            name = line[:1] if line[1:2] == ":" else ""
            if name in {"", "K"}:  # the end of the header
                break
            text += self._likeliest(text, name, wanted.pop(name)) if name in wanted else line
        key = wanted.pop("K", None)
        for other in list(wanted):
            text += self._likeliest(text, other, wanted[other])
        return text + (line if key is None else self._likeliest(text, "K", key))

    def _line(self, text: str) -> str:
        line = ""
        for piece in self._stream(text, LONGEST):
            line += piece
            if piece.endswith("\n"):
                break
        return line

    def _stream(self, text: str, length: int) -> Iterator[str]:
        seed = self.random.getrandbits(62)
        return self.task.stream(text, length, temperature=self.temperature, seed=seed)

    def _likeliest(self, text: str, name: str, values: list[str]) -> str:
        """The field in the likeliest of its spellings behind `text`."""
        lines = [f"{name}:{space}{value}\n" for value in values for space in ("", " ")]
        return max(lines, key=lambda line: self.task.score(text + line).log_prob)


def _spellings(name: str, value: str) -> list[str]:
    """The ways to write the value of a field; raises `ConfigError` where it means nothing."""
    try:
        if name == "K":
            read_key(value)
        elif name == "M":
            read_meter(value)
        elif name == "L":
            read_length(value)
        elif name == "Q":
            read_tempo(value, default_length(None))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if not value or "\n" in value or "%" in value:
        raise ConfigError(f'"{value}" cannot be the field {name}: of a tune: give a line of text without %')
    if name == "M" and value in METERS:
        return [value, METERS[value]]
    found = re.fullmatch(r"([A-G][#b]?)\s*([A-Za-z]*)", value) if name == "K" else None
    if found is None:
        return [value]
    mode = found[2].lower()
    kind = "maj" if not mode else "min" if mode == "m" else mode[:3]
    names = MODE_NAMES[kind] if kind in MODES else (found[2],)
    written = [
        form for mode in names for form in (mode, f" {mode}", f" {mode.capitalize()}", mode.capitalize())
    ]
    return list(dict.fromkeys([value, *(found[1] + form.rstrip() for form in written if form != "M")]))


def _told(fault: Fault) -> str:
    return f"line {fault.line}, column {fault.column}: {fault.reason}"
