"""Beam search against the enumeration of every sequence, and against a plain search of one sentence."""

import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.decode.beam import beam_search
from throughtime.decode.sequences import Hypothesis, length_normalised, sample_sequences
from throughtime.errors import ConfigError, ShapeError

quickly = settings(max_examples=60, deadline=None)
END = 0


def search(toy, sentences, **options):
    tokens, state = toy.begin(*sentences)
    return beam_search(toy.step, toy.select, tokens, state, **{"end": END, **options})


def repeats(tokens, size):
    """Whether the last `size` tokens stand together earlier too."""
    runs = [tokens[at : at + size] for at in range(len(tokens) - size + 1)]
    return size > 0 and len(tokens) >= size and runs[-1] in runs[:-1]


def continuations(toy, sentence, tokens, size=0, banned=()):
    """What may follow, with its log-probability."""
    values = toy.log_probs((sentence, *tokens)).tolist()
    for token, value in enumerate(values):
        if token not in banned and value > -math.inf and not repeats([*tokens, token], size):
            yield token, value


def ordered(finished, cut, length_penalty, n_best):
    """The best of the hypotheses {tokens: log_prob}, the end token among the tokens."""
    hypotheses = []
    for found, ended in ((finished, True), (cut, False)):
        ranked = [
            Hypothesis(
                list(tokens[:-1] if ended else tokens),
                value,
                value / ((5 + len(tokens)) / 6) ** length_penalty,
                ended,
            )
            for tokens, value in found.items()
        ]
        hypotheses += sorted(ranked, key=lambda one: -one.score)
    return hypotheses[:n_best]


def every_sequence(toy, sentence, max_length):
    finished, cut = {}, {}
    for length in range(1, max_length + 1):
        for start in itertools.product(range(1, toy.classes), repeat=length - 1):
            values = [toy.log_probs((sentence, *start[:k])) for k in range(length)]
            total = sum(values[k][start[k]].item() for k in range(length - 1))
            finished[(*start, END)] = total + values[-1][END].item()
            if length == max_length:
                cut |= {(*start, c): total + values[-1][c].item() for c in range(1, toy.classes)}
    return finished, cut


def plain_search(
    toy,
    sentence,
    *,
    beams,
    max_length,
    length_penalty=1.0,
    no_repeat_ngram=0,
    n_best=1,
    groups=1,
    diversity=0.0,
    banned=(),
):
    """One sentence by itself, to the longest length whatever was found."""
    finished, cut = {}, {}
    open_ = [[([], 0.0)] for _ in range(groups)]
    for _ in range(max_length):
        chosen = Counter()
        for group, members in enumerate(open_):
            candidates = [
                (value + more - diversity * chosen[token], value + more, [*tokens, token])
                for tokens, value in members
                for token, more in continuations(toy, sentence, tokens, no_repeat_ngram, banned)
            ]
            if not candidates:
                cut |= {tuple(tokens): value for tokens, value in members}
            best = sorted(candidates, reverse=True)[: beams // groups]
            chosen = chosen + Counter(tokens[-1] for _, _, tokens in best)
            finished |= {tuple(tokens): value for _, value, tokens in best if tokens[-1] == END}
            open_[group] = [(tokens, value) for _, value, tokens in best if tokens[-1] != END]
    cut |= {tuple(tokens): value for members in open_ for tokens, value in members}
    return ordered(finished, cut, length_penalty, n_best)


def assert_same(found, expected):
    assert [(h.tokens, h.finished) for h in found] == [(h.tokens, h.finished) for h in expected]
    for name in ("log_prob", "score"):
        assert [getattr(h, name) for h in found] == pytest.approx([getattr(h, name) for h in expected])


# Known answers.


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0, 3.0])
@pytest.mark.parametrize(("classes", "max_length"), [(2, 6), (3, 4), (4, 3), (6, 2), (5, 1)])
def test_with_room_for_all_it_is_the_enumeration_of_every_sequence(
    chance, classes, max_length, length_penalty
):
    toy = chance(classes, 1)
    beams = classes**max_length
    sentences = range(5)
    for n_best in (1, 3, beams):
        found = search(
            toy,
            sentences,
            beams=beams,
            max_length=max_length,
            n_best=n_best,
            length_penalty=length_penalty,
        )
        for sentence in sentences:
            every = every_sequence(toy, sentence, max_length)
            assert_same(found[sentence], ordered(*every, length_penalty, n_best))


def test_the_enumeration_covers_all_that_can_happen(chance):
    finished, cut = every_sequence(chance(3, 1), 0, 4)
    assert sum(map(math.exp, [*finished.values(), *cut.values()])) == pytest.approx(1)


