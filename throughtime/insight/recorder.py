"""Recording what a model computes on its way: gates, states, gradients through time, attention."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from throughtime.errors import ConfigError, ShapeError
from throughtime.nn.hooks import OUTSIDE
from throughtime.nn.memory_attention import Attention
from throughtime.nn.multi_head import MultiHeadAttention
from throughtime.nn.pooling import AttentionPooling
from throughtime.nn.recurrent import Recurrent

#: Names that stand for several quantities.
GROUPS = ("gates", "states", "maps", "gradients", "attention")
#: Where time stands in the shape of what is recorded.
TIME = -2
#: What stands before a state's name where its gradient is meant.
GRADIENT = "gradient "


class Recorder(Mapping[str, Tensor]):
    """What the recurrences and the attention of a model compute, while it stands in a `with`.

        with Recorder(model, "f", "c", "gradient h") as seen:
            model.loss(batch).total.backward()
        seen["recurrence.0.f"]             # [batch, time, unit]

    names   quantities of cells by the names in their equations ("f", "c"; "a_f" is the value of the map f,
            before its activation; "x" is what the layer reads, "reset" is 1 at the steps before which a row
            begins anew); "gradient h", dL/dh_t, the sum over all `backward()` of a call; or a group: "gates",
            "states", "maps" (all "a_..."), "gradients" (of every state), "attention" (its weights).
    layers  numbers of the layers to be recorded, from 0; all if None.
    steps   the time steps of each call that are kept; all if None. Memory grows with what is kept alone.

    A key is the name of the module in the model, the number of the layer, "reverse" for the direction from
    the end, and the name of the quantity: "encoder.1.reverse.h"; that of attention, [batch, query, step] or
    [batch, head, query, step], is the name of its module and "attention". What several calls of a module
    gave, as a decoder's one step after another, stands one after another in time; `calls` gives them one by
    one. Models compute what they compute without it, to the last bit, on every backend, in training and in
    use. Tensors are copies, on the device of the model. Nothing is recorded, and no hook is left, after the
    `with`, even where it ended in an exception. Only what runs in it is recorded: `backward()` too must.

    Raises `ConfigError` for a name that nothing in the model has, or a layer that is not there.
    """

    def __init__(
        self,
        model: nn.Module,
        *names: str,
        layers: Collection[int] | None = None,
        steps: slice | None = None,
    ) -> None:
        self.model, self.names, self.layers = model, names or ("gates", "states"), layers
        self.steps = slice(None) if steps is None else steps
        #: By key, and by prefix, what each call gave, under the number of the call.
        self._found: dict[str, dict[int, Tensor]] = {}
        self._real: dict[str, dict[int, Tensor]] = {}
        self._order: list[str] = []
        self._handles: list[RemovableHandle] = []
        self._check()

    def __enter__(self) -> Self:
        self._found, self._real, self._order = {}, {}, []
        for path, layer in _recurrences(self.model):
            for index in range(layer.layers):
                if self.layers is None or index in self.layers:
                    for reverse in (False, True)[: layer.directions]:
                        self._watch(path, layer, index, reverse)
        if "attention" in self.names:
            for path, module in _attentions(self.model):
                key = _key(path, "attention")
                self._order.append(key)
                hook = partial(self._look, key)
                self._handles.append(module.looks.register_forward_hook(hook))  # type: ignore[union-attr]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __getitem__(self, key: str) -> Tensor:
        """What all calls gave, one after another in time; raises `ShapeError` where they do not fit."""
        values = self.calls(key)
        if self._fitting(key) < len(values):
            shapes = dict.fromkeys(str(list(value.shape)) for value in values)
            raise ShapeError(
                f"the calls behind {key} differ in batch or width, {', '.join(shapes)}: take the last that "
                "fit together, with last(), or one by one, with calls()"
            )
        return self.last(key)

    def last(self, key: str) -> Tensor:
        """The same of the last calls that fit together: of a decoder, what it wrote, not how it began."""
        values = self.calls(key)[-self._fitting(key) :]
        return torch.cat(values, TIME) if len(values) > 1 else values[0]

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._order if key in self._found)

    def __len__(self) -> int:
        return len(self._found)

    def calls(self, key: str) -> list[Tensor]:
        """What each call of the module gave, the first first."""
        if key not in self._found:
            raise KeyError(f"{key} was not recorded: there are {', '.join(self) or 'none'}")
        return [value for _, value in sorted(self._found[key].items())]

    def _watch(self, path: str, layer: Recurrent, index: int, reverse: bool) -> None:
        """Hooks on one direction of one layer."""
        prefix = place_of(path, index, reverse)
        quantities, states = self._wanted(layer, index)
        self._order += [_key(prefix, name) for name in (*quantities, *(GRADIENT + s for s in states))]
        if quantities or states:
            hook = partial(self._keep, prefix)
            self._handles.append(layer.register_quantity_hook(hook, {*quantities, "reset"}, index, reverse))
        for state in states:
            begin = partial(self._begin_gradient, prefix, _key(prefix, GRADIENT + state))
            self._handles.append(
                layer.register_state_hook(begin, state, index, reverse=reverse, per_call=True)
            )

    def _wanted(self, layer: Recurrent, index: int) -> tuple[list[str], list[str]]:
        """The quantities of a layer that are recorded, and the states whose gradients are."""
        graph = layer.cells[index].graph
        maps = {name for name in graph.quantities if name.startswith("a_") and name not in graph.gates}
        groups = {
            "states": set(graph.states),
            "maps": maps,
            "gates": graph.quantities.keys() - set(graph.states) - maps,
        }
        chosen = {name for group in groups.keys() & set(self.names) for name in groups[group]}
        names = (*OUTSIDE, *graph.quantities)
        quantities = [name for name in names if name in chosen or name in self.names]
        states = [s for s in graph.driven if {"gradients", GRADIENT + s} & set(self.names)]
        return quantities, states

    def real(self, key: str) -> Tensor:
        """Which steps of `last` are steps of a row, [batch, time], and no padding, for a recurrence's key.

        Raises `KeyError` for that of attention.
        """
        calls = sorted(self._found[key])[-self._fitting(key) :]
        masks = self._real[key.rpartition(".")[0]]
        return torch.cat([masks[call] for call in calls], 1)

    def _fitting(self, key: str) -> int:
        """How many of the last calls fit together: they are alike but for their time."""
        shapes = [(*v.shape[:TIME], *v.shape[TIME + 1 :]) for v in reversed(self.calls(key))]
        return len(list(itertools.takewhile(lambda shape: shape == shapes[0], shapes)))

    def _keep(self, prefix: str, seen: dict[str, Tensor], lengths: Tensor | None) -> None:
        rows, steps, _ = seen["reset"].shape
        real = torch.ones(rows, steps, dtype=torch.bool)
        if lengths is not None:
            real &= torch.arange(steps) < lengths.cpu()[:, None]
        masks = self._real.setdefault(prefix, {})
        call = len(masks)
        masks[call] = real[:, self.steps]
        for name, value in seen.items():
            if _key(prefix, name) in self._order:
                self._found.setdefault(_key(prefix, name), {})[call] = self._part(value)

    def _begin_gradient(self, prefix: str, key: str) -> Callable[[Tensor], None]:
        """What takes the gradient of the call that begins; of several backward passes it is their sum."""
        call, found = len(self._real.get(prefix, ())), self._found

        def keep(gradient: Tensor) -> None:
            if self._handles and found is self._found:  # the backward pass may come after the end
                of_calls = found.setdefault(key, {})
                part = self._part(gradient)
                of_calls[call] = of_calls[call] + part if call in of_calls else part

        return keep

    def _look(self, key: str, module: nn.Module, inputs: object, weights: Tensor) -> None:
        weights = weights[:, None] if weights.dim() == 2 else weights
        of_calls = self._found.setdefault(key, {})
        of_calls[len(of_calls)] = self._part(weights)

    def _part(self, value: Tensor) -> Tensor:
        """A copy of the steps that are kept."""
        return value.detach()[..., self.steps, :].clone()

    def _check(self) -> None:
        if any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in self.model.modules()):
            raise ConfigError(
                "this model went through torch.compile, and what was compiled cannot be looked into: record "
                "the model as it was before"
            )
        layers = [layer for _, layer in _recurrences(self.model)]
        self._check_layers(max((layer.layers for layer in layers), default=0))
        wanted = None if self.layers is None else set(self.layers)
        cells = [
            cell
            for layer in layers
            for index, cell in enumerate(layer.cells)
            if wanted is None or index in wanted
        ]
        known = {name: None for cell in cells for name in (*cell.graph.quantities, *OUTSIDE)}
        known |= {GRADIENT + state: None for cell in cells for state in cell.graph.driven}
        groups = GROUPS[: -1 if cells else 0] + (GROUPS[-1:] if _attentions(self.model) else ())
        if unknown := [name for name in self.names if name not in known and name not in groups]:
            where = "this model" if wanted is None else "these layers of this model"
            raise ConfigError(
                f'nothing in {where} is called "{unknown[0]}": there are '
                f"{', '.join([*known, *groups]) or 'no recurrence and no attention'}"
            )

    def _check_layers(self, depth: int) -> None:
        if wrong := [index for index in self.layers or () if not 0 <= index < depth]:
            raise ConfigError(f"there is no layer {wrong[0]}: there are {depth}, numbered from 0")


def place_of(path: str, layer: int, reverse: bool) -> str:
    """The beginning of the keys of one direction of one layer of the recurrence `path`."""
    return _key(path, str(layer), *["reverse"] * reverse)


def _key(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _recurrences(model: nn.Module) -> list[tuple[str, Recurrent]]:
    return [(path, module) for path, module in model.named_modules() if isinstance(module, Recurrent)]


def _attentions(model: nn.Module) -> list[tuple[str, nn.Module]]:
    kinds = Attention, MultiHeadAttention, AttentionPooling
    return [(path, module) for path, module in model.named_modules() if isinstance(module, kinds)]
