"""Log-mel features: the mel scale in closed form, the filters, a plain transform, and streams."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from throughtime.data.features import (
    FLOOR,
    BandStatistics,
    LogMel,
    LogMelStream,
    hz_to_mel,
    mel_filters,
    mel_to_hz,
)
from throughtime.errors import ConfigError, RunError


def test_the_mel_scale_is_that_of_htk():
    assert hz_to_mel(0).item() == 0
    assert hz_to_mel(700).item() == pytest.approx(2595 * math.log10(2))
    assert hz_to_mel(6300).item() == pytest.approx(2595)
    assert hz_to_mel(1000).item() == pytest.approx(999.9855, abs=1e-3)
    hz = torch.linspace(0, 8000, 50, dtype=torch.float64)
    torch.testing.assert_close(mel_to_hz(hz_to_mel(hz)), hz)


@pytest.mark.parametrize(("rate", "mels"), [(8000, 40), (16000, 80), (44100, 64), (4000, 12)])
def test_filters_are_triangles_that_add_to_one_between_the_centres(rate, mels):
    size = LogMel(rate, mels)._size
    filters = mel_filters(rate, size, mels)
    edges = mel_to_hz(torch.linspace(hz_to_mel(20).item(), hz_to_mel(rate / 2).item(), mels + 2))
    hz = torch.arange(size // 2 + 1) * rate / size
    inside = (hz >= edges[1]) & (hz <= edges[-2])
    torch.testing.assert_close(filters[inside].sum(1), torch.ones(int(inside.sum())))
    # A triangle in plain words.
    k, m = int(filters[:, mels // 2].argmax()), mels // 2
    low, centre, high = edges[m : m + 3].tolist()
    f = hz[k].item()
    expected = (f - low) / (centre - low) if f <= centre else (high - f) / (high - centre)
    assert filters[k, m].item() == pytest.approx(expected, abs=1e-6)
    assert filters[(hz <= low) | (hz >= high), m].abs().max() == 0


def test_too_many_bands_are_refused():
    with pytest.raises(ConfigError, match="400 mel bands are too many at 8000 Hz"):
        LogMel(8000, 400)
    with pytest.raises(ConfigError, match="1000 or more"):
        LogMel(999, 4)


def test_frames_are_those_of_a_plain_transform():
    features = LogMel(8000, 40)
    x = np.random.default_rng(0).standard_normal(1000) * 0.1
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(200) / 200)
    filters = mel_filters(8000, 512, 40).double().numpy()
    expected = [
        np.log(np.abs(np.fft.rfft(window * x[at : at + 200], 512)) ** 2 @ filters + FLOOR)
        for at in range(0, 801, 80)
    ]
    found = features(torch.from_numpy(x).float())
    assert found.shape == (11, 40) and features.frames(1000) == 11
    np.testing.assert_allclose(found.numpy(), np.array(expected), atol=2e-4)


def test_a_tone_is_loudest_in_its_band():
    features = LogMel(16000, 40)
    edges = mel_to_hz(torch.linspace(hz_to_mel(20).item(), hz_to_mel(8000).item(), 42))
    for band in (5, 20, 35):
        tone = torch.sin(2 * math.pi * edges[band + 1].float() * torch.arange(1600) / 16000)
        assert (features(tone).argmax(1) == band).all()


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (199, 0), (200, 1), (279, 1), (280, 2)])
def test_a_frame_needs_its_whole_window(samples, frames):
    features = LogMel(8000, 20)
    assert features(torch.randn(samples)).shape == (frames, 20)
    assert features.frames(samples) == frames


@given(st.lists(st.integers(0, 900), max_size=8), st.sampled_from([8000, 11025]))
def test_frames_in_pieces_are_those_of_the_whole(sizes, rate):
    features = LogMel(rate, 20, [0.5] * 20, [2.0] * 20)
    x = torch.randn(sum(sizes), generator=torch.Generator().manual_seed(0))
    stream = LogMelStream(features)
    pieces = [stream.feed(piece) for piece in x.split(sizes)] if sizes else [stream.feed(x)]
    torch.testing.assert_close(torch.cat(pieces), features(x), rtol=0, atol=1e-5)


def test_statistics_make_the_training_data_normal():
    features, statistics = LogMel(8000, 20), BandStatistics(20)
    sounds = [torch.randn(n) * scale for n, scale in ((3000, 0.1), (100, 1), (900, 0.01))]
    for sound in sounds:
        statistics.add(features(sound))
    whole = torch.cat([features(sound) for sound in sounds]).double()
    torch.testing.assert_close(statistics.mean, whole.mean(0))
    torch.testing.assert_close(statistics.deviation, whole.std(0, correction=0))
    normal = LogMel(8000, 20, statistics.mean.tolist(), statistics.deviation.tolist())
    frames = torch.cat([normal(sound) for sound in sounds])
    torch.testing.assert_close(frames.mean(0), torch.zeros(20), atol=1e-4, rtol=0)
    torch.testing.assert_close(frames.std(0, correction=0), torch.ones(20), atol=1e-4, rtol=0)


def test_a_band_that_never_changes_is_not_divided_by_nothing():
    statistics = BandStatistics(2)
    statistics.add(torch.tensor([[1.0, 2.0], [1.0, 4.0]]))
    assert statistics.deviation.tolist() == [1, 1]
    assert BandStatistics(2).deviation.tolist() == [1, 1]


def test_features_come_back_from_json():
    features = LogMel(8000, 20, [0.25] * 20, [3.0] * 20)
    x = torch.randn(1000)
    assert (LogMel.from_json(features.to_json())(x) == features(x)).all()
    for damage in ({"mean": [0.0]}, {"rate": "fast"}, {"rate": 1}, {"mels": None}):
        with pytest.raises(RunError, match="features is damaged"):
            LogMel.from_json(features.to_json() | damage)
