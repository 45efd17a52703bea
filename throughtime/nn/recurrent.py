"""The recurrent layer that all models use: any cell, stacked, in one direction or two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from throughtime.cells.cell import Cell
from throughtime.cells.initial import initial_weights
from throughtime.cells.library import find_cell
from throughtime.errors import ConfigError, ShapeError
from throughtime.kernels.unroll import Choice, explain, unroll

#: For each layer, forward then backward direction, one [B, H] tensor for each state of the cell.
State = tuple[tuple[Tensor, ...], ...]


def map_state(function: Callable[[Tensor], Tensor], state: State) -> State:
    """The state with `function` applied to each of its tensors."""
    return tuple(tuple(function(value) for value in values) for values in state)


class Recurrent(nn.Module):
    """A stack of recurrences over [batch, time, feature].

    cell            a `Cell`, or the name of one in the table of cells.
    input_size      features of x.
    hidden_size     units of each layer and direction.
    layers          how many stand on each other.
    bidirectional   whether each layer also runs backwards in time; the outputs are concatenated.
    dropout         probability of dropping an output between two layers, in training only.
    backend         "auto" or a name of `throughtime.kernels.unroll.BACKENDS`.
    checkpoint_every
                    keep the states of every so many steps and compute the rest again in the backward
                    pass; "auto" takes the square root of the number of steps, None keeps everything.

    Parameters are named as torch names them (`weight_ih_l0`, `weight_hh_l0_reverse`), with a single
    `bias_l0`; learned vectors of a cell have their own names (`p_i_l0`).
    """

    def __init__(
        self,
        cell: Cell | str,
        input_size: int,
        hidden_size: int,
        *,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        backend: str = "auto",
        checkpoint_every: int | Literal["auto"] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("layers", layers)):
            if size < 1:
                raise ConfigError(f"{name} must be 1 or more, got {size}")
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout must lie in [0, 1), got {dropout}")
        self.cell = find_cell(cell) if isinstance(cell, str) else cell
        self.input_size, self.hidden_size, self.layers = input_size, hidden_size, layers
        self.bidirectional, self.dropout, self.backend = bidirectional, dropout, backend
        self.checkpoint_every = checkpoint_every
        #: What each layer puts out, [batch, time, feature], passes through here: a place for hooks.
        self.layer = nn.ModuleList(nn.Identity() for _ in range(layers))
        self.suffixes = [f"_l{k}{way}" for k in range(layers) for way in ("", "_reverse")[: self.directions]]
        for index, suffix in enumerate(self.suffixes):
            size = input_size if index < self.directions else self.output_size
            for name, value in initial_weights(self.cell, size, hidden_size, generator).items():
                self.register_parameter(name + suffix, nn.Parameter(value))

    @property
    def directions(self) -> int:
        """2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """Features of y: hidden_size for each direction."""
        return self.directions * self.hidden_size

    def begin(self, batch: int) -> State:
        """The state before the first step: zeros."""
        parameter = next(self.parameters())
        return tuple(
            tuple(parameter.new_zeros(batch, self.hidden_size) for _ in self.cell.states)
            for _ in self.suffixes
        )

    def forward(
        self,
        x: Float[Tensor, "B T I"],
        state: State | None = None,
        lengths: Int[Tensor, "B"] | None = None,
        reset: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T O"], State]:
        """Run the stack over x.

        `state` is what an earlier call returned, or zeros. `lengths` gives the real steps of each row:
        padding is not read and its y is zero; the backward direction begins at a row's last real step.
        `reset`, where True, sets a row's states to zero before that step; a bidirectional layer does
        not take it. Returns y and the state after the last step.
        """
        self._check(x, state, reset)
        state = self.begin(len(x)) if state is None else state
        y, steps_reset = x.transpose(0, 1), None if reset is None else reset.T
        after = []
        for layer in range(self.layers):
            if layer and self.dropout:
                y = F.dropout(y, self.dropout, self.training)
            outputs = []
            for way in range(self.directions):
                index = layer * self.directions + way
                turned = reverse(y, lengths) if way else y
                out, final = unroll(
                    self.cell,
                    self._weights(index),
                    turned,
                    state[index],
                    lengths,
                    steps_reset,
                    self.backend,
                    self.checkpoint_every,
                )
                outputs.append(reverse(out, lengths) if way else out)
                after.append(final)
            y = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
            y = self.layer[layer](y.transpose(0, 1)).transpose(0, 1)
        return y.transpose(0, 1), tuple(after)

    def explain(self) -> Choice:
        """Which backend runs this layer, and why not a faster one."""
        return explain(self.cell, next(self.parameters()).new_zeros(1, 1, self.input_size), self.backend)

    def extra_repr(self) -> str:
        """What `repr` shows."""
        return (
            f"{self.cell.name}, {self.input_size}, {self.hidden_size}, layers={self.layers}, "
            f"bidirectional={self.bidirectional}, dropout={self.dropout}"
        )

    def _weights(self, index: int) -> dict[str, Tensor]:
        names = self.cell.graph.weight_shapes(self.input_size, self.hidden_size)
        return {name: getattr(self, name + self.suffixes[index]) for name in names}

    def _check(self, x: Tensor, state: State | None, reset: Tensor | None) -> None:
        if x.dim() != 3 or x.shape[2] != self.input_size:
            raise ShapeError(f"x must have shape [batch, time, {self.input_size}], got {list(x.shape)}")
        if state is not None and len(state) != len(self.suffixes):
            raise ShapeError(
                f"the state must have one entry for each of {self.layers} layers and "
                f"{self.directions} directions, got {len(state)}"
            )
        if reset is not None and self.bidirectional:
            raise ShapeError("a bidirectional layer reads the future and cannot be reset within a sequence")


def reverse(x: Float[Tensor, "T B F"], lengths: Int[Tensor, "B"] | None) -> Float[Tensor, "T B F"]:
    """Each row backwards in time within its length; padding stays where it is."""
    if lengths is None:
        return x.flip(0)
    steps = torch.arange(len(x), device=x.device)[:, None]
    ends = lengths.to(x.device)
    index = torch.where(steps < ends, ends - 1 - steps, steps)
    return x.gather(0, index[..., None].expand_as(x))
