"""Where the model looks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tyro.conf import arg

from throughtime.errors import ConfigError
from throughtime.insight.alignment import draw_alignment, draw_heads
from throughtime.insight.recorder import Recorder
from throughtime.insight.view import Subject, View, visible
from throughtime.models.captioner import Captioner, PictureEncoder
from throughtime.models.seq2seq import Seq2Seq
from throughtime.models.transformer import TransformerSeq2Seq
from throughtime.nn.memory_attention import Attention
from throughtime.nn.multi_head import MultiHeadAttention
from throughtime.nn.pooling import AttentionPooling

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 40
#: Panels of a figure, and rows and columns of each.
PANELS, SHOWN = 4, 50


@dataclass(frozen=True)
class Options:
    """What the view takes."""

    row: Annotated[int, arg(help="Row of the batch that is drawn, from 0.")] = 0
    only: Annotated[str, arg(help='Draw those whose name has this in it: "layers.1", "decoder".')] = ""


@dataclass(frozen=True)
class Look:
    """What one head of one attention looked at in all rows of a batch.

    weights  [B, T, S]: of each query, each row summing to 1.
    queries  names of the queries of each row, and columns those of the steps that are looked at; None where
             they have none.
    kind     "encoder" or "decoder" where those look at themselves and a decoder looks at an encoder too.
    """

    name: str
    weights: Float[Tensor, "B T S"]
    queries: Callable[[int], list[str] | None]
    columns: Callable[[int], list[str] | None]
    kind: str = ""

    def of(self, row: int) -> Float[Tensor, "T S"]:
        """The real queries and steps of a row."""
        weights = self.weights[row]
        queries, columns = self.queries(row), self.columns(row)
        weights = weights[: len(weights) if queries is None else len(queries)]
        seen = (weights > 0).any(0).nonzero()
        last = int(seen[-1]) + 1 if len(seen) else 0
        return weights[:, : last if columns is None else len(columns)]


def look(subject: Subject, options: Options) -> View:
    """The weights of all attention while the loss is computed: heat maps of a row, and what they are like.

    For each head, over the real queries t of all rows, that look at s = 1 .. S with the weights a_ts:

        entropy   mean of -Σ_s a_ts ln a_ts, in nats: 0 looks at one step, ln S at all alike
        spread    entropy as a share of ln S
        peak      mean of max_s a_ts
        forward   share of queries whose peak does not stand before that of the query before
        order     correlation of t and Σ_s s a_ts: 1 reads from the beginning to the end, -1 backwards

    Raises `ConfigError` for a model without attention.
    """
    if not _has_attention(subject.model):
        raise ConfigError(
            f"this {type(subject.model).__name__} has no attention: the views saliency and memory tell which "
            "inputs count; or train a model that has it, as --help of the task tells"
        )
    with Recorder(subject.model, "attention") as seen, torch.no_grad():
        subject.model.loss(subject.batch)  # type: ignore[operator]
    looks = [each for key in seen for each in _heads(subject, key, seen.calls(key))]
    rows = [_measure(each) for each in looks]
    size = len(looks[0].weights)
    if not 0 <= options.row < size:
        raise ConfigError(f"there is no row {options.row}: the batch has {size}, numbered from 0")
    drawn = [each for each in looks if options.only in each.name]
    if not drawn:
        names = ", ".join(dict.fromkeys(each.name for each in looks))
        raise ConfigError(f'no attention has "{options.only}" in its name: there are {names}')
    details = {"weights": {each.name: each.of(options.row).tolist() for each in drawn}}
    kinds = {kind: [each for each in drawn if each.kind == kind] for kind in sorted({e.kind for e in drawn})}
    figures = {
        "-".join(filter(None, ("attention", kind))): _figure(subject, those, options.row)
        for kind, those in kinds.items()
    }
    return View(_lines(rows, max(map(len, kinds.values()))), rows, figures, details=details)


def _has_attention(model: nn.Module) -> bool:
    return any(isinstance(m, Attention | MultiHeadAttention | AttentionPooling) for m in model.modules())


def _heads(subject: Subject, key: str, calls: list[Tensor]) -> list[Look]:
    """The looks of one module; of calls that do not fit each other the first."""
    fit = len({(*call.shape[:-2], call.shape[-1]) for call in calls}) == 1
    weights = (torch.cat(calls, -2) if fit else calls[0]).cpu()
    queries, columns = _names(subject, key)
    module = key.removesuffix("attention").strip(".") or "attention"
    if weights.dim() == 3:
        return [Look(module, weights, queries, columns)]
    itself = isinstance(subject.model, TransformerSeq2Seq) and "self_attn" in module
    kind = module.partition(".")[0] if itself else ""
    heads = enumerate(weights.unbind(1))
    return [Look(f"{module} head {head}", each, queries, columns, kind) for head, each in heads]


def _names(
    subject: Subject, key: str
) -> tuple[Callable[[int], list[str] | None], Callable[[int], list[str] | None]]:
    """What the queries and the columns of an attention are called."""

    def of(names: Any, row: int) -> list[str] | None:
        return [visible(name) for name in names[row]] if row < len(names) else None

    read, said = partial(of, subject.inputs), partial(of, subject.outputs)

    def before(row: int) -> list[str] | None:
        names = said(row)
        return None if names is None else ["⊢", *names[:-1]]

    path = key.removesuffix("attention").strip(".")
    module = subject.model.get_submodule(path)
    if isinstance(module, AttentionPooling):
        return lambda row: ["pooled"], read
    if isinstance(subject.model, TransformerSeq2Seq) and path.startswith("decoder"):
        return said, read if "multihead" in path else before
    if isinstance(subject.model, Seq2Seq | Captioner):
        return said, read
    return read, read


def _measure(each: Look) -> dict[str, Any]:
    """What a head is like, over all rows."""
    entropies, spreads, peaks, forward, orders = [], [], [], [], []
    for row in range(len(each.weights)):
        weights = each.of(row).double()
        weights = weights[weights.sum(1) > 0]
        if not weights.numel():
            continue
        entropy = -torch.special.xlogy(weights, weights).sum(1)
        entropies += entropy.tolist()
        if (steps := int((weights > 0).any(0).sum())) > 1:
            spreads += (entropy / math.log(steps)).tolist()
        best = weights.max(1)
        peaks += best.values.tolist()
        forward += (best.indices.diff() >= 0).tolist()
        orders.append(_order(weights))
    known = [order for order in orders if order is not None]
    return {
        "attention": each.name,
        "entropy": _mean(entropies),
        "spread": _mean(spreads),
        "peak": _mean(peaks),
        "forward": _mean(forward) if forward else "",
        "order": _mean(known) if known else "",
    }


def _mean(values: list[Any]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _order(weights: Float[Tensor, "T S"]) -> float | None:
    """The correlation of a query's place with the mean place that it looks at; None where one never moves."""
    middle = weights @ torch.arange(weights.shape[1], dtype=weights.dtype)
    both = torch.stack([torch.arange(len(middle), dtype=weights.dtype), middle])
    if len(middle) < 2 or middle.std() < 1e-9:
        return None
    return float(torch.corrcoef(both)[0, 1])


