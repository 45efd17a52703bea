"""A moment of training that can be gone back to exactly: one safetensors file, no pickle."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from throughtime.errors import RunError
from throughtime.nn.state import State
from throughtime.storage import write
from throughtime.train.average import Average
from throughtime.train.run import ADVICE


@dataclass
class Progress:
    """Where a run stands.

    `epoch` and `chunk` name the next chunk to train on. `stale` counts validations since the best one.
    """

    epoch: int = 0
    chunk: int = 0
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    clipped: int = 0
    learning_rate_scale: float = 1.0
    recoveries: int = 0
    best_score: float = float("inf")
    best_step: int = 0
    stale: int = 0
    validation_seconds: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """Weights, optimiser state, carried state of the recurrence, random state, and progress."""

    tensors: dict[str, Tensor]
    progress: Progress

    @classmethod
    def capture(
        cls,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        carried: State | None,
        average: Average | None,
        progress: Progress,
    ) -> Checkpoint:
        """A copy of the present."""
        tensors = {f"model.{name}": value for name, value in weights_of(model).items()}
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer.{index}.{key}": value
                for key, value in values.items()
                if isinstance(value, Tensor)
            }
        for k, values in enumerate(carried or ()):
            tensors |= {f"carried.{k}.{j}": value for j, value in enumerate(values)}
        if average is not None:
            tensors |= {f"average.{name}": value for name, value in average.values.items()}
            tensors["averaged"] = torch.tensor(average.count)
        tensors["random"] = torch.get_rng_state()
        copies = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
        return cls(copies, dataclasses.replace(progress))

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[State | None, Progress]:
        """Put weights, optimiser and randomness back; returns the carried state and the progress."""
        load_weights(model, self._part("model."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in self._part("optimizer.").items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value.clone()
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        torch.set_rng_state(self.tensors["random"])
        carried: dict[int, dict[int, Tensor]] = {}
        device = next(model.parameters()).device
        for name, value in self._part("carried.").items():
            k, j = name.split(".")
            carried.setdefault(int(k), {})[int(j)] = value.clone().to(device)
        state_now = tuple(tuple(carried[k][j] for j in sorted(carried[k])) for k in sorted(carried))
        return state_now or None, dataclasses.replace(self.progress)

    @property
    def average(self) -> Average | None:
        """The mean of the weights, where there is one."""
        values = {name: value.clone() for name, value in self._part("average.").items()}
        return Average(values, int(self.tensors["averaged"])) if values else None

    def is_finite(self) -> bool:
        """Whether there is no NaN or Inf in it: whether it is worth going back to."""
        floats = (value for value in self.tensors.values() if value.is_floating_point())
        return all(bool(value.isfinite().all()) for value in floats)

    def save(self, path: Path) -> None:
        """Write to `path` at once or not at all; raises `StorageError`."""
        metadata = {"progress": json.dumps(dataclasses.asdict(self.progress))}
        write(path, lambda new: _save(self.tensors, new, metadata), ADVICE)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read what `save` wrote; raises `RunError` where the file is missing or damaged."""
        tensors, metadata = read_tensors(path)
        try:
            return cls(tensors, Progress(**json.loads(metadata["progress"])))
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} is not a checkpoint of training: {error}") from None

    def _part(self, prefix: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix): value
            for name, value in self.tensors.items()
            if name.startswith(prefix)
        }


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; a tied one stands once."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a model; raises `RunError` where names or shapes are not those of the model."""
    mine = weights_of(model)
    for name, value in mine.items():
        given = weights.get(name)
        if given is None or given.shape != value.shape:
            raise RunError(
                f'the weights do not fit the model: "{name}" should have shape {list(value.shape)}, '
                f"got {'none' if given is None else list(given.shape)}; the run is damaged or was changed"
            )
    if extra := set(weights) - set(mine):
        raise RunError(f'the weights do not fit the model: it has no "{min(extra)}"')
    with torch.no_grad():
        for name, value in mine.items():
            value.copy_(weights[name])


@torch.no_grad()
def take_over(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy the weights of a model of which this one is a larger copy: what is beyond them stays as it is.

    What is no part of the state dict, as it is made from the data, stays too.
    """
    kept = model.state_dict().keys()
    for name, value in weights_of(model).items():
        if name in kept:
            value[tuple(map(slice, weights[name].shape))] = weights[name]


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the weights of a model to a safetensors file at once or not at all."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights_of(model).items()}
    write(path, lambda new: _save(tensors, new, {}), ADVICE)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; raises `RunError` where it is missing or damaged."""
    if not path.is_file():
        raise RunError(f"{path} is missing: the run was not saved there, or the folder is not a whole run")
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise RunError(
            f"{path} is damaged ({error}): use another checkpoint of the run, or train again"
        ) from None


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        raise OSError(f"{error}") from None
