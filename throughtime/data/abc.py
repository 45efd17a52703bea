"""Parsing a tune of ABC notation (standard 2.1): its fields, and its notes bar by bar.

Read are notes with accidentals, octaves and lengths, rests, chords, ties, slurs, tuplets, broken rhythm,
grace notes, decorations, chord symbols, bar lines, repeats, endings, inline fields, voices, comments and
lyrics. Voice overlay (&) is not.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from throughtime.data.abc_bars import ends_part
from throughtime.data.abc_fields import (
    ACCIDENTALS,
    Key,
    Meter,
    default_length,
    read_key,
    read_length,
    read_meter,
    read_tempo,
)
from throughtime.data.abc_tune import Bar, Note, Pitch, Tune
from throughtime.errors import DataError

#: The shortest and the longest note, in whole notes.
SHORTEST, LONGEST = Fraction(1, 256), 8
#: The highest key of MIDI.
HIGHEST = 127
#: Fields that may stand in the body of a tune; the others belong to the header.
BODY_FIELDS = "IKLMmNPQRrsTUVWw"
HEADER_FIELDS = "ABCDFGHIKLMmNOPQRrSTUVWXZ"
#: Decorations that every tune has; others are defined by a field U:.
DECORATIONS = ".~HLMOPSTuv"
#: How many notes p of a tuplet take the time of; where there is none, 3 in compound meters, else 2.
TUPLETS = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}

_LENGTH = r"(?P<{0}>[0-9]*(?:/[0-9]+|/*))"
_NUMBERS = r"[1-9][0-9]?(?:[,-][1-9][0-9]?)*"
_TOKEN = re.compile(
    "|".join(
        (
            r"(?P<space>[ \t`]+)",
            r"(?P<comment>%.*)",
            r"(?P<decoration>![^!\s|:\[\]]+!|\+[^+\s|:\[\]]+\+)",
            r"(?P<break>(?:!|\\|\$)(?=\s*(?:%|$)))",
            rf"(?P<bar>\.?(?P<bar_line>\[\|\]?|:*\|+\]?:*|::+)(?P<number>{_NUMBERS})?)",
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
        self.key: Key | None = None
        self.meter: Meter | None = None
        self.length: Fraction | None = None
        self.tempo: Fraction | None = None
        self.letters = set(DECORATIONS)
        self.voices: dict[str, list[Bar]] = {}
        self.voice = ""
        self.slurs: list[tuple[int, int]] = []
        self.slurred = 0
        self.last: Note | None = None
        self.lines = ""
        self.ending: tuple[int, ...] = ()
        self._fresh()

    def _fresh(self) -> None:
        """Nothing yet of a bar."""
        self.bar: Bar | None = None
        self.altered: dict[str, int] = {}
        self.before: Note | None = None
        self.chord: Note | None = None
        self.in_grace = False
        self.spaced = True
        self.broken = Fraction(1)
        self.tuplet: tuple[Fraction, int] | None = None
        self.tuplet_begins = False

    def read(self, text: str) -> Tune:
        """The whole tune."""
        for self.line, line in enumerate(text.splitlines(), start=1):
            self.column = 1
            if line.startswith("%") or not line.strip():
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
        return Tune(tuple(self.fields), self.voices, self.tempo)

    def _end(self) -> None:
        if self.key is None:
            raise ValueError("the header has no field K:, which ends it")
        self._end_bar("")
        if self.slurs:
            self.line, self.column = self.slurs[-1]
            raise ValueError("a slur that is not closed")
        if not any(note.pitches for bars in self.voices.values() for bar in bars for note in bar.notes):
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
        self._take(name, value)

    def _read_body_field(self, name: str, value: str) -> None:
        if name not in BODY_FIELDS and name not in "s+":
            raise ValueError(f'a field "{name}:" cannot stand behind the header')
        self._take(name, value)

    def _take(self, name: str, value: str) -> None:
        """What a field changes from here on."""
        if name in "KMLQV":
            value = value.split("%")[0]
        if name == "K":
            self.key = read_key(value)
        elif name == "M":
            self.meter = read_meter(value)
            if self.bar is not None:
                self._end_bar("")
        elif name == "L":
            self.length = read_length(value)
        elif name == "Q":
            self.tempo = read_tempo(value, self._unit) or self.tempo
        elif name == "U":
            self.letters.add(value.strip()[:1])
        elif name == "V" and self.key is not None:
            self._end_bar("")
            self.voice, self.lines = next(iter(value.split()), ""), ""

    @property
    def _unit(self) -> Fraction:
        return default_length(self.meter) if self.length is None else self.length

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
        if self.chord is not None or self.in_grace:
            raise ValueError("the line ends within a chord or grace notes")
        self.spaced = True

    def _put(self, note: Note) -> None:
        if self.bar is None:
            assert self.key is not None
            self.bar = Bar(self.key, self.meter, self.line, self.lines, ending=self.ending)
            self.voices.setdefault(self.voice, []).append(self.bar)
        self.bar.notes.append(note)

    def _end_bar(self, line: str) -> None:
        """What ends with a bar, at a bar line or where none is written; several lines in a row are one."""
        if self.chord is not None or self.in_grace:
            raise ValueError("a bar line within a chord or grace notes")
        if self.tuplet is not None:
            raise ValueError(f"the bar ends within a tuplet, which wants {self.tuplet[1]} more notes")
        if self.broken != 1:
            raise ValueError("broken rhythm stands between two notes, and none follows in the bar")
        self.lines = line if self.bar is not None else self.lines + line
        if bars := self.voices.get(self.voice):
            bars[-1].closes = self.lines
        if ends_part(line):
            self.ending = ()
        self._fresh()

    def _on_space(self, found: re.Match[str]) -> None:
        self.spaced |= found[0] != "`" * len(found[0])

    def _on_comment(self, found: re.Match[str]) -> None:
        pass

    _on_symbol = _on_decoration = _on_break = _on_spacer = _on_comment

    def _on_letter(self, found: re.Match[str]) -> None:
        if found[0] not in self.letters:
            raise ValueError(f'"{found[0]}" is no decoration: a field U: would define it')

    def _on_bar(self, found: re.Match[str]) -> None:
        self._end_bar(found["bar_line"])
        if found["number"]:
            self._begin_ending(found["number"])

    def _on_ending(self, found: re.Match[str]) -> None:
        if self.bar is not None:
            raise ValueError("an ending begins at a bar line")
        self._begin_ending(found["ending"])

    def _begin_ending(self, numbers: str) -> None:
        played: list[int] = []
        for part in numbers.split(",") if not numbers.startswith('"') else ["1"]:
            first, _, last = part.partition("-")
            played += range(int(first), int(last or first) + 1)
        self.ending = tuple(played)

    def _on_inline(self, found: re.Match[str]) -> None:
        name, value = found[0][1], found[0][3:-1]
        if name not in BODY_FIELDS or name in "sTWw":
            raise ValueError(f'a field "{name}:" cannot stand among notes')
        self._take(name, value)

    def _on_tuplet(self, found: re.Match[str]) -> None:
        if self.tuplet is not None:
            raise ValueError("a tuplet within a tuplet")
        p, q, r = [*(int(number or 0) for number in found[0][1:].split(":")), 0, 0][:3]
        q = q or TUPLETS.get(p, 3 if self.meter is not None and self.meter.compound else 2)
        self.tuplet, self.tuplet_begins = (Fraction(q, p), r or p), True

    def _on_note(self, found: re.Match[str]) -> None:
        step, sign = found["step"].upper(), found["sign"]
        octave = 4 + found["step"].islower() + found["octave"].count("'") - found["octave"].count(",")
        if sign:
            self.altered[step] = ACCIDENTALS[sign]
        assert self.key is not None
        alter = self.altered.get(step, self.key.alters.get(step, 0))
        pitch = Pitch(step, octave, alter, ACCIDENTALS[sign] if sign else None)
        if not 0 <= pitch.midi <= HIGHEST:
            raise ValueError(f'"{found[0]}" is too {"high" if pitch.midi > 0 else "low"} to be played')
        length = self._times(found["length"])
        if self.chord is None:
            self._add(Note([pitch], length))
        else:
            if not self.chord.pitches:
                self.chord.length = length
            self.chord.pitches.append(pitch)

    def _on_rest(self, found: re.Match[str]) -> None:
        if self.chord is not None or self.in_grace:
            raise ValueError("a rest within a chord or grace notes")
        self._add(Note([], self._times(found["rested"])))

    def _on_bars(self, found: re.Match[str]) -> None:
        if self.meter is None:
            raise ValueError("rests of whole bars need a meter")
        for k in range(int(found["count"] or 1)):
            if k:
                self._end_bar("|")
            self._put(Note([], self.meter.bar))

    def _on_chord(self, found: re.Match[str]) -> None:
        if self.chord is not None:
            raise ValueError("a chord within a chord")
        self.chord = Note([], Fraction(1))

    def _on_unchord(self, found: re.Match[str]) -> None:
        chord, self.chord = self.chord, None
        if chord is None or not chord.pitches:
            raise ValueError('"]" closes no chord' if chord is None else "a chord without a note")
        chord.length *= self._times(found["held"]) / self._unit
        self._add(chord)

    def _times(self, text: str) -> Fraction:
        """The unit of length times a factor as 3, 3/2, /2, / or //."""
        over, slashes, under = re.fullmatch(r"(\d*)(/*)(\d*)", text).groups()  # type: ignore[union-attr]
        factor = Fraction(int(over or 1), 1)
        if under and not int(under):
            raise ValueError("a note of length 1/0")
        return self._unit * factor / (int(under) if under else 2 ** len(slashes))

    def _add(self, note: Note) -> None:
        """A whole note or chord."""
        note.grace = self.in_grace
        if not note.grace:
            note.length, self.broken = note.length * self.broken, Fraction(1)
            if self.tuplet is not None:
                note.ratio, left = self.tuplet[0], self.tuplet[1] - 1
                note.tuplet_begins, note.tuplet_ends, self.tuplet_begins = self.tuplet_begins, not left, False
                self.tuplet = (note.ratio, left) if left else None
            note.beamed = not self.spaced
            self.before, self.spaced = note, False
        parts = note.length.denominator
        if not SHORTEST <= note.length <= LONGEST or parts & (parts - 1):
            raise ValueError(
                f"a note cannot have the length {note.length}: from {SHORTEST} to {LONGEST}, by halves"
            )
        note.slurs_begin, self.slurred = self.slurred, 0
        self.last = note if note.pitches else self.last
        self._put(note)

    def _on_slur(self, found: re.Match[str]) -> None:
        self.slurs.append((self.line, self.column))
        self.slurred += 1

    def _on_unslur(self, found: re.Match[str]) -> None:
        if not self.slurs or self.slurred or self.last is None:
            raise ValueError('")" closes no slur')
        self.slurs.pop()
        self.last.slurs_end += 1

    def _on_tie(self, found: re.Match[str]) -> None:
        if self.chord is not None and self.chord.pitches:
            self.chord.tied = True
        elif self.before is None or not self.before.pitches:
            raise ValueError("a tie stands behind a note")
        else:
            self.before.tied = True

    def _on_broken(self, found: re.Match[str]) -> None:
        if self.before is None or self.chord is not None or self.in_grace or self.broken != 1:
            raise ValueError("broken rhythm stands between two notes of a bar")
        short = Fraction(1, 2 ** len(found[0]))
        longer = found[0][0] == ">"
        self.before.length *= 2 - short if longer else short
        self.broken = short if longer else 2 - short

    def _on_grace(self, found: re.Match[str]) -> None:
        if self.in_grace or self.chord is not None:
            raise ValueError("grace notes within a chord or grace notes")
        self.in_grace = True

    def _on_ungrace(self, found: re.Match[str]) -> None:
        if not self.in_grace:
            raise ValueError('"}" closes no grace notes')
        self.in_grace = False
