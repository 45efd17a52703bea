"""What a recurrence carries from call to call: taking rows of it, joining it, keeping it in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from throughtime.errors import DataError, ShapeError
from throughtime.storage import write

#: For each layer, forward then backward direction, its tensors [B, ...]: of a recurrence one [B, H] for each
#: state of the cell. Layers may differ in shapes and in their number of states.
State = tuple[tuple[Tensor, ...], ...]

#: The entry of a file's metadata that says how many states each layer has.
STATES = "states_of_layers"


def map_state(function: Callable[[Tensor], Tensor], state: State) -> State:
    """The state with `function` applied to each of its tensors.

    Raises `ShapeError` for the states of torch's layers, which have another form.
    """
    _check_form(state)
    return tuple(tuple(function(value) for value in values) for values in state)


def _check_form(state: State) -> None:
    if isinstance(state, Tensor) or any(isinstance(values, Tensor) for values in state):
        raise ShapeError(
            "a state holds a tuple of tensors for each layer and direction, as Recurrent returns it; "
            "torch's h, or (h, c), holds all layers in one tensor"
        )


def detach(state: State) -> State:
    """The same values, through which no gradient flows back."""
    return map_state(Tensor.detach, state)


def select_rows(state: State, rows: Tensor | Sequence[int] | Sequence[bool]) -> State:
    """The rows of the batch that `rows` names, in its order.

    `rows` holds indices in 0..B-1, a row named twice being copied, or is a mask of B booleans. Raises
    `ShapeError` where it is neither.
    """
    batch = _batch(state)
    if batch is None:
        return state
    index = _indices(rows, batch)
    return map_state(lambda value: value[index.to(value.device)], state)


def reset_rows(state: State, rows: Bool[Tensor, "B"], begin: State) -> State:
    """The state with the rows that are True in `rows` taken from the state `begin`.

    Raises `ShapeError` where `rows` is not a mask of B booleans or `begin` is not shaped like `state`.
    """
    batch, begin_batch = _batch(state), _batch(begin)
    _check_alike(state, begin)
    if batch is None:
        return state
    if begin_batch != batch:
        raise ShapeError(f"begin must have as many rows as the state, {batch}, got {begin_batch}")
    if rows.dtype != torch.bool or rows.shape != (batch,):
        raise ShapeError(
            f"rows must be booleans of shape [{batch}], got {rows.dtype} of shape {list(rows.shape)}"
        )
    return tuple(
        tuple(
            torch.where(rows.to(value.device).view(-1, *[1] * (value.dim() - 1)), new, value)
            for value, new in zip(values, news, strict=True)
        )
        for values, news in zip(state, begin, strict=True)
    )


def join_rows(states: Sequence[State]) -> State:
    """One state with the rows of all `states`, one after another along the batch.

    Raises `ShapeError` where there is none, or where they differ in anything but the number of rows.
    """
    if not states:
        raise ShapeError("there is no state to join: give one or more")
    for state in states:
        _batch(state)
        _check_alike(states[0], state)
    return tuple(
        tuple(torch.cat(values) for values in zip(*layers, strict=True))
        for layers in zip(*states, strict=True)
    )


def save_state(state: State, path: Path | str) -> None:
    """Write a state to a safetensors file at once or not at all; raises `StorageError`.

    The entry "2.0" is the first state of the third layer.
    """
    _check_form(state)
    tensors = {
        f"{k}.{j}": value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for k, values in enumerate(state)
        for j, value in enumerate(values)
    }
    metadata = {STATES: json.dumps([len(values) for values in state])}
    write(Path(path), lambda new: _save(tensors, new, metadata), "make room, or give another path")


def load_state(path: Path | str) -> State:
    """The state that `save_state` wrote, on the CPU.

    Raises `DataError` where the file is missing, damaged, or not a saved state.
    """
    tensors, metadata = _read(Path(path))
    try:
        layers = [[f"{k}.{j}" for j in range(n)] for k, n in enumerate(json.loads(metadata[STATES]))]
    except (KeyError, TypeError, ValueError):
        layers = None
    if layers is None or {name for names in layers for name in names} != set(tensors):
        raise DataError(f"{path} is not a saved state: give a file that save_state wrote")
    return tuple(tuple(tensors[name] for name in names) for names in layers)


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        raise OSError(f"{error}") from None


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise DataError(f"{path} is not a file: give the path that save_state wrote to")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} cannot be read as a saved state ({error}): save it again") from None


def _batch(state: State) -> int | None:
    """The rows of all tensors, or None where there is no tensor."""
    _check_form(state)
    shapes = [value.shape for values in state for value in values]
    if any(not shape or shape[0] != shapes[0][0] for shape in shapes):
        raise ShapeError(
            f"the tensors of a state must have shape [batch, ...] with one batch, got "
            f"{', '.join(str(list(shape)) for shape in shapes)}"
        )
    return shapes[0][0] if shapes else None


def _indices(rows: Tensor | Sequence[int] | Sequence[bool], batch: int) -> Tensor:
    if not isinstance(rows, Tensor):
        rows = torch.tensor(rows, dtype=None if len(rows) else torch.long)
    if rows.dim() == 1 and rows.dtype == torch.bool and len(rows) == batch:
        return rows.nonzero()[:, 0]
    if rows.dim() != 1 or rows.dtype not in (torch.int32, torch.int64):
        raise ShapeError(
            f"rows must be indices of shape [N] or booleans of shape [{batch}], "
            f"got {rows.dtype} of shape {list(rows.shape)}"
        )
    if len(rows) and (rows.min() < 0 or rows.max() >= batch):
        raise ShapeError(f"rows must lie in 0..{batch - 1}, got {rows.tolist()}")
    return rows


def _check_alike(one: State, other: State) -> None:
    """Two states must have the same layers, states, shapes and kinds; their batches may differ."""
    forms = [
        [[(value.shape[1:], value.dtype, value.device) for value in values] for values in state]
        for state in (one, other)
    ]
    if forms[0] != forms[1]:
        raise ShapeError(
            f"states must agree in layers, shapes, types and devices, "
            f"got {_describe(one)} and {_describe(other)}"
        )


def _describe(state: State) -> str:
    layers = (", ".join(f"{list(v.shape)} {v.dtype} on {v.device}" for v in values) for values in state)
    return f"({'; '.join(layers)})"
