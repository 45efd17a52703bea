"""The one door through which every recurrence is run."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from throughtime.cells.cell import Cell
from throughtime.cells.trace import CellGraph
from throughtime.errors import ConfigError, ShapeError
from throughtime.kernels import compiled, reference, scan, torch_layers

#: The backends, fastest first.
BACKENDS: dict[str, ModuleType] = {
    "llvm": compiled,
    "torch": torch_layers,
    "scan": scan,
    "reference": reference,
}


@dataclass(frozen=True)
class Choice:
    """The backend that runs a recurrence, and for each one that was asked before it why it does not."""

    backend: str
    refused: dict[str, str]

    def __str__(self) -> str:
        reasons = "".join(f"; not {name}: {reason}" for name, reason in self.refused.items())
        return f"{self.backend}{reasons}"


@dataclass(frozen=True)
class Watch:
    """Somebody who looks at named quantities of a recurrence as it runs.

    names  of `cell.graph.quantities`.
    show   gets them as they were at every step, by name: [T, B, H] each, without gradients, zero in padding.
           They may be views of what is kept for the backward pass: copy what is to stay.
    """

    names: Collection[str]
    show: Callable[[dict[str, Tensor]], object]


def explain(cell: Cell, x: Float[Tensor, "T B I"], backend: str = "auto") -> Choice:
    """Which backend `unroll` takes for `cell` on `x`, and why not a faster one.

    `auto` takes the first of `BACKENDS` that can do the job. Raises `ConfigError` for a backend that does
    not exist or, asked for by name, cannot do it.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ConfigError(f'there is no backend "{backend}": there are auto, {", ".join(BACKENDS)}')
    refused: dict[str, str] = {}
    for name in BACKENDS if backend == "auto" else [backend]:
        reason = BACKENDS[name].refusal(cell.graph, x)
        if reason is None:
            return Choice(name, refused)
        refused[name] = reason
    raise ConfigError(
        f'backend "{backend}" cannot run cell "{cell.name}": {refused[backend]}; use backend="auto"'
    )


def unroll(
    cell: Cell,
    weights: Mapping[str, Tensor],
    x: Float[Tensor, "T B I"],
    state: tuple[Float[Tensor, "B H"], ...] | None = None,
    lengths: Int[Tensor, "B"] | None = None,
    reset: Bool[Tensor, "T B"] | None = None,
    backend: str = "auto",
    checkpoint_every: int | Literal["auto"] | None = None,
    given: Mapping[str, Tensor] | None = None,
    watch: Watch | None = None,
) -> tuple[Float[Tensor, "T B H"], tuple[Float[Tensor, "B H"], ...]]:
    """Run `cell` over time: s_t = cell(x_t, s_{t-1}), y_t the first of the states s_t.

    weights  named and shaped as `cell.graph.weight_shapes(I, H)` says.
    x        T steps of B rows with I features.
    state    one [B, H] tensor for each state of the cell; zeros where it is left out.
    lengths  how many steps each row has, 0 to T. Row b computes exactly lengths[b] steps: padding is not
             read, its y is zero, and the final state is that of the last real step, or the initial
             state for length 0.
    reset    where True, the states of the row are set to zero before this step.
    backend  "auto", or a name of `BACKENDS`.
    checkpoint_every
             keep for the backward pass only the states before every so many steps, and compute the
             rest again then: a third more arithmetic, about twice the time where k is small, and memory
             that grows with T / k + k for a k of this many steps instead of with T. "auto" takes the
             square root of T. Keeps all if None.
    given    what the graph of the cell needs besides, named and shaped as `cell.graph.given_shapes` says.
    watch    somebody who looks at quantities inside the steps. What comes out is the same to the last bit.

    Returns y and the final states. Raises `ShapeError` where the tensors do not fit each other.
    """
    stepping = x.shape[:1] == (1,) and lengths is None and reset is None and checkpoint_every is None
    if stepping and backend in {"auto", "llvm"} and state is not None and watch is None:
        again = compiled.step_again(cell.graph, weights, x, state, given or {})
        if again is not None:
            return again
    hidden_size = _check_weights(cell, weights, x)
    batch = x.shape[1]
    if state is None:
        state = tuple(x.new_zeros(batch, hidden_size) for _ in cell.states)
    _check_state(cell, state, x, hidden_size)
    lengths = _check_lengths(lengths, x)
    reset = _check_reset(reset, x, lengths)
    chosen = BACKENDS[explain(cell, x, backend).backend]
    run = chosen.run if watch is None else partial(_run_watched, chosen, watch)
    every = _check_checkpoints(checkpoint_every, len(x))
    given = _check_given(cell, {} if given is None else given, x, hidden_size)
    if every < len(x) and torch.is_grad_enabled():
        if any(node.op == "batch_norm" for node in cell.graph.nodes):
            raise ConfigError(
                f'cell "{cell.name}" would count each batch twice in its running statistics when it is '
                "computed again for checkpoint_every: leave that out"
            )
        if watch is not None:
            gathered = _Gathered(watch)
            run = partial(_run_watched, chosen, Watch(watch.names, gathered.add))
        y, final = _run_in_pieces(run, cell, weights, x, state, lengths, reset, given, every)
        if watch is not None:
            gathered.show()
        return y, final
    y, final = run(cell.graph, weights, x, state, lengths, reset, given)
    return y, final


