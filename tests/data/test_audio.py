"""Sounds: what comes out of files, what is refused, and rates converted in pieces."""

import sys

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from throughtime.data.audio import Converter, converted_length, read_sound
from throughtime.errors import ConfigError, DataError


@pytest.fixture
def tone(tmp_path):
    """Half a second of two channels, and its file."""
    time = np.arange(4000) / 8000
    samples = np.stack([np.sin(440 * 2 * np.pi * time), 0.5 * np.cos(300 * 2 * np.pi * time)], 1) * 0.4
    path = tmp_path / "tone.wav"
    soundfile.write(path, samples, 8000)
    return samples, path


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_every_format_is_read(tone, tmp_path, suffix):
    samples, _ = tone
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, samples, 8000)
    sound = read_sound(path)
    assert (sound.rate, sound.channels) == (8000, 2) and sound.samples.dtype == np.float32
    assert np.abs(sound.samples - samples).mean() < (0.02 if suffix == "ogg" else 1e-4)


def test_channels_are_averaged_and_what_is_mono_stays_as_it_is(tone, tmp_path):
    samples, path = tone
    np.testing.assert_allclose(read_sound(path).converted(8000), samples.mean(1), atol=1e-4)
    whole = np.arange(-500, 500, dtype=np.int16)
    soundfile.write(tmp_path / "mono.wav", whole, 8000)
    assert (read_sound(tmp_path / "mono.wav").converted(8000) * 32768 == whole).all()


def test_a_tone_keeps_its_pitch_at_another_rate(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.sin(440 * 2 * np.pi * np.arange(44100) / 44100) * 0.5, 44100)
    converted = read_sound(tmp_path / "a.wav").converted(8000)
    assert len(converted) == 8000
    assert np.abs(np.fft.rfft(converted)).argmax() == 440


@given(
    st.sampled_from([(44100, 8000), (8000, 16000), (11025, 8000), (8000, 8000)]),
    st.lists(st.integers(0, 700), max_size=6),
)
def test_pieces_are_converted_to_the_whole(rates, sizes):
    samples = np.random.default_rng(0).standard_normal(sum(sizes)).astype(np.float32)
    stream = Converter(*rates)
    pieces = np.split(samples, np.cumsum(sizes)[:-1]) if sizes else [samples]
    found = [stream.feed(np.ascontiguousarray(piece)) for piece in pieces]
    found.append(stream.feed(samples[:0], last=True))
    whole = Converter(*rates).feed(samples, last=True)
    assert (np.concatenate(found) == whole).all()
    assert len(whole) == converted_length(len(samples), *rates)


def test_a_sound_of_length_zero_is_one(tmp_path):
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 8000)
    assert read_sound(tmp_path / "none.wav").samples.shape == (0, 1)


@pytest.mark.parametrize("keep", [20, 44, 60, 8000])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_what_was_cut_off_is_named(tone, tmp_path, keep, suffix):
    path = tmp_path / f"cut.{suffix}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (8000, 1)), 8000)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=rf"cut\.{suffix} (was cut off|is no sound)"):
        read_sound(path)


def test_a_wav_that_was_written_to_a_pipe_says_no_length_and_is_read(tone, tmp_path):
    content = bytearray(tone[1].read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "pipe.wav").write_bytes(content)
    assert (read_sound(tmp_path / "pipe.wav").samples == read_sound(tone[1]).samples).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_is_named_with_its_sample(tmp_path, value):
    samples = np.zeros(100)
    samples[41] = value
    soundfile.write(tmp_path / "bad.wav", samples, 8000, subtype="FLOAT")
    with pytest.raises(DataError, match=r"bad\.wav holds NaN or Inf, first in sample 42"):
        read_sound(tmp_path / "bad.wav")


@pytest.mark.parametrize("content", [b"", b"no sound at all", b"RIFF\0\0\0\0WAVE", bytes(1000)])
def test_what_is_no_sound_is_named(tmp_path, content):
    (tmp_path / "text.wav").write_bytes(content)
    with pytest.raises(DataError, match=r"text\.wav (is no sound|was cut off)"):
        read_sound(tmp_path / "text.wav")
    with pytest.raises(DataError, match=r"missing\.wav cannot be read: No such file"):
        read_sound(tmp_path / "missing.wav")


def test_a_missing_package_names_the_extra(tone, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ConfigError, match=r"pip install 'throughtime\[audio\]'"):
        read_sound(tone[1])
