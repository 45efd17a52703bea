"""A tune as a score (SVG), as MIDI and as sound (WAV), by verovio and pretty_midi, the extra `music`."""

from __future__ import annotations

import wave
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from throughtime.data.abc_bars import played
from throughtime.data.abc_tune import Bar, Tune
from throughtime.data.musicxml import write_musicxml
from throughtime.errors import ConfigError
from throughtime.storage import write

if TYPE_CHECKING:
    from pretty_midi import PrettyMIDI

#: Samples of sound in a second.
RATE = 22_050
#: Beats a minute where a tune has no tempo.
BEATS = 120
#: Width of a page in units of verovio, of which a staff space has 9 · 2.
PAGE = {
    "pageWidth": 2100,
    "adjustPageHeight": True,
    "breaks": "encoded",
    "footer": "none",
    "scale": 40,
}
ADVICE = "make room, or give another folder with --out"


def missing() -> str | None:
    """What is to be said where the extra is not installed; None where it is."""
    lacking = [name for name in ("verovio", "pretty_midi") if find_spec(name) is None]
    if not lacking:
        return None
    return f"scores and sound need {' and '.join(lacking)}: pip install 'throughtime[music]'"


def engrave(tune: Tune, path: Path) -> list[Path]:
    """Write the tune beside `path` with the endings .svg, .mid and .wav; returns these files.

    Raises `ConfigError` where the extra is missing, `StorageError` where a file cannot be written.
    """
    if (reason := missing()) is not None:
        raise ConfigError(reason)
    files = [path.with_suffix(suffix) for suffix in (".svg", ".mid", ".wav")]
    score, sound = draw_score(tune), perform(tune)
    write(files[0], lambda new: new.write_text(score, encoding="utf-8"), ADVICE)
    write(files[1], lambda new: sound.write(str(new)), ADVICE)
    write(files[2], lambda new: write_sound(sound, new), ADVICE)
    return files


def draw_score(tune: Tune) -> str:
    """The score as SVG, a line of staves for each line of the ABC."""
    import verovio

    verovio.enableLog(verovio.LOG_OFF)
    toolkit = verovio.toolkit()
    toolkit.setOptions(PAGE | {"pageHeight": 60_000})
    toolkit.loadData(write_musicxml(tune))
    score: str = toolkit.renderToSVG(1)
    # Black notes are not to be seen on a dark page.
    return score.replace(
        ">", '>\n   <rect width="100%" height="100%" style="fill: white; stroke: none" />', 1
    )


def perform(tune: Tune) -> PrettyMIDI:
    """The tune as it is played, with its repeats; grace notes are left out.

    Where it has no tempo there are 120 beats a minute: of 3/8 in 6/8, 9/8 and 12/8, else of 1/4.
    """
    from pretty_midi import Instrument, PrettyMIDI

    rate = _whole_notes_a_minute(tune)
    music = PrettyMIDI(initial_tempo=float(4 * rate))
    for bars in tune.voices.values():
        instrument = Instrument(program=0)
        instrument.notes += _sounding(played(bars), float(60 / rate))
        music.instruments.append(instrument)
    return music


def _whole_notes_a_minute(tune: Tune) -> Fraction:
    meter = next(iter(tune.voices.values()))[0].meter
    beat = Fraction(3, 8) if meter is not None and meter.compound else Fraction(1, 4)
    return tune.tempo or BEATS * beat


def _sounding(bars: list[Bar], seconds: float) -> list[object]:
    """The notes of a voice, tied ones as one, where a whole note lasts so many seconds."""
    from pretty_midi import Note

    notes: list[object] = []
    going_on: dict[int, Note] = {}
    time = Fraction()
    for note in (note for bar in bars for note in bar.notes if not note.grace):
        start, time = time, time + note.time
        sounding = {}
        for pitch in note.pitches:
            end = float(time) * seconds
            last = going_on.get(pitch.midi)
            if last is None:
                last = Note(90, pitch.midi, float(start) * seconds, end)
                notes.append(last)
            last.end = end
            sounding[pitch.midi] = last
        going_on = {key: last for key, last in sounding.items() if key in note.held}
    return notes


def write_sound(music: PrettyMIDI, path: Path, rate: int = RATE) -> None:
    """Write music as a WAV of one channel and 16 bits, each note a tone with two overtones that dies away."""
    samples = music.synthesize(rate, wave=_tone)
    loudest = max(float(np.abs(samples).max(initial=0.0)), 1e-9)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * (0.8 * 32767 / loudest)).astype("<i2").tobytes())


def _tone(phase: np.ndarray) -> np.ndarray:
    return np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.15 * np.sin(3 * phase)
