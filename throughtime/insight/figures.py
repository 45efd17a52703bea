"""How figures look: as wide as a slide, legible from its last row, colours that everyone tells apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from throughtime.storage import write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colours that everyone tells apart (Okabe & Ito 2008), the first to be used first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
#: Marks and dashes that go with them, so that lines differ without colour too.
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))
#: Map for what is 0 or more, and for what has two sides of a middle.
SEQUENTIAL, DIVERGING = "cividis", "PuOr"
#: Inches of a slide, and points of its letters.
WIDTH, HEIGHT, LETTERS = 10.0, 5.6, 14.0


def style() -> AbstractContextManager[None]:
    """How figures are drawn: within it everything has the letters, lines and colours of a slide."""
    from cycler import cycler
    from matplotlib import rc_context

    settings: Any = {
        "font.size": LETTERS,
        "axes.titlesize": LETTERS,
        "axes.labelsize": LETTERS,
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e5e5e5",
        "lines.linewidth": 2.2,
        "lines.markersize": 7.0,
        "legend.frameon": False,
        "legend.fontsize": LETTERS - 1,
        "image.cmap": SEQUENTIAL,
        "svg.hashsalt": "throughtime",  # the same figure is the same file
    }
    return rc_context(settings)


def slide(
    columns: int = 1, rows: int = 1, width: float = WIDTH, height: float = HEIGHT, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, row by row, and the panels; `options` are those of `Figure.subplots`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def line(index: int) -> dict[str, Any]:
    """The look of a panel's line `index`: its colour and its dashes."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}


def points(index: int) -> dict[str, Any]:
    """The look of a panel's line `index` through what was measured: with a mark at each."""
    return line(index) | {"marker": MARKS[index % len(MARKS)]}


def name_steps(panel: Axes, names: Sequence[str], axis: Literal["x", "y"] = "x") -> None:
    """Write what was read under the columns, or beside the rows, of a heat map; of many numbers a few."""
    every = max(1, len(names) // 20) if all(name.isdecimal() for name in names) and len(names) > 25 else 1
    places = range(0, len(names), every)
    size = LETTERS if len(names) <= 40 else max(7.0, LETTERS * 40 / len(names))
    turned = axis == "x" and max((len(name) for name in names), default=0) > 2
    set_ticks = panel.set_xticks if axis == "x" else panel.set_yticks
    set_ticks(
        places, [names[k] for k in places], fontsize=size, rotation=90 if turned else 0, parse_math=False
    )


def write_text(panel: Axes, lines: Sequence[Sequence[tuple[str, float]]], columns: int) -> None:
    """Lines of tokens, each on the colour of its number: -1 blue to violet, 0 white, 1 orange."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    colours = colormaps[DIVERGING]
    for y, line in enumerate(lines):
        x = 0
        for token, value in line:
            place, colour = (x, y), colours(0.5 - 0.3 * value)  # the ends of the map would hide the letters
            panel.add_patch(Rectangle(place, len(token), 1, color=colour, lw=0))
            for k, character in enumerate(token):
                panel.text(
                    x + k + 0.5,
                    y + 0.5,
                    character,
                    ha="center",
                    va="center",
                    family="monospace",
                    fontsize=LETTERS,
                    parse_math=False,
                )
            x += len(token)
    panel.set(xlim=(0, columns), ylim=(max(len(lines), 1), 0))
    panel.set_axis_off()


def save(draw: Callable[[], Figure], path: Path) -> list[Path]:
    """Draw a figure in our style and write it as `path`.png and `path`.svg; returns both.

    Each file is written whole or not at all; raises `StorageError` where that fails.
    """
    made = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg")]
    with style():
        figure = draw()
        for file, metadata in zip(made, ({}, {"Date": None}), strict=True):
            save_as = partial(
                figure.savefig, dpi=150, format=file.suffix.removeprefix("."), metadata=metadata
            )
            write(file, save_as, "make room, or give another folder")
    return made
