"""The parser of ABC: known tunes, what is wrong with others and where, and a second judge, verovio."""

import logging
import multiprocessing
import os
import re
from fractions import Fraction
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.data.abc import Fault, check_tune, parse_tune
from throughtime.data.abc_bars import Bars, count_bars, played
from throughtime.data.abc_fields import (
    Key,
    Meter,
    default_length,
    read_key,
    read_length,
    read_meter,
    read_tempo,
)
from throughtime.data.musicxml import DIVISIONS, write_musicxml
from throughtime.data.tunes import read_tunes
from throughtime.errors import DataError
from throughtime.tasks.engraving import perform

DATA = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[3] / "shared" / "data")) / "music"
HEADER = "X:1\nT:A tune\nM:4/4\nL:1/8\nK:C\n"


def notes(body, header=HEADER):
    return [note for bar in bars(body, header) for note in bar.notes]


def bars(body, header=HEADER):
    [voice] = parse_tune(header + body).voices.values()
    return voice


def keys(body, header=HEADER):
    return [[pitch.midi for pitch in note.pitches] for note in notes(body, header)]


def lengths(body, header=HEADER):
    return [note.time * 8 for note in notes(body, header)]


# Fields.


@pytest.mark.parametrize(
    ("text", "sharps"),
    [
        ("C", 0), ("G", 1), ("Bb", -2), ("F#", 6), ("Cb", -7), ("Am", 0), ("F#m", 3),
        ("A minor", 0), ("D Major", 2),
        ("DMix", 1), ("A Dorian", 1), ("EPhr", 0), ("FLydian", 0), ("B loc", 0),
        ("Hp", 2), ("HP", 0), ("none", 0), ("", 0),
        ("G clef=bass", 1), ("D treble", 2), ("C transpose=-2", 0), ("Dm octave=-1 treble-8", -1),
    ],
)  # fmt: skip
def test_keys(text, sharps):
    assert read_key(text) == Key(sharps)


def test_a_key_moves_notes():
    assert read_key("D").alters == {"F": 1, "C": 1}
    assert read_key("Eb").alters == {"B": -1, "E": -1, "A": -1}
    assert read_key("D =c").alters == {"F": 1, "C": 0}
    assert read_key("D exp _b ^f").alters == {"B": -1, "F": 1}
    assert read_key("D ^c^g=f middle=B").alters == {"F": 0, "C": 1, "G": 1}


def test_other_fields():
    assert read_meter("6/8") == Meter(6, 8) and read_meter("none") is None
    assert read_meter("C|").bar == 1 and read_meter("(2+3)/8").bar == Fraction(5, 8)
    assert read_length("1/16") == Fraction(1, 16)
    assert default_length(read_meter("2/4")) == Fraction(1, 16) and default_length(None) == Fraction(1, 8)
    assert read_tempo("1/4=120", Fraction(1, 8)) == 30 and read_tempo("120", Fraction(1, 8)) == 15
    assert read_tempo('"Slow" 3/8=60', Fraction(1, 8)) == Fraction(45, 2)
    assert read_tempo('"Allegro"', Fraction(1, 8)) is None


