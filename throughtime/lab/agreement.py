"""The keys to the cabinet are: which noun does the verb of a language model agree with?

    (near the drawer) the keys (to the cabinet (by the door)) are

By syntax the verb agrees with its subject, the noun that follows no preposition; by place with the first
noun, or with the one said last. Only attractors, nouns of the other number than the subject, tell these rules
apart. Language models p(x_t | x_<t) read sentences in which one in ten of the other nouns is an attractor, or
none is; with none all three rules explain whatever is read. They are asked whether verbs of the subject's
number have more probability than the others, in sentences whose other nouns all are attractors: where the
subject stands first the rule of the first noun is right too, where a phrase does, neither rule of places is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from throughtime.cells.cell import Cell
from throughtime.lab.experiment import Claim, Finding, held
from throughtime.lab.training import Readout, train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Tokens: the article, prepositions, and nouns and verbs, of each first the singular and then the plural.
NOUNS, VERBS, PREPOSITIONS = 20, 10, 5
THE, FIRST_PREPOSITION = 0, 1
FIRST_NOUN = FIRST_PREPOSITION + PREPOSITIONS
FIRST_VERB = FIRST_NOUN + 2 * NOUNS
TOKENS = FIRST_VERB + 2 * VERBS
#: The share of attractors among the other nouns of what is read.
SHARES = {"one in ten": 0.1, "none": 0.0}
#: Whether a phrase stands before the subject; one half of the sentences have it.
OPENINGS = {"subject first": 0, "phrase first": 1}
#: The most nouns between the subject and its verb, in what is read and in tests.
MOST_TAUGHT, MOST_TESTED = 2, 5
UNITS, ROWS, STEPS, LEARNING_RATE = 32, 64, 600, 1e-2
HELD_OUT = 1000
#: Accuracies that are called to agree with the subject, and not to.
SUBJECT, OTHER = 0.95, 0.05

#: The share of verbs that agree with the subject, by the opening and the attractors between.
Right = dict[str, dict[int, float]]


class Sentences(NamedTuple):
    """Words [B, T] up to the verb and -100 behind it, the verb's place [B], and whether it is plural [B]."""

    words: Tensor
    places: Tensor
    plural: Tensor


def run(seed: int, cells: list[Cell]) -> Finding:
    """Each cell, after sentences with few attractors and after sentences with none."""
    few, none = ({cell.name: learn(cell, share, seed) for cell in cells} for share in SHARES.values())
    rows = [
        {"cell": name, "attractors_read": read, "opening": opening, "attractors": count, "right": share}
        for read, by_cell in zip(SHARES, (few, none), strict=True)
        for name, right in by_cell.items()
        for opening, by_count in right.items()
        for count, share in by_count.items()
    ]
    return Finding([_subject(few), _grows(few), _places(none)], rows, lambda: _draw(few, none))


def sentences(between: Tensor, fronted: Tensor, attractors: float, generator: torch.Generator) -> Sentences:
    """One for each number of nouns [B] between subject and verb, a phrase first where `fronted` [B] is 1.

    Every noun but the subject is an attractor with the probability `attractors`.
    """

    def draw(first: int, count: int, *shape: int) -> Tensor:
        return first + torch.randint(0, count, shape, generator=generator)

    rows, most = len(between), int(between.max())
    plural = draw(0, 2, rows)
    other = (torch.rand(rows, most + 2, generator=generator) < attractors).long()
    other[:, 1] = 0  # the subject
    nouns = draw(FIRST_NOUN, NOUNS, rows, most + 2) + NOUNS * (plural[:, None] ^ other)
    prepositions = draw(FIRST_PREPOSITION, PREPOSITIONS, rows, most + 2)
    phrases = torch.stack([prepositions, torch.full_like(nouns, THE), nouns], 2).flatten(1)
    words = torch.cat(
        [phrases[:, :3], phrases[:, 4:], phrases[:, :3]], 1
    )  # no preposition before the subject
    words = torch.where(fronted[:, None].bool(), words, words.roll(-3, 1))
    places = 3 * (between + fronted) + 2
    words[torch.arange(rows), places] = draw(FIRST_VERB, VERBS, rows) + VERBS * plural
    return Sentences(words.masked_fill(torch.arange(words.shape[1]) > places[:, None], -100), places, plural)


