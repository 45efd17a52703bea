"""Plain histories against their definitions; pieces, padding, documents; and as language models."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.models.history import BagHistory, WindowHistory
from throughtime.models.language_model import LanguageModel

FEATURES, HIDDEN, BATCH, SIZE = 3, 4, 3, 3


def make(kind):
    torch.manual_seed(0)
    made = {
        "window": lambda: WindowHistory(FEATURES, HIDDEN, SIZE),
        "one": lambda: WindowHistory(FEATURES, HIDDEN, 1),
        "bag": lambda: BagHistory(FEATURES, HIDDEN),
    }[kind]()
    return made.double().eval()


every_kind = pytest.mark.parametrize("kind", ["window", "one", "bag"])


def by_definition(layer, x, reset):
    """One row, step by step."""
    document, outputs = [], []
    for step, begins in zip(x, reset, strict=True):
        document = [step] if begins else [*document, step]
        if isinstance(layer, BagHistory):
            seen = torch.stack(document).mean(0)
        else:
            nothing = [torch.zeros(FEATURES, dtype=x.dtype)] * layer.size
            seen = torch.cat([*reversed(document), *nothing][: layer.size])
        outputs.append(layer.linear(seen).relu())
    return torch.stack(outputs) if outputs else x.new_zeros(0, HIDDEN)


def problem(seed, steps):
    torch.manual_seed(seed)
    x = torch.randn(BATCH, steps, FEATURES, dtype=torch.float64)
    return x, torch.rand(BATCH, steps) < 0.25, torch.randint(steps + 1, (BATCH,))


def equal(one, other):
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@every_kind
@given(seed=st.integers(0, 1000), steps=st.integers(0, 9))
@settings(max_examples=30)
def test_each_step_is_as_defined(kind, seed, steps):
    layer, (x, reset, lengths) = make(kind), problem(seed, steps)
    padded = x.masked_fill((torch.arange(steps) >= lengths[:, None])[..., None], torch.nan)
    y, _ = layer(padded, lengths=lengths, reset=reset)
    for row, length in enumerate(lengths.tolist()):
        equal(y[row, :length], by_definition(layer, x[row, :length], reset[row, :length]))
        assert not y[row, length:].any()


@every_kind
@given(seed=st.integers(0, 1000), cut=st.integers(0, 6))
@settings(max_examples=30)
def test_pieces_make_no_difference(kind, seed, cut):
    """The first piece ends at another step in each row, and the rest goes on from there."""
    layer, (x, reset, _) = make(kind), problem(seed, 6)
    whole, last = layer(x, reset=reset)
    lengths = torch.tensor([cut, 6, (cut + 3) % 7])
    first, state = layer(x, lengths=lengths, reset=reset)
    for row, length in enumerate(lengths.tolist()):
        one = tuple(tuple(value[row : row + 1] for value in values) for values in state)
        rest, after = layer(x[row : row + 1, length:], one, reset=reset[row : row + 1, length:])
        equal(torch.cat([first[row, :length], rest[0]]), whole[row])
        equal(after, tuple(tuple(value[row : row + 1] for value in values) for values in last))


@every_kind
def test_gradients_are_right(kind):
    layer, (x, reset, lengths) = make(kind), problem(1, 5)
    parameters = tuple(layer.parameters())

    def run(x, *_):
        y, state = layer(x, lengths=lengths, reset=reset)
        return y, state[0][0]

    assert torch.autograd.gradcheck(run, (x.requires_grad_(), *parameters))


#: What comes last depends on the order of two; or on what stands four steps before.
ORDER, DISTANCE = [[0, 2, 3, 4], [0, 3, 2, 5]], [[0, *[2, 4, 4, 4] * 8], [0, *[3, 4, 4, 4] * 8]]


@pytest.mark.parametrize(
    ("model", "rows", "learns"),
    [
        ("bag-of-words", ORDER, False),
        ("fixed-window", ORDER, True),
        ("fixed-window", DISTANCE, False),
        ("big-window", DISTANCE, True),
    ],
)
def test_a_language_model_learns_what_its_history_keeps(model, rows, learns):
    tokens = torch.tensor(rows)
    batch = SimpleNamespace(inputs=tokens[:, :-1], targets=tokens[:, 1:])
    torch.manual_seed(0)
    made = LanguageModel(6, 0, 1, model=model, hidden=16, window=3, context=6)
    optimizer = torch.optim.Adam(made.parameters(), 0.02)
    for _ in range(150):
        loss = made.loss(batch).mean
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # Nothing tells the first token of a row.
    assert (loss < 0.1 + math.log(2) / batch.targets.shape[1]) == learns
    row = tokens[0]
    alone, _ = made.log_probs_of(row[:-1], row[1:], made.begin(1))
    state, stepped = made.begin(1), []
    for token, target in itertools.pairwise(row):
        log_probs, state = made.step(token[None], state)
        stepped.append(log_probs[0, target].detach())
    torch.testing.assert_close(alone, torch.stack(stepped), rtol=1e-4, atol=1e-4)