@pytest.mark.parametrize(
    ("read", "text", "reason"),
    [
        (read_key, "H", '"H" is no key'),
        (read_key, "D Makor", '"Makor" is no mode'),
        (read_key, "G#", "8 sharps"),
        (read_key, "D huge", "is no mode"),
        (read_key, "D Major loud", '"loud" says nothing'),
        (read_meter, "6/7", '"6/7" is no meter'),
        (read_meter, "0/4", "no meter"),
        (read_meter, "3/4 ABc", "no meter"),
        (read_length, "1/3", '"1/3" is no length'),
        (read_length, "2/8", "no length"),
        (lambda text: read_tempo(text, Fraction(1, 8)), "1/4=3", "from 4 to 10000 quarter notes a minute"),
        (lambda text: read_tempo(text, Fraction(1, 8)), "1/4=10001", "from 4 to 10000 quarter notes"),
        (lambda text: read_tempo(text, Fraction(1, 8)), "1/0=100", "1/0"),
    ],
)
def test_fields_that_mean_nothing(read, text, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        read(text)


# Notes.


def test_octaves_and_accidentals():
    assert keys("C,CcC'c'") == [[48], [60], [72], [72], [84]]
    assert keys("^F F f|F _B =B B __A ^^G") == [[66], [66], [78], [65], [70], [71], [71], [67], [69]]
    assert keys("F c =f f|f", HEADER.replace("K:C", "K:D")) == [[66], [73], [77], [77], [78]]
    assert keys("F[K:G]F|F\nK:C\nF") == [[65], [66], [66], [65]]


def test_lengths():
    half, quarter = Fraction(1, 2), Fraction(1, 4)
    assert lengths("A A2 A/ A// A/4 A3/2 A3/") == [1, 2, half, quarter, quarter, 3 * half, 3 * half]
    assert lengths("A>B c<d e>>f") == [3 * half, half, half, 3 * half, 7 * quarter, quarter]
    assert lengths("z2 x Z|y A") == [2, 1, 8, 1]
    assert (
        lengths("(3ABc (2AB (3:2:2AB") == [Fraction(2, 3)] * 3 + [Fraction(3, 2)] * 2 + [Fraction(2, 3)] * 2
    )
    assert lengths("(5ABcde", HEADER.replace("4/4", "6/8")) == [Fraction(3, 5)] * 5
    assert lengths("{AB}c [CE]2 [C2E2]/ L") == [0, 0, 1, 2, 1]


def test_chords_ties_slurs_graces():
    chord, tied, last = notes("[CEG]2 (c-c)")
    assert [pitch.midi for pitch in chord.pitches] == [60, 64, 67]
    assert tied.held == {72} and tied.slurs_begin == [1] and last.slurs_end == [1] and not last.held
    assert [note.held for note in notes("[C-E]2[CE]-[CE]")] == [{60}, {60, 64}, set()]
    grace, note = notes("{g}f")
    assert grace.grace and grace.time == 0 and not note.grace
    assert [note.beamed for note in notes("ABc d`e|f")] == [False, True, True, False, True, False]


def test_slurs_that_are_open_together_have_different_numbers():
    def slurs(body):
        return [(note.slurs_begin, note.slurs_end) for note in notes(body)]

    assert slurs("(A(Bc)d)") == [([1], []), ([2], []), ([], [2]), ([], [1])]
    assert slurs("((AB)c)(d)") == [([1, 2], []), ([], [2]), ([], [1]), ([1], [1])]
    # A slur goes on from a note to the next; what ends there is the one that began before it.
    assert slurs("(A(B)c)") == [([1], []), ([2], [1]), ([], [2])]


def test_what_is_no_note_is_read_past():
    body = '"Am"A !trill!B +fermata+c ~d .e uv f|% a note\nw: words are no notes\n%%x 1\n[I:x y]A\\\nB!\nc$\n'
    assert len(notes(body)) == 9
    assert [note.beamed for note in notes("A$B*;#c?@d")] == [False, True, True, True]
    assert len(notes("A\n%%begintext\nno @& music\n%%endtext\nB")) == 2
    with pytest.raises(DataError, match="line 9, column 1"):
        parse_tune(HEADER + "%%begintext\nno music\n%%endtext\n&")
    assert len(notes("U:s=!trill!\nsA")) == 1
    assert list(parse_tune(HEADER + "V:1\nAB|\nV:2\nC|[V:1]c").voices) == ["1", "2"]


def test_bars_and_their_order():
    one = bars("|:A|B|1c:|2d||[|e|]")
    assert [bar.ending for bar in one] == [(), (), (1,), (2,), ()]
    assert [bar.opens for bar in one] == ["|:", "|", "|", ":|", "||[|"]
    assert "".join(bar.notes[0].pitches[0].step for bar in played(one)) == "ABCABDE"

    def order(body):
        return "".join(bar.notes[0].pitches[0].step for bar in played(bars(body)))

    assert order("A|B:|c|d:|") == "ABABCDCD"
    assert order("A|:B::c:|d|]") == "ABBCCD"
    assert order("A|[1,3B:|[2c|d|]e") == "ABACDABE"
    assert order("A|B|c") == "ABC"
    assert order("A|[1B|c:|[2d|e||f|g:|") == "ABCADEFGFG"
    assert order("A|B||c|d:|e") == "ABCDCDE"  # back to the latest double line
    assert order("A|B|]c:|") == "ABCC"
    assert order("|:A||B:|c||d:|") == "ABABCDD"  # but not where a sign says to which place
    assert order("|::A|B::|c") == "ABABABC"
    assert order("|::A::|:B:|") == "AAABB"
    assert order("|A:|[2B|c") == "AABC"


def test_bar_lines_of_any_shape():
    assert [bar.opens for bar in bars("A|[|:B|[|]c||:d:||:e")] == ["", "|[|:", "|[|]", "||:", ":||:"]
    assert len(bars("A|[CE]|[1B:|[2c[|]")) == 4 and len(bars(":|A|")) == 1


def test_a_change_of_meter_leaves_the_unit_of_length():
    header = "X:1\nM:2/4\nK:C\n"
    assert [note.length for note in notes("A|[M:4/4]A|", header)] == [Fraction(1, 16)] * 2
    assert lengths("A|[L:1/4]A|", header) == [Fraction(1, 2), 2]


def test_each_voice_begins_from_the_header():
    tune = parse_tune(HEADER + "V:1\n[K:D][M:3/4][L:1/4]f(f|[1f:|\nV:2\nf-f|]\nV:1\nf)")
    one, two = tune.voices["1"], tune.voices["2"]
    assert [bar.key.sharps for bar in one] == [2, 2, 2] and [bar.key.sharps for bar in two] == [0]
    assert one[2].meter == Meter(3, 4) and two[0].meter == Meter(4, 4)
    assert one[2].time == Fraction(1, 4) and two[0].time == Fraction(1, 4)
    assert one[1].ending == (1,) and two[0].ending == () and two[0].opens == ""
    assert one[2].notes[0].slurs_end == [1]
    for wrong in ("V:1\n(A\nV:2\nB)", "V:1\nA\nV:2\n-B"):
        assert check_tune(HEADER + wrong).line == 9
    fault = check_tune(HEADER + "V:1\n(A\nV:2\nB")
    assert (fault.line, fault.column) == (7, 1) and "slur" in fault.reason


def test_the_tempo_is_that_of_the_beginning():
    assert parse_tune("X:1\nQ:1/4=80\nK:C\nA|[Q:1/4=160]B|\nQ:1/4=40\nA").tempo == 20
    assert parse_tune("X:1\nK:C\nQ:1/4=80\nA|[Q:1/4=160]B|").tempo == 20
    assert parse_tune("X:1\nK:C\nA|[Q:1/4=160]B|").tempo is None
    assert "no tempo" in check_tune("X:1\nK:C\nA|[Q:fast]B|").reason


def test_bars_against_the_meter():
    def count(body, meter="4/4"):
        return count_bars(parse_tune(HEADER.replace("4/4", meter) + body))

    assert count("A8|A8|]") == Bars(2, 2)
    assert count("AB|A8|A8|A6:|cd|c8|c6:|") == Bars(7, 7)  # pickups, and parts that end short for them
    assert count("A8|A7|A8|]") == Bars(2, 3)
    assert count("A9|A8|A9|]") == Bars(1, 3)  # longer is never right
    assert count("A8|1A6:|2A8|]") == Bars(3, 3)
    assert count("(3ABc A6|A6-A2|A>B c<d A4|]") == Bars(3, 3)
    assert count("A6|\nM:6/8\nA6|A6|A5|A6|]") == Bars(4, 5)
    assert count("A9|A2|]", "none") == Bars(0, 0)


@pytest.mark.parametrize(
    ("body", "line", "column", "reason"),
    [
        ("", 5, 1, "no note"),
        ("z|", 6, 2, "no note"),
        ("AB|c&d", 6, 5, '"&d" is no music'),
        ("AB|csd", 6, 5, "no decoration"),
        ("AB\n(3AB|c", 7, 5, "within a tuplet, which wants 1 more"),
        ("(3A(3B", 6, 4, "a tuplet within a tuplet"),
        ("[AB|", 6, 4, "within a chord"),
        ("[AB", 6, 3, "ends within a chord"),
        ("A]", 6, 2, "closes no chord"),
        ("[]", 6, 2, "a chord without a note"),
        ("[A[B]]", 6, 3, "a chord within a chord"),
        ("{AB", 6, 3, "grace notes"),
        ("A}", 6, 2, "closes no grace notes"),
        ("A)", 6, 2, "closes no slur"),
        ("AB (cd", 6, 4, "a slur that is not closed"),
        ("-A", 6, 1, "a tie stands behind a note"),
        (">A", 6, 1, "between two notes"),
        ("A>|B", 6, 3, "none follows"),
        ("A0", 6, 1, "length 0"),
        ("A/3", 6, 1, "length 1/24"),
        ("A999", 6, 1, "cannot have the length"),
        ("A/0", 6, 1, "1/0"),
        ("A/32<<<B|", 6, 5, "cannot have the length 1/2048"),
        ("A/32 B/32>>>A/32|", 6, 10, "cannot have the length 15/2048"),
        ("A64>B", 6, 4, "cannot have the length 12"),
        ("[L:1/512]A5", 6, 10, "cannot have the length 5/512"),
        ("[M:7/1024]Z", 6, 11, "cannot have the length 7/1024"),
        ("|A|[3-1B", 6, 4, "3-1"),
        ("|A|[1,3-2B", 6, 4, "3-2"),
        ("c'''''''", 6, 1, "too high"),
        ("C,,,,,,,,", 6, 1, "too low"),
        ("A[1B", 6, 2, "an ending begins at a bar line"),
        ("A[K:Q]B", 6, 2, "no key"),
        ("A[T:x]B", 6, 2, "among notes"),
        ("A\nX:2\nB", 7, 1, "behind the header"),
        ("A\nM:3/4 AB", 7, 1, "no meter"),
        ('A"Am', 6, 2, "no music"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(body, line, column, reason):
    fault = check_tune(HEADER + body)
    assert fault is not None and (fault.line, fault.column) == (line, column) and reason in fault.reason
    with pytest.raises(DataError, match=f"line {line}, column {column} of the tune: "):
        parse_tune(HEADER + body)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("T:no number\nK:C\nA", "begins with a field X:"),
        ("X:one\nK:C\nA", "no number of a tune"),
        ("X:1\nT:no key\n", "no field K:"),
        ("X:1\nABc\nK:C\n", "music before the field K:"),
        ("X:1\nX:2\nK:C\nA", "a second field X:"),
        ("X:1\nE:1\nK:C\nA", 'no field "E:"'),
        ("X:1\nQ:fast\nK:C\nA", "no tempo"),
        ("", "no field K:"),
    ],
)
def test_headers_that_are_none(text, reason):
    assert reason in check_tune(text).reason


PIECES = [
    *(
        "A",
        "B,",
        "c'",
        "z",
        "^c",
        "[C-E]2",
        "(3",
        "(9",
        "(6:4:2",
        "(3:3",
        "(",
        ")",
        "-",
        ">",
        "<<<",
        "/32",
        "4",
    ),
    *("3/2", "{g}", "|", ":|", "|:", "[1", "[2", "||", "\n", "Z", "~"),
]
FIELDS = ["[L:1/16]", "[M:6/8]", "[K:Gm]", "[Q:1/4=4]", "\nV:2\n"]


def duration(measure):
    return sum(
        Fraction(note.findtext("duration"))
        for note in measure.findall("note")
        if note.find("grace") is None and note.find("chord") is None
    )


@given(
    st.text("ABcz|:[]{}()-><23/^_='\",! \n%MKX:1~.y", max_size=60)
    | st.lists(st.sampled_from(PIECES + FIELDS), max_size=20).map("".join)
)
@settings(max_examples=500, deadline=None)
def test_every_text_is_judged(body):
    fault = check_tune(HEADER + body)
    if fault is None:
        tune = parse_tune(HEADER + body)
        for voice in tune.voices.values():
            assert all(bar.notes for bar in voice) and len(played(voice)) >= 1
        assert count_bars(tune).right <= count_bars(tune).all
        parts = fromstring(write_musicxml(tune)).findall("part")
        for part, voice in zip(parts, tune.voices.values(), strict=True):
            for measure, bar in zip(part, voice, strict=True):
                assert duration(measure) == bar.time * DIVISIONS
        if find_spec("pretty_midi"):
            perform(tune).write(BytesIO())
    else:
        lines = (HEADER + body).splitlines()
        assert isinstance(fault, Fault) and 1 <= fault.line <= len(lines)
        assert 1 <= fault.column <= len(lines[fault.line - 1]) + 1


# Files.


def test_a_file_is_cut_into_tunes(tmp_path, caplog):
    path = tmp_path / "tunes.abc"
    other = HEADER.replace("X:1", "X: 7")
    text = f"%abc-2.1\nM:4/4\n\n{HEADER}AB|\n{HEADER}(3AB|\n\nsome words\n\n{other}c  \r\n"
    text += "\n%%begintext\nnot counted\n%%endtext\n"
    path.write_text(text)
    with caplog.at_level(logging.WARNING):
        assert read_tunes(path) == [f"{HEADER}AB|\n", f"{other}c\n"]
    messages = " ".join(record.message for record in caplog.records)
    assert "1 of 3 tunes do not parse and are left out: line 15, column 5: the bar ends" in messages
    assert "1 lines outside of tunes are left out, the first is line 17" in messages


def test_the_header_of_a_file_holds_for_all_its_tunes(tmp_path, caplog):
    path = tmp_path / "tunes.abc"
    path.write_text(
        "%abc-2.1\nM:6/8\nU:s=!trill!\nL:1/16\nK:D\n\nX:1\nK:C\nsA\n\nX:2\nL:1/4\nU:n=!turn!\nK:C\nnsA\n\n"
        "X:3\nK:C\n&\n"
    )
    with caplog.at_level(logging.WARNING):
        assert read_tunes(path) == [
            "X:1\nM:6/8\nU:s=!trill!\nL:1/16\nK:C\nsA\n",
            "X:2\nM:6/8\nU:s=!trill!\nL:1/4\nU:n=!turn!\nK:C\nnsA\n",
        ]
    assert "line 19, column 1" in caplog.text


def test_a_file_without_tunes_is_refused(tmp_path):
    path = tmp_path / "tunes.abc"
    path.write_text("no tune\n")
    with pytest.raises(DataError, match=r"tunes\.abc has no tune that parses: give ABC notation"):
        read_tunes(path)


def _verovio_notes(texts, answers):
    """The letters and octaves of the notes that verovio's own reader finds; in a process that may die."""
    import verovio

    verovio.enableLog(verovio.LOG_OFF)
    toolkit = verovio.toolkit()
    for text in texts:
        toolkit.loadData(text)
        found = re.findall(r"<note [^>]*>", toolkit.getMEI())
        answers.send([re.search('pname="(.)"', n)[1] + re.search('oct="(.)"', n)[1] for n in found])


@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")
def test_verovio_finds_the_same_notes():
    pytest.importorskip("verovio")
    tunes = read_tunes(DATA / "irish.abc")
    assert len(tunes) == 799
    # Its reader knows no change of key, and ends the process at "!" behind a line.
    tunes = [tune.replace("!\n", "\n") for tune in tunes if tune.count("\nK:") == 1][::8]
    here, there = multiprocessing.get_context("spawn").Pipe()
    worker = multiprocessing.get_context("spawn").Process(target=_verovio_notes, args=(tunes, there))
    worker.start()
    there.close()
    for tune in tunes:
        ours = [
            f"{pitch.step.lower()}{pitch.octave}"
            for bar in parse_tune(tune).voices[""]
            for note in bar.notes
            for pitch in note.pitches
        ]
        assert here.recv() == ours
    worker.join()


@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")
def test_bars_of_real_tunes_have_the_length_of_their_meter():
    counts = [count_bars(parse_tune(tune)) for tune in read_tunes(DATA / "irish.abc")[::8]]
    assert sum(count.right for count in counts) > 0.995 * sum(count.all for count in counts)
