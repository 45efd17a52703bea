"""Parsing a tune of ABC notation (standard 2.1): its fields, and its notes bar by bar.

Read are notes with accidentals, octaves and lengths, rests, chords, ties, slurs, tuplets, broken rhythm,
grace notes, decorations, chord symbols, bar lines, repeats, endings, inline fields, voices, comments and
lyrics. Voice overlay (&) is not.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from throughtime.data.abc_fields import (
    Key,
    Meter,
    default_length,
    read_key,
    read_length,
    read_meter,
    read_tempo,
)
from throughtime.data.abc_tune import Note, Tune
from throughtime.data.abc_voice import HIGHEST, Voice
from throughtime.errors import DataError

#: Fields that may stand in the body of a tune; the others belong to the header.
BODY_FIELDS = "IKLMmNPQRrsTUVWw"
HEADER_FIELDS = "ABCDFGHIKLMmNOPQRrSTUVWXZ"
#: Decorations that every tune has; others are defined by a field U:.
DECORATIONS = ".~HLMOPSTuv"

_LENGTH = r"(?P<{0}>[0-9]*(?:/[0-9]+|/*))"
_NUMBERS = r"[1-9][0-9]?(?:[,-][1-9][0-9]?)*"
_TOKEN = re.compile(
    "|".join(
        (
            r"(?P<space>[ \t`]+)",
            r"(?P<comment>%.*)",
            r"(?P<decoration>![^!\s|:\[\]]+!|\+[^+\s|:\[\]]+\+)",
            r"(?P<break>\$|(?:!|\\)(?=\s*(?:%|$)))",
            r"(?P<reserved>[#*;?@]+)",
            # Of any shape, but "[" belongs to it before "|" alone: a chord, a field or an ending may follow.
            rf"(?P<bar>\.?(?P<bar_line>(?:\[\||:*\||::)(?:[|:\]]|\[\|)*)(?P<number>{_NUMBERS})?)",
            r"(?P<inline>\[[A-Za-z]:[^\]]*\])",
            rf"\[(?P<ending>{_NUMBERS}|\"[^\"]*\")",
            r"(?P<symbol>\"[^\"]*\")",
            r"(?P<tuplet>\([2-9](?::[1-9]?){0,2})",
            rf"(?P<note>(?P<sign>\^\^?|__?|=)?(?P<step>[A-Ga-g])(?P<octave>[,']*){_LENGTH.format('length')})",
            rf"(?P<rest>[zx]{_LENGTH.format('rested')})",
            r"(?P<bars>[ZX](?P<count>[0-9]{0,3}))",
            r"(?P<spacer>y[0-9]*)",
            r"(?P<slur>\.?\()",
            r"(?P<unslur>\))",
            r"(?P<tie>\.?-)",
            r"(?P<broken>>{1,3}|<{1,3})",
            r"(?P<grace>\{/?)",
            r"(?P<ungrace>\})",
            r"(?P<chord>\[)",
            rf"(?P<unchord>\]{_LENGTH.format('held')})",
            r"(?P<letter>[.~H-Yh-w])",
        )
    )
)


class Fault(NamedTuple):
    """Why a tune does not parse, and where: line and column of its text, both from 1."""

    line: int
    column: int
    reason: str


def parse_tune(text: str) -> Tune:
    """The tune that the text of one tune stands for; raises `DataError` with line, column and reason."""
    parsed = _parse(text)
    if isinstance(parsed, Fault):
        raise DataError(f"line {parsed.line}, column {parsed.column} of the tune: {parsed.reason}")
    return parsed


def check_tune(text: str) -> Fault | None:
    """Why the text is no tune of the standard, or None where it is one.

    Its header begins with X: and ends with K:; keys, meters, lengths and tempi must mean something; every
    note, tuplet, chord, slur and inline field must be whole. Whether bars have the right length is another
    question: see `count_bars`.
    """
    parsed = _parse(text)
    return parsed if isinstance(parsed, Fault) else None


def _parse(text: str) -> Tune | Fault:
    parser = _Parser()
    try:
        return parser.read(text)
    except ValueError as error:
        return Fault(parser.line, parser.column, str(error))


class _Parser:
    """A tune as far as it has been read; what is wrong raises `ValueError`, at `line` and `column`."""

    def __init__(self) -> None:
        self.line, self.column = 1, 1
        self.fields: list[tuple[str, str]] = []
        self.key: Key | None = None  # that of the header, which it ends
        self.meter: Meter | None = None
        self.length: Fraction | None = None
        self.tempo: Fraction | None = None
        self.letters = set(DECORATIONS)
        self.voices: dict[str, Voice] = {}

    def read(self, text: str) -> Tune:
        """The whole tune."""
        skipped = False
        for self.line, line in enumerate(text.splitlines(), start=1):
            self.column = 1
            skipped = line.startswith("%%begintext") or (skipped and not line.startswith("%%endtext"))
            if skipped or line.startswith("%") or not line.strip():
                continue
            name = line[0] if re.match(r"[A-Za-z+]:", line) else ""
            if self.line == 1 and name != "X":
                raise ValueError("a tune begins with a field X: and its number")
            if name and self.key is None:
                self._read_header(name, line[2:])
            elif name:
                self._read_body_field(name, line[2:])
            elif self.key is None:
                raise ValueError("music before the field K:, which ends the header")
            else:
                self._read_music(line)
        self._end()
        voices = {name: voice.bars for name, voice in self.voices.items() if voice.bars}
        return Tune(tuple(self.fields), voices, self.tempo)

    def _end(self) -> None:
        if self.key is None:
            raise ValueError("the header has no field K:, which ends it")
        self.voice.end_bar()
        for voice in self.voices.values():
            if voice.slurs:
                self.line, self.column, _ = voice.slurs[-1]
                raise ValueError("a slur that is not closed")
        if not any(
            note.pitches for voice in self.voices.values() for bar in voice.bars for note in bar.notes
        ):
            raise ValueError("no note in the tune")

    # Fields.

    def _read_header(self, name: str, value: str) -> None:
        if name == "X":
            if self.line != 1:
                raise ValueError("a second field X:, which begins another tune")
            if not value.split("%")[0].strip().isdecimal():
                raise ValueError(f'"{value.strip()}" is no number of a tune')
        elif name not in HEADER_FIELDS and name != "+":
            raise ValueError(f'there is no field "{name}:"')
        self.fields.append((name, value.strip()))
        value = _uncommented(name, value)
        if name == "K":
            self.key = read_key(value)
            self._go_to("")
        elif name == "M":
            self.meter = read_meter(value)
        elif name == "L":
            self.length = read_length(value)
        else:
            self._take(name, value, default_length(self.meter) if self.length is None else self.length)

    def _read_body_field(self, name: str, value: str) -> None:
        if name not in BODY_FIELDS and name not in "s+":
            raise ValueError(f'a field "{name}:" cannot stand behind the header')
        self._change(name, value)

    def _change(self, name: str, value: str) -> None:
        """What a field behind the header changes, for its voice or for the tune."""
        value = _uncommented(name, value)
        if name == "K":
            self.voice.key = read_key(value)
        elif name == "M":
            self.voice.meter = read_meter(value)
            if self.voice.bar is not None:
                self.voice.end_bar()
        elif name == "L":
            self.voice.unit = read_length(value)
        elif name == "V":
            self.voice.end_bar()
            self._go_to(next(iter(value.split()), ""))
        else:
            self._take(name, value, self.voice.unit)

    def _take(self, name: str, value: str, unit: Fraction) -> None:
        """What a field means wherever it stands. A tune has the tempo of its beginning."""
        if name == "Q":
            tempo = read_tempo(value, unit)
            if not any(voice.bars for voice in self.voices.values()):
                self.tempo = tempo or self.tempo
        elif name == "U":
            self.letters.add(value.strip()[:1])

    def _go_to(self, name: str) -> None:
        """Go on with a voice; one that is new begins as the header says."""
        assert self.key is not None
        if name not in self.voices:
            unit = default_length(self.meter) if self.length is None else self.length
            self.voices[name] = Voice(self.key, self.meter, unit)
        self.voice = self.voices[name]

    # Music.

    def _read_music(self, line: str) -> None:
        position = 0
        while position < len(line):
            self.column = position + 1
            found = _TOKEN.match(line, position)
            if found is None:
                raise ValueError(f'"{line[position : position + 8].rstrip()}" is no music')
            getattr(self, f"_on_{found.lastgroup}")(found)
            position = found.end()
        if self.voice.chord is not None or self.voice.in_grace:
            raise ValueError("the line ends within a chord or grace notes")
        self.voice.spaced = True

    def _on_space(self, found: re.Match[str]) -> None:
        self.voice.spaced |= found[0] != "`" * len(found[0])

    def _on_comment(self, found: re.Match[str]) -> None:
        pass

    _on_symbol = _on_decoration = _on_break = _on_reserved = _on_spacer = _on_comment

    def _on_letter(self, found: re.Match[str]) -> None:
        if found[0] not in self.letters:
            raise ValueError(f'"{found[0]}" is no decoration: a field U: would define it')

    def _on_bar(self, found: re.Match[str]) -> None:
        self.voice.end_bar(found["bar_line"])
        if found["number"]:
            self.voice.begin_ending(found["number"])

    def _on_ending(self, found: re.Match[str]) -> None:
        self.voice.begin_ending(found["ending"])

    def _on_inline(self, found: re.Match[str]) -> None:
        name, value = found[0][1], found[0][3:-1]
        if name not in BODY_FIELDS or name in "sTWw":
            raise ValueError(f'a field "{name}:" cannot stand among notes')
        self._change(name, value)

    def _on_tuplet(self, found: re.Match[str]) -> None:
        p, q, r = [*(int(number or 0) for number in found[0][1:].split(":")), 0, 0][:3]
        self.voice.begin_tuplet(p, q, r)

    def _on_note(self, found: re.Match[str]) -> None:
        octave = 4 + found["step"].islower() + found["octave"].count("'") - found["octave"].count(",")
        pitch = self.voice.pitch(found["step"].upper(), octave, found["sign"])
        if not 0 <= pitch.midi <= HIGHEST:
            raise ValueError(f'"{found[0]}" is too {"high" if pitch.midi > 0 else "low"} to be played')
        length = self.voice.unit * _factor(found["length"])
        chord = self.voice.chord
        if chord is None:
            self.voice.add(Note([pitch], length), self.line)
        else:
            if not chord.pitches:
                chord.length = length
            chord.pitches.append(pitch)

    def _on_rest(self, found: re.Match[str]) -> None:
        if self.voice.chord is not None or self.voice.in_grace:
            raise ValueError("a rest within a chord or grace notes")
        self.voice.add(Note([], self.voice.unit * _factor(found["rested"])), self.line)

    def _on_bars(self, found: re.Match[str]) -> None:
        self.voice.rest_bars(int(found["count"] or 1), self.line)

    def _on_chord(self, found: re.Match[str]) -> None:
        if self.voice.chord is not None:
            raise ValueError("a chord within a chord")
        self.voice.chord = Note([], Fraction(1))

    def _on_unchord(self, found: re.Match[str]) -> None:
        chord, self.voice.chord = self.voice.chord, None
        if chord is None or not chord.pitches:
            raise ValueError('"]" closes no chord' if chord is None else "a chord without a note")
        chord.length *= _factor(found["held"])
        self.voice.add(chord, self.line)

    def _on_slur(self, found: re.Match[str]) -> None:
        self.voice.begin_slur(self.line, self.column)

    def _on_unslur(self, found: re.Match[str]) -> None:
        self.voice.end_slur()

    def _on_tie(self, found: re.Match[str]) -> None:
        self.voice.tie()

    def _on_broken(self, found: re.Match[str]) -> None:
        self.voice.break_rhythm(found[0])

    def _on_grace(self, found: re.Match[str]) -> None:
        if self.voice.in_grace or self.voice.chord is not None:
            raise ValueError("grace notes within a chord or grace notes")
        self.voice.in_grace = True

    def _on_ungrace(self, found: re.Match[str]) -> None:
        if not self.voice.in_grace:
            raise ValueError('"}" closes no grace notes')
        self.voice.in_grace = False


def _uncommented(name: str, value: str) -> str:
    return value.split("%")[0] if name in "KMLQV" else value


def _factor(text: str) -> Fraction:
    """The length of a note in units, as 3, 3/2, /2, / or //."""
    over, slashes, under = re.fullmatch(r"(\d*)(/*)(\d*)", text).groups()  # type: ignore[union-attr]
    if under and not int(under):
        raise ValueError("a note of length 1/0")
    return Fraction(int(over or 1), int(under) if under else 2 ** len(slashes))
