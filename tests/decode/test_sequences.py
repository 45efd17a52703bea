"""Drawing sequences that end: as often as they are likely, each row by itself."""

import itertools
import math

import pytest
import torch

from throughtime.decode.sampling import filtered
from throughtime.decode.sequences import Hypothesis, length_normalised, sample_sequences
from throughtime.errors import ConfigError, ShapeError

END = 0


def draw(toy, sentences, **options):
    tokens, state = toy.begin(*sentences)
    return sample_sequences(
        toy.step, toy.select, tokens, state, **{"end": END, "max_length": 6, "seeds": sentences, **options}
    )


def outcomes(toy, sentence, max_length, banned=(), **options):
    """The probability of each sequence, the end token among its tokens."""
    total = {}
    for length in range(1, max_length + 1):
        for start in itertools.product(range(1, toy.classes), repeat=length - 1):
            for last in range(toy.classes) if length == max_length else [END]:
                tokens, probability = (*start, last), 1.0
                for k, token in enumerate(tokens):
                    allowed = toy.log_probs((sentence, *tokens[:k])).clone()
                    allowed[list(banned)] = -math.inf
                    probability *= filtered(allowed[None], **options)[0, token].exp().item()
                total[tokens] = probability
    return total


# What is drawn.


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 2},
        {"top_p": 0.85},
        {"banned": [2]},
        {"top_k": 2, "temperature": 3.0},
    ],
    ids=str,
)
def test_sequences_are_drawn_as_often_as_they_are_likely(chance, options):
    """Pearson's statistic beside its mean and six standard deviations, for seeds that follow each other."""
    toy = chance(3, 1)
    expected = outcomes(toy, 7, 3, **options)
    assert sum(expected.values()) == pytest.approx(1)
    rows = 3000
    drawn = draw(toy, [7] * rows, max_length=3, seeds=range(rows), **options)
    counts = dict.fromkeys(expected, 0)
    for one in drawn:
        counts[(*one.tokens, *[END] * one.finished)] += 1
    assert all(counts[tokens] == 0 for tokens, p in expected.items() if p == 0)
    possible = {tokens: rows * p for tokens, p in expected.items() if p > 0}
    pearson = sum((counts[tokens] - n) ** 2 / n for tokens, n in possible.items())
    freedom = len(possible) - 1
    assert freedom > 1
    assert pearson < freedom + 6 * math.sqrt(2 * freedom)


def test_the_log_probability_is_that_of_the_model(chance):
    """Whatever it was drawn by."""
    toy = chance(5, 2)
    drawn = draw(toy, list(range(20)), temperature=2.0, top_k=3, banned=[1])
    assert len({one.finished for one in drawn}) == 2
    for sentence, one in enumerate(drawn):
        history = (sentence, *one.tokens, *[END] * one.finished)
        value = sum(toy.log_probs(history[:k])[history[k]].item() for k in range(1, len(history)))
        assert one.log_prob == pytest.approx(value)
        assert one.score == pytest.approx(value * 6 / (5 + len(history) - 1))


def test_a_sequence_ends_with_its_end_token_or_at_the_longest_length(chance):
    limits = torch.tensor([4, 0, 1, 9, 2] * 8)
    drawn = draw(chance(4, 3), list(range(40)), max_length=limits)
    for one, limit in zip(drawn, limits.tolist(), strict=True):
        assert END not in one.tokens
        assert len(one.tokens) < limit if one.finished else len(one.tokens) == limit
    assert drawn[1] == Hypothesis([], 0.0, 0.0, False)
    assert len({one.finished for one in drawn}) == 2


def test_temperature_0_is_greedy_search(chance):
    toy = chance(5, 4)
    for sentence, one in enumerate(draw(toy, list(range(20)), temperature=0)):
        tokens = []
        while len(tokens) < 6 and (best := int(toy.log_probs((sentence, *tokens)).argmax())) != END:
            tokens.append(best)
        assert one.tokens == tokens


def test_banned_tokens_are_never_drawn(chance):
    drawn = draw(chance(4, 5), list(range(50)), banned=[1, 3])
    assert {token for one in drawn for token in one.tokens} == {2}


def test_where_nothing_can_follow_a_sequence_is_left_unfinished():
    table = torch.tensor([[0.0, 0.5, 0.5], [0.0, 0.0, 0.0], [0.3, 0.4, 0.3]]).log()
    drawn = sample_sequences(
        lambda tokens, state: (table[tokens], state),
        lambda state, rows: state,
        torch.tensor([0, 1] * 20),
        None,
        end=END,
        max_length=20,
        seeds=range(40),
    )
    assert drawn[1::2] == [Hypothesis([], 0.0, 0.0, False)] * 20
    for one in drawn[::2]:
        assert 1 not in one.tokens[:-1]
        assert one.finished == (one.tokens[-1] != 1)
        assert math.isfinite(one.log_prob)
    assert len({one.finished for one in drawn[::2]}) == 2


