"""Sampling: what is kept of a distribution, and that draws follow what is kept."""

import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from throughtime.decode.sampling import filtered, sample
from throughtime.errors import ConfigError

quickly = settings(max_examples=200, deadline=None)
scores = st.lists(st.floats(-6, 6), min_size=1, max_size=8)
temperatures = st.floats(0.1, 5)
SKEWED = torch.tensor([[0.05, 0.4, 0.15, 0.1, 0.3]]).log()


def normalised(scores) -> torch.Tensor:
    return torch.tensor([scores], dtype=torch.float64).log_softmax(-1)


def by_definition(log_probs, temperature, top_k, top_p):
    """Probabilities after filtering, one class after another; and how near a sum came to `top_p`."""
    weights = [math.exp((value - max(log_probs)) / temperature) for value in log_probs]
    order = sorted(range(len(weights)), key=lambda k: (-weights[k], k))[:top_k]
    total, reached, kept, margin = sum(weights[k] for k in order), 0.0, [], 1.0
    for k in order:
        if top_p is not None and reached >= top_p:
            break
        kept.append(k)
        reached += weights[k] / total
        margin = min(margin, abs(reached - (top_p or 2.0)))
    mass = sum(weights[k] for k in kept)
    return [weights[k] / mass if k in kept else 0.0 for k in range(len(weights))], margin


# What is kept.


@quickly
@given(
    scores=scores,
    temperature=temperatures,
    top_k=st.none() | st.integers(1, 9),
    top_p=st.none() | st.floats(0.01, 1),
)
def test_filtered_is_its_definition(scores, temperature, top_k, top_p):
    log_probs = normalised(scores)
    expected, margin = by_definition(log_probs[0].tolist(), temperature, top_k, top_p)
    assume(margin > 1e-9)
    probs = filtered(log_probs, temperature, top_k, top_p).exp()[0].tolist()
    assert probs == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert sum(probs) == pytest.approx(1)


def test_without_options_the_distribution_stays_as_it_is():
    torch.testing.assert_close(filtered(SKEWED), SKEWED)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"top_k": 1}, {1: 1.0}),
        ({"top_k": 2}, {1: 4 / 7, 4: 3 / 7}),
        ({"top_k": 9}, dict(enumerate([0.05, 0.4, 0.15, 0.1, 0.3]))),
        ({"top_p": 0.01}, {1: 1.0}),
        ({"top_p": 0.39}, {1: 1.0}),
        ({"top_p": 0.41}, {1: 4 / 7, 4: 3 / 7}),
        ({"top_p": 0.71}, {1: 0.4 / 0.85, 4: 0.3 / 0.85, 2: 0.15 / 0.85}),
        ({"top_k": 2, "top_p": 0.55}, {1: 1.0}),
        ({"top_k": 2, "top_p": 0.6}, {1: 4 / 7, 4: 3 / 7}),
        ({"temperature": 0.5, "top_k": 2}, {1: 16 / 25, 4: 9 / 25}),
        ({"temperature": 0}, {1: 1.0}),
        ({"temperature": 0, "top_k": 3, "top_p": 0.9}, {1: 1.0}),
    ],
)
def test_known_answers(options, kept):
    probs = filtered(SKEWED, **options).exp()[0].tolist()
    assert probs == pytest.approx([kept.get(k, 0.0) for k in range(5)], abs=1e-6)


def test_top_p_counts_what_top_k_left():
    """0.4 of 0.7 is more than 0.55; 0.4 of 1 is not."""
    assert (filtered(SKEWED, top_p=0.55).exp() > 0).sum() == 2
    assert (filtered(SKEWED, top_k=2, top_p=0.55).exp() > 0).sum() == 1


def test_top_p_counts_what_the_temperature_made():
    assert (filtered(SKEWED, 0.25, top_p=0.7).exp() > 0).sum() == 1
    assert (filtered(SKEWED, 4.0, top_p=0.7).exp() > 0).sum() == 4


@quickly
@given(scores=scores)
def test_temperature_0_is_the_likeliest_alone(scores):
    log_probs = normalised(scores)
    probs = filtered(log_probs, 0.0).exp()
    assert probs.sum() == 1
    assert probs.argmax() == log_probs.argmax()


def test_of_two_that_are_as_likely_the_first_is_kept():
    log_probs = torch.tensor([[0.1, 0.3, 0.3, 0.3]]).log()
    for options in ({"temperature": 0}, {"top_k": 1}, {"top_p": 0.2}):
        assert filtered(log_probs, **options).exp()[0].tolist() == [0, 1, 0, 0]


def test_each_row_is_filtered_by_itself():
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(5, 7, generator=generator).log_softmax(-1)
    together = filtered(rows, 0.7, 4, 0.8)
    torch.testing.assert_close(together, torch.cat([filtered(row[None], 0.7, 4, 0.8) for row in rows]))