@quickly
@given(data=st.data())
def test_it_is_a_plain_search_of_each_sentence(chance, data):
    """Whatever the options: stopping early and leaving the batch change nothing."""
    toy = chance(
        data.draw(st.integers(3, 7)),
        data.draw(st.integers(0, 99)),
        impossible=data.draw(st.sampled_from([0, 0.3, 0.6])),
    )
    groups = data.draw(st.integers(1, 3))
    beams = groups * data.draw(st.integers(1, 4))
    options = {
        "beams": beams,
        "groups": groups,
        "diversity": data.draw(st.floats(0, 2)) if groups > 1 else 0.0,
        "n_best": data.draw(st.integers(1, beams)),
        "length_penalty": data.draw(st.floats(0, 3)),
        "no_repeat_ngram": data.draw(st.integers(0, 3)),
        "banned": data.draw(st.sampled_from([(), (1,), (2, 1)])),
    }
    limits = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=5))
    found = search(toy, range(len(limits)), max_length=torch.tensor(limits), **options)
    for sentence, limit in enumerate(limits):
        assert_same(found[sentence], plain_search(toy, sentence, max_length=limit, **options))


def test_of_many_classes_the_likeliest_are_found(chance):
    """So many that they are looked for in blocks, the last of which is not whole."""
    for classes, beams in ((600, 1), (1000, 3), (1343, 5)):
        toy = chance(classes, 3, spread=4.0)
        found = search(toy, range(3), beams=beams, n_best=beams, max_length=4)
        for sentence in range(3):
            expected = plain_search(toy, sentence, beams=beams, n_best=beams, max_length=4)
            assert_same(found[sentence], expected)


def test_the_largest_of_many_classes_may_stand_anywhere():
    for where in (0, 63, 64, 500, 639, 640, 649):
        scores = torch.full((650,), -9.0)
        scores[[where, (where + 3) % 650]] = torch.tensor([-1.0, -2.0])
        found = beam_search(
            lambda tokens, state, scores=scores: (scores.expand(len(tokens), -1), state),
            lambda state, rows: state,
            torch.tensor([5]),
            None,
            end=5,
            beams=2,
            n_best=2,
            max_length=1,
        )
        assert [h.tokens for h in found[0]] == [[where], [(where + 3) % 650]]


# Greedy search.


def greedy(toy, sentence, max_length):
    tokens, total = [], 0.0
    for length in range(1, max_length + 1):
        values = toy.log_probs((sentence, *tokens))
        token = int(values.argmax())
        total += values[token].item()
        if token == END:
            return Hypothesis(tokens, total, length_normalised(total, length), True)
        tokens.append(token)
    return Hypothesis(tokens, total, length_normalised(total, max_length), False)


def test_one_beam_is_greedy_search(chance):
    """Whatever the penalty: it compares sequences, and there is one."""
    toy = chance(5, 2)
    expected = [greedy(toy, sentence, 8) for sentence in range(40)]
    assert len({one.finished for one in expected}) == 2
    found = search(toy, range(40), beams=1, max_length=8)
    for one, best in zip(found, expected, strict=True):
        assert_same(one, [best])
    for length_penalty in (0.0, 3.0):
        other = search(toy, range(40), beams=1, max_length=8, length_penalty=length_penalty)
        assert [h.tokens for (h,) in other] == [best.tokens for best in expected]
    tokens, state = toy.begin(*range(40))
    drawn = sample_sequences(toy.step, toy.select, tokens, state, end=END, max_length=8, temperature=0)
    assert_same(drawn, expected)


@pytest.mark.parametrize("classes", [4, 10, 700])
def test_of_tokens_that_are_as_likely_one_beam_takes_the_first(classes):
    scores = torch.zeros(classes)
    scores[0] = -1.0
    scores = scores.log_softmax(-1)
    found = beam_search(
        lambda tokens, state: (scores.expand(len(tokens), -1), state),
        lambda state, rows: state,
        torch.zeros(3, dtype=torch.int64),
        None,
        end=0,
        beams=1,
        max_length=2,
    )
    assert [h.tokens for (h,) in found] == [[1, 1]] * 3


def test_one_beam_moves_no_state_while_no_sentence_leaves():
    step, _, state = of_position([0.0, 0.6, 0.4])

    def select(state, rows):
        raise AssertionError("nothing has to be moved")

    (found,) = beam_search(step, select, state, state, end=END, beams=1, max_length=5)
    assert found[0].tokens == [1] * 5


# The batch.


