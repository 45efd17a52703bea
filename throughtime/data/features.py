"""Sound as a model of speech reads it: the logarithm of the energy in bands of the mel scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from throughtime.errors import ConfigError, RunError

#: Seconds that a frame looks at, and seconds from one frame to the next.
WINDOW, HOP = 0.025, 0.010
#: Hz where the lowest band begins.
LOWEST = 20.0
#: Added to each energy before its logarithm: about what rounding to 16 bits makes.
FLOOR = 1e-6


def hz_to_mel(hz: Tensor | float) -> Tensor:
    """2595 log10(1 + f / 700)."""
    return 2595 * torch.log10(1 + torch.as_tensor(hz, dtype=torch.float64) / 700)


def mel_to_hz(mel: Tensor | float) -> Tensor:
    """700 (10^(m / 2595) - 1)."""
    return 700 * (10 ** (torch.as_tensor(mel, dtype=torch.float64) / 2595) - 1)


def mel_filters(rate: int, size: int, mels: int) -> Float[Tensor, "F M"]:
    """Triangles over the size/2 + 1 frequencies of a Fourier transform.

    Band m rises from 0 at mel c_{m-1} to 1 at c_m and falls to 0 at c_{m+1}, in Hz; the c are evenly spaced
    on the mel scale from 20 Hz to half the rate. Raises `ConfigError` where a band holds no frequency.
    """
    edges = mel_to_hz(torch.linspace(hz_to_mel(LOWEST).item(), hz_to_mel(rate / 2).item(), mels + 2))
    hz = torch.arange(size // 2 + 1, dtype=torch.float64)[:, None] * rate / size
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    filters = torch.minimum((hz - low) / (centre - low), (high - hz) / (high - centre)).clamp(min=0)
    if not (filters > 0).any(0).all():
        raise ConfigError(f"{mels} mel bands are too many at {rate} Hz, for some would be empty: take fewer")
    return filters.float()


class LogMel:
    """Log-mel features of a sound, T = 1 + (N - window) // hop frames of `mels` numbers:

        S_t = |FFT(w ⊙ x[t hop : t hop + window])|²        x_t = (log(S_t M + 1e-6) - mean) / deviation

    where w is Hann's window of 25 ms, a hop is 10 ms, and M has the triangles of `mel_filters`; the Fourier
    transform is padded to twice the next power of 2. A frame reads no sample that has not been heard, so
    that frames can be made while the sound comes in, and a sound shorter than a window has none.

    rate             samples a second; at least 1000.
    mean, deviation  of each band over the training data; 0 and 1 where not given.
    """

    def __init__(
        self, rate: int, mels: int, mean: list[float] | None = None, deviation: list[float] | None = None
    ) -> None:
        if rate < 1000:
            raise ConfigError(
                f"a sound of {rate} samples a second holds no speech: give a rate of 1000 or more"
            )
        self.rate, self.mels = rate, mels
        self.window, self.hop = round(WINDOW * rate), round(HOP * rate)
        self._size = 1 << (2 * self.window - 1).bit_length()
        self._hann = torch.hann_window(self.window)
        self._filters = mel_filters(rate, self._size, mels)
        self.mean = torch.zeros(mels) if mean is None else torch.tensor(mean)
        self.deviation = torch.ones(mels) if deviation is None else torch.tensor(deviation)

    def frames(self, samples: int) -> int:
        """How many frames a sound of so many samples has."""
        return max(0, 1 + (samples - self.window) // self.hop)

    def __call__(self, samples: Float[Tensor, "N"]) -> Float[Tensor, "T M"]:
        """The features of a sound, or of a piece of it that begins where a frame does."""
        if not self.frames(len(samples)):
            return torch.zeros(0, self.mels)
        # The window stands in the middle of the transform; what is beside it is multiplied by 0.
        before = (self._size - self.window) // 2
        padded = F.pad(samples, (before, self._size - self.window - before))
        spectrum = torch.stft(
            padded, self._size, self.hop, self.window, self._hann, center=False, return_complex=True
        )
        energy = (spectrum.real.square() + spectrum.imag.square()).T @ self._filters
        return ((energy + FLOOR).log() - self.mean) / self.deviation

    def seconds(self, frame: float) -> float:
        """Where a frame begins."""
        return frame * self.hop / self.rate

    def to_json(self) -> dict[str, Any]:
        """Everything that `from_json` needs."""
        return {
            "rate": self.rate,
            "mels": self.mels,
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LogMel:
        """The features that `to_json` described; raises `RunError` where the description is damaged."""
        try:
            made = cls(data["rate"], data["mels"], data["mean"], data["deviation"])
            if made.mean.shape != (made.mels,) or made.deviation.shape != (made.mels,):
                raise ValueError("the statistics are not one for each band")
            return made
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise RunError(f"the description of the features is damaged: {error}") from None


class LogMelStream:
    """The frames of `features` as the sound comes in: those of all pieces together are those of the whole.

    `rest` holds the samples from the beginning of the next frame on.
    """

    def __init__(self, features: LogMel) -> None:
        self.features = features
        self.rest = torch.zeros(0)

    def feed(self, samples: Float[Tensor, "N"]) -> Float[Tensor, "T M"]:
        """The frames that these samples complete."""
        self.rest = torch.cat([self.rest, samples])
        frames = self.features(self.rest)
        self.rest = self.rest[len(frames) * self.features.hop :]
        return frames


class BandStatistics:
    """Mean and standard deviation of each band, gathered sound by sound in double precision."""

    def __init__(self, mels: int) -> None:
        self.count = 0
        self.mean, self.squares = (
            torch.zeros(mels, dtype=torch.float64),
            torch.zeros(mels, dtype=torch.float64),
        )

    def add(self, frames: Float[Tensor, "T M"]) -> None:
        """The frames of one more sound (Chan, Golub & LeVeque 1979)."""
        if not len(frames):
            return
        values, count = frames.double(), len(frames)
        apart = values.mean(0) - self.mean
        self.squares += (values - values.mean(0)).square().sum(0)
        self.squares += apart.square() * self.count * count / (self.count + count)
        self.mean += apart * count / (self.count + count)
        self.count += count

    @property
    def deviation(self) -> Tensor:
        """Of each band; 1 where it never changes."""
        found = (self.squares / max(self.count, 1)).sqrt()
        return torch.where(found > 1e-3, found, 1.0)
