"""Sound from a stream: raw and wav, in pieces, cut within a sample."""

import io
import logging

import numpy as np
import pytest
import soundfile

from throughtime.data.pcm import BLOCK, read_pcm
from throughtime.errors import DataError

SAMPLES = np.random.default_rng(0).integers(-32768, 32767, (9001, 2), dtype=np.int16)


class Slow(io.BufferedReader):
    """A stream that gives a few bytes at a time, as a pipe may."""

    def read1(self, size=-1):
        return super().read1(min(size, 1001))


def read(content, rate=8000, reader=io.BufferedReader):
    found, pieces = read_pcm(reader(io.BytesIO(content)), rate)
    return found, np.concatenate([*pieces, np.zeros(0, np.float32)])


def wav(samples, rate=11025, **options):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", **options)
    return file.getvalue()


@pytest.mark.parametrize("reader", [io.BufferedReader, Slow])
def test_raw_samples_are_read_to_the_last(reader):
    rate, samples = read(SAMPLES[:, 0].tobytes(), 16000, reader)
    assert rate == 16000 and (samples * 32768 == SAMPLES[:, 0]).all()


@pytest.mark.parametrize("reader", [io.BufferedReader, Slow])
def test_a_wav_says_its_rate_and_channels(reader):
    rate, samples = read(wav(SAMPLES) + b"LIST\4\0\0\0note", 8000, reader)
    assert rate == 11025
    np.testing.assert_allclose(samples * 32768, SAMPLES.mean(1))


def test_a_wav_from_a_pipe_has_no_size():
    content = bytearray(wav(SAMPLES[:, 0]))
    at = content.index(b"data") + 4
    for size in (b"\0\0\0\0", b"\xff\xff\xff\xff"):
        content[at : at + 4] = size
        assert len(read(bytes(content))[1]) == 9001


def test_nothing_is_no_sound_and_half_a_sample_is_said(caplog):
    assert len(read(b"")[1]) == 0
    with caplog.at_level(logging.WARNING):
        assert len(read(bytes(2 * BLOCK + 1))[1]) == BLOCK
    assert "ends within a sample: 1 bytes" in caplog.text


@pytest.mark.parametrize(
    ("begin", "message"),
    [
        (b"fLaC\0\0\0\x22", "standard input is FLAC: decode it first, as with flac -dc"),
        (b"OggS\0\2\0\0", "standard input is Ogg: decode it first, as with ffmpeg -i FILE -f wav -"),
        (b"RF64\xff\xff\xff\xffWAVE", "standard input is RF64"),
        (b"ID3\4\0\0\0\0", "standard input is MP3"),
        (b"FORM\0\0\0\0AIFF", "standard input is AIFF"),
    ],
)
def test_what_is_no_plain_sound_is_refused(begin, message):
    with pytest.raises(DataError, match=message):
        read(begin + bytes(100))


def test_another_form_is_refused():
    with pytest.raises(DataError, match="24 bits in form 1: give 16-bit PCM"):
        read(wav(SAMPLES, subtype="PCM_24"))
    with pytest.raises(DataError, match="32 bits in form 3"):
        read(wav(SAMPLES, subtype="FLOAT"))
    with pytest.raises(DataError, match="ends within its head"):
        read(wav(SAMPLES)[:30])
