"""Drawing at a temperature: p_T = softmax(z / T), with the logits z of a language model.

T = 1 draws from the model, T → 0 takes the likeliest (greedy search), T → ∞ draws from all alike. The entropy
H of p_T can only grow with T, since dH/dT = Var_p(z) / T³ ≥ 0 nats, the variance being that of z under p_T.

A small recurrent model learns, character by character, sentences of a grammar, and writes some of its own at
each temperature: how many different ones, and how many that the grammar has? All of these are known, so that
a mistake is a mistake.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from throughtime.decode.sampling import filtered, sample
from throughtime.lab.experiment import Claim, Finding, held
from throughtime.lab.training import one_thread, seeded, train
from throughtime.models.language_model import LanguageModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The grammar, by number: a noun phrase, a verb that agrees with it, another noun phrase of any number.
DETERMINERS = (("the", "a", "this"), ("the", "two", "these"))
ADJECTIVES = ("", "old ", "small ", "red ", "quiet ")
NOUNS = (
    ("cat", "dog", "bird", "king", "girl", "boat", "horse", "star"),
    ("cats", "dogs", "birds", "kings", "girls", "boats", "horses", "stars"),
)
VERBS = (("sees", "likes", "hears", "finds", "meets"), ("see", "like", "hear", "find", "meet"))
#: Tokens: the boundary before a sentence, the unknown, and characters; the full stop ends a sentence.
CHARACTERS = " .abcdefghijklmnopqrstuvwxyz"
BOUNDARY, UNKNOWN, FIRST = 0, 1, 2
STOP = FIRST + CHARACTERS.index(".")
UNITS, ROWS, STEPS, LEARNING_RATE = 64, 32, 600, 1e-2
TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
WRITTEN, LONGEST = 1000, 60


class Sentences(NamedTuple):
    """Tokens that are read [B, T], and those that follow them; -100 in padding."""

    inputs: Tensor
    targets: Tensor


class Sample(NamedTuple):
    """Sentences at a temperature, and in bits per sentence [B] what the drawn characters cost in all.

    surprise  Σ_t -log2 p_T(x_t); entropy  Σ_t H(p_T) before each; characters  how many [B].
    """

    texts: list[str]
    surprise: Tensor
    entropy: Tensor
    characters: Tensor


class Measured(NamedTuple):
    """Bits per character, and the shares of sentences that are grammatical, that differ, and both."""

    entropy: float
    grammatical: float
    distinct: float
    both: float


def run(seed: int) -> Finding:
    """One model, which writes at each temperature."""
    generator = torch.Generator().manual_seed(seed)
    model = learn(seed, generator)
    with one_thread():
        samples = {each: write(model, each, WRITTEN, generator) for each in TEMPERATURES}
        greedy, cold = (write(model, each, 50, generator).texts for each in (0.0, 0.01))
        logits = _logits(model, draw_sentences(200, generator))
    measured = {temperature: measure(each) for temperature, each in samples.items()}
    rows = [{"temperature": temperature, **each._asdict()} for temperature, each in measured.items()]
    claims = [_monotone(logits), _model_itself(samples[1.0]), _greedy(greedy, cold), _trade(measured)]
    return Finding(claims, rows, lambda: _draw(measured))


def sentence(generator: torch.Generator) -> str:
    """A sentence of the grammar; of each kind of word the k-th is chosen in proportion to 1 / k (Zipf)."""

    def pick(choices: tuple[str, ...]) -> str:
        weights = 1 / torch.arange(1.0, len(choices) + 1)
        return choices[int(torch.multinomial(weights, 1, generator=generator))]

    number, other = torch.randint(0, 2, (2,), generator=generator).tolist()
    subject, thing = (f"{pick(DETERMINERS[k])} {pick(ADJECTIVES)}{pick(NOUNS[k])}" for k in (number, other))
    return f"{subject} {pick(VERBS[number])} {thing}."


def is_grammatical(text: str) -> bool:
    """Whether the grammar has this sentence."""
    return GRAMMAR.fullmatch(text) is not None


def _grammar() -> re.Pattern[str]:
    adjective = f"(?:{'|'.join(ADJECTIVES)})"
    nouns = [
        f"(?:{'|'.join(determiners)}) {adjective}(?:{'|'.join(nouns)})"
        for determiners, nouns in zip(DETERMINERS, NOUNS, strict=True)
    ]
    subjects = [f"{noun} (?:{'|'.join(verbs)})" for noun, verbs in zip(nouns, VERBS, strict=True)]
    return re.compile(rf"(?:{'|'.join(subjects)}) (?:{'|'.join(nouns)})\.")


GRAMMAR = _grammar()


def draw_sentences(count: int, generator: torch.Generator) -> Sentences:
    """So many sentences of the grammar as tokens."""
    tokens = [
        torch.tensor([BOUNDARY, *(FIRST + CHARACTERS.index(c) for c in sentence(generator))])
        for _ in range(count)
    ]
    padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=-100)
    return Sentences(padded[:, :-1].clamp(min=0), padded[:, 1:])


def learn(seed: int, generator: torch.Generator) -> LanguageModel:
    """A language model of the sentences."""
    with seeded(seed):
        model = LanguageModel(FIRST + len(CHARACTERS), BOUNDARY, UNKNOWN, hidden=UNITS)
    train(
        model,
        lambda: draw_sentences(ROWS, generator),
        lambda batch: model.loss(batch).mean,
        STEPS,
        LEARNING_RATE,
    )
    return model


def write(model: LanguageModel, temperature: float, count: int, generator: torch.Generator) -> Sample:
    """Draw so many sentences, up to the full stop or the longest that is allowed."""
    said: list[Tensor] = []

    def step(tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        log_probs, state = model.step(tokens, state)
        said.append(filtered(log_probs, temperature))
        return log_probs, state

    begin = torch.full((count,), BOUNDARY)
    draws = sample(step, begin, model.begin(count), temperature=temperature, generator=generator)
    tokens = torch.stack([next(draws) for _ in range(LONGEST)], 1)
    log_probs = torch.stack(said, 1).double() / math.log(2)
    written = (tokens == STOP).cumsum(1) - (tokens == STOP).long() == 0
    surprise = -log_probs.gather(2, tokens[..., None])[..., 0] * written
    entropy = torch.special.entr(log_probs.mul(math.log(2)).exp()).sum(2) / math.log(2) * written
    texts = [
        "".join(_character(k) for k in row[keep].tolist()) for row, keep in zip(tokens, written, strict=True)
    ]
    return Sample(texts, surprise.sum(1), entropy.sum(1), written.sum(1))


def measure(each: Sample) -> Measured:
    """What the claims speak of."""
    count = len(each.texts)
    return Measured(
        float(each.entropy.sum() / each.characters.sum()),
        sum(map(is_grammatical, each.texts)) / count,
        len(set(each.texts)) / count,
        sum(map(is_grammatical, set(each.texts))) / count,
    )


def entropies(logits: Tensor, temperature: Tensor | float) -> Tensor:
    """H(softmax(z / T)) in nats for each row of logits."""
    return torch.special.entr((logits / temperature).softmax(-1)).sum(-1)


def slope(logits: Tensor, temperature: float) -> Tensor:
    """dH/dT = Var_p(z) / T³ for each row of logits."""
    probs = (logits / temperature).softmax(-1)
    mean = (probs * logits).sum(-1, keepdim=True)
    return (probs * (logits - mean).square()).sum(-1) / temperature**3


def _character(token: int) -> str:
    return CHARACTERS[token - FIRST] if token >= FIRST else "?"


@torch.no_grad()
def _logits(model: LanguageModel, batch: Sentences) -> Tensor:
    """The logits z, less a constant for each row, before every character of some sentences [N, C]."""
    features, _ = model.features(batch.inputs, model.begin(len(batch.inputs)))
    return model.head.log_probs(features[batch.targets != -100]).double()


def _monotone(logits: Tensor) -> Claim:
    steps = torch.stack([entropies(logits, each) for each in TEMPERATURES]).diff(dim=0)
    wrong = 0.0
    for each in TEMPERATURES:
        temperature = torch.full((len(logits), 1), each, dtype=torch.float64, requires_grad=True)
        (by_autograd,) = torch.autograd.grad(entropies(logits, temperature).sum(), temperature)
        wrong = max(wrong, float((by_autograd[:, 0] - slope(logits, each)).abs().max()))
    return Claim(
        "The higher the temperature the higher the entropy of what is drawn from, at every step: "
        "dH/dT = Var(z) / T³.",
        f"in {len(logits)} contexts it grows by {float(steps.min()):.0e} nats or more from each T to the "
        f"next; autograd's dH/dT differs from the formula by {wrong:.0e} at most.",
        held(bool((steps >= 0).all()) and wrong < 1e-9, part=bool((steps >= -1e-9).all())),
    )


def _model_itself(each: Sample) -> Claim:
    apart = each.surprise - each.entropy
    errors = float(apart.mean() / (apart.std() / len(apart) ** 0.5))
    surprise, entropy = (float(bits.sum() / each.characters.sum()) for bits in (each.surprise, each.entropy))
    return Claim(
        "At temperature 1 what is drawn is distributed as the model says.",
        f"what is drawn costs the model {surprise:.3f} bits per character, and its entropy there is "
        f"{entropy:.3f}: {abs(errors):.1f} standard errors apart.",
        held(abs(errors) < 3),
    )


def _greedy(greedy: list[str], cold: list[str]) -> Claim:
    same = sum(text == greedy[0] for text in cold) / len(cold)
    return Claim(
        "Towards temperature 0 it becomes greedy search, which always says the same.",
        f'greedy search says "{greedy[0]}"; at T = 0.01 {same:.0%} of {len(cold)} sentences are this one.',
        held(same > 0.99 and len(set(greedy)) == 1, part=same > 0.5),
    )


def _trade(measured: dict[float, Measured]) -> Claim:
    cold, one, hot = (measured[each] for each in (TEMPERATURES[0], 1.0, TEMPERATURES[-1]))
    best = max(measured, key=lambda each: measured[each].both)
    return Claim(
        "Low temperatures are safe and say the same again, high ones are varied and make mistakes.",
        f"at T = {TEMPERATURES[0]:g}, 1 and {TEMPERATURES[-1]:g} "
        + ", ".join(f"{each.grammatical:.1%}" for each in (cold, one, hot))
        + f" of {WRITTEN} sentences are grammatical and "
        + ", ".join(f"{each.distinct:.1%}" for each in (cold, one, hot))
        + f" differ; most that are both, {measured[best].both:.1%}, are drawn at T = {best:g}.",
        held(
            cold.grammatical > one.grammatical > hot.grammatical
            and cold.distinct < min(one.distinct, hot.distinct),
            part=one.grammatical > hot.grammatical or cold.distinct < one.distinct,
        ),
    )


def _draw(measured: dict[float, Measured]) -> Figure:
    from throughtime.insight.figures import points, slide

    figure, (shares, bits) = slide(2)
    for k, (name, label) in enumerate((("grammatical", None), ("distinct", "different"), ("both", None))):
        values = [100 * getattr(each, name) for each in measured.values()]
        shares.plot(TEMPERATURES, values, label=label or name, **points(k))
    bits.plot(TEMPERATURES, [each.entropy for each in measured.values()], label="the model", **points(3))
    bits.axhline(math.log2(FIRST + len(CHARACTERS)), color="0.45", linewidth=1, label="all characters alike")
    shares.set(title=f"{WRITTEN} sentences of the model", ylabel="share of sentences (%)", ylim=(0, 104))
    bits.set(
        title="what a character is drawn from", ylabel="mean entropy (bits per character)", ylim=(0, 5.4)
    )
    for panel in (shares, bits):
        panel.axvline(1, color="0.3", linewidth=1.5, linestyle=":")
        panel.set_xlabel("temperature T (no unit)")
    figure.legend(loc="outside lower center", ncols=5)
    return figure
