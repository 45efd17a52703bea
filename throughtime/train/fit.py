"""Train a model into a run folder: from the beginning, or on from where it stopped."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import replace

import lightning
from rich.console import Console
from torch import nn

from throughtime.errors import DivergedError
from throughtime.train.board import Board
from throughtime.train.callbacks import Bar, Interruption, Keeper, Recorder
from throughtime.train.checkpoint import Checkpoint, Progress
from throughtime.train.config import TrainingConfig
from throughtime.train.curves import draw_curves
from throughtime.train.feed import Batches, Feed
from throughtime.train.metrics import Metrics
from throughtime.train.module import SequenceModule
from throughtime.train.run import Run
from throughtime.train.watch import Watcher


def fit(
    model: nn.Module,
    batches: Batches,
    run: Run,
    config: TrainingConfig,
    *,
    validate: Callable[[], Metrics],
    validation_tokens: int,
    score: Callable[[Metrics], float],
    sample: Callable[[], str],
    read: Callable[[float], str],
    resume: bool = False,
    console: Console | None = None,
) -> tuple[Progress, bool]:
    """Train `model` on `batches`, leaving the best weights, checkpoints, records and samples in `run`.

    validate           the metrics of the model as it is, `loss` among them.
    validation_tokens  how many time steps that reads, to foresee what it costs.
    score              what of the metrics the best weights are chosen by: the lower the better.
    sample             something the model makes, to be read by people.
    read               a loss as people of the field read it, such as "2.1 bits per character".
    resume             go on from the last checkpoint of the run.

    Returns where the run stands, and whether it came to its end: False where Ctrl-C stopped it before.
    Raises `DivergedError` where the NaN guard gave up, `StorageError` where saving failed; what was saved
    before is still there then.
    """
    console = console or Console(stderr=True)
    module = SequenceModule(model, Feed(batches), config)
    if resume:
        module.restore(Checkpoint.load(run.last))
        run.forget_after(module.progress.step)
    if config.tensorboard:
        run = replace(run, listeners=(Board(run.board, module.progress.step).write,))
    recorder = Recorder(run)
    bar = Bar(console, recorder, read)
    keeper = Keeper(run, recorder, validate, validation_tokens, score, sample, bar.show)
    # Interruption comes first: a signal may arrive while another callback begins.
    # And who watches a step stops before another callback uses the model.
    watcher = [Watcher(run, model, config.watch, config.watch_every)] if config.watch else []
    callbacks = [Interruption(keeper.interrupted), *watcher, recorder, keeper, bar]
    if module.done < 1:
        try:
            _trainer(callbacks).fit(module)
        except DivergedError:
            module.capture().save(run.last)
            raise
        draw_curves(run)
    return module.progress, module.done >= 1 or not keeper.interrupted.is_set()


def _trainer(callbacks: list[lightning.Callback]) -> lightning.Trainer:
    """Lightning's engine with nothing on that we do ourselves."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    return lightning.Trainer(
        max_epochs=1,
        devices=1,
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
