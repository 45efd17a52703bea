"""A tune as MusicXML 4.0, the form in which programs that engrave music read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from xml.etree.ElementTree import Element, SubElement, tostring

from throughtime.data.abc_bars import ends_part, repeats
from throughtime.data.abc_fields import Key, Meter
from throughtime.data.abc_tune import Bar, Note, Pitch, Tune

#: Divisions of a whole note: lengths are halves down to 1/256, and parts of them in tuplets 2nds to 9ths.
DIVISIONS = 256 * 8 * 9 * 5 * 7
TYPES = {
    Fraction(8): "maxima",
    Fraction(4): "long",
    Fraction(2): "breve",
    Fraction(1): "whole",
    Fraction(1, 2): "half",
    Fraction(1, 4): "quarter",
    Fraction(1, 8): "eighth",
} | {Fraction(1, n): f"{n}{'nd' if n == 32 else 'th'}" for n in (16, 32, 64, 128, 256)}
SIGNS = {2: "double-sharp", 1: "sharp", 0: "natural", -1: "flat", -2: "flat-flat"}


def write_musicxml(tune: Tune) -> str:
    """The tune as a score of a part for each voice, without what only players see."""
    score = Element("score-partwise", version="4.0")
    _put(_put(score, "work"), "work-title", tune.title)
    parts = _put(score, "part-list")
    for k, name in enumerate(tune.voices, start=1):
        _put(_put(parts, "score-part", id=f"P{k}"), "part-name", name)
    for k, bars in enumerate(tune.voices.values(), start=1):
        part = _put(score, "part", id=f"P{k}")
        for place in range(len(bars)):
            _write_bar(_put(part, "measure", number=str(place + 1)), bars, place)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(score, encoding="unicode")


def _put(parent: Element, name: str, text: object = None, **attributes: str) -> Element:
    made = SubElement(parent, name, attributes)
    if text is not None:
        made.text = str(text)
    return made


def _write_bar(measure: Element, bars: Sequence[Bar], k: int) -> None:
    bar, before, after = bars[k], bars[k - 1] if k else None, bars[k + 1] if k + 1 < len(bars) else None
    if bar.meter is not None and bar.time != bar.meter.bar:
        measure.set("implicit", "yes")
    if before is None:  # bars are not numbered, for those that only lead into a part would count
        _put(_put(measure, "print"), "measure-numbering", "none")
    elif before.line != bar.line:
        _put(measure, "print", **{"new-system": "yes"})
    _write_attributes(measure, bar, before)
    begins = bar.ending and (before is None or before.ending != bar.ending)
    if bar.opens.endswith(":") or begins:
        line = _put(measure, "barline", location="left")
        if bar.opens.endswith(":"):
            _put(line, "bar-style", "heavy-light")
        if begins:
            _put(line, "ending", number=_numbers(bar), type="start")
        if bar.opens.endswith(":"):
            _put(line, "repeat", direction="forward")
    last = before.notes[-1] if before is not None else None
    for note, beam in zip(bar.notes, _beams(bar.notes), strict=True):
        _write_note(measure, note, beam, last)
        last = note
    stops = bar.ending and (after is None or after.ending != bar.ending)
    if stops or ends_part(bar.closes):
        line = _put(measure, "barline", location="right")
        heavy = repeats(bar) or "]" in bar.closes
        _put(
            line, "bar-style", "light-heavy" if heavy else "light-light" if "||" in bar.closes else "regular"
        )
        if stops:
            _put(line, "ending", number=_numbers(bar), type="stop" if repeats(bar) else "discontinue")
        if repeats(bar):
            times = {"times": str(1 + repeats(bar))} if repeats(bar) > 1 else {}
            _put(line, "repeat", direction="backward", **times)


def _numbers(bar: Bar) -> str:
    return ",".join(map(str, bar.ending))


def _write_attributes(measure: Element, bar: Bar, before: Bar | None) -> None:
    key = bar.key if before is None or before.key != bar.key else None
    meter = bar.meter if before is None or before.meter != bar.meter else None
    if before is not None and key is None and meter is None:
        return
    made = _put(measure, "attributes")
    if before is None:
        _put(made, "divisions", DIVISIONS // 4)
    if key is not None:
        _write_key(made, key)
    if meter is not None:
        _write_meter(made, meter)
    if before is None:
        clef = _put(made, "clef")
        _put(clef, "sign", "G")
        _put(clef, "line", 2)


def _write_key(attributes: Element, key: Key) -> None:
    made = _put(attributes, "key")
    if not key.further:
        _put(made, "fifths", key.sharps)
        return
    for step, alter in key.alters.items():
        _put(made, "key-step", step)
        _put(made, "key-alter", alter)


def _write_meter(attributes: Element, meter: Meter) -> None:
    made = _put(attributes, "time", **({"symbol": meter.sign} if meter.sign else {}))
    _put(made, "beats", meter.beats)
    _put(made, "beat-type", meter.unit)


def _write_note(measure: Element, note: Note, beam: str, before: Note | None) -> None:
    """A note as one or, where no single head has its length, as several tied ones."""
    held = before.held if before is not None else set()
    heads = list(_heads(note.length))
    pitches: list[Pitch | None] = [*note.pitches] or [None]
    for k, (head, dots) in enumerate(heads):
        first, last = k == 0, k == len(heads) - 1
        for pitch in pitches:
            made = _put(measure, "note")
            if note.grace:
                _put(made, "grace")
            if pitch is not pitches[0]:
                _put(made, "chord")
            _write_pitch(made, pitch)
            length = head * (2 - Fraction(1, 2**dots)) * note.ratio
            if not note.grace:
                duration = length * DIVISIONS
                assert duration.denominator == 1
                _put(made, "duration", duration)
            ties = [
                kind
                for kind, there in (
                    ("stop", not first or (pitch is not None and pitch.midi in held)),
                    ("start", not last or (pitch is not None and pitch.tied)),
                )
                if there and pitch is not None
            ]
            for kind in ties:
                _put(made, "tie", type=kind)
            _put(made, "type", TYPES[head])
            for _ in range(dots):
                _put(made, "dot")
            if pitch is not None and pitch.sign is not None and first:
                _put(made, "accidental", SIGNS[pitch.sign])
            if note.tuplet is not None:
                ratio = _put(made, "time-modification")
                _put(ratio, "actual-notes", note.tuplet[0])
                _put(ratio, "normal-notes", note.tuplet[1])
            if beam and head < Fraction(1, 4):
                _put(made, "beam", beam, number="1")
            leads = pitch is pitches[0]
            _write_notations(made, note, ties, leads and first, leads and last)


def _write_pitch(made: Element, pitch: Pitch | None) -> None:
    if pitch is None:
        _put(made, "rest")
        return
    element = _put(made, "pitch")
    _put(element, "step", pitch.step)
    if pitch.alter:
        _put(element, "alter", pitch.alter)
    _put(element, "octave", pitch.octave)


def _write_notations(made: Element, note: Note, ties: Sequence[str], first: bool, last: bool) -> None:
    """Ties, and at the first and the last head of a note its slurs and what tuplet it begins or ends."""
    notations = Element("notations")
    for kind in ties:
        _put(notations, "tied", type=kind)
    for kind, numbers in (("stop", note.slurs_end * last), ("start", note.slurs_begin * first)):
        for number in numbers:
            _put(notations, "slur", type=kind, number=str(number))
    for kind, there in (("start", note.tuplet_begins and first), ("stop", note.tuplet_ends and last)):
        if there:
            _put(notations, "tuplet", type=kind, bracket="no")
    if len(notations):
        made.append(notations)


def _heads(length: Fraction) -> Iterator[tuple[Fraction, int]]:
    """The heads of a note with their dots, the longest first: each dot adds half of what stands before it."""
    while length:
        head = max(size for size in TYPES if size <= length)
        dots = 0
        while dots < 2 and head * (2 - Fraction(1, 2 ** (dots + 1))) <= length:
            dots += 1
        yield head, dots
        length -= head * (2 - Fraction(1, 2**dots))


def _beams(notes: Sequence[Note]) -> Iterator[str]:
    """For each note whether a beam begins, goes on or ends at it: notes below 1/4 without a space between."""
    joined = [_joins(one, two) for one, two in pairwise(notes)]
    for before, after in zip([False, *joined], [*joined, False], strict=True) if notes else ():
        yield "continue" if before and after else "begin" if after else "end" if before else ""


def _joins(one: Note, two: Note) -> bool:
    short = all(note.length < Fraction(1, 4) and note.pitches and not note.grace for note in (one, two))
    return short and two.beamed
