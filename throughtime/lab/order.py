"""Who did it: the mean of embeddings, v = (E x_1 + ... + E x_n) / n, against a recurrence over them.

Sentences are active or passive, "the dog bit the man" or "the man was bitten by the dog", and for each of
them there is the one with the two nouns exchanged. The question is whether the animal did it, and so its
answer is not the same for both. A mean does not change where terms change places: it says the same of both
and is right in exactly one half, however it is trained. Words, voices and places are balanced, so that
neither the first noun nor the voice alone tells anything. Verbs and nouns are tested in company that was
not in training.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from throughtime.cells.cell import Cell
from throughtime.lab.experiment import Claim, Finding, held
from throughtime.lab.training import seeded, train
from throughtime.models.classifier import Classifier, make_classifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ANIMALS = ["dog", "cat", "horse", "fox", "bear", "wolf", "goat", "duck"]
PEOPLE = ["man", "woman", "boy", "girl", "baker", "nurse", "judge", "sailor"]
VERBS = {
    "bit": "bitten",
    "saw": "seen",
    "chased": "chased",
    "knew": "known",
    "took": "taken",
    "drew": "drawn",
}
WORDS = ["", "?", "the", "was", "by", *ANIMALS, *PEOPLE, *dict.fromkeys([*VERBS, *VERBS.values()])]
HELD_OUT_SHARE = 0.25
EMBEDDING, UNITS, ROWS, STEPS, LEARNING_RATE = 16, 32, 64, 400, 1e-2
BAG = "bag of words"
#: The accuracy that is called nearly perfect.
NEARLY = 0.99


class Sentences(NamedTuple):
    """Tokens [B, T] padded with 0, the length of each row [B], and whether the animal did it [B]."""

    tokens: Tensor
    lengths: Tensor
    targets: Tensor


class Score(NamedTuple):
    """Shares of right answers, by voice, and the largest difference of p within a pair of sentences."""

    active: float
    passive: float
    difference: float

    @property
    def right(self) -> float:
        """Of all, as there are as many of both."""
        return (self.active + self.passive) / 2


def run(seed: int, cells: list[Cell]) -> Finding:
    """A bag of words, and each cell, trained and tested on the same sentences."""
    taught, tested = split(torch.Generator().manual_seed(seed))
    scores = {BAG: learn(None, taught, tested, seed)}
    scores |= {cell.name: learn(cell, taught, tested, seed) for cell in cells}
    bag = scores[BAG]
    recurrent = {name: score for name, score in scores.items() if name != BAG}
    good = [score.right >= NEARLY for score in recurrent.values()]
    claims = [
        Claim(
            "A bag of words loses the order: it cannot tell two sentences of the same words apart.",
            f"its probabilities for the two of a pair differ by {bag.difference:.0e} at most; it is right "
            f"about {bag.right:.2%} of {len(tested.targets)} sentences, one of each pair.",
            held(bag.difference < 1e-5 and abs(bag.right - 0.5) < 1e-6, part=abs(bag.right - 0.5) < 0.05),
        ),
        Claim(
            "A recurrence reads the words in their order, and can.",
            "right, in sentences that were not in training: "
            + ", ".join(
                f"{name} {score.active:.1%} of active and {score.passive:.1%} of passive ones"
                for name, score in recurrent.items()
            )
            + ".",
            held(all(good), part=any(good)),
        ),
    ]
    rows = [{"model": name, "right": score.right, **score._asdict()} for name, score in scores.items()]
    return Finding(claims, rows, lambda: _draw(scores))


def sentence(animal: str, person: str, verb: str, animal_did_it: bool, passive: bool) -> str:
    """A sentence in which one of the two did something to the other."""
    who, whom = (animal, person) if animal_did_it else (person, animal)
    return f"the {whom} was {VERBS[verb]} by the {who}" if passive else f"the {who} {verb} the {whom}"


def encode(events: list[tuple[str, str, str]]) -> Sentences:
    """Of each event four sentences: active and passive, the two of a pair side by side."""
    told = [
        (sentence(*event, did_it, passive).split(), did_it)
        for event in events
        for passive, did_it in product((False, True), repeat=2)
    ]
    longest = max(len(words) for words, _ in told)
    return Sentences(
        torch.tensor([[WORDS.index(w) for w in words] + [0] * (longest - len(words)) for words, _ in told]),
        torch.tensor([len(words) for words, _ in told]),
        torch.tensor([int(did_it) for _, did_it in told]),
    )


def split(generator: torch.Generator) -> tuple[Sentences, Sentences]:
    """Sentences to train on and to test on: all four of an animal, a person and a verb are on one side."""
    events = list(product(ANIMALS, PEOPLE, VERBS))
    order = torch.randperm(len(events), generator=generator).tolist()
    cut = round(HELD_OUT_SHARE * len(events))
    return encode([events[k] for k in order[cut:]]), encode([events[k] for k in order[:cut]])


def learn(cell: Cell | None, taught: Sentences, tested: Sentences, seed: int) -> Score:
    """Train a recurrence, or a bag of words where there is no cell, and test it."""
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed):
        model = make_classifier(
            "bag-of-words" if cell is None else "recurrent",
            classes=2,
            words=len(WORDS),
            embedding=EMBEDDING,
            hidden=UNITS,
            cell=cell or "rnn",
        )

    def draw() -> Sentences:
        chosen = torch.randint(len(taught.targets), (ROWS,), generator=generator)
        return Sentences(*(part[chosen] for part in taught))

    train(model, draw, lambda batch: model.loss(batch).mean, STEPS, LEARNING_RATE)
    return score(model, tested)


@torch.no_grad()
def score(model: Classifier, tested: Sentences) -> Score:
    """How a model does on sentences as `encode` orders them."""
    log_probs = model.log_probs(tested)
    right = (log_probs.argmax(1) == tested.targets).float().view(-1, 2, 2).mean((0, 2))
    pairs = log_probs[:, 1].exp().view(-1, 2)
    return Score(float(right[0]), float(right[1]), float((pairs[:, 0] - pairs[:, 1]).abs().max()))


def _draw(scores: dict[str, Score]) -> Figure:
    from throughtime.insight.figures import COLOURS, slide

    figure, (panel,) = slide(1)
    width = 0.38
    for k, (voice, hatch) in enumerate((("active", ""), ("passive", "//"))):
        shares = [100 * getattr(each, voice) for each in scores.values()]
        places = [place + (k - 0.5) * width for place in range(len(scores))]
        bars = panel.bar(
            places, shares, width * 0.95, label=voice, color=COLOURS[k], hatch=hatch, edgecolor="white"
        )
        panel.bar_label(bars, fmt="%.1f")
    panel.axhline(50, color="0.45", linewidth=1, label="guessing")
    panel.set(title="did the animal do it, or the person?", ylabel="sentences answered right (%)")
    panel.set(xticks=range(len(scores)), xticklabels=list(scores), ylim=(0, 108))
    panel.grid(axis="x", visible=False)
    figure.legend(loc="outside lower center", ncols=3)
    return figure
