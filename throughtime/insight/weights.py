"""The weights: how large they are, and how the matrices of recurrences stretch what they multiply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tyro.conf import arg

from throughtime.cells.expression import Value
from throughtime.cells.trace import CellGraph
from throughtime.errors import ConfigError
from throughtime.insight.view import Subject, View
from throughtime.nn.recurrent import Recurrent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 1
#: Lines of a panel, and panels beside each other.
LINES, COLUMNS = 8, 4


@dataclass(frozen=True)
class Options:
    """What the view takes."""

    near_zero: Annotated[
        float, arg(help="Share of its root mean square below which a weight counts as 0.")
    ] = 0.01
    recurrence: Annotated[str | None, arg(help="Name of the recurrence that is drawn; else the first.")] = (
        None
    )
    layer: Annotated[int, arg(help="Its layer that is drawn, from 0.")] = 0
    reverse: Annotated[bool, arg(help="Draw the direction that reads from the end.")] = False


class Block(NamedTuple):
    """A matrix or vector that has a name of its own.

    parameter  the name of the parameter in the model.
    name       of the part of it, as in the cell's formula: "W_hf" multiplies h and goes into f; else empty.
    square     whether it maps states to states.
    """

    parameter: str
    name: str
    value: Tensor
    square: bool = False

    @property
    def label(self) -> str:
        """Both names."""
        return f"{self.parameter} {self.name}".strip()


def look(subject: Subject, options: Options) -> View:
    """Of each parameter mean, deviation, norm and share near 0; of each matrix its singular values.

    The matrices that a cell's maps share are taken apart: W_hf is what f multiplies h with. A matrix has its
    largest and smallest singular value, σ_1 and σ_n, and their quotient, the condition; one from states to
    states its spectral radius ρ, the largest |eigenvalue|, too. h_t = W h_{t-1} dies out where ρ < 1 and
    grows where ρ > 1; no step makes ‖h‖ more than σ_1 times as large. In a cell with gates this holds of each
    matrix by itself alone: the view jacobian tells of all together.
    """
    if not 0 <= options.near_zero < 1:
        raise ConfigError(f"--near-zero must lie in [0, 1), got {options.near_zero}")
    check_finite(subject.model)
    blocks = list(_blocks(subject.model))
    rows = [_measure(block, options.near_zero) for block in blocks]
    recurrences = {p: m for p, m in subject.model.named_modules() if isinstance(m, Recurrent)}
    drawn = _of_layer(blocks, recurrences, options) if recurrences else blocks
    matrices = [block for block in drawn if block.value.dim() == 2][:LINES]
    figures = {}
    if matrices:
        spectra = {block.name or block.parameter: _singular(block.value) for block in matrices}
        states = {block.name for block in matrices if block.square}
        figures["weights-singular-values"] = partial(_draw_spectra, spectra, states)
    if square := [block for block in matrices if block.square]:
        values = {block.name: torch.linalg.eigvals(block.value.double()) for block in square}
        figures["weights-eigenvalues"] = partial(_draw_eigenvalues, values)
    return View(_lines(rows), rows, figures)


def check_finite(model: nn.Module) -> None:
    """Raise `ConfigError`, with the name and the count, for weights that are not finite."""
    for name, value in model.named_parameters():
        if count := int((~value.isfinite()).sum()):
            raise ConfigError(
                f"{count} of the {value.numel()} numbers of {name} are NaN or infinite: the model has "
                "diverged, and has no singular values; train with a lower --learning-rate"
            )


def _blocks(model: nn.Module) -> Iterator[Block]:
    """Everything that is learned, what maps share being taken apart."""
    shared = {
        f"{path}.{name}{suffix}".strip("."): (name, layer.cells[index // layer.directions].graph)
        for path, layer in model.named_modules()
        if isinstance(layer, Recurrent)
        for index, suffix in enumerate(layer.suffixes)
        for name in ("weight_ih", "weight_hh", "bias")
    }
    for parameter, learned in model.named_parameters():
        value = learned.detach().cpu()
        if parameter not in shared:
            yield Block(parameter, "", value)
            continue
        kind, graph = shared[parameter]
        names = block_names(graph)[kind]
        for name, part in zip(names, value.chunk(len(names)), strict=True):
            yield Block(parameter, name, part, kind == "weight_hh")


def block_names(graph: CellGraph) -> dict[str, list[str]]:
    """The names of the blocks of each weight, in their order."""
    return {
        "weight_ih": [f"W_x{name}" for name in graph.input_blocks],
        "weight_hh": [f"W_{_source(graph, value)}{name}" for name, value in graph.recurrent_blocks],
        "bias": [f"b_{name}" for name in graph.bias_blocks],
    }


def _source(graph: CellGraph, value: Value) -> str:
    """The name of what a matrix multiplies; "·" where it has none."""
    if value.op == "state":
        return value.name
    return next((name for name, node in graph.quantities.items() if node is value), "·")


def _measure(block: Block, near_zero: float) -> dict[str, Any]:
    value = block.value.double()
    bound = near_zero * value.square().mean().sqrt()
    row: dict[str, Any] = {
        "weight": block.label,
        "shape": "x".join(map(str, value.shape)),
        "mean": value.mean().item(),
        "deviation": value.std(correction=0).item(),
        "norm": value.norm().item(),
        "near_zero": (value.abs() <= bound).double().mean().item(),
    }
    names = ("radius", "largest", "smallest", "condition")
    if value.dim() != 2:
        return row | dict.fromkeys(names, "")
    singular = _singular(value)
    largest, smallest = singular[0].item(), singular[-1].item()
    radius = torch.linalg.eigvals(value).abs().max().item() if block.square else ""
    condition = largest / smallest if smallest > 0 else float("inf")
    return row | dict(zip(names, (radius, largest, smallest, condition), strict=True))


def _singular(value: Float[Tensor, "O I"]) -> Float[Tensor, "N"]:
    return torch.linalg.svdvals(value.double())


def _of_layer(blocks: list[Block], recurrences: Mapping[str, Recurrent], options: Options) -> list[Block]:
    """What the drawn direction of the drawn layer has; raises `ConfigError` where there is none."""
    path = next(iter(recurrences)) if options.recurrence is None else options.recurrence
    if path not in recurrences:
        raise ConfigError(f'there is no recurrence "{path}": there are {", ".join(recurrences)}')
    layer = recurrences[path]
    if not (0 <= options.layer < layer.layers and options.reverse < layer.directions):
        raise ConfigError(
            f"{path} has no layer {options.layer}{' in reverse' * options.reverse}: it has {layer.layers}, "
            f"numbered from 0, in {'two directions' if layer.bidirectional else 'one direction'}"
        )
    suffix = layer.suffixes[options.layer * layer.directions + options.reverse]
    own = {f"{path}.{name}{suffix}".strip(".") for name in ("weight_hh", "weight_ih")}
    # What maps states comes first: it is drawn where there is not room for all.
    return sorted((block for block in blocks if block.parameter in own), key=lambda block: not block.square)


def _lines(rows: list[dict[str, Any]]) -> list[str]:
    empty = max(rows, key=lambda row: row["near_zero"])
    lines = [
        f"{len(rows)} weights; the largest share near 0 has {empty['weight']}, {empty['near_zero']:.1%}."
    ]
    if square := [row for row in rows if row["radius"] != ""]:
        widest, stretched = (max(square, key=lambda row: row[name]) for name in ("radius", "condition"))
        beyond = sum(row["radius"] > 1 for row in square)
        lines.append(
            f"Of {len(square)} matrices from states to states {beyond} have a spectral radius above 1; the "
            f"largest is {widest['radius']:.3g}, of {widest['weight']}. The worst condition is "
            f"{stretched['condition']:.3g}, of {stretched['weight']}."
        )
    return lines


def _draw_spectra(spectra: Mapping[str, Float[Tensor, "N"]], states: set[str]) -> Figure:
    """Singular values of each matrix, the largest first: those that map states beside the others."""
    from throughtime.insight.figures import WIDTH, line, slide

    parts = [
        {name: each for name, each in spectra.items() if (name in states) == wanted}
        for wanted in (True, False)
    ]
    parts = [part for part in parts if part]
    figure, panels = slide(columns=len(parts), width=WIDTH * (0.6 + 0.4 * len(parts)), sharey=True)
    for panel, part in zip(panels, parts, strict=True):
        for index, (name, values) in enumerate(part.items()):
            panel.plot(range(1, len(values) + 1), values, **line(index), label=_plain(name))
        panel.axhline(1, color="black", linewidth=1, linestyle=(0, (1, 2)))
        panel.set_yscale("log")
        panel.set_title("from states" if set(part) <= states else "from inputs" if states else "")
        panel.set_xlabel("number of the singular value")
        panel.legend(ncols=2 if len(part) > 4 else 1)
    panels[0].set_ylabel("singular value")
    return figure


def _draw_eigenvalues(values: Mapping[str, Tensor]) -> Figure:
    """The eigenvalues of each matrix in the complex plane, and the unit circle."""
    from matplotlib.patches import Circle

    from throughtime.insight.figures import COLOURS, slide

    columns = min(len(values), COLUMNS)
    rows = -(-len(values) // columns)
    figure, panels = slide(columns, rows, width=max(6.0, 4.0 * columns), height=4.6 * rows)
    for panel, (name, each) in zip(panels, values.items(), strict=False):
        radius = each.abs().max().item()
        reach = 1.1 * max(1.0, radius)
        panel.plot(each.real, each.imag, "o", color=COLOURS[0], markersize=4, alpha=0.6)
        panel.add_patch(Circle((0, 0), 1, fill=False, edgecolor=COLOURS[1], linewidth=2.2, zorder=5))
        panel.set_xlim(-reach, reach)
        panel.set_ylim(-reach, reach)
        panel.set_aspect("equal")
        panel.set_title(f"{_plain(name)}: ρ = {radius:.2f}")
        panel.set_xlabel("real part")
    for panel in panels[::columns]:
        panel.set_ylabel("imaginary part")
    for panel in panels[len(values) :]:
        panel.set_axis_off()
    return figure


def _plain(name: str) -> str:
    """A name without a "_" before it: lines that begin with one are left out of legends."""
    return name.lstrip("_") or name
