"""What happens beside the steps of training: records, validation, samples, checkpoints, Ctrl-C."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

from throughtime.errors import StoppedError
from throughtime.train.checkpoint import save_weights
from throughtime.train.metrics import Metrics
from throughtime.train.module import SequenceModule, Step
from throughtime.train.run import Run

logger = logging.getLogger(__name__)

#: Steps between two records of training.
RECORD_STEPS = 50
#: Samples, and at most so many validations, in a run; and the share of its time that validation may take.
PARTS, VALIDATION_SHARE = 10, 0.05
#: Seconds between two savings of the last state.
SAVE_SECONDS = 60.0


class Recorder(Callback):
    """Writes averages of the last steps to metrics.jsonl and keeps the latest for the progress bar."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.latest: Metrics = {}
        self._steps: list[Step] = []
        self._began = 0.0
        self._at = 0

    def on_train_start(self, trainer: Any, module: SequenceModule) -> None:  # type: ignore[override]
        """Begin a window."""
        self._began, self._at = self._time(module), module.progress.step

    def on_train_batch_end(self, trainer: Any, module: SequenceModule, *_: Any) -> None:  # type: ignore[override]
        """Add a step; write a record when there are enough. Forget what the NaN guard took back."""
        if module.progress.step < self._at:
            self.run.forget_after(module.progress.step)
            self._steps, self._began = [], self._time(module)
        self._at = module.progress.step
        if module.last_step is None:
            return
        self._steps.append(module.last_step)
        if module.progress.step % RECORD_STEPS == 0:
            self.flush(module)

    def flush(self, module: SequenceModule) -> None:
        """Write a record of the steps since the last one, if there are any."""
        if not self._steps:
            return
        progress, steps, now = module.progress, self._steps, self._time(module)
        count = sum(step.count for step in steps)
        self.latest = {
            "step": progress.step,
            "epoch": progress.epoch,
            "seconds": round(progress.seconds, 3),
            "loss": sum(step.loss * step.count for step in steps) / count,
            "learning_rate": steps[-1].learning_rate,
            "gradient_norm": sum(step.gradient_norm for step in steps) / len(steps),
            "clipped": sum(step.clipped for step in steps) / len(steps),
            "tokens_per_second": sum(step.tokens for step in steps) / max(now - self._began, 1e-9),
        }
        self.run.record(self.latest)
        self._steps, self._began = [], now

    @staticmethod
    def _time(module: SequenceModule) -> float:
        return module.progress.seconds - module.progress.validation_seconds


class Keeper(Callback):
    """Validates, draws samples, saves the best and the last state, and ends the run when it is done.

    There is a sample at each tenth of a run. The run is validated there too, as far as that takes no more
    than a twentieth of its time, and at its end. A signal to stop ends it early, after which it can go on.
    """

    def __init__(
        self,
        run: Run,
        recorder: Recorder,
        validate: Callable[[], Metrics],
        validation_tokens: int,
        score: Callable[[Metrics], float],
        sample: Callable[[], str],
        show: Callable[[str, str], None],
    ) -> None:
        self.run, self.recorder, self.validate, self.sample, self.show = run, recorder, validate, sample, show
        self.validation_tokens, self.score = validation_tokens, score
        self.interrupted = threading.Event()
        self._validated = -1
        self._cost: float | None = None
        self._part = 0
        self._saved = time.monotonic()

    def on_train_start(self, trainer: Any, module: SequenceModule) -> None:  # type: ignore[override]
        """Save the beginning of a new run and show what the untrained model makes."""
        self._part = int(module.done * PARTS)
        if module.progress.step == 0:
            self._save(module)
            self._show("at first", module, {})
            module.tick(reset=True)

    def on_train_batch_end(self, trainer: Any, module: SequenceModule, *_: Any) -> None:  # type: ignore[override]
        """Sample, validate and save when due; end the feed when the run is done or was interrupted."""
        if module.last_step is None:
            return
        part, self._part = self._part, int(module.done * PARTS)
        if self.interrupted.is_set() or module.done >= 1:
            module.feed.stop()
        elif part != self._part:
            self._look(module, validate=self._affordable(module))
        elif time.monotonic() - self._saved > SAVE_SECONDS:
            self._save(module)

    def on_train_end(self, trainer: Any, module: SequenceModule) -> None:  # type: ignore[override]
        """Validate the end, unless the run was interrupted, and save it."""
        self.recorder.flush(module)
        if self._validated != module.progress.step and (module.done >= 1 or not self.interrupted.is_set()):
            self._look(module, validate=True)
        self._save(module)

    def _affordable(self, module: SequenceModule) -> bool:
        """Whether another validation, at first thought to be as slow as training, fits into its share."""
        progress, cost = module.progress, self._cost
        if cost is None:
            cost = self.validation_tokens * progress.seconds / progress.tokens
        return progress.validation_seconds + cost <= VALIDATION_SHARE * progress.seconds

    def _look(self, module: SequenceModule, validate: bool) -> None:
        """Draw a sample, and validate: keep the model if it is the best, stop when patience is at its end."""
        progress, began = module.progress, time.perf_counter()
        with module.averaged():
            metrics = self.validate() if validate else {}
            self._show("train more", module, metrics)
        spent = time.perf_counter() - began
        progress.validation_seconds += spent
        module.tick()
        if not validate:
            return
        self._cost, self._validated = spent, progress.step
        record = {"step": progress.step, "epoch": progress.epoch, "seconds": round(progress.seconds, 3)}
        score = self.score(metrics)
        self.run.record(record | {"valid": metrics, "score": score})
        if not math.isfinite(metrics["loss"]):
            logger.warning("step %d: the loss of the validation data is not finite", progress.step)
        better = score < progress.best_score
        progress.stale = 0 if better else progress.stale + 1
        if better:
            progress.best_score, progress.best_step = score, progress.step
            with module.averaged():
                save_weights(module.model, self.run.model)
            module.capture().save(self.run.best)
        self._save(module)
        module.remember()  # so that the NaN guard never takes a validation back
        if module.config.patience is not None and progress.stale >= module.config.patience:
            module.feed.stop()

    def _save(self, module: SequenceModule) -> None:
        """Save where the run stands; as its model too, as long as there is no validated one."""
        present = module.capture()
        if present.is_finite():
            present.save(self.run.last)
            if math.isinf(module.progress.best_score):
                save_weights(module.model, self.run.model)
        self._saved = time.monotonic()

    def _show(self, title: str, module: SequenceModule, metrics: Metrics) -> None:
        sample, latest = self.sample(), self.recorder.latest
        numbers = {"training loss": latest["loss"]} if latest else {}
        numbers |= {f"validation {name.replace('_', ' ')}": value for name, value in metrics.items()}
        head = f"step {module.progress.step} ({title})"
        head += "".join(f", {name} {value:.4g}" for name, value in numbers.items())
        self.run.append(self.run.samples, f"=== {head} ===\n{sample}\n\n")
        self.show(head, sample)


