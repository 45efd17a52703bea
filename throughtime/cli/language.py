"""What the commands for language models share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from throughtime.cli.output import messages
from throughtime.tasks.table import load

if TYPE_CHECKING:
    from throughtime.tasks.language_model import LanguageModelTask


def load_language_model(run: Path) -> LanguageModelTask:
    """The language model of a run; raises `RunError` where the run is of another task."""
    task: LanguageModelTask = load(run, "language-model")
    return task


def readable(text: str) -> str:
    """An argument of the command line; bytes of it that are not UTF-8 show as U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def warn_of_unknown(task: LanguageModelTask, text: str) -> None:
    """Say which characters or words the model reads as unknown."""
    unknown = task.unknown(text)
    if unknown:
        shown = " ".join(repr(part) for part in unknown[:10]) + (" ..." if len(unknown) > 10 else "")
        messages().print(f"never seen in training, read as unknown: {shown}", style="yellow", markup=False)
