"""Sequences to vectors: loops over single rows as an oracle, and padding that must not be read."""

import copy
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.errors import ConfigError, ShapeError
from throughtime.nn.pooling import (
    AttentionPooling,
    Kind,
    Pooling,
    pool_last,
    pool_max,
    pool_mean,
)
from throughtime.nn.recurrent import Recurrent

BATCH, STEPS, FEATURES = 4, 6, 4
LENGTHS = torch.tensor([3, STEPS, 0, 1])
KINDS = [*get_args(Kind), "bidirectional"]
every_kind = pytest.mark.parametrize("kind", KINDS)


def normal(*shape):
    return torch.randn(shape, dtype=torch.float64)


def make(kind, seed=0):
    """A pooling in float64 whose weights are all drawn."""
    name, both = ("last", True) if kind == "bidirectional" else (kind, False)
    generator = torch.Generator().manual_seed(seed)
    pooling = Pooling(name, FEATURES, bidirectional=both, generator=generator).double()
    with torch.no_grad():
        for parameter in pooling.parameters():
            parameter.add_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return pooling


def attended(steps, attention):
    """Σ a_t y_t over a list of steps, and a, written out."""
    hidden = [torch.tanh(attention.weight @ step + attention.bias) for step in steps]
    powers = torch.stack([(h @ attention.v).exp() for h in hidden])
    weights = powers / powers.sum()
    return sum(a * step for a, step in zip(weights, steps, strict=True)), weights


