"""The forecaster: a recurrence over a context and the horizon behind it, and a distribution at each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from throughtime.cells.cell import Cell
from throughtime.errors import ConfigError
from throughtime.heads.categorical import Loss
from throughtime.heads.density import Density
from throughtime.nn.recurrent import Recurrent
from throughtime.nn.state import State, map_state

#: How a horizon is forecast: each step from the one before, or all from the context.
Horizons = Literal["recursive", "direct"]


class Windows(Protocol):
    """What is read of a batch: see `throughtime.data.windows.WindowBatch`."""

    @property
    def inputs(self) -> Tensor:
        """What is known at each step before its value is [B, T, E]."""

    @property
    def before(self) -> Tensor:
        """The two values before the first step [B, 2, C]."""

    @property
    def values(self) -> Tensor:
        """The values [B, T, C]; NaN where there is none."""

    @property
    def missing(self) -> Tensor:
        """Where a value is made up, and none to learn [B, T, C]."""

    @property
    def base(self) -> Tensor:
        """What forecasts are relative to [B, T, C]."""

    @property
    def scale(self) -> Tensor:
        """The unit of each row [B, C]."""

    @property
    def contexts(self) -> Tensor:
        """The steps of each row's context [B]; the horizon stands behind it."""


class Forecaster(nn.Module):
    """p(y_t | y_{<t}) over the steps of a horizon (Salinas et al. 2020), values y in units of their window:

        x_t = [u_t ; y_{t-1} / s ; (y_{t-1} - y_{t-2}) / s]
        h   = recurrence(x)
        y_t ~ head(h_t), with the location b_t and the scale s

    u_t is what is known at step t without y, and b_t, s are given by the window. In a "recursive" forecast
    y_{t-1} in the horizon is the true value in training (teacher forcing), else what was forecast. In a
    "direct" one it is 0 there, and every step is forecast from the context alone (Wen et al. 2017).

    inputs      features of u.
    dimensions  C of y.
    horizon     H.
    head        makes the head from its number of features and of dimensions.
    previous    b_t is y_{t-1}: what is forecast is a step. Recursive forecasts only.
    scheduled_sampling
                the probability with which, in training, y_{t-1} in the horizon is drawn from what the model
                said instead of the true one (Bengio et al. 2015). Recursive forecasts only.

    The other options are those of `Recurrent`; `dropout` also drops what the head reads.
    Raises `ConfigError` for options that do not fit each other.
    """

    def __init__(
        self,
        inputs: int,
        dimensions: int,
        horizon: int,
        *,
        head: Callable[[int, int], Density],
        horizons: Horizons = "recursive",
        previous: bool = False,
        scheduled_sampling: float = 0.0,
        cell: Cell | str = "lstm",
        hidden: int = 64,
        layers: int = 1,
        dropout: float = 0.0,
        zoneout: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= scheduled_sampling <= 1:
            raise ConfigError(f"scheduled_sampling must be in [0, 1], got {scheduled_sampling}")
        if horizons == "direct" and (previous or scheduled_sampling):
            raise ConfigError(
                "a direct forecast does not read the step before: leave out what is relative to it, and "
                "scheduled sampling, or forecast recursively"
            )
        self.horizon, self.horizons, self.previous = horizon, horizons, previous
        self.scheduled_sampling = scheduled_sampling
        self.recurrence = Recurrent(
            cell, inputs + 2 * dimensions, hidden, layers=layers, dropout=dropout, zoneout=zoneout
        )
        self.drop = nn.Dropout(dropout)
        self.head = head(hidden, dimensions)

    def loss(self, batch: Windows, state: State | None = None) -> Loss:
        """What the values of the horizon cost; windows begin anew, and `state` is not read."""
        places = self._places(batch)
        values, scale = _take(batch.values, places), batch.scale[:, None]
        truth = _take(batch.values.masked_fill(batch.missing, torch.nan), places)
        if self.training and self.scheduled_sampling:
            features, base = self._sampled(batch, values)
        else:
            y, _ = self.recurrence(self._inputs(batch), lengths=batch.contexts + self.horizon)
            features = _take(y, places)
            base = _take(self._previous(batch) if self.previous else batch.base, places)
        return self.head.loss(self.drop(features), truth, base, scale.expand_as(truth))

    @torch.no_grad()
    def points(self, batch: Windows) -> Float[Tensor, "B H C"]:
        """The mean of each step, of quantiles the median; recursively, as if those before it were it too."""
        return self._forecast(batch, self.head.point)

    @torch.no_grad()
    def paths(
        self, batch: Windows, count: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "N H C"]:
        """N futures of the only window of a batch, drawn from the distributions."""

        def draw(features: Tensor, base: Tensor, scale: Tensor) -> Tensor:
            return self.head.draw(features, base, scale, generator)

        return self._forecast(batch, draw, count)

    @torch.no_grad()
    def vectors(self, batch: Windows) -> Float[Tensor, "B F"]:
        """The last output of the recurrence over each context."""
        y, _ = self.recurrence(self._inputs(batch), lengths=batch.contexts)
        return y[torch.arange(len(y), device=y.device), batch.contexts - 1]

    def _forecast(
        self, batch: Windows, choose: Callable[[Tensor, Tensor, Tensor], Tensor], copies: int = 1
    ) -> Float[Tensor, "R H C"]:
        """The horizon of each row, or of copies of the only one, by `choose(features, base, scale)`."""
        if self.horizons == "recursive":
            return self._unroll(batch, lambda step, *given: choose(*given), copies)[2]
        places = self._places(batch)
        y, _ = self.recurrence(self._inputs(batch), lengths=batch.contexts + self.horizon)
        features, base = (each.repeat(copies, 1, 1) for each in (_take(y, places), _take(batch.base, places)))
        scale = batch.scale.repeat(copies, 1)[:, None].expand_as(base)
        chosen = choose(*(each.flatten(0, 1) for each in (features, base, scale)))
        return chosen.view(base.shape)

    def _sampled(self, batch: Windows, values: Float[Tensor, "B H C"]) -> tuple[Tensor, Tensor]:
        """What the head reads in the horizon and its base, where some of the values before are drawn."""

        def choose(step: int, features: Tensor, base: Tensor, scale: Tensor) -> Tensor:
            with torch.no_grad():
                drawn = self.head.draw(features, base, scale)
            own = torch.rand(len(drawn), 1, device=drawn.device) < self.scheduled_sampling
            return torch.where(own, drawn, values[:, step])

        return self._unroll(batch, choose)[:2]

    def _unroll(
        self, batch: Windows, choose: Callable[[int, Tensor, Tensor, Tensor], Tensor], copies: int = 1
    ) -> tuple[Float[Tensor, "R H F"], Float[Tensor, "R H C"], Float[Tensor, "R H C"]]:
        """The horizon step by step: what the head reads, its base, and the values that were chosen."""
        _, state = self.recurrence(self._inputs(batch), lengths=batch.contexts)
        state = map_state(lambda each: each.repeat(copies, 1), state)
        places = self._places(batch)
        inputs, base = (_take(each, places).repeat(copies, 1, 1) for each in (batch.inputs, batch.base))
        scale = batch.scale.repeat(copies, 1)
        recent = _take(
            self._previous(batch), batch.contexts[:, None] + torch.arange(-1, 1, device=scale.device)
        )
        older, last = recent.repeat(copies, 1, 1).unbind(1)
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for step in range(self.horizon):
            x = torch.cat([inputs[:, step], last / scale, (last - older) / scale], -1)
            features, state = self.recurrence.step(x, state)
            here = last if self.previous else base[:, step]
            older, last = last, choose(step, features, here, scale)
            found.append((features, here, last))
        features, bases, values = (torch.stack(each, 1) for each in zip(*found, strict=True))
        return features, bases, values

    def _places(self, batch: Windows) -> Int[Tensor, "B H"]:
        """The steps of each row's horizon."""
        return batch.contexts[:, None] + torch.arange(self.horizon, device=batch.contexts.device)

    def _previous(self, batch: Windows) -> Float[Tensor, "B T+1 C"]:
        """Of each step the value before it, and behind them the last one."""
        return torch.cat([batch.before[:, 1:], batch.values], 1)

    def _inputs(self, batch: Windows) -> Float[Tensor, "B T I"]:
        """x. What is not known is 0, and so is in a direct forecast what is read in the horizon."""
        whole, scale = torch.cat([batch.before, batch.values], 1), batch.scale[:, None]
        last, older = whole[:, 1:-1], whole[:, :-2]
        shown = torch.cat([last / scale, (last - older) / scale], -1)
        hidden = shown.isnan()
        if self.horizons == "direct":
            steps = torch.arange(shown.shape[1], device=shown.device)
            hidden = hidden | (steps >= batch.contexts[:, None])[..., None]
        return torch.cat([batch.inputs, shown.masked_fill(hidden, 0)], -1)


def _take(values: Float[Tensor, "B T F"], places: Int[Tensor, "B K"]) -> Float[Tensor, "B K F"]:
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[-1]))
