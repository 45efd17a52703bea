"""Searches over CTC against the enumeration of every alignment, with and without a language model."""

import itertools
import math
from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.decode.ctc import (
    Fusion,
    align,
    collapse,
    greedy_search,
    prefix_beam_search,
    sequence_log_prob,
)
from throughtime.errors import ConfigError, ShapeError

quickly = settings(max_examples=60, deadline=None)
steps, classes, seeds = st.integers(0, 5), st.integers(2, 4), st.integers(0, 10**6)


def drawn(steps, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(steps, classes, generator=generator, dtype=torch.float64)).log_softmax(-1)


def everything(log_probs, blank=0):
    """log p of every output."""
    count, classes = log_probs.shape
    found = defaultdict(list)
    for path in itertools.product(range(classes), repeat=count):
        value = math.fsum(log_probs[t, k].item() for t, k in enumerate(path))
        found[tuple(collapse(path, blank)[0])].append(value)
    return {y: torch.tensor(values).double().logsumexp(0).item() for y, values in found.items()}


def test_equal_neighbours_are_one_and_blanks_go():
    assert collapse([0, 1, 1, 0, 1, 2, 2, 0]) == ([1, 1, 2], 0)
    assert collapse([]) == ([], 0)


@given(st.lists(st.integers(0, 2), max_size=12), st.integers(0, 12))
def test_an_alignment_in_two_pieces_is_that_of_the_whole(path, at):
    one, last = collapse(path[:at])
    two, _ = collapse(path[at:], before=last)
    assert one + two == collapse(path)[0]


@quickly
@given(steps, classes, seeds)
def test_the_probability_of_an_output_is_the_sum_over_alignments(count, size, seed):
    log_probs = drawn(count, size, seed)
    for y, expected in everything(log_probs).items():
        assert sequence_log_prob(log_probs, y) == pytest.approx(expected, abs=1e-5)


@quickly
@given(steps, classes, seeds)
def test_the_alignment_is_the_likeliest_of_all(count, size, seed):
    log_probs = drawn(count, size, seed)
    best = defaultdict(lambda: (-math.inf, None))
    for path in itertools.product(range(size), repeat=count):
        y = tuple(collapse(path)[0])
        best[y] = max(best[y], (math.fsum(log_probs[t, k].item() for t, k in enumerate(path)), path))
    for y, (_, path) in best.items():
        spans, t = [], 0
        for k, run in itertools.groupby(path):
            length = len(list(run))
            spans += [(t, t + length)] * (k != 0)
            t += length
        assert align(log_probs, y) == spans


def test_what_has_no_alignment_is_refused():
    with pytest.raises(ShapeError, match="2 steps have no alignment with 2 tokens"):
        align(drawn(2, 3, 0), [1, 1])
    with pytest.raises(ShapeError, match="0 steps"):
        align(torch.zeros(0, 3), [1])
    assert align(torch.zeros(0, 3), []) == []


@quickly
@given(steps, classes, seeds)
def test_greedy_search_takes_the_likeliest_class_of_each_step(count, size, seed):
    log_probs = drawn(count, size, seed)
    found = greedy_search(log_probs)
    assert found.tokens == collapse(log_probs.argmax(-1).tolist())[0]
    assert found.log_prob == pytest.approx(everything(log_probs)[tuple(found.tokens)], abs=1e-5)


@quickly
@given(steps, classes, seeds, st.integers(0, 3), st.floats(-1, 2))
def test_with_enough_beams_the_search_is_exact(count, size, seed, blank, bonus):
    blank %= size
    log_probs = drawn(count, size, seed)
    scores = {y: value + bonus * len(y) for y, value in everything(log_probs, blank).items()}
    ranked = sorted(scores, key=lambda y: -scores[y])
    found = prefix_beam_search(log_probs, blank=blank, beams=2000, n_best=5, length_bonus=bonus)
    assert [tuple(each.tokens) for each in found] == ranked[:5]
    for each in found:
        assert each.score == pytest.approx(scores[tuple(each.tokens)], abs=1e-5)
        assert each.log_prob == pytest.approx(each.score - bonus * len(each.tokens), abs=1e-5)