def _lines(rows: list[dict[str, Any]], drawn: int) -> list[str]:
    sharp, wide = (pick(rows, key=lambda row: row["spread"]) for pick in (min, max))
    most_sharply = " looks most sharply" if len(rows) > 1 else ""
    lines = [
        f"{sharp['attention']}{most_sharply}: {sharp['peak']:.0%} of its weight is on one step, with an "
        f"entropy of {sharp['entropy']:.2f} nats, {sharp['spread']:.0%} of the most there can be."
    ]
    if wide is not sharp:
        lines.append(f"{wide['attention']} looks most widely, with {wide['spread']:.0%} of the most.")
    ordered = [row for row in rows if row["order"] != ""]
    if ordered:
        most = max(ordered, key=lambda row: abs(row["order"]))
        way = "forwards" if most["order"] > 0 else "backwards"
        lines.append(
            f"{most['attention']} reads {'most ' * (len(rows) > 1)}in order, {way}: correlation "
            f"{most['order']:+.2f}."
        )
    if drawn > PANELS:
        lines.append(f"The figure shows {PANELS} of {drawn}: choose others with --only.")
    return lines


def _figure(subject: Subject, drawn: list[Look], row: int) -> Callable[[], Figure]:
    """The map over the picture of a captioner; else heat maps."""
    first = drawn[0]
    if isinstance(subject.model, Captioner) and isinstance(subject.model.encoder, PictureEncoder):
        return partial(_draw_picture, subject.batch, first, row)
    maps = {each.name: each.of(row)[:SHOWN, :SHOWN].tolist() for each in drawn[:PANELS]}
    one = maps[first.name]
    columns = _or_numbers(first.columns(row), len(one[0]) if one else 0)
    queries = _or_numbers(first.queries(row), len(one))
    if len(maps) == 1:
        return partial(draw_alignment, columns, queries, one)
    return partial(draw_heads, columns, queries, maps)


def _or_numbers(names: list[str] | None, count: int) -> list[str]:
    return (names or [str(k + 1) for k in range(count)])[:count]


def _draw_picture(batch: Any, each: Look, row: int) -> Figure:
    from throughtime.insight.looks import draw_looks

    picture = batch.source[batch.rows[row]].cpu().numpy()
    weights = each.of(row)
    side = round(weights.shape[1] ** 0.5)
    words = each.queries(row) or [str(k + 1) for k in range(len(weights))]
    return draw_looks(picture, words, weights, (side, side))
