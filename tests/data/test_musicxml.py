"""MusicXML of tunes: what a tune becomes, and that verovio reads the same notes from it."""

import re
from fractions import Fraction
from xml.etree.ElementTree import fromstring

import pytest

from throughtime.data.abc import parse_tune
from throughtime.data.musicxml import DIVISIONS, write_musicxml

TUNE = """X:1
T:Cats & dogs
M:C|
L:1/8
K:D
|:(3ABc| dA=FA {g}D^FAd|[Ace]2 (z2 e-e) f2|1 (3efe c2 d2:|2 d>c d2 A4|]
K:Gm ^f
M:6/8
GAB c2d|A5 c/d/||
"""


@pytest.fixture(scope="module")
def score():
    return fromstring(write_musicxml(parse_tune(TUNE)))


def test_head_of_a_score(score):
    assert score.findtext("work/work-title") == "Cats & dogs"
    first = score.find("part/measure/attributes")
    assert first.findtext("key/fifths") == "2" and first.find("time").get("symbol") == "cut"
    later = score.findall("part/measure")[5].find("attributes")
    assert [each.text for each in later.find("key")] == ["B", "-1", "E", "-1", "F", "1"]
    assert later.findtext("time/beats") == "6" and later.find("time").get("symbol") is None


def test_bars_repeats_and_endings(score):
    bars = score.findall("part/measure")
    assert [bar.get("implicit") for bar in bars] == ["yes", None, None, "yes", None, None, None]
    signs = [
        [
            (
                line.get("location"),
                *(f"{each.tag} {' '.join(each.attrib.values())}" for each in line if each.attrib),
            )
            for line in bar.findall("barline")
        ]
        for bar in bars
    ]
    assert signs[0] == [("left", "repeat forward")]
    assert signs[3] == [("left", "ending 1 start"), ("right", "ending 1 stop", "repeat backward")]
    assert signs[4] == [("left", "ending 2 start"), ("right", "ending 2 discontinue")]
    assert [signs[k] for k in (1, 2, 5)] == [[], [], []] and signs[6] == [("right",)]


def test_notes(score):
    bars = score.findall("part/measure")
    tuplet = bars[0].findall("note")
    assert [note.findtext("duration") for note in tuplet] == [str(DIVISIONS // 12)] * 3
    assert [note.findtext("beam") for note in tuplet] == ["begin", "continue", "end"]
    assert tuplet[0].find("notations/tuplet").get("type") == "start"
    second = bars[1].findall("note")
    assert second[2].findtext("accidental") == "natural" and second[2].find("pitch/alter") is None
    assert second[4].find("grace") is not None and second[4].find("duration") is None
    third = bars[2].findall("note")
    assert [note.find("chord") is not None for note in third[:3]] == [False, True, True]
    assert third[3].find("rest") is not None
    assert [note.find("tie").get("type") for note in third[4:6]] == ["start", "stop"]
    dotted = bars[4].findall("note")
    assert [len(note.findall("dot")) for note in dotted[:2]] == [1, 0]
    assert dotted[1].findtext("type") == "16th"
    long = bars[6].findall("note")  # 5/8 is a half and an eighth
    assert [note.findtext("type") for note in long[:2]] == ["half", "eighth"]
    assert [tie.get("type") for note in long[:2] for tie in note.findall("tie")] == ["start", "stop"]


def test_durations_are_those_of_the_bars(score):
    bars = parse_tune(TUNE).voices[""]
    for bar, measure in zip(bars, score.findall("part/measure"), strict=True):
        found = sum(
            int(note.findtext("duration")) for note in measure.findall("note")
            if note.find("grace") is None and note.find("chord") is None
        )  # fmt: skip
        assert found == bar.time * DIVISIONS


def test_verovio_reads_the_same_notes():
    verovio = pytest.importorskip("verovio")
    toolkit = verovio.toolkit()
    tune = parse_tune(TUNE)
    assert toolkit.loadData(write_musicxml(tune))
    mei = toolkit.getMEI()
    found = re.findall(r'<note [^>]*?oct="(\d)" [^>]*?pname="(.)"', mei)
    ours = [
        (str(pitch.octave), pitch.step.lower())
        for bar in tune.voices[""]
        for note in bar.notes
        for _ in range(2 if note.length == Fraction(5, 8) else 1)  # its heads
        for pitch in note.pitches
    ]
    assert found == ours
    assert len(re.findall("<tuplet ", mei)) == 2 and len(re.findall("<ending ", mei)) == 2


def notes(body):
    return fromstring(write_musicxml(parse_tune("X:1\nM:4/4\nL:1/8\nK:C\n" + body))).findall(".//note")


@pytest.mark.parametrize(
    ("body", "actual", "normal"),
    [("(6ABcdef", "6", "2"), ("(9ABcdefgab", "9", "2"), ("(3:3ABc", "3", "3"), ("(8ABcdefga", "8", "3")],
)
def test_tuplets_keep_their_numbers(body, actual, normal):
    for note in notes(body):
        found = note.find("time-modification")
        assert [each.text for each in found] == [actual, normal]
        assert int(note.findtext("duration")) * int(actual) == DIVISIONS // 8 * int(normal)


def test_pitches_are_tied_by_themselves():
    ties = [[tie.get("type") for tie in note.findall("tie")] for note in notes("[C-E]2[CE]2")]
    assert ties == [["start"], [], ["stop"], []]


def test_slurs_within_slurs_are_told_apart():
    slurs = [
        [(slur.get("type"), slur.get("number")) for slur in note.findall("notations/slur")]
        for note in notes("(A(B)c(de)f)")
    ]
    assert slurs == [
        [("start", "1")],
        [("stop", "1"), ("start", "2")],
        [],
        [("start", "1")],
        [("stop", "1")],
        [("stop", "2")],
    ]


def test_a_section_of_three_times():
    score = fromstring(write_musicxml(parse_tune("X:1\nK:C\n|::A|B::|c:|")))
    assert [repeat.get("times") for repeat in score.findall(".//repeat")] == [None, "3", None]
