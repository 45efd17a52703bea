"""Pictures as grids of features: a small convolutional network, and the place of each feature."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from throughtime.errors import ConfigError, ShapeError
from throughtime.nn.options import check_sizes


class Convolution(nn.Sequential):
    """Pixels [B, 3, H, W], of mean near 0, to features [B, channels[-1], H / 2^k, W / 2^k] by k layers.

    For each of k `channels` a convolution of 3 x 3 and the largest of 2 x 2, and before the next another
    convolution, each followed by a batch norm (Ioffe & Szegedy 2015) and a ReLU. A feature is made of
    5 * 2^k - 6 pixels a side, 14 with k = 2 and 34 with 3, in whose middle is its place, and of nothing else:
    once trained, the norm does not look at the picture. Where 2^k does not divide a side, places are rounded
    up.

    Raises `ConfigError` where there are no channels.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        if not channels:
            raise ConfigError("channels must name one number or more, as 32 64 128")
        check_sizes(channels=min(channels))
        layers: list[nn.Module] = []
        for below, width in pairwise([3, *channels]):
            if layers:
                layers += _convolution(below, below)
            layers += [*_convolution(below, width), nn.MaxPool2d(2, ceil_mode=True)]
        super().__init__(*layers)
        self.channels = channels[-1]


def _convolution(below: int, width: int) -> list[nn.Module]:
    convolution = nn.Conv2d(below, width, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(width), nn.ReLU()]


class PictureGrid(nn.Module):
    """m_s = relu(W [f_s; x_s; y_s] + b) for each place s of the features f that `network` makes of a picture.

    x and y go from -1 (left, top) to 1: a feature knows where it is, which what is left or above another
    thing is told by (CoordConv, Liu et al. 2018). Places are read row by row.

    In training half of the pictures are mirrored, and their features back: what is on the left stays there. A
    network alone may learn to tell of each place what is eight pixels right of it, which serves as well; a
    mirrored one then tells what is left of it. Frames of a clip are mirrored together or not at all.

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

    def forward(
        self, pixels: UInt8[Tensor, "B 3 H W"], clips: Int[Tensor, "B"] | None = None
    ) -> tuple[Float[Tensor, "B S F"], Float[Tensor, "S 2"]]:
        """The features of each of S = h w places, and their x and y.

        Where pictures are frames, `clips` has of each the number of its clip, below B.

        Raises `ShapeError` where `pixels` is no batch of pictures in bytes.
        """
        if pixels.dim() != 4 or pixels.shape[1] != 3 or pixels.dtype != torch.uint8:
            raise ShapeError(
                f"pixels must be uint8 of shape [batch, 3, height, width], got {pixels.dtype} of shape "
                f"{list(pixels.shape)}"
            )
        scaled = (pixels.to(self.mean.dtype) / 255 - self.mean) / self.deviation
        found = self._find(clips, scaled.contiguous(memory_format=torch.channels_last))
        y, x = (middles(count, found) for count in found.shape[2:])
        places = torch.cartesian_prod(y, x).flip(-1)
        seen = found.flatten(2).transpose(1, 2)
        return self.project(torch.cat([seen, places.expand(len(seen), -1, -1)], -1)).relu(), places

    def _find(
        self, clips: Int[Tensor, "B"] | None, pixels: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B C h w"]:
        """The features of the network."""
        if not self.training:
            return self.network(pixels)
        mirrored = torch.rand(len(pixels), device=pixels.device) < 0.5
        mirrored = (mirrored if clips is None else mirrored[clips])[:, None, None, None]
        found = self.network(torch.where(mirrored, pixels.flip(-1), pixels))
        return torch.where(mirrored, found.flip(-1), found)


def middles(count: int, like: Tensor) -> Float[Tensor, "count"]:
    """The middles of so many equal parts of the line from -1 to 1, as numbers of the kind of `like`."""
    return (torch.arange(count, device=like.device, dtype=like.dtype) * 2 + 1) / count - 1
