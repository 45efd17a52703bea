"""The computational graph of the model, rolled and unrolled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from torch import nn
from tyro.conf import arg

from throughtime.errors import ConfigError
from throughtime.insight.cell_graph import draw_cell
from throughtime.insight.chains import Chain, draw_chains
from throughtime.insight.depth import feed_forward_depth, recurrent_depth
from throughtime.insight.view import Subject, View
from throughtime.models.captioner import Captioner
from throughtime.models.classifier import Classifier
from throughtime.models.encoders import RecurrentEncoder
from throughtime.models.seq2seq import Seq2Seq
from throughtime.models.tagger import Speller
from throughtime.nn.recurrent import Recurrent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 1
#: Layers and steps that there is room for.
LAYERS, MOST = 8, 9
#: What people call heads that have another name in the code.
HEADS = {
    "Categorical": "softmax",
    "Adaptive": "adaptive softmax",
    "PerStep": "softmax",
    "MultiLabel": "sigmoids",
}


@dataclass(frozen=True)
class Options:
    """What the view takes."""

    unrolled: Annotated[int, arg(help="Steps over which the graph is unrolled, 2 to 9.")] = 4


def look(subject: Subject, options: Options) -> View:
    """Figures of the graph, rolled and unrolled, and of each cell; how deep the recurrences are.

    What is counted are nonlinear layers: a map with the first nonlinearity behind it. The recurrent depth is
    their number per step on the longest path through time, the feed-forward depth their number on the longest
    path from an input to the output of the last layer, less what it owes to time (Zhang et al. 2016). Both
    are those of each recurrence by itself, without a head; see `throughtime.insight.depth`.
    """
    if not 2 <= options.unrolled <= MOST:
        raise ConfigError(f"--unrolled must lie in 2..{MOST}, got {options.unrolled}")
    recurrences = subject.recurrences
    if deep := [path for path, layer in recurrences.items() if layer.layers > LAYERS]:
        raise ConfigError(
            f"{deep[0]} has more layers than there is room for, {LAYERS}: look at a smaller model"
        )
    rows = [row for path, layer in recurrences.items() for row in _rows(path, layer)]
    figures: dict[str, Any] = {
        "graph": partial(_draw, subject.model, recurrences, options.unrolled),
    }
    for cell in {cell.name: cell for layer in recurrences.values() for cell in layer.cells}.values():
        figures[f"graph-{cell.name}"] = partial(draw_cell, cell)
    return View([_line(path, layer) for path, layer in recurrences.items()], rows, figures)


def _rows(path: str, layer: Recurrent) -> list[dict[str, Any]]:
    return [
        {
            "recurrence": path,
            "layer": index,
            "cell": cell.name,
            "states": " ".join(cell.states),
            "units": layer.hidden_sizes[index],
            "directions": layer.directions,
            "weights": sum(p.numel() for name, p in layer.named_parameters() if f"_l{index}" in name),
            "recurrent_depth": recurrent_depth([cell]),
        }
        for index, cell in enumerate(layer.cells)
    ]


def _line(path: str, layer: Recurrent) -> str:
    depth, through = feed_forward_depth(layer), recurrent_depth(layer.cells)
    stack = " on ".join(dict.fromkeys(cell.name for cell in reversed(layer.cells)))
    ways = " in two directions" if layer.bidirectional else ""
    return (
        f"{path}, {layer.layers} x {stack}{ways}: recurrent depth {through:g} (nonlinear layers per step "
        f"along time), feed-forward depth {depth:g} (from an input to the output of the last layer)."
    )


def _draw(model: nn.Module, recurrences: dict[str, Recurrent], steps: int) -> Figure:
    return draw_chains(chains_of(model, recurrences), steps)


def chains_of(model: nn.Module, recurrences: dict[str, Recurrent]) -> list[Chain]:
    """What stands below and above each recurrence that reads the input of the model."""
    head = getattr(model, "head", None)
    kind = type(head).__name__
    above = ([HEADS.get(kind, kind)] if head is not None else []) + ["loss"]
    match model:
        case Seq2Seq():
            source = Chain("x", model.encoder, ("embedding",), ())
            target = Chain(
                "y", model.decoder, ("embedding",), tuple(above), attends=model.attention is not None
            )
            return [source, target]
        case Captioner():
            told = Chain(
                "y", model.decoder, ("embedding",), tuple(above), attends=model.attention is not None
            )
            seen = [
                Chain("x", layer, ("frames",), ()) for path, layer in recurrences.items() if path != "decoder"
            ]
            return [*seen[:1], told]
        case Classifier(encoder=RecurrentEncoder() as encoder):
            pooling = f"pooling ({encoder.pooling.kind})"
            read: Literal["all", "last", "ends"] = "all"
            if encoder.pooling.kind == "last":
                read = "ends" if encoder.recurrence.bidirectional else "last"
            return [Chain("x", encoder.recurrence, ("embedding",), (pooling, *above), read)]
    spelt = tuple(f"{path}." for path, module in model.named_modules() if isinstance(module, Speller))
    readers = [layer for path, layer in recurrences.items() if not (spelt and path.startswith(spelt))]
    return [Chain("x", readers[0], _below(model), tuple(above))]


def _below(model: nn.Module) -> tuple[str, ...]:
    """What makes the vectors that the recurrence reads."""
    if hasattr(model, "speller") and model.speller is not None:
        return ("embedding\n+ spelling",)
    names = ("embedding", "subsampling", "encoder")
    return tuple(name for name in names if hasattr(model, name))[:1]