def test_what_is_impossible_stays_so():
    log_probs = torch.tensor([[0.5, 0.0, 0.5]]).log()
    for options in ({}, {"temperature": 3.0}, {"top_k": 3}, {"top_p": 1.0}):
        assert filtered(log_probs, **options).exp()[0].tolist() == pytest.approx([0.5, 0, 0.5])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": -0.5}, "temperature must be 0 or more and finite, got -0.5"),
        ({"temperature": math.nan}, "temperature must be 0 or more and finite, got nan"),
        ({"temperature": math.inf}, "temperature must be 0 or more and finite, got inf"),
        ({"top_k": 0}, "top-k must be 1 or more, got 0"),
        ({"top_k": -3}, "top-k must be 1 or more, got -3"),
        ({"top_p": 0.0}, "top-p must lie in (0, 1], got 0"),
        ({"top_p": 1.5}, "top-p must lie in (0, 1], got 1.5"),
        ({"top_p": math.nan}, "top-p must lie in (0, 1], got nan"),
    ],
)
def test_impossible_options(options, said):
    with pytest.raises(ConfigError) as caught:
        filtered(SKEWED, **options)
    assert str(caught.value) == said
    with pytest.raises(ConfigError):
        next(sample(always(SKEWED), torch.tensor([0]), None, **options))


# What is drawn.


def always(log_probs):
    """A step function of one distribution, whatever came before."""
    return lambda tokens, state: (log_probs.expand(len(tokens), -1), state)


def drawn(seed, count=1, rows=1, **options):
    generator = torch.Generator().manual_seed(seed)
    tokens = sample(
        always(SKEWED), torch.zeros(rows, dtype=torch.int64), None, generator=generator, **options
    )
    return torch.stack(list(itertools.islice(tokens, count)), 1)


def test_the_same_seed_draws_the_same():
    assert torch.equal(drawn(3, 50), drawn(3, 50))
    assert not torch.equal(drawn(3, 50), drawn(4, 50))


def test_a_generator_is_all_the_randomness_there_is():
    first = drawn(3, 20)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(drawn(3, 20), first)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.5}, {"temperature": 2.0}, {"top_k": 3}, {"top_p": 0.8}, {"banned": [1, 2]}],
    ids=str,
)
def test_tokens_are_drawn_as_often_as_they_are_likely(options):
    """The statistic of Pearson's test; with 4 degrees of freedom it is over 30 once in 200 000 times."""
    options = dict(options)
    allowed = SKEWED.clone()
    allowed[:, options.get("banned", [])] = -math.inf
    probs = filtered(allowed, **{key: value for key, value in options.items() if key != "banned"}).exp()[0]
    rows = 20_000
    counts = drawn(0, 1, rows, **options).flatten().bincount(minlength=5)
    assert (counts[probs == 0] == 0).all()
    expected = rows * probs[probs > 0]
    assert ((counts[probs > 0] - expected).square() / expected).sum() < 30


def test_banned_tokens_are_never_drawn():
    assert set(drawn(0, 500, banned=[1, 4]).flatten().tolist()) == {0, 2, 3}
    assert drawn(0, 20, banned=[1], temperature=0).unique().tolist() == [4]
    assert drawn(0, 20, banned=[0, 1, 2, 4]).unique().tolist() == [3]


def test_temperature_0_is_greedy_search():
    table = torch.tensor([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.3, 0.4, 0.3]]).log()
    tokens = sample(lambda last, state: (table[last], state), torch.tensor([0, 1]), None, temperature=0)
    assert torch.stack(list(itertools.islice(tokens, 4)), 1).tolist() == [[2, 1, 0, 2], [0, 2, 1, 0]]


def test_each_step_reads_what_was_drawn_and_the_state_before():
    read = []

    def step(tokens, state):
        read.append((tokens.tolist(), state))
        return SKEWED.expand(len(tokens), -1), state + 1

    tokens = sample(step, torch.tensor([3, 2]), 10, generator=torch.Generator().manual_seed(0))
    got = [t.tolist() for t in itertools.islice(tokens, 4)]
    assert read == [([3, 2], 10), (got[0], 11), (got[1], 12), (got[2], 13)]


def test_the_log_probabilities_of_the_model_are_left_as_they_were():
    log_probs = SKEWED.clone()
    next(sample(always(log_probs), torch.tensor([0]), None, banned=[1], top_k=2))
    assert torch.equal(log_probs, SKEWED)


def test_gradients_are_off_in_the_step_alone():
    def step(tokens, state):
        assert not torch.is_grad_enabled()
        return SKEWED, state

    for _ in zip(range(2), sample(step, torch.tensor([0]), None), strict=False):
        assert torch.is_grad_enabled()
