"""The table of tasks, and how a run finds its own."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path
from typing import Any

from throughtime.errors import ConfigError, RunError
from throughtime.train.run import Run

#: Each task: the module and class that do it, and what it does.
TASKS = {
    "language-model": (
        "throughtime.tasks.language_model:LanguageModelTask",
        "Predict the next character, word or byte pair of a text.",
    ),
    "classifier": (
        "throughtime.tasks.classifier:ClassifierTask",
        "One answer for a text, a sequence of characters, or a row of numbers.",
    ),
    "tagger": (
        "throughtime.tasks.tagger:TaggerTask",
        "A tag for each word: parts of speech, names, slots.",
    ),
    "frame-tagger": (
        "throughtime.tasks.frame_tagger:FrameTaggerTask",
        "A label for each frame of a clip: what happens when.",
    ),
    "seq2seq": (
        "throughtime.tasks.seq2seq:Seq2SeqTask",
        "Turn one sequence into another: translate, answer, correct, summarise.",
    ),
    "captioner": (
        "throughtime.tasks.captioner:CaptionerTask",
        "Tell what a picture or a clip shows.",
    ),
    "forecaster": (
        "throughtime.tasks.forecaster:ForecasterTask",
        "What comes next in series of numbers, and how sure that is.",
    ),
    "transcriber": (
        "throughtime.tasks.transcriber:TranscriberTask",
        "Speech to text, without an alignment.",
    ),
}


def find_task(name: str) -> Any:
    """The class of a task; raises `ConfigError` where there is none of that name."""
    if name not in TASKS:
        raise ConfigError(f'there is no task "{name}": there are {", ".join(TASKS)}')
    module, _, attribute = TASKS[name][0].partition(":")
    return getattr(importlib.import_module(module), attribute)


def load(folder: str | Path, wanted: str | None = None) -> Any:
    """The trained task in the folder of a run, ready to use.

    Raises `RunError` where the folder is not a run, something in it is damaged, or it is a run of another
    task than the `wanted` one.
    """
    run = Run.open(Path(folder))
    try:
        name = str(tomllib.loads(run.config.read_text("utf-8")).get("task", ""))
    except (OSError, ValueError) as error:
        raise RunError(f"{run.config} is damaged: {error}") from None
    if name not in TASKS:
        raise RunError(f'{run.config} is damaged: it names the task "{name}"; there are {", ".join(TASKS)}')
    if wanted not in (None, name):
        raise RunError(f"{folder} is a run of the task {name}: give one of the task {wanted}")
    return find_task(name).load(run)
