"""The recurrent layer that all models use: any cell, stacked, in one direction or two."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from throughtime.cells.cell import Cell
from throughtime.cells.expression import LAYER_NORM_EPSILON
from throughtime.cells.initial import glorot, initial_weights
from throughtime.cells.library import find_cell
from throughtime.cells.transform import (
    batch_statistics,
    expected_zoneout,
    learned_begin,
    recurrent_dropout,
    zoneout,
)
from throughtime.errors import ConfigError, ShapeError
from throughtime.kernels.unroll import Choice, explain, unroll
from throughtime.nn.dropout import chance, drop_steps, drop_weights, keep_mask
from throughtime.nn.hooks import OUTSIDE, QuantityHook, StateHook, unroll_seen
from throughtime.nn.options import (
    RATES,
    Connection,
    Merge,
    check_backend,
    check_choices,
    check_rates,
    check_sizes,
    check_widths,
    count_layers,
    for_each,
)
from throughtime.nn.state import State
from throughtime.nn.time import reverse, steps_since


class Recurrent(nn.Module):
    """A stack of recurrences over [batch, time, feature].

    cell            a `Cell`, or the name of one in the table of cells; or one for each layer.
    input_size      features of x.
    hidden_size     units of each direction; or of each layer's directions.
    layers          how many stand on each other; as many as the lists above have, or 1.
    bidirectional   whether each layer also runs backwards in time.
    merge           what a layer puts out of two directions: both ("concat"), their "sum" or their "mean".
    connection      how the input x of a layer beyond the first joins its output y: not at all (None);
                    "residual", y + x (He et al. 2016); "highway", t ⊙ y + (1 - t) ⊙ x with the gate
                    t = σ(W x + b), b beginning at -1 (Srivastava, Greff & Schmidhuber 2015).
    learned_state   whether the state before the first step, and after a reset, is learned instead of zero.

    In training only, each the probability with which something is dropped:

    input_dropout, dropout, output_dropout
                    a feature of x, of what one layer gives the next, of y; `variational` drops the same
                    features at all steps of a row (Gal & Ghahramani 2016).
    recurrent_dropout
                    a unit of what recurrent matrices multiply, the same at all steps of a row.
    weight_dropout  an entry of a recurrent matrix, the same for all rows and steps (Merity et al. 2017).
    zoneout         a unit's change at a step: it keeps the value it had (Krueger et al. 2016). A rate for
                    all states or for each by name, {"h": 0.05, "c": 0.5}. In evaluation the mean of both.

    norm_steps      the first steps for which a cell with `batch_norm` has statistics; later ones share the
                    last.
    backend         "auto" or a name of `throughtime.kernels.unroll.BACKENDS`.
    checkpoint_every
                    keep the states of every so many steps and compute the rest again in the backward
                    pass; "auto" takes the square root of the number of steps, None keeps everything.
    generator       draws the first weights.

    Parameters are named as torch names them (`weight_ih_l0`, `weight_hh_l0_reverse`), with a single
    `bias_l0`; learned vectors of a cell have their own names (`p_i_l0`), learned initial states are
    `initial_h_l0`, and the gates of highway connections are `highway.0` for the second layer.
    Raises `ConfigError` for options that do not fit each other.
    """

    def __init__(
        self,
        cell: Cell | str | Sequence[Cell | str],
        input_size: int,
        hidden_size: int | Sequence[int],
        *,
        layers: int | None = None,
        bidirectional: bool = False,
        merge: Merge = "concat",
        connection: Connection | None = None,
        learned_state: bool = False,
        input_dropout: float = 0.0,
        dropout: float = 0.0,
        output_dropout: float = 0.0,
        variational: bool = False,
        recurrent_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        zoneout: float | Mapping[str, float] = 0.0,
        norm_steps: int = 100,
        backend: str = "auto",
        checkpoint_every: int | Literal["auto"] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.layers = count_layers(cell, hidden_size, layers)
        self.cells = [
            each if isinstance(each, Cell) else find_cell(each) for each in for_each(cell, self.layers)
        ]
        self.input_size, self.hidden_sizes = input_size, for_each(hidden_size, self.layers)
        self.bidirectional, self.merge, self.connection = bidirectional, merge, connection
        self.learned_state, self.variational = learned_state, variational
        self.input_dropout, self.dropout, self.output_dropout = input_dropout, dropout, output_dropout
        self.recurrent_dropout, self.weight_dropout, self.zoneout = recurrent_dropout, weight_dropout, zoneout
        self.norm_steps, self.backend, self.checkpoint_every = norm_steps, backend, checkpoint_every
        #: What each layer puts out, [batch, time, feature], passes through here: a place for hooks.
        self.layer = nn.ModuleList(nn.Identity() for _ in range(self.layers))
        self.suffixes = [
            f"_l{k}{way}" for k in range(self.layers) for way in ("", "_reverse")[: self.directions]
        ]
        check_sizes(input_size=input_size, norm_steps=norm_steps, hidden_size=min(self.hidden_sizes))
        check_backend(backend)
        check_choices(merge, connection)
        check_rates(self.cells, {name: getattr(self, name) for name in RATES})
        check_widths(connection, [self._width(layer) for layer in range(1, self.layers + 1)])
        self._make_parameters(generator)
        self._hooks: dict[int, StateHook | QuantityHook] = OrderedDict()
        self._prepare()

    def _make_parameters(self, generator: torch.Generator | None) -> None:
        for index, suffix in enumerate(self.suffixes):
            layer = index // self.directions
            cell, units = self.cells[layer], self.hidden_sizes[layer]
            for name, value in initial_weights(cell, self._width(layer), units, generator).items():
                self.register_parameter(name + suffix, nn.Parameter(value))
            for state in cell.graph.driven if self.learned_state else ():
                self.register_parameter(f"initial_{state}{suffix}", nn.Parameter(torch.zeros(units)))
            for name, kind in cell.graph.given.items():
                if kind == "table":
                    table = name.replace("scale ", "variance ")
                    begin = torch.zeros if table == name else torch.ones
                    self.register_buffer(table.replace(" ", "_") + suffix, begin(self.norm_steps, units))
        if self.connection == "highway":
            self.highway = nn.ModuleList()
            for layer in range(1, self.layers):
                gate = nn.Linear(self._width(layer), self._width(layer + 1))
                gate.weight.data = glorot(gate.out_features, gate.in_features, generator)
                nn.init.constant_(gate.bias, -1.0)
                self.highway.append(gate)

    @property
    def directions(self) -> int:
        """2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """Features of y."""
        return self._width(self.layers)

    def _width(self, layer: int) -> int:
        """Features of what a layer reads."""
        if layer == 0:
            return self.input_size
        return self.hidden_sizes[layer - 1] * (self.directions if self.merge == "concat" else 1)

    def begin(self, batch: int) -> State:
        """The state before the first step: zeros, or what was learned."""
        parameter = next(self.parameters())
        return tuple(
            tuple(
                getattr(self, f"initial_{name}{suffix}").expand(batch, -1)
                if self.learned_state and name in self.cells[index // self.directions].graph.driven
                else parameter.new_zeros(batch, self.hidden_sizes[index // self.directions])
                for name in self.cells[index // self.directions].states
            )
            for index, suffix in enumerate(self.suffixes)
        )

    def forward(
        self,
        x: Float[Tensor, "B T I"],
        state: State | None = None,
        lengths: Int[Tensor, "B"] | None = None,
        reset: Bool[Tensor, "B T"] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "B T O"], State]:
        """Run the stack over x.

        `state` is what an earlier call returned, or `begin`. `lengths` gives the real steps of each row:
        padding is not read and its y is zero; the backward direction begins at a row's last real step.
        `reset`, where True, lets a row begin anew before that step; a bidirectional layer does not take
        it. `generator` draws what is dropped in training. Returns y and the state after the last step.
        """
        outputs, after = self.all_layers(x, state, lengths, reset, generator)
        return outputs[-1], after

    def all_layers(
        self,
        x: Float[Tensor, "B T I"],
        state: State | None = None,
        lengths: Int[Tensor, "B"] | None = None,
        reset: Bool[Tensor, "B T"] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[list[Float[Tensor, "B T F"]], State]:
        """`forward` that returns the output of every layer, the first layer's first."""
        self._check(x, state, reset)
        if self._prepared_for != self._options_of_cells():  # who anneals a rate sets it between calls
            self._prepare()
        if torch.is_autocast_enabled(x.device.type):  # recurrences accumulate, and keep their precision
            x = x.to(next(self.parameters()).dtype)
        state = self.begin(len(x)) if state is None else state
        reset = None if reset is None else reset.T
        outputs: list[Tensor] = []
        after = []
        for layer, shown in enumerate(self.layer):
            below = (outputs[-1] if layer else x).transpose(0, 1)
            y = self._drop(below, self.dropout if layer else self.input_dropout, generator)
            ways = []
            for way in range(self.directions):
                index = layer * self.directions + way
                out, final = self._direction(index, y, state[index], lengths, reset, generator, bool(way))
                ways.append(out)
                after.append(final)
            y = self._connect(layer, below, self._merge(ways))
            if layer == self.layers - 1:
                y = self._drop(y, self.output_dropout, generator)
            outputs.append(shown(y.transpose(0, 1)))
        return outputs, tuple(after)

    def step(
        self, x: Float[Tensor, "B I"], state: State | None = None, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "B O"], State]:
        """One step of a stream: y_t and the state after it, from x_t and the state before.

        Steps one after the other give what `forward` gives for all at once. Raises `ConfigError` for a
        bidirectional layer, which needs the future.
        """
        if self.bidirectional:
            raise ConfigError("a bidirectional layer reads the future and has no single step")
        if x.dim() != 2:
            raise ShapeError(f"x must have shape [batch, {self.input_size}], got {list(x.shape)}")
        y, state = self(x.unsqueeze(1), state, generator=generator)
        return y.squeeze(1), state

    def step_layer(
        self,
        x: Float[Tensor, "B I"],
        state: tuple[Float[Tensor, "B H"], ...],
        layer: int = 0,
        reverse: bool = False,
    ) -> tuple[Float[Tensor, "B H"], ...]:
        """The states of one direction of one layer after a step, from those before and what the layer reads.

        Raises `ConfigError` where there is no such layer.
        """
        return self._direction(self._index(layer, reverse), x[None], state, None, None, None, turned=False)[1]

    def register_state_hook(
        self,
        hook: Callable[..., Any],
        state: str = "h",
        layer: int = 0,
        step: int | None = None,
        reverse: bool = False,
        per_call: bool = False,
    ) -> RemovableHandle:
        """Call `hook` in each `backward()` with the gradient of the loss by a state, in evaluation too.

        That is dL/dh_t through y_t and through everything after step t: [B, H] for a `step`, which counts
        from the last of T where it is negative, or [B, T, H] for all of them. In the backward direction
        (`reverse`) step t is still that of x_t. Padding has gradient zero. Several backward passes of one
        forward pass call it once each; `torch.autograd.grad`, which computes no more than it is asked for,
        does not, but where torch's own layer runs. With `per_call` the hook is called in each forward pass
        instead, without arguments, and gives what is called with the gradient of that pass. Raises
        `ConfigError` where there is no such state.
        """
        index = self._index(layer, reverse)
        if state not in self.cells[layer].states:
            raise ConfigError(
                f'cell "{self.cells[layer].name}" has no state "{state}": it has '
                f"{', '.join(self.cells[layer].states)}"
            )
        return self._add(StateHook(hook, index, state, step, per_call))

    def register_quantity_hook(
        self,
        hook: Callable[[dict[str, Tensor], Tensor | None], object],
        names: Collection[str],
        layer: int = 0,
        reverse: bool = False,
    ) -> RemovableHandle:
        """Call `hook` in each forward pass with quantities of a layer at all steps, [B, T, H] each, by name.

        It also gets the lengths of the rows [B], or None where all are full.

        `names` are those of `cell.graph.quantities`: states, gates, and the values of maps as "a_i"; "x",
        what the layer reads; and "reset" [B, T, 1], which is 1 at the steps before which a row begins anew.
        They are shown as they were, in the order of x in both directions, without gradients, zero in padding,
        and may be views of what the backward pass needs: copy what is to stay. What the layer puts out is the
        same to the last bit. A backend that keeps them for the backward pass shows these; what it does not
        keep is computed once more. Raises `ConfigError` where there is no such layer or quantity.
        """
        index, cell = self._index(layer, reverse), self.cells[layer]
        known = [*cell.graph.quantities, *OUTSIDE]
        if unknown := [name for name in names if name not in known]:
            raise ConfigError(f'cell "{cell.name}" has no quantity "{unknown[0]}": it has {", ".join(known)}')
        return self._add(QuantityHook(hook, index, tuple(names)))

    def _add(self, hook: StateHook | QuantityHook) -> RemovableHandle:
        handle = RemovableHandle(self._hooks)
        self._hooks[handle.id] = hook
        return handle

    def _index(self, layer: int, reverse: bool) -> int:
        """The number of a layer's direction; raises `ConfigError` where there is none."""
        if not (0 <= layer < self.layers and reverse < self.directions):
            raise ConfigError(
                f"there is no layer {layer}{' in reverse' * reverse}: there are {self.suffixes}"
            )
        return layer * self.directions + reverse

    def explain(self, layer: int = 0) -> Choice:
        """Which backend runs a layer, and why not a faster one."""
        x = next(self.parameters()).new_zeros(1, 1, self._width(layer))
        return explain(self._prepared[self.training, False][layer], x, self.backend)

    def extra_repr(self) -> str:
        """What `repr` shows: the sizes, and the options that are not at their defaults."""
        names, sizes = (
            " ".join(each if len(set(each)) > 1 else each[:1])
            for each in ([cell.name for cell in self.cells], list(map(str, self.hidden_sizes)))
        )
        shown = [names, str(self.input_size), sizes, f"layers={self.layers}"]
        options = {"bidirectional": False, "merge": "concat", "connection": None, "learned_state": False}
        options |= dict.fromkeys(RATES, 0.0) | {"variational": False}
        shown += [f"{n}={getattr(self, n)}" for n, default in options.items() if getattr(self, n) != default]
        return ", ".join(shown)

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in super().__getstate__().items() if name != "_prepared"}
        return kept | {"_hooks": OrderedDict()}  # a copy is not looked at

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._prepare()

    def _prepare(self) -> None:
        """The cells of the layers as they are run: in training or not, with a learned begin or not."""
        made: dict[bool, list[Cell]] = {False: [], True: []}
        for cell in self.cells:
            rates = self._zoneout_rates(cell)
            made[False].append(expected_zoneout(cell, rates) if rates else cell)
            trained = batch_statistics(cell) if "table" in cell.graph.given.values() else cell
            trained = recurrent_dropout(trained) if self.recurrent_dropout else trained
            made[True].append(zoneout(trained, rates) if rates else trained)
        self._prepared_for = self._options_of_cells()
        self._names = [
            {name: name + suffix for name in self.cells[index // self.directions].graph.weights}
            for index, suffix in enumerate(self.suffixes)
        ]
        self._prepared: dict[tuple[bool, bool], list[Cell]] = {}
        for training, cells in made.items():
            self._prepared[training, False] = cells
            if self.learned_state:
                self._prepared[training, True] = [learned_begin(cell) for cell in cells]
        for cells in self._prepared.values():
            for cell in cells:
                _ask_before_compiling(cell)

    def _options_of_cells(self) -> tuple[object, ...]:
        """What the prepared cells depend on."""
        zoneout = dict(self.zoneout) if isinstance(self.zoneout, Mapping) else self.zoneout
        return zoneout, bool(self.recurrent_dropout), self.learned_state

    def _zoneout_rates(self, cell: Cell) -> dict[str, float]:
        if isinstance(self.zoneout, Mapping):
            return {name: rate for name, rate in self.zoneout.items() if rate and name in cell.states}
        return dict.fromkeys(cell.graph.driven, self.zoneout) if self.zoneout else {}

    def _direction(
        self,
        index: int,
        x: Float[Tensor, "T B I"],
        state: tuple[Tensor, ...],
        lengths: Tensor | None,
        reset: Tensor | None,
        generator: torch.Generator | None,
        turned: bool,
    ) -> tuple[Float[Tensor, "T B H"], tuple[Tensor, ...]]:
        """One layer in one direction, which is `turned` where it runs backwards in time.

        In the output, step t is that of x in both directions.
        """
        layer = index // self.directions
        cell, units = self._prepared[self.training, False][layer], self.hidden_sizes[layer]
        weights = self._weights(index, generator)
        given = self._given(index, cell, x, state, reset, generator)
        if self.learned_state and reset is not None:
            cell = self._prepared[self.training, True][layer]
            weights |= {
                name: getattr(self, name.replace(" ", "_") + self.suffixes[index])
                for name in cell.graph.vectors
                if name not in weights
            }
            given["reset"] = reset[..., None].to(x.dtype).expand(*x.shape[:2], units)
        hooks = self._hooks and [hook for hook in self._hooks.values() if hook.index == index]
        y, final = (partial(unroll_seen, hooks, turned) if hooks else unroll)(
            cell,
            weights,
            reverse(x, lengths) if turned else x,
            state,
            lengths,
            reset,
            self.backend,
            self.checkpoint_every,
            given,
        )
        return reverse(y, lengths) if turned else y, final

    def _weights(self, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        own: dict[str, Any] = self._parameters  # faster than getattr, which finds what was parametrized
        weights = {
            name: own[attribute] if attribute in own else getattr(self, attribute)
            for name, attribute in self._names[index].items()
        }
        if self.training and self.weight_dropout:
            weights["weight_hh"] = drop_weights(weights["weight_hh"], self.weight_dropout, generator)
        return weights

    def _given(
        self,
        index: int,
        cell: Cell,
        x: Tensor,
        state: tuple[Tensor, ...],
        reset: Tensor | None,
        generator: torch.Generator | None,
    ) -> dict[str, Tensor]:
        """What a layer gives its cell: masks for recurrent dropout and zoneout, statistics of batch norm."""
        given: dict[str, Tensor] = {}
        if not cell.graph.given:
            return given
        units = self.hidden_sizes[index // self.directions]
        for name, shape in cell.graph.given_shapes(x.shape[0], x.shape[1], units).items():
            use, _, of = name.partition(" ")
            match use:
                case "zoneout":
                    rate = self._zoneout_rates(cell)[of]
                    given[name] = chance(shape, rate, x.device, generator).to(x.dtype)
                case "dropout":
                    given[name] = keep_mask(x, shape, self.recurrent_dropout, generator)
                case "step":
                    count = state[cell.states.index("t")][:, 0]
                    rows = min(len(given[n]) for n, kind in cell.graph.given.items() if kind == "table")
                    given[name] = steps_since(count, reset, len(x)).clamp(0, rows - 1)
                case "scale":
                    variance = getattr(self, f"variance_{of}{self.suffixes[index]}")
                    given[name] = torch.rsqrt(variance + LAYER_NORM_EPSILON)
                case _:
                    given[name] = getattr(self, f"{use}_{of}{self.suffixes[index]}")
        return given

    def _drop(self, y: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
        return drop_steps(y, rate, self.variational, generator) if self.training and rate else y

    def _merge(self, ways: list[Tensor]) -> Tensor:
        """One output of one direction or two."""
        if len(ways) == 1:
            return ways[0]
        if self.merge == "concat":
            return torch.cat(ways, -1)
        total = ways[0] + ways[1]
        return total if self.merge == "sum" else total / 2

    def _connect(self, layer: int, x: Tensor, y: Tensor) -> Tensor:
        """The output of a layer with its input, as the connection joins them."""
        if layer == 0 or self.connection is None:
            return y
        if self.connection == "residual":
            return y + x
        gate = torch.sigmoid(self.highway[layer - 1](x))
        return torch.lerp(x, y, gate)

    def _check_state(self, state: State) -> None:
        if isinstance(state, Tensor) or any(isinstance(values, Tensor) for values in state):
            raise ShapeError(
                "the state must hold a tuple of tensors for each layer and direction, as an earlier call "
                "returned it; for one layer that is ((h, c),) and not (h, c)"
            )
        if len(state) != len(self.suffixes):
            raise ShapeError(
                f"the state must have one entry for each of {self.layers} layers and "
                f"{self.directions} directions, got {len(state)}"
            )
        for index, values in enumerate(state):
            cell = self.cells[index // self.directions]
            if len(values) != len(cell.states):
                raise ShapeError(
                    f'layer {index // self.directions} has the cell "{cell.name}" with {len(cell.states)} '
                    f"states ({', '.join(cell.states)}), got {len(values)}"
                )

    def _check(self, x: Tensor, state: State | None, reset: Tensor | None) -> None:
        if not isinstance(x, Tensor):
            raise ShapeError(
                f"x must be a tensor [batch, time, {self.input_size}], got {type(x).__name__}; sequences of "
                "different lengths are padded, and given with lengths="
            )
        if x.dim() != 3 or x.shape[2] != self.input_size or not x.is_floating_point():
            raise ShapeError(
                f"x must be floating point of shape [batch, time, {self.input_size}], "
                f"got {x.dtype} of shape {list(x.shape)}"
            )
        if state is not None:
            self._check_state(state)
        if reset is not None and self.bidirectional:
            raise ShapeError("a bidirectional layer reads the future and cannot be reset within a sequence")
        if reset is not None and (reset.shape != x.shape[:2] or reset.dtype != torch.bool):
            raise ShapeError(
                f"reset must be bool of shape [batch, time] = {list(x.shape[:2])}, "
                f"got {reset.dtype} of shape {list(reset.shape)}"
            )


def _ask_before_compiling(cell: Cell) -> None:
    """Make what a call asks of a graph: torch.compile cannot take the lock of a cached property."""
    for name in ("weights", "given", "driven", "text"):
        getattr(cell.graph, name)