class Interruption(Callback):
    """Ctrl-C or SIGTERM once: finish the step, save, end. Twice: stop at once."""

    def __init__(self, event: threading.Event) -> None:
        self.event = event
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Any, module: SequenceModule) -> None:  # type: ignore[override]
        """Take over the signals, which only a main thread can."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)

    def on_train_end(self, trainer: Any, module: SequenceModule) -> None:  # type: ignore[override]
        """Give the signals back."""
        self._restore()

    def on_exception(self, trainer: Any, module: SequenceModule, exception: BaseException) -> None:  # type: ignore[override]
        """Give the signals back."""
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.event.is_set():
            raise StoppedError("stopped at once: the run goes on from its last checkpoint with --resume")
        self.event.set()


class Bar(Callback):
    """A progress bar: loss, its reading for people, tokens per second, and the time left."""

    def __init__(self, console: Console, recorder: Recorder, read: Callable[[float], str]) -> None:
        self.console, self.recorder, self.read = console, recorder, read
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self.bar.add_task("", total=1.0, numbers="")
        self._began = (0.0, 0.0)

    def on_train_start(self, trainer: Any, module: SequenceModule) -> None:  # type: ignore[override]
        """Show the bar."""
        self._began = (module.done, module.progress.seconds)
        self.bar.start()

    def on_train_batch_end(self, trainer: Any, module: SequenceModule, *_: Any) -> None:  # type: ignore[override]
        """Bring the bar up to date."""
        if module.last_step is None or self.bar.disable:
            return
        self.bar.update(
            self._task,
            completed=module.done,
            description=f"epoch {module.progress.epoch + 1}",
            numbers=self._numbers(module, module.last_step),
        )

    def on_train_end(self, trainer: Any, module: SequenceModule) -> None:  # type: ignore[override]
        """Take the bar away."""
        self.bar.stop()

    def on_exception(self, trainer: Any, module: SequenceModule, exception: BaseException) -> None:  # type: ignore[override]
        """Take the bar away."""
        self.bar.stop()

    def show(self, head: str, sample: str) -> None:
        """A sample above the bar."""
        self.console.print(Text(head, style="bold"))
        self.console.print(Text(sample, style="dim"))

    def _numbers(self, module: SequenceModule, step: Step) -> str:
        latest = self.recorder.latest
        loss = latest.get("loss", step.loss)
        speed = f" · {latest['tokens_per_second']:,.0f} tokens/s" if latest else ""
        done, seconds = module.done - self._began[0], module.progress.seconds - self._began[1]
        left = f" · {_clock(seconds / done * (1 - module.done))} left" if done > 0 else ""
        return f"loss {loss:.3f} · {self.read(loss)}{speed}{left}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