@pytest.mark.parametrize(("number", "token"), [(0.0, 1), (1 - 2**-53, 2)])
def test_what_is_impossible_is_not_drawn_by_the_least_or_the_greatest_number(monkeypatch, number, token):
    """Not where the sum of the probabilities is a little less than 1 either."""
    monkeypatch.setattr(torch, "rand", lambda *_, **options: torch.tensor(number, dtype=options["dtype"]))
    tokens = torch.linspace(0.01, 0.99, 200)
    probs = torch.stack([torch.zeros(200), tokens, 1 - tokens, torch.zeros(200)], -1)
    drawn = sample_sequences(
        lambda tokens, state: (probs.log(), state),
        lambda state, rows: state,
        torch.zeros(200, dtype=torch.int64),
        None,
        end=END,
        max_length=1,
    )
    assert [one.tokens for one in drawn] == [[token]] * 200


# Randomness and the batch.


def test_a_row_depends_on_its_seed_alone(chance):
    toy = chance(6, 6)
    limits = [9, 2, 0, 9, 5, 1, 9, 9]
    together = draw(toy, list(range(8)), max_length=torch.tensor(limits))
    for sentence, limit in enumerate(limits):
        assert draw(toy, [sentence], max_length=limit) == [together[sentence]]
    backwards = draw(toy, list(range(7, -1, -1)), max_length=torch.tensor(limits[::-1]))
    assert backwards == together[::-1]


def test_the_same_seed_draws_the_same_and_another_something_else(chance):
    toy = chance(6, 6, spread=0.5)
    drawn = draw(toy, [3] * 6, seeds=[1, 2, 1, 3, 4, 5])
    assert drawn[0] == drawn[2]
    assert len({tuple(one.tokens) for one in drawn}) > 2


def test_seeds_are_all_the_randomness_there_is(chance):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    draw(chance(6, 6), [1, 2, 3])
    assert torch.equal(torch.get_rng_state(), before)


def test_without_seeds_it_is_torchs_own_generator(chance):
    toy = chance(6, 6, spread=0.5)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(draw(toy, [0] * 20, seeds=None))
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert len({tuple(one.tokens) for one in drawn[0]}) > 5


def test_rows_that_are_done_leave_the_batch(chance):
    toy = chance(6, 7)
    drawn = draw(toy, list(range(12)), max_length=torch.tensor([0, 1, 2, 9] * 3))
    read = [len(one.tokens) + one.finished for one in drawn]
    assert toy.read == [sum(n > k for n in read) for k in range(max(read))]


def test_no_state_is_moved_while_no_row_leaves():
    def select(state, rows):
        raise AssertionError("nothing has to be moved")

    log_probs = torch.tensor([[0.0, 0.5, 0.5]] * 3).log()
    drawn = sample_sequences(
        lambda tokens, state: (log_probs, state),
        select,
        torch.zeros(3, dtype=torch.int64),
        None,
        end=END,
        max_length=5,
    )
    assert [len(one.tokens) for one in drawn] == [5] * 3


def test_of_an_empty_batch_nothing_is_asked(chance):
    toy = chance(4, 0)
    assert draw(toy, []) == []
    assert toy.read == []


# The score.


@pytest.mark.parametrize(
    ("length", "penalty", "score"),
    [(1, 1.0, -2.0), (7, 1.0, -1.0), (7, 0.0, -2.0), (7, 2.0, -0.5), (0, 1.0, -2.4)],
)
def test_the_score_of_wu_et_al(length, penalty, score):
    assert length_normalised(-2.0, length, penalty) == pytest.approx(score)
    many = length_normalised(torch.tensor([-2.0, -4.0]), torch.tensor([length, length]), penalty)
    torch.testing.assert_close(many, torch.tensor([score, 2 * score]))


# What cannot be.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seeds": [1]}, "seeds must be one for each of 2 rows, got 1"),
        ({"max_length": -1}, "max_length must be 0 or more, got -1"),
        ({"end": 4}, "the end token and banned tokens must lie in 0..3, got 4"),
        ({"banned": [-1]}, "the end token and banned tokens must lie in 0..3, got -1"),
        ({"banned": [0]}, "the end token 0 is banned, so that nothing ends: take it out of `banned`"),
        ({"temperature": -1.0}, "temperature must be 0 or more and finite, got -1"),
        ({"top_k": 0}, "top-k must be 1 or more, got 0"),
    ],
    ids=str,
)
def test_impossible_options(chance, options, said):
    with pytest.raises(ConfigError) as caught:
        draw(chance(4, 0), [0, 1], **options)
    assert str(caught.value) == said


def test_a_longest_length_for_each_row_or_for_all(chance):
    with pytest.raises(ShapeError, match="max_length must be a whole number or one for each of 2 rows"):
        draw(chance(4, 0), [0, 1], max_length=torch.tensor([1, 2, 3]))


def test_log_probabilities_that_are_no_numbers():
    values = torch.tensor([[0.1, math.nan, 0.2]])
    with pytest.raises(ShapeError, match="the step function returned NaN"):
        sample_sequences(
            lambda tokens, state: (values, state),
            lambda state, rows: state,
            torch.tensor([0]),
            None,
            end=END,
            max_length=3,
        )
