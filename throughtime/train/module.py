"""One step of training as Lightning runs it: carried state, clipping, schedule, NaN guard."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import lightning
import torch
from torch import Tensor, nn

from throughtime.errors import DivergedError
from throughtime.heads.categorical import Loss
from throughtime.nn.state import State, map_state
from throughtime.train.average import Average
from throughtime.train.checkpoint import Checkpoint, Progress
from throughtime.train.config import TrainingConfig
from throughtime.train.feed import Batch, Fed, Feed
from throughtime.train.guard import diagnose
from throughtime.train.schedule import learning_rate

logger = logging.getLogger(__name__)

#: Steps between the moments that the NaN guard can go back to.
GUARD_STEPS = 50
#: How often the guard goes back before it gives up.
RECOVERIES = 3


class SequenceModel(Protocol):
    """What is trained: a module with a loss over a batch and a carried state."""

    def loss(self, batch: Any, state: Any) -> Loss:
        """The loss of a batch and the state after it."""


@dataclass(frozen=True)
class Step:
    """What one step of training came to."""

    loss: float
    count: int
    tokens: int
    learning_rate: float
    gradient_norm: float
    clipped: bool


class SequenceModule(lightning.LightningModule):
    """Truncated backpropagation through time over a feed of contiguous batches.

    The state that a batch ends with begins the next one, cut from its gradient, and is dropped at the
    end of an epoch.
    """

    def __init__(self, model: nn.Module, feed: Feed, config: TrainingConfig) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.feed, self.config = model, feed, config
        self.optimizer = make_optimizer(model, config)
        self.progress = Progress()
        self.carried: State | None = None
        self.average: Average | None = None
        self.good: Checkpoint | None = None
        self.steps_since_good = 0
        self.last_step: Step | None = None
        self._clock = time.perf_counter()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser that the configuration names."""
        return self.optimizer

    def train_dataloader(self) -> Feed:
        """The batches, from where the run stands."""
        self.feed.seek(self.progress.epoch, self.progress.chunk)
        return self.feed

    @property
    def done(self) -> float:
        """The share of the run that is done, by epochs or by minutes, whichever is further."""
        shares = [0.0]
        if self.config.epochs is not None:
            epochs = self.progress.epoch + self.progress.chunk / len(self.feed.batches)
            shares.append(epochs / self.config.epochs)
        if self.config.max_minutes is not None:
            shares.append(self.progress.seconds / (60 * self.config.max_minutes))
        return min(max(shares), 1.0)

    def capture(self) -> Checkpoint:
        """The present as a checkpoint."""
        return Checkpoint.capture(self.model, self.optimizer, self.carried, self.average, self.progress)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint."""
        self.carried, self.progress = checkpoint.restore(self.model, self.optimizer)
        self.average = checkpoint.average
        self.feed.seek(self.progress.epoch, self.progress.chunk)

    def on_train_start(self) -> None:
        """Remember the beginning as a good state."""
        if self.carried is not None:  # a checkpoint comes back on the processor
            self.carried = map_state(lambda value: value.to(self.device), self.carried)
        self.tick(reset=True)
        self.remember()

    def tick(self, reset: bool = False) -> None:
        """Count the time since the last call as time of the run, unless `reset`."""
        now = time.perf_counter()
        if not reset:
            self.progress.seconds += now - self._clock
        self._clock = now

    def transfer_batch_to_device(self, fed: Fed, device: torch.device, dataloader_idx: int) -> Fed:
        """The batch on the device of the model."""
        return Fed(fed.epoch, fed.batch.to(device))

    def training_step(self, fed: Fed, index: int) -> None:
        """One update. A batch fetched before the feed was moved or stopped is not due: it is left."""
        self.last_step = None
        progress = self.progress
        due = (progress.epoch, progress.chunk)
        if self.feed.stopped or (fed.epoch, fed.batch.number) != due:
            return
        if self.steps_since_good >= GUARD_STEPS:
            self.remember()
        random = torch.get_rng_state()
        rate = learning_rate(self.config, self.done) * progress.learning_rate_scale
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        carried = self.carried if fed.batch.number else None
        loss: Loss = self.model.loss(fed.batch, carried)  # type: ignore[operator]
        mean = loss.mean
        self.optimizer.zero_grad()
        self.manual_backward(mean + loss.penalty)
        norm, clipped = self._clip()
        value = mean.item()
        if not (torch.isfinite(norm) and torch.isfinite(mean)):
            torch.set_rng_state(random)
            self._recover(fed.batch, carried)
            return
        self.optimizers().step()  # type: ignore[union-attr]
        self._take_average()
        self.carried = map_state(Tensor.detach, loss.state)
        self.steps_since_good += 1
        progress.step += 1
        progress.tokens += fed.batch.steps
        progress.clipped += clipped
        progress.epoch, progress.chunk = self.feed.after(fed.epoch, fed.batch.number)
        self.tick()
        self.last_step = Step(value, loss.count, fed.batch.steps, rate, norm.item(), clipped)

    def _take_average(self) -> None:
        if self.config.average is None or self.done < self.config.average:
            return
        if self.average is None:
            self.average = Average.begin(self.model)
        self.average.add(self.model)

    def averaged(self) -> AbstractContextManager[None]:
        """The model for a while with the weights that are to be kept: their mean, where there is one."""
        return nullcontext() if self.average is None else self.average.in_place(self.model)

    def _clip(self) -> tuple[Tensor, bool]:
        """Clip the gradient as configured; returns its norm before that, and whether it was cut."""
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        clipped = bool(norm > self.config.clip_norm)
        if clipped:
            nn.utils.clip_grads_with_norm_(parameters, self.config.clip_norm, norm)
        if (bound := self.config.clip_value) is not None:
            clipped = clipped or any(bool(g.abs().max() > bound) for g in gradients)
            nn.utils.clip_grad_value_(parameters, bound)
        return norm, clipped

    def remember(self) -> None:
        """Make the present what the NaN guard goes back to, unless it is bad already."""
        present = self.capture()
        if present.is_finite():
            self.good = present
            self.steps_since_good = 0

    def _recover(self, batch: Batch, carried: State | None) -> None:
        """Say what went bad, go back to the last good state, and halve the learning rate."""
        assert self.good is not None
        progress = self.progress
        what = diagnose(self.model, batch, carried)
        where = f"step {progress.step + 1}, epoch {progress.epoch + 1}, batch {batch.number + 1}"
        recoveries, seconds = progress.recoveries + 1, progress.seconds
        scale = progress.learning_rate_scale / 2
        self.restore(self.good)
        if recoveries > RECOVERIES:
            # Who goes on from here does so with another learning rate, and the guard begins to count anew.
            self.progress.recoveries, self.progress.learning_rate_scale = 0, 1.0
            raise DivergedError(
                f"training diverged {recoveries} times, at last with {what} ({where}). The last good state, "
                f"of step {self.progress.step}, is saved. Try a lower --learning-rate "
                f"(it was {self.config.learning_rate:g}) or a tighter --clip-norm"
            )
        progress = self.progress
        progress.recoveries, progress.seconds, progress.learning_rate_scale = recoveries, seconds, scale
        self.good.progress.recoveries, self.good.progress.learning_rate_scale = recoveries, scale
        logger.warning(
            "%s: %s. Going back to step %d with half the learning rate (%g of the schedule's)",
            where,
            what,
            progress.step,
            scale,
        )


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimiser that the configuration names."""
    parameters, rate, decay = model.parameters(), config.learning_rate, config.weight_decay
    match config.optimizer:
        case "adamw":
            return torch.optim.AdamW(parameters, rate, betas=(0.9, 0.99), weight_decay=decay, fused=True)
        case "adam":
            return torch.optim.Adam(parameters, rate, betas=(0.9, 0.99), weight_decay=decay, fused=True)
        case "sgd":
            return torch.optim.SGD(parameters, rate, config.momentum, weight_decay=decay, fused=True)
