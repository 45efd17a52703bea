"""Where balls will be, from the frames in which they were seen."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from throughtime.cells.cell import Cell
from throughtime.heads.categorical import Loss
from throughtime.models.clips import FrameEncoder
from throughtime.nn.recurrent import Recurrent
from throughtime.nn.state import State

#: Numbers that say what the balls look like.
LOOKS = 8


class BallBatch(Protocol):
    """B clips of T frames, and where the balls are in them and in the S frames after them."""

    @property
    def frames(self) -> Tensor:
        """Red, green and blue in bytes [B, T, 3, H, W]."""

    @property
    def positions(self) -> Tensor:
        """x and y of each ball, from 0 to 1, one ball behind the other [B, T + S, 2 K]."""


class BallPredictor(nn.Module):
    """Positions from pixels, and the next ones from these:

        q_t = W_q x_t + b                              where the balls are seen, x_t what is seen in frame t
        l   = tanh(W_l mean_t x_t + b)                 what they look like: how large they are
        h_t = recurrence([p_t ; p_t - p_{t-1} ; l])    p_{t+1} = p_t + W h_t + b

    While there are frames p_t is q_t; afterwards it is what was predicted, fed back.

    encoder  sees.
    balls    K, how many there are.
    hidden   units of the recurrence.
    """

    def __init__(
        self, encoder: FrameEncoder, balls: int = 1, *, cell: Cell | str = "lstm", hidden: int = 128
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.see = nn.Linear(encoder.features, 2 * balls)
        self.look = nn.Linear(encoder.features, LOOKS)
        self.recurrence = Recurrent(cell, 4 * balls + LOOKS, hidden)
        self.move = nn.Linear(hidden, 2 * balls)
        nn.init.zeros_(self.move.weight)

    def loss(self, batch: BallBatch, state: State | None = None) -> Loss:
        """The distance to the true positions, of what is seen and of what is predicted, summed over balls.

        Predictions are those of the frame after each that was seen, and of all steps after the last one, each
        made from the one before, through which gradients go back. No state is read or comes back.
        """
        seen, steps = batch.frames.shape[1], batch.positions.shape[1]
        found, after = self._read(batch.frames, steps - seen)
        both = torch.cat([found, after], 1), torch.cat([batch.positions[:, :seen], batch.positions[:, 1:]], 1)
        distances = _distances(*both)
        return Loss(distances.sum(), distances.numel())

    @torch.no_grad()
    def predict(self, frames: UInt8[Tensor, "B T 3 H W"], steps: int) -> Float[Tensor, "B S 2K"]:
        """Where the balls will be in each of so many frames after those that were seen."""
        return self._read(frames, steps)[1][:, frames.shape[1] - 1 :]

    def _read(
        self, frames: UInt8[Tensor, "B T 3 H W"], steps: int
    ) -> tuple[Float[Tensor, "B T 2K"], Float[Tensor, "B R 2K"]]:
        """Where balls are seen, and where they are predicted in all frames from the second one on."""
        clips = torch.arange(len(frames), device=frames.device).repeat_interleave(frames.shape[1])
        x = self.encoder(frames.flatten(0, 1), clips).unflatten(0, frames.shape[:2])
        seen = self.see(x)
        looks = self.look(x.mean(1)).tanh()
        moved = seen.diff(dim=1, prepend=seen[:, :1])
        h, state = self.recurrence(torch.cat([seen, moved, looks[:, None].expand(-1, len(x[0]), -1)], -1))
        after = [*(seen + self.move(h)).unbind(1)]
        place = seen[:, -1]
        for _ in range(steps - 1):
            place, before = after[-1], place
            h, state = self.recurrence(torch.cat([place, place - before, looks], -1)[:, None], state)
            after.append(place + self.move(h[:, 0]))
        return seen, torch.stack(after, 1)


def _distances(one: Float[Tensor, "B T 2K"], other: Float[Tensor, "B T 2K"]) -> Float[Tensor, "B T K"]:
    return (one - other).unflatten(-1, (-1, 2)).square().sum(-1).add(1e-8).sqrt()
