"""Names and their colours, by a language model of lines "name, tab, #rrggbb"."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from string import capwords
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from throughtime.data.columns import join_tables
from throughtime.data.documents import in_line
from throughtime.data.tables import read_table
from throughtime.data.tokens import BOUNDARY
from throughtime.decode.beam import beam_search
from throughtime.decode.sequences import Hypothesis, sample_sequences
from throughtime.errors import ConfigError, DataError, RunError
from throughtime.nn.state import select_rows
from throughtime.tasks.language_model import LanguageModelTask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIGITS = "0123456789abcdef"
LENGTH = 6
#: Colours that the search for the likeliest keeps at each digit.
BEAMS = 16
#: Colours that are drawn for a name.
DRAWS = 128
#: Characters after which a name that has not ended is given up, and how often another is drawn.
LONGEST, TRIES = 80, 20
#: Linear sRGB to XYZ, and the white of D65 (IEC 61966-2-1).
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = XYZ.sum(1)
EDGE = 6 / 29


class Colours:
    """A language model of names and colours.

    Raises `RunError` for one that was not trained on rows of two columns, of which the second holds colours
    as #rrggbb in small letters, character by character.
    """

    def __init__(self, task: LanguageModelTask) -> None:
        self.task, self.columns = task, task.config.data.columns
        known = dict(zip(task.tokeniser.texts, range(2, task.tokeniser.size), strict=True))
        self.digits = {known[digit]: digit for digit in DIGITS if digit in known}
        rows = task.documents == "rows" and len(self.columns) == 2 and task.tokeniser.kind == "char"
        if not rows or self._share_of_codes() < 0.5:
            raise RunError(
                "this model knows no colours: give a run of train language-model NAMES.csv --columns NAME "
                "COLOUR over names and colours as #c93f38, with --tokens char, whose colours are codes by now"
            )

    def _share_of_codes(self) -> float:
        """How much of what the model writes behind a name, with nothing forbidden, is a code #rrggbb."""
        before = [BOUNDARY, *self.task.tokeniser.encode("red\t").tolist()]
        end = int(self.task.tokeniser.encode("\n")[0])
        _, state = self.task._read(before[:-1], self.task.model.begin(1))
        drawn = sample_sequences(
            self.task._step,
            select_rows,
            torch.full((DRAWS,), before[-1]),
            select_rows(state, torch.zeros(DRAWS, dtype=torch.long)),
            seeds=range(DRAWS),
            end=end,
            max_length=LENGTH + 2,
        )
        texts = [self.task.tokeniser.decode(each.tokens) for each in drawn if each.finished]
        return sum(map(_is_code, texts)) / DRAWS

    def of(self, name: str) -> dict[str, Any]:
        """The colour of a name: the mean, in L*a*b*, of colours that the model draws for it.

        It is read as given or with a capital for each word, whichever the model finds likelier.
        "spread" is their mean distance from it. "likeliest" is the code that the model finds the likeliest,
        with its "probability" among all 16.8 million: a round one such as #ffffff, which says little.
        """
        name = " ".join(name.split())
        if not name:
            raise DataError("a name without a letter has no colour: give a name")
        spellings = dict.fromkeys([name, capwords(name)])
        likelier = max(spellings, key=lambda each: self.task.score(f"{each}\t").log_prob)
        return self._of(likelier) | {"name": name}

    def _of(self, name: str) -> dict[str, Any]:
        """The same for a name as it is."""
        before = [BOUNDARY, *self.task.tokeniser.encode(f"{name}\t#").tolist()]
        _, state = self.task._read(before[:-1], self.task.model.begin(1))
        drawn = to_lab([self._written(each) for each in self._drawn(before[-1], state)])
        [[best]] = beam_search(
            self._step,
            _select,
            torch.tensor(before[-1:]),
            (state, 0),
            end=BOUNDARY,
            beams=BEAMS,
            max_length=LENGTH + 1,
            length_penalty=0.0,
        )
        return {
            "name": name,
            "colour": from_lab(drawn.mean(0)),
            "spread": float(np.linalg.norm(drawn - drawn.mean(0), axis=1).mean()),
            "likeliest": self._written(best),
            "probability": float(np.exp(best.log_prob)),
        }

    def _drawn(self, last: int, state: Any) -> list[Hypothesis]:
        """Colours drawn behind a token and the state before it, always by the same random numbers."""
        rows = select_rows(state, torch.zeros(DRAWS, dtype=torch.long))
        tokens = torch.full((DRAWS,), last)
        return sample_sequences(
            self._step, _select, tokens, (rows, 0), seeds=range(DRAWS), end=BOUNDARY, max_length=LENGTH + 1
        )

    def invent(self, count: int, temperature: float = 0.8, seed: int | None = None) -> list[dict[str, Any]]:
        """New names, each with its colour. `temperature` and `seed` are those of `generate`."""
        draws = random.Random(seed)
        return [self._of(self._name(temperature, draws)) for _ in range(count)]

    def measure(self, paths: Sequence[Path]) -> dict[str, float]:
        """How far the colours that names are given lie from theirs, in the mean over the rows of tables.

        The distance is ΔE of CIE 1976: Euclid's in L*a*b*, of which 2.3 is just noticeable. "delta_e" is that
        of the colours, "likeliest_delta_e" of the likeliest codes, and "mean_colour_delta_e" of giving every
        name the mean colour of these very tables: a bar that has seen the answers.
        """
        table = join_tables([read_table(path, self.columns) for path in paths])
        names, true = (table.column(column) for column in self.columns)
        for row, colour in enumerate(true):
            if not _is_code(str(colour).lower()):
                raise DataError(f"{table.place(row)}: {colour!r} is no colour: give it as #c93f38")
        right = to_lab(true)
        answers = [self._of(in_line(name)) for name in names]
        found = {
            "delta_e": to_lab([answer["colour"] for answer in answers]),
            "likeliest_delta_e": to_lab([answer["likeliest"] for answer in answers]),
            "mean_colour_delta_e": right.mean(0),
        }
        return {key: float(np.linalg.norm(lab - right, axis=1).mean()) for key, lab in found.items()}

    def _step(self, tokens: Tensor, state: tuple[Any, int]) -> tuple[Tensor, tuple[Any, int]]:
        """A step of the model among digits alone; behind six of them comes the end."""
        inner, read = state
        log_probs = torch.full((len(tokens), self.task.tokeniser.size), -torch.inf)
        if read == LENGTH:
            log_probs[:, BOUNDARY] = 0.0
            return log_probs, state
        given, inner = self.task._step(tokens, inner)
        digits = list(self.digits)
        log_probs[:, digits] = given[:, digits].log_softmax(-1)
        return log_probs, (inner, read + 1)

    def _written(self, found: Hypothesis) -> str:
        return "#" + "".join(self.digits[token] for token in found.tokens)

    def _name(self, temperature: float, draws: random.Random) -> str:
        for _ in range(TRIES):
            text = piece = ""
            for piece in self.task.stream("", LONGEST, temperature=temperature, seed=draws.getrandbits(62)):
                if piece in {"\t", "\n"}:
                    break
                text += piece
            if piece == "\t" and text.strip():
                return text.strip()
        raise ConfigError(
            f"none of {TRIES} lines that were drawn begins with a name: train longer, or be less wild"
        )