def by_hand(kind, steps, pooling):
    """One row from the list of its real steps."""
    if not steps:
        return torch.zeros(FEATURES, dtype=torch.float64)
    if kind == "last":
        return steps[-1]
    if kind == "bidirectional":
        return torch.cat([steps[-1][: FEATURES // 2], steps[0][FEATURES // 2 :]])
    if kind == "mean":
        return sum(steps) / len(steps)
    if kind == "max":
        return torch.stack([max(values) for values in zip(*(list(step) for step in steps), strict=True)])
    return attended(steps, pooling.attention)[0]


def rows_of(y, lengths):
    return [list(row[:length]) for row, length in zip(y, lengths.tolist(), strict=True)]


# Known answers.


@every_kind
@given(lengths=st.lists(st.integers(0, STEPS), max_size=5), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_each_row_is_pooled_as_by_hand(kind, lengths, seed):
    torch.manual_seed(seed)
    pooling, lengths = make(kind, seed), torch.tensor(lengths).long()
    y = normal(len(lengths), STEPS, FEATURES)
    pooled = pooling(y, lengths)
    assert pooled.shape == (len(y), FEATURES)
    for row, steps in zip(pooled, rows_of(y, lengths), strict=True):
        torch.testing.assert_close(row, by_hand(kind, steps, pooling))


@every_kind
def test_gradients_are_those_by_hand(kind):
    ours = make(kind)
    theirs = copy.deepcopy(ours)
    y, weights = normal(BATCH, STEPS, FEATURES), normal(BATCH, FEATURES)
    one, other = y.clone().requires_grad_(), y.clone().requires_grad_()
    (ours(one, LENGTHS) * weights).sum().backward()
    pooled = torch.stack([by_hand(kind, steps, theirs) for steps in rows_of(other, LENGTHS)])
    (pooled * weights).sum().backward()
    torch.testing.assert_close(one.grad, other.grad)
    for mine, parameter in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.grad.abs().sum() > 0
        torch.testing.assert_close(mine.grad, parameter.grad)


@every_kind
def test_gradcheck(kind):
    pooling, y = make(kind), normal(BATCH, STEPS, FEATURES).requires_grad_()
    names, values = zip(*pooling.named_parameters(), strict=True) if kind == "attention" else ((), ())

    def run(y, *values):
        parameters = dict(zip(names, values, strict=True))
        return torch.func.functional_call(pooling, parameters, (y, LENGTHS))

    assert torch.autograd.gradcheck(run, (y, *values))


@every_kind
def test_no_lengths_are_full_lengths(kind):
    pooling, y = make(kind), normal(BATCH, STEPS, FEATURES)
    assert torch.equal(pooling(y), pooling(y, torch.full((BATCH,), STEPS)))


def test_attention_tells_its_weights():
    attention, y = make("attention").attention, normal(BATCH, STEPS, FEATURES)
    pooled, weights = attention(y, LENGTHS)
    assert weights.shape == (BATCH, STEPS)
    for row, a, steps in zip(pooled, weights, rows_of(y, LENGTHS), strict=True):
        assert a[len(steps) :].tolist() == [0] * (STEPS - len(steps))
        if steps:
            torch.testing.assert_close(a[: len(steps)], attended(steps, attention)[1])
            torch.testing.assert_close(row, sum(w * step for w, step in zip(a, steps, strict=False)))


def test_attention_takes_large_scores():
    attention = AttentionPooling(FEATURES)
    with torch.no_grad():
        attention.v.mul_(1e6)
    _, weights = attention(torch.randn(BATCH, STEPS, FEATURES), LENGTHS)
    torch.testing.assert_close(weights.sum(1), (LENGTHS > 0).float())
    assert not weights[torch.arange(STEPS) >= LENGTHS[:, None]].any()


def test_the_last_step_of_a_bidirectional_layer_is_what_each_direction_ends_with():
    layer = Recurrent("gru", 3, FEATURES // 2, bidirectional=True)
    y, ((forward,), (backward,)) = layer(torch.randn(BATCH, STEPS, 3), lengths=LENGTHS)
    assert torch.equal(pool_last(y, LENGTHS, bidirectional=True), torch.cat([forward, backward], -1))


def test_the_maximum_may_be_negative():
    y = torch.tensor([[[-3.0], [-2.0], [9.0]]])
    assert pool_max(y, torch.tensor([2])).tolist() == [[-2]]


# Padding and rows without steps.


@every_kind
@pytest.mark.parametrize("filler", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_padding_reaches_no_value_and_no_gradient(kind, filler):
    y, padding = normal(BATCH, STEPS, FEATURES), torch.arange(STEPS) >= LENGTHS[:, None]
    weights, results = normal(BATCH, FEATURES), []
    for content in (0.0, filler):
        pooling, filled = make(kind), y.masked_fill(padding[..., None], content).requires_grad_()
        pooled = pooling(filled, LENGTHS)
        (pooled * weights).sum().backward()
        assert not filled.grad[padding].any()
        results.append([pooled, filled.grad, *(parameter.grad for parameter in pooling.parameters())])
    assert all(value.isfinite().all() for value in results[1])
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)


@every_kind
def test_a_row_without_steps_gives_zeros_and_moves_nothing(kind):
    pooling, lengths = make(kind), torch.zeros(BATCH, dtype=torch.long)
    y = torch.full((BATCH, STEPS, FEATURES), torch.nan, dtype=torch.float64, requires_grad=True)
    with torch.autograd.set_detect_anomaly(True):  # no NaN on the way either
        pooled = pooling(y, lengths)
        pooled.backward(torch.ones_like(pooled))
    assert not pooled.any()
    assert not y.grad.any()
    assert not any(parameter.grad.any() for parameter in pooling.parameters())


@every_kind
@pytest.mark.parametrize(("batch", "steps"), [(3, 0), (0, STEPS), (0, 0)])
def test_no_steps_and_no_rows(kind, batch, steps):
    pooling, y = make(kind), normal(batch, steps, FEATURES).requires_grad_()
    for lengths in (None, torch.zeros(batch, dtype=torch.long)):
        pooled = pooling(y, lengths)
        assert pooled.shape == (batch, FEATURES)
        assert not pooled.any()
        pooled.sum().backward()
        assert y.grad.shape == y.shape


@every_kind
def test_a_row_does_not_depend_on_its_batch(kind):
    pooling, y = make(kind), normal(BATCH, STEPS, FEATURES)
    pooled = pooling(y, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(pooling(y[row : row + 1, :length])[0], pooled[row])


# By name, and from a seed.


def test_a_name_stands_for_its_function():
    y = torch.randn(BATCH, STEPS, FEATURES)
    for kind, function in (("last", pool_last), ("mean", pool_mean), ("max", pool_max)):
        pooling = Pooling(kind, FEATURES)
        assert torch.equal(pooling(y, LENGTHS), function(y, LENGTHS))
        assert pooling.attention is None
        assert not list(pooling.parameters())


def test_a_generator_decides_the_weights():
    def weights(seed):
        pooling = Pooling("attention", FEATURES, generator=torch.Generator().manual_seed(seed))
        return torch.cat([parameter.flatten() for parameter in pooling.parameters()])

    before = torch.get_rng_state()
    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_repr_says_what_the_pooling_is():
    assert "attention, 4, bidirectional=False" in repr(Pooling("attention", 4))
    assert repr(AttentionPooling(4)).startswith("AttentionPooling(\n  4")


def test_attention_learns_which_step_matters():
    """The step whose first feature is 1 holds the answer; the mean of all steps cannot tell it."""
    generator = torch.Generator().manual_seed(0)
    pooling = AttentionPooling(3, generator)
    optimizer = torch.optim.Adam(pooling.parameters(), lr=0.05)
    for _ in range(150):
        y = torch.randn(64, 8, 3, generator=generator)
        marked = torch.randint(8, (64,), generator=generator)
        y[..., 0] = 0
        y[torch.arange(64), marked, 0] = 1
        pooled, weights = pooling(y)
        loss = (pooled - y[torch.arange(64), marked]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert weights[torch.arange(64), marked].mean() > 0.9


# What is refused.


def test_an_unknown_kind():
    with pytest.raises(ConfigError) as caught:
        Pooling("median", FEATURES)
    assert str(caught.value) == 'there is no pooling "median": there are last, mean, max, attention'


def test_impossible_features():
    with pytest.raises(ConfigError, match="features must be 1 or more, got 0"):
        AttentionPooling(0)


@every_kind
@pytest.mark.parametrize("shape", [(BATCH, FEATURES), (BATCH, STEPS, FEATURES + 2)])
def test_y_must_fit(kind, shape):
    with pytest.raises(ShapeError, match=r"y must have shape \[batch, time, 4\], got "):
        make(kind)(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize("pool", [pool_last, pool_mean, pool_max])
@pytest.mark.parametrize("y", [torch.zeros(2, 3), torch.zeros(2, 3, 4, dtype=torch.long)])
def test_y_must_be_sequences_of_numbers(pool, y):
    with pytest.raises(ShapeError, match=r"y must be floating point of shape \[batch, time, feature\], got "):
        pool(y)


@every_kind
@pytest.mark.parametrize(
    "lengths",
    [
        [STEPS] * BATCH,
        torch.tensor([STEPS]),
        torch.ones(BATCH),
        torch.ones(BATCH, dtype=torch.bool),
        torch.tensor([STEPS + 1, 1, 1, 1]),
        torch.tensor([-1, 1, 1, 1]),
    ],
)
def test_lengths_must_fit(kind, lengths):
    with pytest.raises(ShapeError, match="lengths must "):
        make(kind)(normal(BATCH, STEPS, FEATURES), lengths)


def test_two_directions_have_an_even_number_of_features():
    with pytest.raises(ShapeError, match="even number of features, got 3"):
        pool_last(torch.zeros(1, 2, 3), bidirectional=True)