def fused(chance, size, seed, weight):
    """A language model whose probabilities depend on all before; column 0 is the end."""
    model = chance(size, seed)
    tokens, state = model.begin(0)
    with torch.no_grad():
        first, state = model.step(tokens, state)
    return model, Fusion(model.step, first[0], state[0], weight)


@quickly
@given(steps, classes, seeds, st.floats(0, 2), st.floats(-1, 1))
def test_with_a_language_model_it_is_exact_too(chance, count, size, seed, weight, bonus):
    log_probs = drawn(count, size, seed)
    model, fusion = fused(chance, size, seed, weight)

    def language(y):
        ends = [*y, 0]
        return math.fsum(model.log_probs((0, *ends[:k]))[ends[k]].item() for k in range(len(ends)))

    scores = {y: v + weight * language(y) + bonus * len(y) for y, v in everything(log_probs).items()}
    ranked = sorted(scores, key=lambda y: -scores[y])
    found = prefix_beam_search(log_probs, beams=2000, n_best=3, fusion=fusion, length_bonus=bonus)
    assert [tuple(each.tokens) for each in found] == ranked[:3]
    assert found[0].score == pytest.approx(scores[ranked[0]], abs=1e-5)


def test_what_a_language_model_excludes_is_not_put_out_unless_nobody_asks_it(chance):
    log_probs = drawn(5, 4, 2)
    model = chance(4, 2)

    def step(tokens, state):
        values, state = model.step(tokens, state)
        values[:, 2] = -torch.inf
        return values, state

    with torch.no_grad():
        first, state = step(*model.begin(0))
    for weight, excluded in ((0.5, True), (0.0, False)):
        fusion = Fusion(step, first[0], state[0], weight)
        found = prefix_beam_search(log_probs, beams=500, n_best=50, fusion=fusion)
        assert (not any(2 in each.tokens for each in found)) == excluded
        assert all(math.isfinite(each.score) for each in found)


@quickly
@given(seeds)
def test_fewer_beams_find_no_better_output(chance, seed):
    log_probs = drawn(6, 4, seed)
    _, fusion = fused(chance, 4, seed, 0.7)
    scores = [prefix_beam_search(log_probs, beams=n, fusion=fusion)[0].score for n in (1, 3, 5000)]
    assert scores[0] <= scores[2] + 1e-9 and scores[1] <= scores[2] + 1e-9


@quickly
@given(seeds, st.integers(1, 4), st.floats(0, 2), st.floats(-1, 1))
def test_scores_are_exact_and_in_order_however_few_beams_there_are(chance, seed, beams, weight, bonus):
    log_probs = drawn(8, 4, seed)
    model, fusion = fused(chance, 4, seed, weight)
    found = prefix_beam_search(log_probs, beams=beams, n_best=beams, fusion=fusion, length_bonus=bonus)
    for each in found:
        ends = [*each.tokens, 0]
        language = sum(model.log_probs((0, *ends[:k]))[token].item() for k, token in enumerate(ends))
        exact = sequence_log_prob(log_probs, each.tokens)
        assert each.log_prob == pytest.approx(exact, abs=1e-9)
        assert each.score == pytest.approx(exact + weight * language + bonus * len(each.tokens), abs=1e-9)
    scores = [each.score for each in found]
    assert scores == sorted(scores, reverse=True)


def test_the_search_finds_what_greedy_search_does_not():
    # Two steps: the blank is likelier at each, and yet the token is likelier in all.
    log_probs = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()
    assert greedy_search(log_probs).tokens == []
    best = prefix_beam_search(log_probs, beams=4)[0]
    assert best.tokens == [1] and best.log_prob == pytest.approx(math.log(0.64))


def test_impossible_classes_are_not_put_out():
    log_probs = drawn(5, 4, 1)
    log_probs[:, 2] = -torch.inf
    for each in prefix_beam_search(log_probs, beams=50, n_best=20):
        assert 2 not in each.tokens and math.isfinite(each.log_prob)


def test_bad_calls_are_named():
    with pytest.raises(ConfigError, match="beams and n_best must be 1 or more"):
        prefix_beam_search(drawn(2, 3, 0), beams=0)
    with pytest.raises(ShapeError, match=r"\[steps, classes\]"):
        greedy_search(torch.zeros(1, 2, 3))
    with pytest.raises(ShapeError, match="NaN"):
        prefix_beam_search(torch.full((2, 3), torch.nan))
