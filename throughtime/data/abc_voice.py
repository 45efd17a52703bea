"""A voice of an ABC tune while it is read: its key, meter and unit of length, and its notes bar by bar."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from throughtime.data.abc_bars import ends_part
from throughtime.data.abc_fields import ACCIDENTALS, Key, Meter
from throughtime.data.abc_tune import Bar, Note, Pitch

#: The longest note, in whole notes, and the finest part of one that lengths are made of.
LONGEST, FINEST = 8, 256
#: The highest key of MIDI.
HIGHEST = 127
#: How many notes p of a tuplet take the time of; where there is none, 3 in compound meters, else 2.
TUPLETS = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}


@dataclass
class Voice:
    """A voice as far as it has been read. Its methods raise `ValueError` where what comes next cannot be.

    The first three change along the way; `lines` are the bar lines behind the last note, `ending` the repeats
    in which the bars are played, and `slurs` those that are open: line, column and number.
    """

    key: Key
    meter: Meter | None
    unit: Fraction
    bars: list[Bar] = field(default_factory=list)
    lines: str = ""
    ending: tuple[int, ...] = ()
    slurs: list[tuple[int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.last: Note | None = None  # that a slur may end at
        self.beginning: list[int] = []  # slurs before the next note
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
        self.tuplet: tuple[int, int] | None = None
        self.tuplet_left = 0
        self.tuplet_begins = False

    # Bars.

    def end_bar(self, line: str = "") -> None:
        """What ends with a bar, at a bar line or where none is written; several lines in a row are one."""
        if self.chord is not None or self.in_grace:
            raise ValueError("a bar line within a chord or grace notes")
        if self.tuplet is not None:
            raise ValueError(f"the bar ends within a tuplet, which wants {self.tuplet_left} more notes")
        if self.broken != 1:
            raise ValueError("broken rhythm stands between two notes, and none follows in the bar")
        self.lines = line if self.bar is not None else self.lines + line
        if self.bars:
            self.bars[-1].closes = self.lines
        if ends_part(line):
            self.ending = ()
        self._fresh()

    def begin_ending(self, numbers: str) -> None:
        """An ending that is played as its numbers say, as 1,3 or 1-3; a text in quotes stands for 1."""
        if self.bar is not None:
            raise ValueError("an ending begins at a bar line")
        played: list[int] = []
        for part in numbers.split(",") if not numbers.startswith('"') else ["1"]:
            first, _, last = part.partition("-")
            turns = range(int(first), int(last or first) + 1)
            if not turns:
                raise ValueError(f"no ending is {part}: give the lower number first, or a comma")
            played += turns
        self.ending = tuple(played)

    def rest_bars(self, count: int, line: int) -> None:
        """Rests of whole bars."""
        if self.meter is None:
            raise ValueError("rests of whole bars need a meter")
        for k in range(count):
            if k:
                self.end_bar("|")
            self._put(Note([], _checked(self.meter.bar)), line)

    # Notes.

    def pitch(self, step: str, octave: int, sign: str | None) -> Pitch:
        """A pitch as it sounds with this accidental, with one before it in the bar, or in the key."""
        if sign:
            self.altered[step] = ACCIDENTALS[sign]
        alter = self.altered.get(step, self.key.alters.get(step, 0))
        return Pitch(step, octave, alter, ACCIDENTALS[sign] if sign else None)

    def add(self, note: Note, line: int) -> None:
        """A whole note or chord, or a rest, that stands in this line of the text."""
        note.grace = self.in_grace
        if not note.grace:
            note.length, self.broken = note.length * self.broken, Fraction(1)
            if self.tuplet is not None:
                self.tuplet_left -= 1
                note.tuplet, note.tuplet_begins, note.tuplet_ends = (
                    self.tuplet,
                    self.tuplet_begins,
                    not self.tuplet_left,
                )
                self.tuplet, self.tuplet_begins = self.tuplet if self.tuplet_left else None, False
            note.beamed = not self.spaced
            self.before, self.spaced = note, False
        _checked(note.length)
        note.slurs_begin, self.beginning = self.beginning, []
        self.last = note if note.pitches else self.last
        self._put(note, line)

    def _put(self, note: Note, line: int) -> None:
        if self.bar is None:
            self.bar = Bar(self.key, self.meter, line, self.lines, ending=self.ending)
            self.bars.append(self.bar)
        self.bar.notes.append(note)

    def begin_tuplet(self, p: int, q: int, r: int) -> None:
        """`p` notes in the time of `q`, for the next `r` notes; 0 for what is not given."""
        if self.tuplet is not None:
            raise ValueError("a tuplet within a tuplet")
        q = q or TUPLETS.get(p, 3 if self.meter is not None and self.meter.compound else 2)
        self.tuplet, self.tuplet_left, self.tuplet_begins = (p, q), r or p, True

    def break_rhythm(self, sign: str) -> None:
        """Broken rhythm, as > or <<: the note before becomes longer or shorter, the next the other way."""
        if self.before is None or self.chord is not None or self.in_grace or self.broken != 1:
            raise ValueError("broken rhythm stands between two notes of a bar")
        short = Fraction(1, 2 ** len(sign))
        longer = sign[0] == ">"
        self.before.length = _checked(self.before.length * (2 - short if longer else short))
        self.broken = short if longer else 2 - short

    def tie(self) -> None:
        """A tie behind a note, a note of a chord, or a whole chord, all notes of which it holds."""
        if self.chord is not None and self.chord.pitches:
            self.chord.pitches[-1] = self.chord.pitches[-1]._replace(tied=True)
        elif self.before is None or not self.before.pitches:
            raise ValueError("a tie stands behind a note")
        else:
            self.before.pitches = [pitch._replace(tied=True) for pitch in self.before.pitches]

    def begin_slur(self, line: int, column: int) -> None:
        """A slur from the next note on, with the lowest number that no open one has."""
        used = {number for _, _, number in self.slurs}
        number = min(set(range(1, len(used) + 2)) - used)
        self.slurs.append((line, column, number))
        self.beginning.append(number)

    def end_slur(self) -> None:
        """The end, at the last note, of the last slur that began before it, or else at it."""
        if not self.slurs or self.beginning or self.last is None:
            raise ValueError('")" closes no slur')
        before = [slur for slur in self.slurs if slur[2] not in self.last.slurs_begin]
        ended = (before or self.slurs)[-1]
        self.slurs.remove(ended)
        self.last.slurs_end.append(ended[2])


def _checked(length: Fraction) -> Fraction:
    """The length of a note, where it is one that can be written."""
    parts = length.denominator
    if not 0 < length <= LONGEST or parts > FINEST or parts & (parts - 1):
        raise ValueError(f"a note cannot have the length {length}: from 1/{FINEST} to {LONGEST}, by halves")
    return length
