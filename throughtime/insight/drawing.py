"""Boxes and arrows, in inches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

#: Colours of boxes: what is given, what is learned, what reads it, and what comes out.
FILLS = {
    "given": "#dddddd",
    "learned": "#f5e6a8",
    "map": "#bcd9ee",
    "op": "#ffffff",
    "state": "#f6c9a0",
}
LINE = "#444444"
#: Points of letters, and inches that one needs at most.
LETTERS, LETTER = 12.0, 0.115

#: A place in inches.
Point = tuple[float, float]


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches in which a place is told in inches from the lower left."""
    from throughtime.insight.figures import slide

    figure, [panel] = slide(width=width, height=height)
    figure.set_layout_engine("none")
    panel.set_position((0, 0, 1, 1))
    panel.set_xlim(0, width)
    panel.set_ylim(0, height)
    panel.set_axis_off()
    return figure, panel


def width_of(label: str) -> float:
    """Inches of a box around a label."""
    return 0.3 + LETTER * max(map(len, label.split("\n")))


def circle_width(label: str) -> float:
    """The same of an operator."""
    return 0.44 if len(label) == 1 else width_of(label)


def box(panel: Axes, middle: Point, label: str, kind: str, width: float = 0.0, height: float = 0.44) -> Patch:
    """A box around a label; as wide as that, or `width`, into which the letters are made to fit."""
    from matplotlib.patches import FancyBboxPatch

    needed = width_of(label)
    width = width or needed
    patch = FancyBboxPatch(
        (middle[0] - width / 2, middle[1] - height / 2), width, height, zorder=3,
        boxstyle="round,pad=0,rounding_size=0.08", facecolor=FILLS[kind], edgecolor="black", linewidth=1.2,
    )  # fmt: skip
    panel.add_patch(patch)
    write(panel, middle, label, size=LETTERS * min(1.0, width / needed))
    return patch


def circle(panel: Axes, middle: Point, label: str) -> Patch:
    """An operator."""
    from matplotlib.patches import Ellipse

    patch = Ellipse(
        middle, circle_width(label), 0.44, zorder=3, facecolor=FILLS["op"], edgecolor="black", linewidth=1.2
    )
    panel.add_patch(patch)
    write(panel, middle, label)
    return patch


def write(panel: Axes, place: Point, text: str, size: float = LETTERS, **options: Any) -> None:
    """Text as it is; in the middle of the place if `options` do not say otherwise."""
    settings: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 4} | options
    panel.text(*place, text, fontsize=size, parse_math=False, **settings)


def arrow(
    panel: Axes,
    start: Point,
    stop: Point,
    ends: tuple[Patch | None, Patch | None] = (None, None),
    **options: Any,
) -> None:
    """An arrow between two places, from and to the edges of the patches that stand there."""
    style: dict[str, Any] = {"arrowstyle": "-|>", "color": LINE, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
    style |= {"patchA": ends[0], "patchB": ends[1]} | options
    panel.annotate("", stop, start, arrowprops=style, zorder=2, annotation_clip=False)
