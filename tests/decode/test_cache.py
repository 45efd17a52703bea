"""The neural cache against a plain loop over every step and every step before it."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.decode.cache import BLOCK, Cache, with_cache
from throughtime.errors import ConfigError, ShapeError

WORDS, FEATURES = 6, 3
quickly = settings(max_examples=60, deadline=None)


def problem(steps, seed=0, words=WORDS):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(steps, FEATURES, generator=generator, dtype=torch.float64)
    targets = torch.randint(words, (steps,), generator=generator)
    model = torch.randn(steps, words, generator=generator, dtype=torch.float64).log_softmax(-1)
    return features, targets, model


def of_targets(model, targets):
    return model.gather(1, targets[:, None])[:, 0]


def by_loop(features, targets, model, size, theta, interpolation):
    """The whole distribution of every step, [T, W], from the equations."""
    rows = []
    for t in range(len(features)):
        probs = model[t].exp()
        before = range(max(0, t - size), t)
        if before:
            scores = [math.exp(theta * float(features[t] @ features[i])) for i in before]
            cache = torch.zeros_like(probs)
            for i, score in zip(before, scores, strict=True):
                cache[targets[i]] += score / sum(scores)
            probs = (1 - interpolation) * probs + interpolation * cache
        rows.append(probs)
    return torch.stack(rows)


options = st.fixed_dictionaries(
    {
        "size": st.integers(1, 12),
        "theta": st.sampled_from([0.0, 0.3, 2.0]),
        "interpolation": st.sampled_from([0.0, 0.1, 0.9]),
    }
)


@given(steps=st.integers(1, 25), seed=st.integers(0, 99), given=options)
@quickly
def test_it_is_what_the_loop_gives(steps, seed, given):
    features, targets, model = problem(steps, seed)
    found, _ = with_cache(features, targets, of_targets(model, targets), **given)
    probs = by_loop(features, targets, model, **given)
    torch.testing.assert_close(probs.sum(1), torch.ones(steps, dtype=torch.float64))
    torch.testing.assert_close(found, of_targets(probs, targets).log())


@pytest.mark.parametrize("size", [1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_a_window_may_reach_over_blocks_or_be_smaller_than_one(size):
    features, targets, model = problem(2 * BLOCK + 3, words=50)
    given = {"size": size, "theta": 0.5, "interpolation": 0.3}
    found, _ = with_cache(features, targets, of_targets(model, targets), **given)
    torch.testing.assert_close(found, of_targets(by_loop(features, targets, model, **given), targets).log())


@given(cuts=st.lists(st.integers(0, 40), max_size=6), size=st.integers(1, 60))
@quickly
def test_no_answer_depends_on_the_pieces(cuts, size):
    features, targets, model = problem(40)
    log_probs = of_targets(model, targets)
    whole, after = with_cache(features, targets, log_probs, size=size)
    cache, pieces = None, []
    bounds = [0, *sorted(cuts), 40]
    for start, stop in itertools.pairwise(bounds):
        part = slice(start, stop)
        mixed, cache = with_cache(features[part], targets[part], log_probs[part], size=size, cache=cache)
        pieces.append(mixed)
    torch.testing.assert_close(torch.cat(pieces), whole)
    torch.testing.assert_close(cache, after)
    assert torch.equal(after.targets, targets[-size:])
    assert torch.equal(after.features, features[-size:])


def test_the_first_step_is_the_models():
    features, targets, model = problem(5)
    log_probs = of_targets(model, targets)
    assert with_cache(features, targets, log_probs)[0][0] == log_probs[0]


def test_a_word_that_is_not_in_the_cache_keeps_the_models_share():
    features, _, model = problem(5)
    log_probs = of_targets(model, torch.arange(5))
    mixed, _ = with_cache(features, torch.arange(5), log_probs, interpolation=0.2)
    torch.testing.assert_close(mixed[1:], log_probs[1:] + math.log(0.8))


def test_no_step_sees_its_own_target_or_a_later_one():
    features, targets, model = problem(30)
    log_probs = of_targets(model, targets)
    changed = targets.clone()
    changed[20:] = (changed[20:] + 1) % WORDS
    there, here = (with_cache(features, each, log_probs)[0] for each in (targets, changed))
    torch.testing.assert_close(there[:20], here[:20])


def test_a_model_that_knows_nothing_gains_on_a_text_that_repeats():
    targets = torch.arange(10).repeat(20)
    features = 3 * torch.eye(10)[targets]
    log_probs = torch.full((200,), -math.log(1000))
    mixed, _ = with_cache(features, targets, log_probs, theta=1.0, interpolation=0.5)
    assert mixed[10:].mean() > math.log(0.4)


def test_large_scores_stay_finite():
    features, targets, model = problem(30)
    mixed, _ = with_cache(1e4 * features, targets, of_targets(model, targets), theta=10.0)
    assert mixed.isfinite().all()


def test_nan_is_not_hidden():
    features, targets, model = problem(9)
    features[4] = torch.nan
    assert with_cache(features, targets, of_targets(model, targets))[0][4:].isnan().all()


def test_an_empty_piece_leaves_the_cache_as_it_is():
    features, targets, model = problem(4)
    _, cache = with_cache(features, targets, of_targets(model, targets))
    mixed, after = with_cache(features[:0], targets[:0], model[:0, 0], cache=cache)
    assert mixed.shape == (0,)
    torch.testing.assert_close(after, cache)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"theta": -1.0},
        {"theta": math.inf},
        {"theta": math.nan},
        {"interpolation": 1.0},
        {"interpolation": -0.1},
        {"interpolation": math.nan},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(wrong):
    features, targets, model = problem(4)
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        with_cache(features, targets, of_targets(model, targets), **wrong)


def test_what_does_not_fit_together_is_refused():
    features, targets, model = problem(4)
    log_probs = of_targets(model, targets)
    for wrong in (
        (features[:3], targets, log_probs),
        (features, targets[:3], log_probs),
        (features, targets, log_probs[:3]),
        (features, targets, model),
        (features[None], targets, log_probs),
    ):
        with pytest.raises(ShapeError, match="wants features"):
            with_cache(*wrong)
    for cache in (Cache(features[:, :2], targets), Cache(features[:2], targets)):
        with pytest.raises(ShapeError, match="cache holds"):
            with_cache(features, targets, log_probs, cache=cache)
