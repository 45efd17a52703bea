"""Looking inside while a model is trained: gradients through time and gates, every so many steps."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch.callbacks import Callback
from torch import nn

from throughtime.errors import ConfigError
from throughtime.insight.gates import operators, shares
from throughtime.insight.gradients import quarters
from throughtime.insight.recorder import GRADIENT, Recorder
from throughtime.nn.recurrent import Recurrent
from throughtime.train.module import SequenceModule
from throughtime.train.run import Run


class Watcher(Callback):
    """Records what happens inside at every so many steps of training: "watch" in records of metrics.jsonl.

    names  "gradients": of each layer the norm of dL/dh_t, L the mean loss of the batch, on average over the
           rows and the steps of each quarter of the sequence; null where no row reaches a quarter.
           "gates": of each gate its mean and the shares that are shut and open, as in the view of that name.
    every  steps of training between two looks; the first is looked at.

    The training is the same to the last bit. A step that is looked at takes longer: the record tells how many
    seconds it took, and how many the one before it.

    Raises `ConfigError` where the model has no recurrence.
    """

    def __init__(self, run: Run, model: nn.Module, names: tuple[str, ...], every: int) -> None:
        layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, Recurrent)}
        if not layers:
            raise ConfigError("--watch looks into recurrences, and this model has none: leave it out")
        outputs = {cell.states[0] for layer in layers.values() for cell in layer.cells}
        wanted = {"gates": ["gates"], "gradients": ["x", *(GRADIENT + name for name in sorted(outputs))]}
        self.run, self.every = run, every
        self.recorder = Recorder(model, *(each for name in names for each in wanted[name]))
        self.operators = operators(layers)
        self._looking = False
        self._began = self._took = 0.0

    def on_train_batch_start(self, trainer: Any, module: SequenceModule, *_: Any) -> None:  # type: ignore[override]
        """Begin to look where it is time."""
        self._began = time.perf_counter()
        if module.progress.step % self.every == 0:
            self._looking = True
            self.recorder.__enter__()

    def on_train_batch_end(self, trainer: Any, module: SequenceModule, *_: Any) -> None:  # type: ignore[override]
        """Record what was seen."""
        if self._looking:
            self._stop()
            if module.last_step is not None:
                progress = module.progress
                seen = self._summary()
                seen["seconds"] = {"looked": time.perf_counter() - self._began, "before": self._took}
                record = {"step": progress.step, "epoch": progress.epoch}
                self.run.record(record | {"seconds": round(progress.seconds, 3), "watch": seen})
        self._took = time.perf_counter() - self._began

    def on_exception(self, trainer: Any, module: SequenceModule, exception: BaseException) -> None:  # type: ignore[override]
        """Leave no hook behind."""
        if self._looking:
            self._stop()

    def _stop(self) -> None:
        self._looking = False
        self.recorder.__exit__(None, None, None)

    def _summary(self) -> dict[str, Any]:
        seen = self.recorder
        found: dict[str, dict[str, Any]] = {}
        for key in seen:
            values = seen.last(key)
            real = seen.real(key).to(values.device)
            if GRADIENT in key:
                name = key.replace(GRADIENT, "")
                found.setdefault("gradients", {})[name] = quarters(values.norm(dim=-1), real)
            elif not key.endswith(".x"):
                told = shares(key, values[real], self.operators[key])
                kept = ("mean", "shut", "open")
                found.setdefault("gates", {})[key] = {name: told[name] for name in kept}
        return found