def test_what_else_is_in_the_batch_changes_nothing(chance):
    toy = chance(6, 4)
    limits = [3, 0, 12, 1, 7, 5, 12, 2]
    for options in ({}, {"n_best": 4}, {"groups": 2, "beams": 6, "diversity": 0.7, "n_best": 3}):
        together = search(toy, range(8), max_length=torch.tensor(limits), **options)
        for sentence, limit in enumerate(limits):
            alone = search(toy, [sentence], max_length=limit, **options)
            assert alone == [together[sentence]]
        backwards = search(toy, range(7, -1, -1), max_length=torch.tensor(limits[::-1]), **options)
        assert backwards == together[::-1]


def test_rows_of_sentences_that_are_done_leave_the_batch(chance):
    toy = chance(6, 5, spread=0.5)
    search(toy, range(4), beams=3, max_length=torch.tensor([0, 1, 2, 4]), n_best=3, banned=[1])
    assert toy.read[0] == 3
    assert len(toy.read) == 4
    assert toy.read[1] <= 2 * 3
    assert toy.read[2] <= 3
    assert toy.read[3] <= 3


def test_of_an_empty_batch_nothing_is_asked(chance):
    toy = chance(4, 0)
    assert search(toy, [], max_length=5) == []
    assert toy.read == []


def test_without_room_there_is_the_empty_sequence(chance):
    toy = chance(4, 0)
    assert search(toy, [3], max_length=0, n_best=2) == [[Hypothesis([], 0.0, 0.0, False)]]
    assert toy.read == []


# Stopping.


def of_position(*rows):
    """A step function whose state counts the steps; the last row stays."""
    table = torch.tensor(rows, dtype=torch.float64)

    def step(tokens, state):
        at = state.clamp(max=len(table) - 1)
        return table[at].log(), state + 1

    return step, lambda state, rows: state[rows], torch.zeros(1, dtype=torch.int64)


def steps_of(rows, **options):
    """The rows of each step, and the answer for one sentence."""
    step, select, state = of_position(*rows)
    read = []

    def counted(tokens, state):
        read.append(len(tokens))
        return step(tokens, state)

    (found,) = beam_search(counted, select, state, state, end=END, **options)
    return read, found


def test_it_stops_when_nothing_can_become_better():
    """After the first step 0.6 has ended; 0.3 is open. Without a penalty that is less."""
    rows = [[0.6, 0.3, 0.1], [0.1, 0.8, 0.1]]
    read, found = steps_of(rows, beams=2, max_length=50, length_penalty=0.0)
    assert len(read) == 1
    assert (found[0].tokens, found[0].log_prob) == ([], pytest.approx(math.log(0.6)))


