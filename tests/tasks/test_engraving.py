"""Scores and sound of tunes: what is drawn, what is played and when, and how high it sounds."""

import wave

import numpy as np
import pytest

from throughtime.data.abc import parse_tune
from throughtime.errors import ConfigError
from throughtime.tasks import engraving
from throughtime.tasks.engraving import draw_score, engrave, perform, write_sound

pytest.importorskip("verovio")
pytest.importorskip("pretty_midi")

HEADER = "X:1\nT:A tune\nM:4/4\nL:1/4\nK:C\n"


def played(body, header=HEADER):
    [instrument] = perform(parse_tune(header + body)).instruments
    return [(note.pitch, round(note.start, 3), round(note.end, 3)) for note in instrument.notes]


def test_notes_are_played_in_time():
    assert played("A z c2") == [(69, 0, 0.5), (72, 1, 2)]
    assert played("[CE]2 {g}D") == [(60, 0, 1), (64, 0, 1), (62, 1, 1.5)]
    assert played("A", HEADER.replace("K:", "Q:1/4=60\nK:")) == [(69, 0, 1)]
    assert played("A3/", HEADER.replace("4/4", "6/8")) == [(69, 0, 0.5)]


def test_repeats_are_played_and_tied_notes_are_one():
    assert [pitch for pitch, _, _ in played("|:A|1B:|2c|]")] == [69, 71, 69, 72]
    assert played("A-|A-[Ac]|A") == [(69, 0, 1.5), (72, 1, 1.5), (69, 1.5, 2)]
    assert played("A-|B") == [(69, 0, 0.5), (71, 0.5, 1)]
    assert played("[C-E][CE]") == [(60, 0, 1), (64, 0, 0.5), (64, 0.5, 1)]


def test_a_note_sounds_at_its_height(tmp_path):
    path = tmp_path / "a.wav"
    write_sound(perform(parse_tune(HEADER + "A4")), path, rate=8000)
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)
    heights = np.fft.rfftfreq(len(samples), 1 / 8000)
    assert heights[np.abs(np.fft.rfft(samples)).argmax()] == pytest.approx(440, abs=2)
    assert 0.75 * 32767 < np.abs(samples).max() <= 32767


@pytest.mark.parametrize("tempo", ["1/4=4", "1/4=10000"])
def test_the_slowest_and_the_fastest_tempo_are_written(tempo, tmp_path):
    files = engrave(parse_tune(HEADER.replace("K:", f"Q:{tempo}\nK:") + "A"), tmp_path / "1.abc")
    assert all(file.stat().st_size for file in files)


def test_a_score_has_the_title_and_the_notes():
    score = draw_score(parse_tune(HEADER + "|:ABcd|e4:|\nK:D\nf4|]"))
    assert "A tune" in score and score.count('class="note"') == 6 and score.count('class="measure"') == 3
    assert score.count('class="system"') == 2  # as the lines of the ABC


def test_all_is_written_or_the_extra_named(tmp_path, monkeypatch):
    files = engrave(parse_tune(HEADER + "A"), tmp_path / "new" / "1.abc")
    assert [file.name for file in files] == ["1.svg", "1.mid", "1.wav"] and all(
        file.stat().st_size for file in files
    )
    monkeypatch.setattr(engraving, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"need verovio and pretty_midi: pip install 'throughtime\[music\]'"
    ):
        engrave(parse_tune(HEADER + "A"), tmp_path / "2.abc")
