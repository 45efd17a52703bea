"""What the fields of an ABC tune say: key, meter, unit of length, tempo (ABC standard 2.1, section 3.1).

Each reader takes the text behind the colon and raises `ValueError` with the reason where it means nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

#: How many sharps a mode takes from the major key of the same tonic.
MODES = {"maj": 0, "ion": 0, "min": -3, "aeo": -3, "mix": -1, "dor": -2, "phr": -4, "lyd": 1, "loc": -5}
#: The order in which sharps come, each a fifth above the one before; flats come the other way.
SHARPS = "FCGDAEB"
ACCIDENTALS = {"^^": 2, "^": 1, "=": 0, "_": -1, "__": -2}
MOST_SHARPS = 7
#: Whole notes a minute that can be played: MIDI has 24 bits for the microseconds of a quarter.
SLOWEST, FASTEST = 1, 2500

_CLEF = (
    r"(?:clef=|middle=|transpose=|octave=|stafflines=|score=|shift=)\S+"
    r"|treble\S*|alto\S*|tenor\S*|bass\S*|perc"
)
_KEY = re.compile(
    rf"(?P<tonic>[A-G])(?P<sign>[#b]?)\s*(?!{_CLEF})(?P<mode>[A-Za-z]*)(?=\s|$|[\^_=])\s*(?P<rest>.*)"
)
_SIGN = r"(\^\^?|__?|=)([A-Ga-g])"
_REST = re.compile(rf"(?:\s*(?:{_SIGN}|{_CLEF}))*\s*")
_METER = re.compile(r"\(?(\d+(?:\s*\+\s*\d+)*)\)?\s*/\s*(\d+)")
_TEMPO = re.compile(r'(?:"[^"]*"\s*)?(?:(?P<beats>(?:\d+/\d+\s*)+)=\s*)?(?P<rate>\d+)?(?:\s*"[^"]*")?')


@dataclass(frozen=True)
class Key:
    """A key: sharps of its signature (flats below 0), and further accidentals by their note."""

    sharps: int = 0
    further: tuple[tuple[str, int], ...] = ()

    @property
    def alters(self) -> dict[str, int]:
        """How many semitones each note is moved by; those that are not named are not."""
        if self.sharps >= 0:
            moved = dict.fromkeys(SHARPS[: self.sharps], 1)
        else:
            moved = dict.fromkeys(SHARPS[::-1][: -self.sharps], -1)
        return moved | dict(self.further)


def read_key(text: str) -> Key:
    """The key that a field K: names: a tonic with a mode, none, or that of the Highland pipes."""
    text = text.strip()
    found = _KEY.fullmatch(text)
    if found is None:
        plain, _, rest = text.partition(" ")
        if plain == "HP":
            return Key()
        if plain == "Hp":
            return Key(2)
        if plain in {"", "none"} or _REST.fullmatch(text):
            return Key(0, _further(rest if plain == "none" else text))
        raise ValueError(
            f'"{text}" is no key: give a note from A to G, perhaps # or b, and a mode, as D or Em'
        )
    mode, rest = found["mode"].lower(), found["rest"]
    if mode == "exp":
        return Key(0, _further(rest))
    shift = -3 if mode == "m" else 0 if not mode else MODES.get(mode[:3])
    if shift is None:
        raise ValueError(f'"{found["mode"]}" is no mode: there are major, minor, m, {", ".join(MODES)}')
    if not _REST.fullmatch(rest):
        raise ValueError(
            f'"{rest}" says nothing about a key: accidentals as ^f and a clef may follow the mode'
        )
    sharps = SHARPS.index(found["tonic"]) - 1 + {"": 0, "#": 7, "b": -7}[found["sign"]] + shift
    if abs(sharps) > MOST_SHARPS:
        raise ValueError(
            f'"{text}" would have {abs(sharps)} {"sharps" if sharps > 0 else "flats"}: keys have up to 7'
        )
    return Key(sharps, _further(rest))


def _further(text: str) -> tuple[tuple[str, int], ...]:
    """The accidentals of words that are nothing else, as ^f or ^c^g: "clef=bass" has none."""
    words = [word for word in text.split() if re.fullmatch(f"(?:{_SIGN})+", word)]
    return tuple((step.upper(), ACCIDENTALS[sign]) for sign, step in re.findall(_SIGN, " ".join(words)))


@dataclass(frozen=True)
class Meter:
    """A meter: `beats` of a note of 1/`unit`; `sign` is that of MusicXML for C and C|, else nothing."""

    beats: int
    unit: int
    sign: str = ""

    @property
    def bar(self) -> Fraction:
        """The length of a bar in whole notes."""
        return Fraction(self.beats, self.unit)

    @property
    def compound(self) -> bool:
        """Whether beats have three parts."""
        return self.unit == 8 and self.beats in {6, 9, 12}


def read_meter(text: str) -> Meter | None:
    """The meter of a field M:; None for free meter."""
    text = text.strip()
    if text in {"", "none"}:
        return None
    if text in {"C", "C|"}:
        return Meter(4, 4, "common") if text == "C" else Meter(2, 2, "cut")
    found = _METER.fullmatch(text)
    beats, unit = (sum(map(int, found[1].split("+"))), int(found[2])) if found else (0, 0)
    if not beats or not _is_power_of_two(unit):
        raise ValueError(f'"{text}" is no meter: give beats and their note, as 6/8, or C, C| or none')
    return Meter(beats, unit)


def read_length(text: str) -> Fraction:
    """The unit of length of a field L:, in whole notes."""
    found = re.fullmatch(r"1(?:/(\d+))?", text.strip())
    unit = int(found[1] or 1) if found else 0
    if not _is_power_of_two(unit) or unit > 512:
        raise ValueError(f'"{text.strip()}" is no length: give 1, 1/2, 1/4, 1/8, 1/16 and so on')
    return Fraction(1, unit)


def default_length(meter: Meter | None) -> Fraction:
    """The unit of length where no field L: gives it: 1/16 in short bars, else 1/8."""
    return Fraction(1, 16) if meter is not None and meter.bar < Fraction(3, 4) else Fraction(1, 8)


def read_tempo(text: str, length: Fraction) -> Fraction | None:
    """Whole notes a minute of a field Q:; None where it only names the tempo."""
    found = _TEMPO.fullmatch(text.strip())
    if found is None or (found["rate"] and not int(found["rate"])):
        raise ValueError(f'"{text.strip()}" is no tempo: give a note and how many a minute, as 1/4=120')
    if not found["rate"]:
        return None
    try:
        beat = sum(map(Fraction, (found["beats"] or "").split()), Fraction())
    except ZeroDivisionError:
        raise ValueError(f'"{text.strip()}" is no tempo: a note of length 1/0') from None
    tempo = int(found["rate"]) * (beat or length)
    if not SLOWEST <= tempo <= FASTEST:
        raise ValueError(
            f'"{text.strip()}" is no tempo: give from {4 * SLOWEST} to {4 * FASTEST} quarter notes a minute'
        )
    return tempo


def _is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0