def _run_watched(
    backend: ModuleType,
    watch: Watch,
    graph: CellGraph,
    weights: Mapping[str, Tensor],
    x: Tensor,
    state: tuple[Tensor, ...],
    lengths: Tensor | None,
    reset: Tensor | None,
    given: Mapping[str, Tensor],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`run` of a backend while `watch` looks on; what torch's layers do not tell is computed again."""
    wanted = {name: graph.quantities[name] for name in watch.names}
    problem = (graph, weights, x, state, lengths, reset, given)
    if hasattr(backend, "run_watched"):
        y, final, seen = backend.run_watched(*problem, wanted)
    else:
        y, final = backend.run(*problem)
        seen = {}
        if wanted:
            with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
                *_, seen = reference.run_watched(*problem, wanted)
    watch.show(seen)
    return y, final


class _Gathered:
    """What was seen of pieces of the steps, which are shown as one; what runs again later is not seen."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.parts: list[dict[str, Tensor]] | None = []

    def add(self, seen: dict[str, Tensor]) -> None:
        """The next piece."""
        if self.parts is not None:
            self.parts.append({name: value.clone() for name, value in seen.items()})

    def show(self) -> None:
        """Show all pieces."""
        parts, self.parts = self.parts or [], None
        self.watch.show({name: torch.cat([part[name] for part in parts]) for name in self.watch.names})


def _run_in_pieces(
    run: Callable[..., tuple[Tensor, tuple[Tensor, ...]]],
    cell: Cell,
    weights: Mapping[str, Tensor],
    x: Tensor,
    state: tuple[Tensor, ...],
    lengths: Tensor | None,
    reset: Tensor | None,
    given: Mapping[str, Tensor],
    every: int,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`unroll`, each piece of `every` steps run again in the backward pass from the states before it."""
    outputs = []
    for start, part in zip(range(0, len(x), every), x.split(every), strict=True):
        y, state = checkpoint(
            run,
            cell.graph,
            weights,
            part,
            state,
            None if lengths is None else _unless_full((lengths - start).clamp(0, len(part)), len(part)),
            None if reset is None else _unless_none(reset[start : start + every]),
            _given_from(cell, given, start, start + every),
            use_reentrant=False,
            preserve_rng_state=False,
        )
        outputs.append(y)
    return torch.cat(outputs), state


def _check_checkpoints(every: int | Literal["auto"] | None, steps: int) -> int:
    """The steps between two kept states; all of them where everything is kept."""
    if every is None:
        return steps
    if every == "auto":
        return math.isqrt(max(steps - 1, 0)) + 1
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise ConfigError(f'checkpoint_every must be 1 or more steps, "auto" or None, got {every!r}')
    return every


def _check_weights(cell: Cell, weights: Mapping[str, Tensor], x: Tensor) -> int:
    if x.dim() != 3 or not x.is_floating_point():
        raise ShapeError(
            f"x must be floating point of shape [T, B, I], got {x.dtype} of shape {list(x.shape)}"
        )
    name, (blocks, *_) = next(iter(cell.graph.weight_shapes(1, 1).items()))
    if name not in weights:
        raise ShapeError(f'cell "{cell.name}" needs the weight "{name}", got {", ".join(weights) or "none"}')
    rows = weights[name].shape[0] if weights[name].dim() else 0
    if rows < blocks:
        raise ShapeError(
            f'cell "{cell.name}": weight "{name}" must have {blocks} blocks of hidden_size rows, '
            f"got shape {list(weights[name].shape)}"
        )
    hidden_size = rows // blocks
    for name, shape in cell.graph.weight_shapes(x.shape[2], hidden_size).items():
        given = weights.get(name)
        if given is None or tuple(given.shape) != shape:
            raise ShapeError(
                f'cell "{cell.name}": weight "{name}" must have shape {list(shape)} for input size '
                f"{x.shape[2]}, got {'none' if given is None else list(given.shape)}"
            )
        _check_like(f'weight "{name}"', given, x)
    return hidden_size


def _check_like(name: str, value: Tensor, x: Tensor) -> None:
    if value.dtype != x.dtype or value.device != x.device:
        raise ShapeError(
            f"{name} must be {x.dtype} on {x.device} as x is, got {value.dtype} on {value.device}"
        )


def _check_state(cell: Cell, state: tuple[Tensor, ...], x: Tensor, hidden_size: int) -> None:
    batch = x.shape[1]
    names = ", ".join(cell.states)
    if isinstance(state, Tensor) or len(state) != len(cell.states):
        raise ShapeError(
            f'cell "{cell.name}" has {len(cell.states)} states ({names}), got '
            f"{'a tensor' if isinstance(state, Tensor) else len(state)}: pass the tuple ({names},) "
            "or leave the state out"
        )
    for name, value in zip(cell.states, state, strict=True):
        if value.shape != (batch, hidden_size):
            raise ShapeError(
                f"state {name} must have shape [batch, hidden] = [{batch}, {hidden_size}], "
                f"got {list(value.shape)}"
            )
        _check_like(f"state {name}", value, x)


def _given_from(cell: Cell, given: Mapping[str, Tensor], start: int, stop: int) -> dict[str, Tensor]:
    """What is given at the steps from `start` to before `stop`."""
    kinds, lasting = cell.graph.given, {"row_mask", "table"}
    return {name: value if kinds[name] in lasting else value[start:stop] for name, value in given.items()}


def _check_given(
    cell: Cell, given: Mapping[str, Tensor], x: Tensor, hidden_size: int
) -> Mapping[str, Tensor]:
    shapes = cell.graph.given_shapes(x.shape[0], x.shape[1], hidden_size)
    if given.keys() != shapes.keys():
        raise ShapeError(
            f'cell "{cell.name}" must be given {", ".join(shapes) or "nothing"}, '
            f"got {', '.join(given) or 'nothing'}"
        )
    for name, shape in shapes.items():
        found = tuple(given[name].shape)
        if len(found) != len(shape) or found[1:] != shape[1:] or shape[0] not in {-1, found[0]}:
            raise ShapeError(f"{name} must have shape {list(shape)}, got {list(found)}")
        if cell.graph.given[name] != "steps":
            _check_like(name, given[name], x)
        if cell.graph.given[name] != "probe" and given[name].requires_grad:
            raise ShapeError(f"{name} has no gradient, as only probes have: pass it through detach()")
    if "step" in given:
        _check_steps(
            given["step"], [given[name] for name, kind in cell.graph.given.items() if kind == "table"]
        )
    return given


def _check_steps(step: Tensor, tables: list[Tensor]) -> None:
    rows = len(tables[0])
    if step.dtype != torch.int64 or any(len(table) != rows for table in tables):
        raise ShapeError(
            f"step must be int64 and all tables must have as many rows, got {step.dtype} and tables of "
            f"{', '.join(str(len(table)) for table in tables)} rows"
        )
    if not torch.compiler.is_compiling() and step.numel() and (step.min() < 0 or step.max() >= rows):
        raise ShapeError(f"step must lie in 0..{rows - 1}, got {int(step.min())} to {int(step.max())}")


def _check_lengths(lengths: Tensor | None, x: Tensor) -> Tensor | None:
    """The lengths, or None where every row is full."""
    if isinstance(lengths, Tensor) and lengths.dtype == torch.bool:
        raise ShapeError("lengths must be integers, got torch.bool: a mask [B, T] has lengths mask.sum(1)")
    if lengths is None:
        return None
    steps, batch = x.shape[:2]
    if not isinstance(lengths, Tensor):
        raise ShapeError(f"lengths must be a tensor of integers, got {type(lengths).__name__}")
    if lengths.shape != (batch,) or lengths.is_floating_point():
        raise ShapeError(
            f"lengths must be integers of shape [{batch}], got {lengths.dtype} of shape {list(lengths.shape)}"
        )
    if torch.compiler.is_compiling():  # the values are not known yet
        return lengths
    if batch and (lengths.min() < 0 or lengths.max() > steps):
        raise ShapeError(f"lengths must lie in 0..{steps}, got {lengths.tolist()}")
    return _unless_full(lengths, steps)


def _check_reset(reset: Tensor | None, x: Tensor, lengths: Tensor | None) -> Tensor | None:
    """The resets of steps that are computed, or None where there are none."""
    if reset is None:
        return None
    if reset.shape != x.shape[:2] or reset.dtype != torch.bool:
        raise ShapeError(
            f"reset must be bool of shape [T, B] = {list(x.shape[:2])}, "
            f"got {reset.dtype} of shape {list(reset.shape)}"
        )
    if lengths is not None:
        reset = reset & (torch.arange(len(x), device=reset.device)[:, None] < lengths.to(reset.device))
    return _unless_none(reset)


def _unless_full(lengths: Tensor, steps: int) -> Tensor | None:
    if torch.compiler.is_compiling():
        return lengths
    return None if bool((lengths == steps).all()) else lengths


def _unless_none(reset: Tensor) -> Tensor | None:
    if torch.compiler.is_compiling():
        return reset
    return reset if bool(reset.any()) else None
