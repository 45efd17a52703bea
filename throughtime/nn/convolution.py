"""Pictures as grids of features: a small convolutional network, and the place of each feature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from throughtime.errors import ConfigError, ShapeError
from throughtime.nn.options import check_sizes

#: Channels that `GroupNorm` takes together, where their number allows.
GROUP = 8


class Convolution(nn.Sequential):
    """Pixels [B, 3, H, W], of mean near 0, to features [B, channels[-1], H / 2^k, W / 2^k] by k layers.

    For each of k `channels` a convolution of 3 x 3 that halves both sides, and before the next another that
    keeps them, each followed by a group norm (Wu & He 2018) and a ReLU. A group norm looks at one picture
    alone, so that no picture's features depend on the batch. With k = 2 a feature is made of 11 x 11 pixels,
    with 3 of 27 x 27, and of what the norms tell of the whole picture.

    Raises `ConfigError` where there are no channels.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        if not channels:
            raise ConfigError("channels must name one number or more, as 32 64 128")
        check_sizes(channels=min(channels))
        layers: list[nn.Module] = []
        below = 3
        for depth, width in enumerate(channels, start=1):
            layers += _convolution(below, width, stride=2)
            if depth < len(channels):
                layers += _convolution(width, width, stride=1)
            below = width
        super().__init__(*layers)
        self.channels = below


def _convolution(below: int, width: int, stride: int) -> list[nn.Module]:
    groups = max(width // GROUP, 1) if width % GROUP == 0 else 1
    convolution = nn.Conv2d(below, width, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return [convolution, nn.GroupNorm(groups, width), nn.ReLU()]


class PictureGrid(nn.Module):
    """m_s = relu(W [f_s; x_s; y_s] + b) for each place s of the features f that `network` makes of a picture.

    x and y go from -1 (left, top) to 1: a feature knows where it is, which what is left or above another
    thing is told by (CoordConv, Liu et al. 2018). Places are read row by row.

    network   from pixels [B, 3, H, W] to [B, C, h, w]; its attribute `channels` is C.
    features  of each place: F.
    mean, deviation
              of red, green and blue, 0 to 1, which the pixels have taken off and are divided by.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        network: nn.Module,
        features: int,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        deviation: Sequence[float] = (0.25, 0.25, 0.25),
    ) -> None:
        super().__init__()
        check_sizes(features=features)
        self.network, self.features = network, features
        self.project = nn.Linear(int(network.channels) + 2, features)  # type: ignore[arg-type]
        for name, values in (("mean", mean), ("deviation", deviation)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, pixels: UInt8[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B S F"], tuple[int, int]]:
        """The features of each place, and how many rows and columns the places make: S = h w.

        Raises `ShapeError` where `pixels` is no batch of pictures in bytes.
        """
        if pixels.dim() != 4 or pixels.shape[1] != 3 or pixels.dtype != torch.uint8:
            raise ShapeError(
                f"pixels must be uint8 of shape [batch, 3, height, width], got {pixels.dtype} of shape "
                f"{list(pixels.shape)}"
            )
        scaled = (pixels.to(self.mean.dtype) / 255 - self.mean) / self.deviation
        found = self.network(scaled.contiguous(memory_format=torch.channels_last))
        rows, columns = found.shape[2:]
        places = torch.cat([found, _coordinates(found)], 1).flatten(2).transpose(1, 2)
        return self.project(places).relu(), (rows, columns)


def _coordinates(features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 2 h w"]:
    """Where each place is: x and y from -1 to 1, 0 where there is one place only."""
    batch, _, rows, columns = features.shape
    y, x = (
        (torch.arange(count, device=features.device, dtype=features.dtype) * 2 + 1) / count - 1
        for count in (rows, columns)
    )
    both = torch.stack([x.expand(rows, columns), y[:, None].expand(rows, columns)])
    return both.expand(batch, -1, -1, -1)