def learn(cell: Cell, attractors: float, seed: int) -> Right:
    """Train a language model where this share of the other nouns are attractors, and test it."""
    generator = torch.Generator().manual_seed(seed)
    model = Readout(cell, TOKENS, UNITS, TOKENS, generator, last=False)

    def draw() -> Tensor:
        between = torch.randint(0, MOST_TAUGHT + 1, (ROWS,), generator=generator)
        fronted = torch.randint(0, 2, (ROWS,), generator=generator)
        return sentences(between, fronted, attractors, generator).words

    def loss(words: Tensor) -> Tensor:
        logits = model(words[:, :-1].clamp(min=0))
        return F.cross_entropy(logits.flatten(0, 1), words[:, 1:].flatten())

    train(model, draw, loss, STEPS, LEARNING_RATE)
    return {
        opening: {count: _test(model, count, fronted, generator) for count in range(MOST_TESTED + 1)}
        for opening, fronted in OPENINGS.items()
    }


@torch.no_grad()
def _test(model: Readout, between: int, fronted: int, generator: torch.Generator) -> float:
    """The share of verbs that agree with the subject where all other nouns are attractors."""
    batch = sentences(torch.full((HELD_OUT,), between), torch.full((HELD_OUT,), fronted), 1.0, generator)
    before = batch.words[:, : int(batch.places[0])]
    verbs = model(before)[:, -1, FIRST_VERB:].view(-1, 2, VERBS)
    return float((verbs.logsumexp(2).argmax(1) == batch.plural).float().mean())


def _subject(few: dict[str, Right]) -> Claim:
    lowest = {name: min(_upto(right, MOST_TAUGHT)) for name, right in few.items()}
    return Claim(
        "A recurrence that learns to predict the next word learns that the verb agrees with its subject, "
        "though attractors are rare in what it reads.",
        f"agrees with the subject, at the worst of up to {MOST_TAUGHT} attractors, the most in training: "
        + ", ".join(f"{name} {share:.1%}" for name, share in lowest.items())
        + ".",
        held(min(lowest.values()) > SUBJECT, part=max(lowest.values()) > 0.5),
    )


def _grows(few: dict[str, Right]) -> Claim:
    counts = (0, MOST_TAUGHT, MOST_TESTED)
    mistakes = {
        name: [1 - sum(by_count[count] for by_count in right.values()) / len(right) for count in counts]
        for name, right in few.items()
    }
    grows = [last > first + 1 - SUBJECT for first, *_, last in mistakes.values()]
    return Claim(
        "Mistakes grow with the number of attractors between the two.",
        f"mistakes after {counts[0]}, {counts[1]} and {counts[2]} of them: "
        + "; ".join(
            f"{name} " + ", ".join(f"{share:.1%}" for share in shares) for name, shares in mistakes.items()
        )
        + f"; {MOST_TAUGHT} is the most in training.",
        held(all(grows), part=any(grows)),
    )


def _places(none: dict[str, Right]) -> Claim:
    placed = [min(right[opening][1] for opening in OPENINGS) < OTHER for right in none.values()]
    return Claim(
        "Where rules of places explain whatever it reads as well as syntax does, it learns one of these.",
        "agrees with the subject after one attractor where the subject is first, and where a phrase is: "
        + "; ".join(
            f"{name} " + ", ".join(f"{right[opening][1]:.1%}" for opening in OPENINGS)
            for name, right in none.items()
        )
        + ". To follow the first noun is to have 100 % and 0 %, the last noun 0 % and 0 %.",
        held(all(placed), part=any(placed)),
    )


def _upto(right: Right, most: int) -> list[float]:
    return [share for by_count in right.values() for count, share in by_count.items() if count <= most]


def _draw(few: dict[str, Right], none: dict[str, Right]) -> Figure:
    from throughtime.insight.figures import points, slide

    figure, panels = slide(2, 2, height=7.6, sharex=True, sharey=True)
    shown = [(read, opening) for read in SHARES for opening in OPENINGS]
    for panel, (read, opening) in zip(panels, shown, strict=True):
        for k, (name, right) in enumerate((few if read == "one in ten" else none).items()):
            look = points(k) | {"markersize": max(4, 13 - 3 * k)}  # lines that lie upon each other are seen
            shares = [100 * share for share in right[opening].values()]
            panel.plot(list(right[opening]), shares, label=name if panel is panels[0] else None, **look)
        label = "most in training" if panel is panels[0] else None
        panel.axvline(MOST_TAUGHT, color="0.3", linewidth=1.5, linestyle=":", label=label)
        panel.set(title=f"attractors read: {read}; {opening}", ylim=(-5, 105))
    for panel in panels[2:]:
        panel.set_xlabel("attractors between subject and verb (nouns)")
    figure.supylabel("verbs that agree with the subject (%)", fontsize="medium")
    figure.legend(loc="outside lower center", ncols=5)
    return figure
