"""The figure of a benchmark: GFLOP/s of every cell at every size, ours beside each rival."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from throughtime.bench.rows import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Each contender: its name, its mark, and its colour among those told apart by everyone (Okabe & Ito).
MARKS = {
    "ours": ("ThroughTime", "o", "#0072B2"),
    "torch": ("torch's layer", "D", "#E69F00"),
    "jax": ("jax.lax.scan", "^", "#009E73"),
    "loop": ("loop in torch", "s", "#999999"),
}
#: The dashed line.
PRODUCT = "product of square matrices"
COLUMNS = 5
#: Inches; 900 pixels wide where it is shown.
WIDTH = 9.0
WORDS = {"train": "forward and backward", "infer": "forward, without gradients"}


def draw_figure(machine: dict[str, str | int | float], rows: Sequence[Row]) -> Figure:
    """A panel for each size, a line for each cell; training if it was timed, else inference."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kind = "train" if any(row.kind == "train" for row in rows) else "infer"
    rows = [row for row in rows if row.kind == kind]
    cells = list(dict.fromkeys(row.cell for row in rows))
    sizes = list(dict.fromkeys(row.size for row in rows))
    down, across = -(-len(sizes) // COLUMNS), min(len(sizes), COLUMNS)
    height = 1.3 + down * (0.6 + 0.27 * len(cells))
    figure = Figure(figsize=(WIDTH, height), dpi=200, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
    for panel, size in zip(panels, sizes, strict=False):
        _draw_panel(panel, cells, [row for row in rows if row.size == size], machine)
        panel.set_title(f"T {size.steps}, B {size.batch}\nI {size.inputs}, H {size.hidden}", fontsize=9)
    for panel in panels[len(sizes) :]:
        panel.set_axis_off()
    panels[0].set_yticks(range(len(cells)), cells)
    panels[0].set_ylim(len(cells) - 0.4, -0.6)
    panels[0].set_xlim(left=0)
    figure.supxlabel(f"GFLOP/s, {WORDS[kind]} (float32; more is better)", fontsize=9)
    _draw_legend(figure, panels)
    return figure


def _draw_legend(figure: Figure, panels: list[Any]) -> None:
    handles = {h.get_label(): h for panel in panels for h in panel.get_legend_handles_labels()[0]}
    order = [label for label, *_ in MARKS.values()] + [PRODUCT]
    shown = [handles[label] for label in order if label in handles]
    figure.legend(handles=shown, loc="outside upper center", ncols=5, frameon=False, fontsize=9)


def _draw_panel(panel: Any, cells: list[str], rows: list[Row], machine: dict[str, str | int | float]) -> None:
    lines = {row.cell: _gflops(row) for row in rows}
    for y, cell in enumerate(cells):
        if cell in lines:
            panel.hlines(
                y, min(lines[cell].values()), max(lines[cell].values()), color="#dddddd", lw=2, zorder=1
            )
    for name, (label, marker, color) in reversed(MARKS.items()):
        points = [(lines[cell][name], y) for y, cell in enumerate(cells) if name in lines.get(cell, {})]
        if points:
            size = 42 if name == "ours" else 30
            panel.scatter(
                *zip(*points, strict=True),
                s=size,
                marker=marker,
                color=color,
                label=label,
                zorder=2,
                linewidths=0.5,
                edgecolors="white",
            )
    if "matmul_gflops" in machine:
        panel.axvline(
            float(machine["matmul_gflops"]),
            color="#444444",
            lw=1,
            ls=(0, (4, 3)),
            zorder=0,
            label=PRODUCT,
        )
    panel.grid(axis="x", color="#eeeeee", zorder=0)
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=8, length=0)
    for side in panel.spines.values():
        side.set_visible(False)


def _gflops(row: Row) -> dict[str, float]:
    """Of ours and of the rivals that run the same full batch."""
    rivals = {name: row.gflops / ratio for name, ratio in row.against.items() if name in MARKS}
    return {"ours": row.gflops, **rivals}
