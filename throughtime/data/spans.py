"""Entities in tags: B-person I-person O is a span of two words. Reading, repair, what is legal, and F1.

The two schemes are BIO (begin, inside, outside) and BIOES, which also marks the end of a span and a span of a
single word (Ramshaw & Marcus 1995; Ratinov & Roth 2009). Tags are read as the evaluation of CoNLL-2000 and
2003 reads them, which gives every sequence a meaning, IOB1 among them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import Literal, TypedDict

from throughtime.errors import DataError

Scheme = Literal["bio", "bioes"]
OUTSIDE = "O"
#: What tags of spans begin with.
MARKS = {"B", "I", "E", "S"}


@dataclass(frozen=True)
class Span:
    """An entity of a kind, "" where tags name none: the words from `start` up to, not with, `stop`."""

    kind: str
    start: int
    stop: int


class Quality(TypedDict):
    """Shares, 0 where there is nothing to take a share of; `support` is how many true spans there are."""

    precision: float
    recall: float
    f1: float
    support: int


class SpanF1(Quality):
    """The quality over all spans (micro-average), and that of each kind."""

    kinds: dict[str, Quality]


def scheme(tags: Iterable[str]) -> Scheme | None:
    """Which scheme the tags of a corpus follow; None where some are no span tags, as parts of speech.

    One sentence may lack the tags that tell BIOES from BIO: ask about all.
    """
    marks = {_split(tag)[0] for tag in tags}
    if not marks & MARKS or "" in marks:
        return None
    return "bioes" if marks & {"E", "S"} else "bio"


def stray(tags: Sequence[str]) -> int | None:
    """Where the first tag is that is of no span though others are; None where all are alike."""
    marks = [_split(tag)[0] for tag in tags]
    return marks.index("") if "" in marks and MARKS.intersection(marks) else None


def spans(tags: Sequence[str]) -> list[Span]:
    """The spans in the order of words.

    A tag I or E goes on with a span of its kind that is open, and otherwise begins one; B and S always begin
    one; E and S close it. A tag that is none of these is outside.
    """
    starts = [t for t, (before, tag) in enumerate(pairwise([OUTSIDE, *tags])) if _begins(before, tag)]
    stops = [t for t, (tag, after) in enumerate(pairwise([*tags, OUTSIDE]), 1) if _closes(tag, after)]
    return [Span(_split(tags[a])[1], a, b) for a, b in zip(starts, stops, strict=True)]


def repair(tags: Sequence[str], to: Scheme | None = None) -> tuple[list[str], int]:
    """The same spans in tags as the scheme `to` writes them, and how many tags this changed.

    In BIO an I that goes on with nothing becomes B. Without `to` it is the scheme of these tags; give
    that of the whole corpus for BIOES. Tags without a scheme stay as they are.
    """
    to = to or scheme(tags)
    if to is None:
        return list(tags), 0
    written = [OUTSIDE] * len(tags)
    for span in spans(tags):
        written[span.start : span.stop] = _write(span, to)
    return written, sum(old != new for old, new in zip(tags, written, strict=True))


def legal_transitions(labels: Sequence[str]) -> list[list[bool]]:
    """Which label (column) may follow which (row); the last row is the begin, the last column the end.

    All may where the labels are of no scheme.
    """
    found = scheme(labels)
    if found is None:
        return [[True] * (len(labels) + 1) for _ in range(len(labels) + 1)]
    marks = [*labels, OUTSIDE]
    return [[_may_follow(before, after, found) for after in marks] for before in marks]


def span_f1(gold: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]]) -> SpanF1:
    """How many spans are found exactly: the same words and the same kind (Tjong Kim Sang & De Meulder 2003).

    precision = found and true / found, recall = found and true / true, f1 their harmonic mean.
    Raises `DataError` where sentences or their tags are not as many.
    """
    true, found, both = Counter[str](), Counter[str](), Counter[str]()
    for ours, theirs in _paired(gold, predicted):
        one, other = set(spans(ours)), set(spans(theirs))
        true.update(span.kind for span in one)
        found.update(span.kind for span in other)
        both.update(span.kind for span in one & other)
    kinds = {kind: _quality(true[kind], found[kind], both[kind]) for kind in sorted(true | found)}
    return {**_quality(true.total(), found.total(), both.total()), "kinds": kinds}


def _paired(
    gold: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]]
) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    for number, (ours, theirs) in enumerate(zip_longest(gold, predicted), 1):
        if ours is None or theirs is None:
            raise DataError(
                f"there are {number - 1} {'true' if ours is None else 'predicted'} sentences and more "
                f"{'predicted' if ours is None else 'true'} ones: one for each other"
            )
        if len(ours) != len(theirs):
            raise DataError(
                f"sentence {number} has {len(ours)} true and {len(theirs)} predicted tags: one for each word"
            )
        yield ours, theirs


def _quality(true: int, found: int, both: int) -> Quality:
    return {
        "precision": both / found if found else 0.0,
        "recall": both / true if true else 0.0,
        "f1": 2 * both / (true + found) if true + found else 0.0,
        "support": true,
    }


def _split(tag: str) -> tuple[str, str]:
    """The mark of a tag and its kind; the mark is "" where it is no span tag."""
    mark, _, kind = tag.partition("-")
    if tag == OUTSIDE or mark in {"B", "I", "E", "S"}:
        return mark, kind
    return "", ""


def _goes_on(before: str, tag: str) -> bool:
    """Whether a tag lies in the same span as the one before it."""
    (last, kind), (mark, same) = _split(before), _split(tag)
    return mark in {"I", "E"} and last in {"B", "I"} and kind == same


def _begins(before: str, tag: str) -> bool:
    return _split(tag)[0] in {"B", "I", "E", "S"} and not _goes_on(before, tag)


def _closes(tag: str, after: str) -> bool:
    return _split(tag)[0] in {"B", "I", "E", "S"} and not _goes_on(tag, after)


def _may_follow(before: str, after: str, found: Scheme) -> bool:
    """Without a span to go on with, a tag must begin one; in BIOES one that is open must go on."""
    open_still = found == "bioes" and _split(before)[0] in {"B", "I"}
    return _goes_on(before, after) or (_split(after)[0] in {"O", "B", "S"} and not open_still)


def _write(span: Span, to: Scheme) -> list[str]:
    length = span.stop - span.start
    marks = ["B"] + ["I"] * (length - 1)
    if to == "bioes":
        marks[-1] = "S" if length == 1 else "E"
    return [f"{mark}-{span.kind}" if span.kind else mark for mark in marks]
