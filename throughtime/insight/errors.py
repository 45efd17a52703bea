"""Where the model is worst."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from throughtime.data.tokens import BOUNDARY, UNKNOWN
from throughtime.errors import ConfigError
from throughtime.insight.pages import needs_spaces, page, token
from throughtime.insight.predictions import Prediction, predictions
from throughtime.insight.view import Subject, View, visible
from throughtime.models.language_model import LanguageModel
from throughtime.models.tagger import Tagger

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 2000
#: Guesses that are shown, and characters of what stood before or around a token.
GUESSES, CONTEXT = 3, 40
#: Nats at which a token of a page is as dark as can be, and from which it is underlined.
DARKEST, MARKED = 8.0, 5.0
#: Kinds that a figure shows, and the fewest predictions of a kind.
KINDS, FEWEST = 12, 3


@dataclass(frozen=True)
class Options:
    """What the view takes."""

    worst: Annotated[int, arg(help="Worst predictions that are listed.")] = 20


def look(subject: Subject, options: Options) -> View:
    """The loss of each prediction, -log p(what was wanted) in nats; the worst of them; its mean by kind.

    Kinds are, of characters, letters, digits, spaces, line breaks and punctuation; of words, where they stand
    in the vocabulary, which is in the order of their frequency; else the class that was wanted. Positions in
    a row are counted from 1 in ranges that double. Taggers with a CRF are judged by its marginals. A model
    without classes, as a forecaster, has one loss for each row: the mean of its steps.
    """
    if options.worst < 1:
        raise ConfigError(f"--worst must be 1 or more, got {options.worst}")
    if subject.answered:
        raise ConfigError(
            "what is wanted of a text alone is the model's own answer, which is never wrong: give --file, "
            "with data that have the right ones"
        )
    found = predictions(subject.model, subject.batch, GUESSES)
    if not found:
        raise ConfigError("nothing is wanted of the model in these data: give data with answers")
    names = _Names(subject)
    kinds = _parts(found, names.kind) if found[0].wanted is not None else []
    positions = _parts(found, _position) if found[0].step is not None else []
    worst = sorted(found, key=lambda each: -each.nats)[: options.worst]
    rows = [names.tell(each) for each in worst]
    figures = {"errors": partial(_draw, kinds, positions, [each.nats for each in found], names.unit)}
    pages = {"errors": _page(found, names)} if found[0].step is not None and names.rows else {}
    losses = [(each.row, each.step, each.nats) for each in found]
    details = {"kinds": kinds, "positions": positions, "losses": losses}
    return View(_lines(found, kinds, names), rows, figures, pages, details)


class _Names:
    """What to call predictions of a subject, their kinds and what stands around them."""

    def __init__(self, subject: Subject) -> None:
        self.inputs, self.outputs, self.classes = subject.inputs, subject.outputs, subject.classes
        self.is_text = isinstance(subject.model, LanguageModel)
        #: What has a name at each step, for pages: what is read, or what is said.
        self.of_inputs = isinstance(subject.model, Tagger)
        self.rows = self.inputs if self.of_inputs else self.outputs
        self.spaced = needs_spaces(self.rows) and not self.is_text
        self.unit = "nats"
        self.characters = all(len(name) <= 1 for name in subject.classes[2:]) and self.is_text

    def of(self, number: int | None) -> str:
        """A class."""
        if number is None:
            return ""
        return self.classes[number] if number < len(self.classes) else f"#{number}"

    def kind(self, each: Prediction) -> str:
        """What sort of thing was wanted."""
        assert each.wanted is not None
        name = self.of(each.wanted)
        if self.is_text and each.wanted == UNKNOWN:
            return "unknown"
        if self.characters:
            return _kind_of_character(name)
        if not self.is_text:
            return visible(name)
        return "word" if name.strip().isalpha() else "end" if each.wanted == BOUNDARY else "other token"

    def wanted(self, each: Prediction) -> str:
        """What was wanted, also where there are no classes."""
        if each.wanted is not None:
            return self.of(each.wanted)
        return self._joined(self.outputs[each.row]) if each.row < len(self.outputs) else ""

    def around(self, each: Prediction) -> str:
        """What stood before a token of a text, or around a word; the input of a row."""
        inputs = self.inputs[each.row] if each.row < len(self.inputs) else []
        if each.step is None:
            return self._joined(inputs)[:CONTEXT]
        if self.of_inputs and each.step < len(inputs):
            before, after = inputs[max(each.step - 4, 0) : each.step], inputs[each.step + 1 : each.step + 5]
            return " ".join([*before, f"[{inputs[each.step]}]", *after])
        outputs = self.outputs[each.row] if each.row < len(self.outputs) else []
        said = self._joined(outputs[: each.step])[-CONTEXT:]
        return said if self.is_text else f"{self._joined(inputs)[:CONTEXT]} → {said}"

    def tell(self, each: Prediction) -> dict[str, Any]:
        """A row of the table."""
        told: dict[str, Any] = {"row": each.row} | ({} if each.step is None else {"step": each.step})
        told |= {"loss": each.nats}
        if each.wanted is not None:
            told |= {"wanted": visible(self.wanted(each)), "guesses": self.guesses(each)}
        elif self.outputs:
            told |= {"wanted": _in_line(self.wanted(each))[:CONTEXT]}
        return told | ({"context": _in_line(self.around(each))} if self.inputs else {})

    def guesses(self, each: Prediction) -> str:
        """What the model rather expected, with probabilities."""
        return ", ".join(f"{visible(self.of(number))} {share:.0%}" for number, share in each.guesses)

    def _joined(self, names: Sequence[str]) -> str:
        return (" " if needs_spaces([names]) else "").join(names)


def _in_line(text: str) -> str:
    return text.replace("\n", "⏎").replace("\t", "⇥")


def _kind_of_character(name: str) -> str:
    for kind, holds in (
        ("line break", lambda: name == "\n"),
        ("space", name.isspace),
        ("small letter", name.islower),
        ("capital letter", name.isupper),
        ("letter", name.isalpha),
        ("digit", name.isdecimal),
    ):
        if holds():
            return kind
    return "punctuation" if name else "end"


def _position(each: Prediction) -> str:
    assert each.step is not None
    first = 2 ** (each.step + 1).bit_length() // 2
    return f"{first}" if first == 1 else f"{first} to {2 * first - 1}"


def _parts(found: Sequence[Prediction], part: Callable[[Prediction], str]) -> list[dict[str, Any]]:
    """Count, mean and share of the whole loss of each part."""
    groups: dict[str, list[float]] = {}
    for each in found:
        groups.setdefault(part(each), []).append(each.nats)
    total = sum(each.nats for each in found)
    return [
        {"part": name, "count": len(v), "loss": sum(v) / len(v), "share": sum(v) / total if total else 0.0}
        for name, v in groups.items()
    ]


def _lines(found: Sequence[Prediction], kinds: Sequence[dict[str, Any]], names: _Names) -> list[str]:
    mean = sum(each.nats for each in found) / len(found)
    ordered = sorted((each.nats for each in found), reverse=True)
    tenth = max(len(ordered) // 10, 1)
    share = sum(ordered[:tenth]) / sum(ordered) if sum(ordered) > 0 else 0.0
    if found[0].wanted is None:
        return [f"The loss is {mean:.3f} on the mean over {len(found)} rows, {ordered[0]:.3f} in the worst."]
    right = sum(each.guesses[0][0] == each.wanted for each in found) / len(found)
    lines = [
        f"{mean:.3f} nats for each of {len(found)} predictions; the best guess is right in {right:.1%}. "
        f"The worst tenth makes {share:.0%} of the loss."
    ]
    if often := [kind for kind in kinds if kind["count"] >= FEWEST]:
        worst, most = (max(often, key=lambda kind: kind[key]) for key in ("loss", "share"))
        lines.append(
            f"Hardest is {worst['part']}, {worst['loss']:.2f} nats over {worst['count']}; most of "
            f"the loss, {most['share']:.0%}, is made by {most['part']} ({most['loss']:.2f} nats)."
        )
    return lines


def _page(found: Sequence[Prediction], names: _Names) -> str:
    by_row: dict[int, list[Prediction]] = {}
    for each in found:
        by_row.setdefault(each.row, []).append(each)
    parts = []
    for row, those in by_row.items():
        mean = sum(each.nats for each in those) / len(those)
        body = "".join(_token(each, names) for each in those)
        parts.append((f"Row {row}: {mean:.3f} nats for each of {len(those)}", body))
    lines = [
        f"The darker a token, the more of a surprise it was: white at 0 nats, darkest from {DARKEST:g}, "
        f"underlined from {MARKED:g}, where it had a probability below {math.exp(-MARKED):.1%}. Point at "
        "one for its probability and what the model expected."
    ]
    return page("Where the model is worst", lines, parts, names.spaced)


def _token(each: Prediction, names: _Names) -> str:
    assert each.step is not None
    row = names.rows[each.row]
    text = row[each.step] if each.step < len(row) else ""
    tip = f"{visible(names.of(each.wanted))}: {math.exp(-each.nats):.2%}, {each.nats:.2f} nats\n"
    return token(text, each.nats / DARKEST, tip + names.guesses(each), each.nats >= MARKED)


def _draw(
    kinds: Sequence[dict[str, Any]], positions: Sequence[dict[str, Any]], losses: Sequence[float], unit: str
) -> Figure:
    """The loss by kind and by position; of models without both, how the losses of rows are spread."""
    from throughtime.insight.figures import COLOURS, WIDTH, slide

    shown = [each for each in kinds if each["count"] >= FEWEST] or list(kinds)
    shown = sorted(shown, key=lambda kind: -kind["loss"])[:KINDS]
    panels = [part for part in (shown, positions if len(positions) > 1 else []) if part]
    if not panels:
        figure, [panel] = slide()
        panel.hist(losses, bins=min(30, max(5, len(losses) // 3)), color=COLOURS[0], edgecolor="white")
        panel.set_xlabel("mean loss of a row")
        panel.set_ylabel("rows")
        return figure
    figure, axes = slide(columns=len(panels), width=WIDTH * (0.6 + 0.4 * len(panels)))
    for index, (panel, part) in enumerate(zip(axes, panels, strict=True)):
        labels = [f"{_short(each['part'])} ({each['count']})" for each in part]
        panel.barh(range(len(part)), [each["loss"] for each in part], color=COLOURS[index])
        panel.set_yticks(range(len(part)), labels, parse_math=False)
        panel.invert_yaxis()
        panel.grid(axis="y", visible=False)
        panel.set_xlabel(f"loss ({unit} per prediction)")
        panel.set_title(("kind of what was wanted" if part is shown else "position in its row") + " (count)")
    return figure


def _short(text: str) -> str:
    return text if len(text) <= 18 else f"{text[:17]}…"