def test_it_goes_on_while_a_longer_one_could_score_more():
    """ln 0.6 = -0.51; ln 0.3 = -1.2 could still be divided by 55/6; at three steps it is 4/3 at most."""
    rows = [[0.6, 0.3, 0.1], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    read, found = steps_of(rows, beams=2, max_length=50, length_penalty=1.0)
    assert len(read) == 4
    assert (found[0].tokens, found[0].finished) == ([], True)  # -1.2 / 1.5 = -0.8
    _, found = steps_of(rows, beams=2, max_length=50, length_penalty=3.0)
    assert found[0].tokens == [1, 1, 1]  # -1.2 / 1.5 ** 3 = -0.36
    read, _ = steps_of(rows, beams=2, max_length=3, length_penalty=1.0)
    assert len(read) == 1


def test_it_goes_on_for_what_could_score_more_by_less_than_single_precision_tells():
    """-1 * 6/9 beats what ended by a billionth; 6/9 in single precision is more than that above it."""
    ended = math.exp(-(6 / 9) * (1 + 1e-9))
    rows = [[ended, math.exp(-1), 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    _, found = steps_of(rows, beams=2, max_length=4)
    assert found[0].tokens == [1, 1, 1]


def test_it_looks_on_until_all_that_were_asked_for_are_found():
    rows = [[0.6, 0.3, 0.1], [0.5, 0.4, 0.1]]
    read, _ = steps_of(rows, beams=3, max_length=50, length_penalty=0.0, n_best=1)
    assert len(read) == 1
    read, found = steps_of(rows, beams=3, max_length=50, length_penalty=0.0, n_best=2)
    assert len(read) == 2
    assert [h.tokens for h in found] == [[], [1]]


def test_what_ended_leaves_the_beam_and_the_next_step_fills_it_again():
    rows = [[0.4, 0.35, 0.25], [0.1, 0.5, 0.4]]
    read, _ = steps_of(rows, beams=2, max_length=3, n_best=2, length_penalty=3.0)
    assert read == [1, 1, 2]


# What is given.


def test_finished_ones_come_first_each_kind_in_the_order_of_its_scores(chance):
    toy = chance(4, 6, spread=0.5)
    both = 0
    for found in search(toy, range(20), beams=8, n_best=8, max_length=3):
        keys = [(-h.finished, -h.score) for h in found]
        assert keys == sorted(keys)
        assert len({tuple(h.tokens) for h in found}) == len(found)
        both += len({h.finished for h in found}) == 2
        assert all(len(h.tokens) == 3 for h in found if not h.finished)
        assert all(len(h.tokens) < 3 for h in found if h.finished)
        assert all(END not in h.tokens for h in found)
    assert both


def test_the_score_is_that_of_wu_et_al():
    """One token and the end: (5 + 2) / 6 = 7/6."""
    rows = [[0.0, 1.0], [0.25, 0.75], [1.0, 0.0]]
    _, found = steps_of(rows, beams=2, n_best=2, max_length=9, length_penalty=2.0)
    scores = {tuple(h.tokens): h.score for h in found}
    assert scores == {
        (1,): pytest.approx(math.log(0.25) * 36 / 49),
        (1, 1): pytest.approx(math.log(0.75) * 36 / 64),
    }


def test_no_n_tokens_stand_twice(chance):
    toy = chance(4, 7, spread=3.0)
    for size in (1, 2, 3):
        lengths = []
        for found in search(toy, range(10), beams=3, n_best=3, max_length=14, no_repeat_ngram=size):
            for h in found:
                runs = [tuple(h.tokens[k : k + size]) for k in range(len(h.tokens) - size + 1)]
                assert len(set(runs)) == len(runs)
                lengths.append(len(h.tokens))
        assert max(lengths) >= size + 1


def test_without_being_asked_tokens_repeat(chance):
    """So that the test before this one sees something."""
    toy = chance(4, 7, spread=3.0)
    repeated = 0
    for (h,) in search(toy, range(10), beams=3, max_length=14):
        runs = list(itertools.pairwise(h.tokens))
        repeated += len(set(runs)) < len(runs)
    assert repeated


def test_banned_tokens_never_occur(chance):
    toy = chance(5, 8)
    for found in search(toy, range(10), n_best=5, max_length=6, banned=[2, 4]):
        assert {token for h in found for token in h.tokens} <= {1, 3}
    assert any(2 in h.tokens for (h,) in search(toy, range(10), max_length=6))


def test_what_nothing_can_follow_counts_as_cut():
    rows = [[0.0, 0.5, 0.5], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    read, found = steps_of(rows, beams=2, n_best=2, max_length=9)
    assert len(read) == 3
    assert [(h.tokens, h.finished) for h in found] == [([1, 1], False), ([2, 1], False)]
    assert found[0].score == pytest.approx(math.log(0.5) * 6 / 7)


def test_groups_that_nothing_can_follow_leave_the_others_alone(chance):
    toy = chance(5, 11, impossible=0.6)
    options = {"beams": 2, "groups": 2, "diversity": 9.0, "max_length": 6}
    for n_best in (1, 2):
        for sentence, found in enumerate(search(toy, range(80), n_best=n_best, **options)):
            assert_same(found, plain_search(toy, sentence, n_best=n_best, **options))


def test_the_log_probabilities_of_the_model_are_left_as_they_were():
    table = torch.tensor([[0.2, 0.5, 0.3]]).log()
    before = table.clone()
    for options in ({"banned": [1]}, {"no_repeat_ngram": 1}, {"groups": 2, "beams": 4, "diversity": 1.0}):
        beam_search(
            lambda tokens, state: (table.expand(len(tokens), -1), state),
            lambda state, rows: state,
            torch.tensor([1, 2]),
            None,
            end=0,
            max_length=3,
            **options,
        )
        assert torch.equal(table, before)


def test_long_sums_keep_their_precision():
    """300 times ln 0.9 in single precision, as the model gives it."""
    value = torch.tensor([[0.0, 0.9, 0.1]]).log()
    (found,) = beam_search(
        lambda tokens, state: (value.expand(len(tokens), -1), state),
        lambda state, rows: state,
        torch.tensor([0]),
        None,
        end=0,
        beams=1,
        max_length=300,
    )
    assert found[0].log_prob == pytest.approx(300 * value[0, 1].item(), rel=1e-12)


# Diverse beam search.


def test_groups_without_diversity_find_what_one_finds(chance):
    toy = chance(5, 9)
    one = search(toy, range(10), beams=2, n_best=2, max_length=6)
    assert search(toy, range(10), beams=6, n_best=2, max_length=6, groups=3) == one


def test_more_groups_find_what_the_first_finds_or_better(chance):
    toy = chance(5, 9)
    better = 0
    groups = search(toy, range(20), max_length=6, beams=6, groups=3, diversity=0.8)
    for (found,), (first,) in zip(groups, search(toy, range(20), beams=2, max_length=6), strict=True):
        assert (found.finished, found.score) >= (first.finished, first.score)
        better += found != first
    assert better


def test_a_strong_diversity_makes_groups_begin_differently(chance):
    toy = chance(6, 10, spread=3.0)
    differ = 0
    for sentence in range(10):
        (alike,) = search(toy, [sentence], beams=3, n_best=3, max_length=4)
        (found,) = search(
            toy, [sentence], beams=3, n_best=3, max_length=4, groups=3, diversity=100.0, length_penalty=0.0
        )
        first = [(*h.tokens, END)[0] for h in found]
        assert len(found) == 3
        assert len(set(first)) == 3
        differ += len({(*h.tokens, END)[0] for h in alike}) < 3
        for h in found:  # scored as the model has it
            history = (sentence, *h.tokens, *[END] * h.finished)
            value = sum(toy.log_probs(history[:k])[history[k]].item() for k in range(1, len(history)))
            assert h.log_prob == pytest.approx(value)
    assert differ


# What cannot be.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"beams": 0}, "beams must be 1 or more, got 0"),
        ({"n_best": 0}, "n_best must lie in 1..5, the number of beams, got 0"),
        ({"beams": 2, "n_best": 3}, "n_best must lie in 1..2, the number of beams, got 3"),
        ({"groups": 2}, "groups must divide the 5 beams, got 2"),
        ({"groups": 0}, "groups must divide the 5 beams, got 0"),
        ({"beams": 2, "groups": 4}, "groups must divide the 2 beams, got 4"),
        ({"length_penalty": -0.1}, "length_penalty must be 0 or more and finite, got -0.1"),
        ({"length_penalty": math.nan}, "length_penalty must be 0 or more and finite, got nan"),
        ({"length_penalty": math.inf}, "length_penalty must be 0 or more and finite, got inf"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram must be 0 (off) or more, got -1"),
        ({"diversity": -1.0, "groups": 5}, "diversity must be 0 or more and finite, got -1"),
        ({"diversity": math.inf, "groups": 5}, "diversity must be 0 or more and finite, got inf"),
        ({"diversity": 0.5}, "diversity is between groups, got 0.5 and 1 group: give 2 groups or more"),
        ({"max_length": -1}, "max_length must be 0 or more, got -1"),
        ({"max_length": torch.tensor([2, -3])}, "max_length must be 0 or more, got -3"),
        ({"end": 4}, "the end token and banned tokens must lie in 0..3, got 4"),
        ({"end": -1}, "the end token and banned tokens must lie in 0..3, got -1"),
        ({"banned": [1, 7]}, "the end token and banned tokens must lie in 0..3, got 7"),
        ({"banned": [1, 0]}, "the end token 0 is banned, so that nothing ends: take it out of `banned`"),
    ],
    ids=str,
)
def test_impossible_options(chance, options, said):
    with pytest.raises(ConfigError) as caught:
        search(chance(4, 0), [0, 1], **{"max_length": 3, **options})
    assert str(caught.value) == said


@pytest.mark.parametrize(
    "max_length", [torch.tensor([1]), torch.tensor([[1, 2]]), torch.tensor([1.0, 2.0]), 2.5], ids=str
)
def test_a_longest_length_for_each_row_or_for_all(chance, max_length):
    with pytest.raises(ShapeError, match="max_length must be a whole number or one for each of 2 rows"):
        search(chance(4, 0), [0, 1], max_length=max_length)


def test_one_first_token_for_each_row():
    with pytest.raises(
        ShapeError, match=r"tokens must be \[batch\], one for each row, got the shape \[2, 1\]"
    ):
        beam_search(None, None, torch.zeros(2, 1), None, end=0, max_length=3)


def test_log_probabilities_that_are_no_numbers():
    values = torch.tensor([[0.1, math.nan, 0.2]])
    with pytest.raises(ShapeError, match="the step function returned NaN"):
        beam_search(
            lambda tokens, state: (values, state),
            lambda state, rows: state,
            torch.tensor([0]),
            None,
            end=0,
            max_length=3,
        )


def test_an_extreme_penalty_is_no_overflow(chance):
    (found,) = search(chance(4, 0), [1], max_length=300, length_penalty=1e4)
    assert found[0].score == 0
