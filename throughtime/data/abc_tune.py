"""A tune as a parser finds it: pitches, notes, bars, voices."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from throughtime.data.abc_fields import Key, Meter


class Pitch(NamedTuple):
    """A note of the staff: its letter, its octave (4 is that from middle C), the semitones it is moved by.

    `sign` is the accidental that is written before it, if one is. A tied one goes on into the next note.
    """

    step: str
    octave: int
    alter: int
    sign: int | None = None
    tied: bool = False

    @property
    def midi(self) -> int:
        """The number of the key in MIDI, where middle C is 60."""
        return 12 * (self.octave + 1) + (0, 2, 4, 5, 7, 9, 11)["CDEFGAB".index(self.step)] + self.alter


@dataclass
class Note:
    """A note, a chord of several pitches, or a rest of none.

    length        as it is written, in whole notes; a grace note takes no time.
    tuplet        (p, q) where p notes last as long as q are written.
    slurs_begin   numbers of slurs, of which those that are open together have different ones.
    """

    pitches: list[Pitch]
    length: Fraction
    tuplet: tuple[int, int] | None = None
    grace: bool = False
    beamed: bool = False  # to the note before
    tuplet_begins: bool = False
    tuplet_ends: bool = False
    slurs_begin: list[int] = field(default_factory=list)
    slurs_end: list[int] = field(default_factory=list)

    @property
    def held(self) -> set[int]:
        """The keys of MIDI that go on into the next note."""
        return {pitch.midi for pitch in self.pitches if pitch.tied}

    @property
    def ratio(self) -> Fraction:
        """The part of its length that it lasts."""
        return Fraction(1) if self.tuplet is None else Fraction(self.tuplet[1], self.tuplet[0])

    @property
    def time(self) -> Fraction:
        """How long it lasts, in whole notes."""
        return Fraction(0) if self.grace else self.length * self.ratio


@dataclass
class Bar:
    """The notes up to a bar line. `opens` and `closes` are the lines at its sides, as they are written.

    `ending` are the repeats in which it is played, all of them where there are none.
    """

    key: Key
    meter: Meter | None
    line: int
    opens: str = ""
    closes: str = ""
    ending: tuple[int, ...] = ()
    notes: list[Note] = field(default_factory=list)

    @property
    def time(self) -> Fraction:
        """The length of all notes, in whole notes."""
        return sum((note.time for note in self.notes), Fraction())


@dataclass(frozen=True)
class Tune:
    """A parsed tune: the fields of its header in order, the bars of each voice, whole notes a minute."""

    fields: tuple[tuple[str, str], ...]
    voices: dict[str, list[Bar]]
    tempo: Fraction | None

    @property
    def title(self) -> str:
        """The first title."""
        return next((value for name, value in self.fields if name == "T"), "")
