"""Clips as sequences of vectors: what is in each frame, and what that means among the others."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from throughtime.cells.cell import Cell
from throughtime.errors import ConfigError
from throughtime.nn.convolution import PictureGrid
from throughtime.nn.masks import padding_mask
from throughtime.nn.options import check_sizes
from throughtime.nn.recurrent import Recurrent

#: Frames that make a unit of time.
FRAMES = 10


class FrameEncoder(nn.Module):
    """x_t = [relu(W [m_1 ; ... ; m_S] + b) ; max_s m_s]: where things are in frame t, and what they are.

    The first part has the places side by side. In the second a shape is the same wherever it is.

    grid      makes the places m_s of a picture.
    size      pixels of each side of a frame.
    features  of the first part; `features` of the encoder are those of both.
    """

    def __init__(self, grid: PictureGrid, size: int, features: int) -> None:
        super().__init__()
        check_sizes(size=size, features=features)
        self.grid, self.features = grid, features + grid.features
        with torch.no_grad():
            places, _ = grid.eval()(torch.zeros(1, 3, size, size, dtype=torch.uint8))
        grid.train()
        self.join = nn.Linear(places.shape[1] * places.shape[2], features)
        nn.init.kaiming_normal_(self.join.weight, nonlinearity="relu")

    def forward(
        self, frames: UInt8[Tensor, "N 3 H W"], clips: Int[Tensor, "N"] | None = None
    ) -> Float[Tensor, "N F"]:
        """A vector for each frame, which is of a clip with the number that `clips` has for it."""
        places, _ = self.grid(frames, clips)
        return torch.cat([self.join(places.flatten(1)).relu(), places.amax(1)], -1)


class ClipEncoder(nn.Module):
    """m_t = [h_t ; x_t], h = recurrence over [x_t ; x_t - x_{t-1}], x_t what `FrameEncoder` sees in frame t.

    What changed since the frame before, zeros at the first, is given beside what is there: slow motion shows
    in it, which the recurrence alone is very slow to learn to see. What is to be seen in one frame passes the
    recurrence by, so that it need not learn to hand it through.

    frames         sees.
    cell, hidden, layers
                   of the recurrence; `hidden` are the units of both directions together.
    bidirectional  whether h_t knows of later frames too. Where it does not, frames may come one by one.
    dropout        on what the recurrence reads, between layers and on h_t, in training only.

    Raises `ConfigError` for an odd number of units in two directions.
    """

    def __init__(
        self,
        frames: FrameEncoder,
        *,
        cell: Cell | str = "lstm",
        hidden: int = 128,
        layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if bidirectional and hidden % 2:
            raise ConfigError(f"hidden is shared by two directions and must be even, got {hidden}")
        self.frames = frames
        self.recurrence = Recurrent(
            cell,
            2 * frames.features,
            hidden // 2 if bidirectional else hidden,
            layers=layers,
            bidirectional=bidirectional,
            input_dropout=dropout,
            dropout=dropout,
            output_dropout=dropout,
        )
        self.features, self.dimensions = self.recurrence.output_size + frames.features, 1

    def forward(
        self, source: UInt8[Tensor, "P T 3 H W"], lengths: Int[Tensor, "P"]
    ) -> tuple[Float[Tensor, "P T F"], Int[Tensor, "P"], Float[Tensor, "P T 1"]]:
        """The memory of each clip, how many of its steps are real, and when they are, in units of FRAMES.

        Padding is not looked at.
        """
        real = ~padding_mask(lengths, source.shape[1])
        seen = self.frames(source[real], real.nonzero()[:, 0])
        x = seen.new_zeros(*source.shape[:2], self.frames.features)
        x[real] = seen
        changed = x.diff(dim=1, prepend=x[:, :1])
        h, _ = self.recurrence(torch.cat([x, changed], -1), lengths=lengths)
        times = torch.arange(source.shape[1], device=x.device, dtype=x.dtype) / FRAMES
        return torch.cat([h, x], -1), lengths, times[:, None].expand(len(x), -1, -1)
