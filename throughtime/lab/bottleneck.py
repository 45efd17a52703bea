"""A sequence through one vector: repeat what was read by the encoder's last state alone, or with attention.

    without: h_0 = m_S,                          softmax(V h_t + b)
    with:    c_t = Σ_s a_ts m_s, a_t = softmax_s(h_tᵀ W m_s),   softmax(V tanh(U [c_t; h_t]) + b)

Random sequences of 10 symbols have no structure: S of them are S log2(10) bits, and all have to fit into m_S,
whatever S is. Attention may look at all m_1 ... m_S again. Both are trained for as many steps on the same
sequences of 1 to 16 symbols, and then say greedily what they read, shorter and longer ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from throughtime.lab.experiment import Claim, Finding, held
from throughtime.lab.training import seeded, train
from throughtime.models.seq2seq import AttentionKind, Seq2Seq

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The symbols are 0 ... 9, and the boundary comes after them.
SYMBOLS = 10
LONGEST, TESTED = 16, (1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 24)
#: Kind of attention and units of the encoder and the decoder.
MODELS: dict[str, tuple[AttentionKind, int]] = {
    "one vector of 32": ("none", 32),
    "one vector of 64": ("none", 64),
    "attention, 64": ("general", 64),
}
SMALL, LARGE, ATTENTION = MODELS
EMBEDDING, ROWS, STEPS, LEARNING_RATE = 32, 64, 450, 1e-2
HELD_OUT = 300
CHANCE = 1 / SYMBOLS
#: The accuracy that is called arriving.
ARRIVES = 0.95

#: The share of symbols that arrive, by the length.
Right = dict[int, float]


class Pairs(NamedTuple):
    """Sequences and themselves as targets, as `throughtime.models.seq2seq.PairBatch` has them."""

    source: Tensor
    source_lengths: Tensor
    inputs: Tensor
    targets: Tensor
    target_lengths: Tensor


def run(seed: int) -> Finding:
    """A small vector, a larger one, and attention."""
    right = {name: learn(kind, units, seed) for name, (kind, units) in MODELS.items()}
    rows = [
        {"model": name, "length": length, "right": share}
        for name, by_length in right.items()
        for length, share in by_length.items()
    ]
    claims = [_falls(right[LARGE]), _larger(right), _holds(right[ATTENTION]), _beyond(right[ATTENTION])]
    return Finding(claims, rows, lambda: _draw(right))


def pairs(lengths: Tensor, generator: torch.Generator) -> Pairs:
    """A random sequence of each length [B], and the same to be said."""
    rows, longest = len(lengths), int(lengths.max())
    symbols = torch.randint(0, SYMBOLS, (rows, longest), generator=generator)
    boundary = torch.full((rows, 1), SYMBOLS)
    said = torch.cat([symbols, boundary], 1).scatter(1, lengths[:, None], SYMBOLS)
    places = torch.arange(longest + 1)
    return Pairs(
        symbols.masked_fill(places[:-1] >= lengths[:, None], 0),
        lengths,
        torch.cat([boundary, symbols], 1).masked_fill(places > lengths[:, None], 0),
        said.masked_fill(places > lengths[:, None], -100),
        lengths + 1,
    )


def learn(attention: AttentionKind, units: int, seed: int) -> Right:
    """Train an encoder-decoder to repeat, and test it at each length."""
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed):
        model = Seq2Seq(
            SYMBOLS,
            SYMBOLS + 1,
            SYMBOLS,
            hidden=units,
            embedding=EMBEDDING,
            attention=attention,
            dropout=0.0,
            tied=False,
        )

    def draw() -> Pairs:
        return pairs(torch.randint(1, LONGEST + 1, (ROWS,), generator=generator), generator)

    train(model, draw, lambda batch: model.loss(batch).mean, STEPS, LEARNING_RATE)
    return {length: _test(model, pairs(torch.full((HELD_OUT,), length), generator)) for length in TESTED}


@torch.no_grad()
def _test(model: Seq2Seq, batch: Pairs) -> float:
    """The share of symbols that greedy search, as long as the source, says in their places."""
    state, tokens, right = model.begin(batch.source, batch.source_lengths), batch.inputs[:, 0], []
    for symbols in batch.source.unbind(1):
        log_probs, state = model.step(tokens, state)
        tokens = log_probs.argmax(1)
        right.append(float((tokens == symbols).float().mean()))
    return sum(right) / len(right)


def _falls(large: Right) -> Claim:
    short, longest = large[4], large[LONGEST]
    return Claim(
        "Through one vector short sequences arrive, and the longer they are the less of them does.",
        f"through 64 units {_shares(large, 4, 8, 12, LONGEST)} of 4, 8, 12 and {LONGEST} symbols arrive; "
        f"guessing has {CHANCE:.0%}.",
        held(short > ARRIVES and longest < short - 0.1, part=longest < short),
    )


def _larger(right: dict[str, Right]) -> Claim:
    reached = {name: reach(right[name]) for name in (SMALL, LARGE)}
    return Claim(
        "A larger vector carries longer ones.",
        f"{ARRIVES:.0%} or more arrive of up to {reached[SMALL]} symbols through 32 units and of up to "
        f"{reached[LARGE]} through 64; of {LONGEST} symbols {_shares(right[SMALL], LONGEST)} and "
        f"{_shares(right[LARGE], LONGEST)}.",
        held(
            reached[LARGE] > reached[SMALL] and right[LARGE][LONGEST] > right[SMALL][LONGEST],
            part=right[LARGE][LONGEST] > right[SMALL][LONGEST],
        ),
    )


def _holds(attention: Right) -> Claim:
    worst = min(share for length, share in attention.items() if length <= LONGEST)
    return Claim(
        "With attention their length makes no difference.",
        f"at the worst of all lengths up to {LONGEST}, the longest in training, {worst:.1%} arrive.",
        held(worst > ARRIVES, part=worst > 0.5),
    )


def _beyond(attention: Right) -> Claim:
    beyond = [length for length in TESTED if length > LONGEST]
    shares = [attention[length] for length in beyond]
    return Claim(
        "Nor does it beyond what was in training.",
        f"{_shares(attention, *beyond)} of {', '.join(map(str, beyond))} symbols arrive: where to look next "
        "was learned for the lengths in training.",
        held(min(shares) > ARRIVES, part=max(shares) > ARRIVES),
    )


def reach(right: Right) -> int:
    """The longest length that arrives, as all shorter ones do; 0 where none does."""
    furthest = 0
    for length, share in right.items():
        if share < ARRIVES:
            break
        furthest = length
    return furthest


def _shares(right: Right, *lengths: int) -> str:
    return ", ".join(f"{right[length]:.0%}" for length in lengths)


def _draw(right: dict[str, Right]) -> Figure:
    from throughtime.insight.figures import points, slide

    figure, (panel,) = slide(1)
    for k, (name, by_length) in enumerate(right.items()):
        panel.plot(list(by_length), [100 * share for share in by_length.values()], label=name, **points(k))
    panel.axhline(100 * CHANCE, color="0.45", linewidth=1, label="guessing")
    panel.axvline(LONGEST, color="0.3", linewidth=1.5, linestyle=":", label="longest in training")
    panel.set(
        title="repeating random symbols", ylabel="symbols said right, in their place (%)", ylim=(0, 103)
    )
    panel.set(xlabel="length of the sequence (symbols)", xticks=TESTED)
    figure.legend(loc="outside lower center", ncols=3)
    return figure