def to_lab(colours: Sequence[str]) -> NDArray[np.float64]:
    """Colours #rrggbb of sRGB as L*, a*, b* (CIE 1976) under D65 [N, 3]."""
    encoded = np.array([[int(colour[k : k + 2], 16) for k in (1, 3, 5)] for colour in colours]) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    ratio = linear @ XYZ.T / WHITE
    x, y, z = np.where(ratio > EDGE**3, np.cbrt(ratio), ratio / (3 * EDGE**2) + 4 / 29).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def from_lab(lab: NDArray[np.float64]) -> str:
    """The colour #rrggbb of sRGB at L*, a*, b* [3]; what sRGB does not hold is brought to its border."""
    y = (lab[0] + 16) / 116
    root = np.array([y + lab[1] / 500, y, y - lab[2] / 200])
    ratio = np.where(root > EDGE, root**3, 3 * EDGE**2 * (root - 4 / 29))
    linear = np.linalg.solve(XYZ, ratio * WHITE).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{value:02x}" for value in (255 * encoded).round().astype(int))


def _select(state: tuple[Any, int], rows: Tensor) -> tuple[Any, int]:
    return select_rows(state[0], rows), state[1]


def draw_swatches(answers: Sequence[dict[str, Any]]) -> Figure:
    """A field of each colour, four in a row, with its name and its number below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(4, len(answers))
    rows = -(-len(answers) // columns)
    figure = Figure(figsize=(2.6 * columns, 1.7 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, answer in zip(figure.axes, answers, strict=False):
        axes.set_axis_on()
        axes.set_facecolor(answer["colour"])
        axes.set_xticks([])
        axes.set_yticks([])
        name = answer["name"] if len(answer["name"]) <= 28 else answer["name"][:27] + "…"
        axes.set_xlabel(f"{name}\n{answer['colour']}", parse_math=False)
    return figure


def _is_code(text: str) -> bool:
    return len(text) == LENGTH + 1 and text[0] == "#" and set(text[1:]) <= set(DIGITS)
