"""What a view is given, and what it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from throughtime.errors import ConfigError
from throughtime.nn.recurrent import Recurrent

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Subject:
    """A model, and input for it to be looked at with.

    model    in evaluation.
    batch    what `model.loss` takes.
    inputs   what the model reads at each step of each row, for people to read; no rows where it has no name.
    outputs  what the loss wants at each step of each row; or of each row, where that is one thing.
    records  what was recorded while the model was trained, as in a run's metrics.jsonl.
    answered whether what the loss wants is the model's own answer, and not known to be right.
    classes  what people call each class that the head tells apart; none where it has no such names.
    """

    model: nn.Module
    batch: Any
    inputs: Sequence[Sequence[str]] = ()
    outputs: Sequence[Sequence[str]] = ()
    records: Sequence[dict[str, Any]] = ()
    classes: Sequence[str] = ()
    answered: bool = False

    @property
    def recurrences(self) -> dict[str, Recurrent]:
        """The recurrences of the model by their names in it; raises `ConfigError` where there is none."""
        found = {path: m for path, m in self.model.named_modules() if isinstance(m, Recurrent)}
        if not found:
            raise ConfigError(
                "this model has no recurrence to look into: the views attention, saliency, errors and "
                "weights show such models"
            )
        return found


class View(NamedTuple):
    """What a view shows.

    lines    what a person should know, a sentence each.
    rows     a table.
    figures  what draws each figure, by its name: "gates", "gates-text".
    pages    pages of HTML, by their names.
    details  numbers for programs that the table has not.
    """

    lines: Sequence[str]
    rows: Sequence[dict[str, Any]] = ()
    figures: Mapping[str, Callable[[], Figure]] = MappingProxyType({})
    pages: Mapping[str, str] = MappingProxyType({})
    details: Mapping[str, Any] = MappingProxyType({})


def step_names(subject: Subject, row: int, steps: int) -> list[str]:
    """What to call the steps of a row of the batch: by what is read there, if it has a name, or by number."""
    names = list(subject.inputs[row]) if row < len(subject.inputs) else []
    shown = [visible(name.strip(" ") or name) for name in names[:steps]]
    return shown + [str(step + 1) for step in range(len(shown), steps)]


def visible(token: str) -> str:
    """A token whose white space can be seen; the beginning of a text, which has no character, is "⊢"."""
    return token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") or "⊢"
