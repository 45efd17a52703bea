"""Holding out: the share that is asked for, of each label, and never all of one."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throughtime.data.split import hold_out
from throughtime.errors import DataError


@given(count=st.integers(2, 300), share=st.floats(0.05, 0.9), seed=st.integers(0, 9))
def test_two_parts_hold_every_example_once_in_order(count, share, seed):
    try:
        rest, held = hold_out(count, share, seed)
    except DataError:
        assert count * share < 1
        return
    assert sorted(rest + held) == list(range(count))
    assert rest == sorted(rest) and held == sorted(held) and rest and held
    assert abs(len(held) - min(count * share, count - 1)) <= 1


@given(sizes=st.lists(st.integers(1, 40), min_size=2, max_size=6), share=st.floats(0.1, 0.9))
def test_each_label_has_its_share_and_none_is_lost_to_training(sizes, share):
    labels = [k for k, size in enumerate(sizes) for _ in range(size)]
    try:
        rest, held = hold_out(len(labels), share, 0, labels)
    except DataError:
        assert max(sizes) * share < 1 or max(sizes) == 1
        return
    kept, taken = (Counter(labels[k] for k in part) for part in (rest, held))
    for label, size in enumerate(sizes):
        assert kept[label] >= 1
        assert abs(taken[label] - min(size * share, size - 1)) <= 1


def test_the_seed_decides():
    assert hold_out(100, 0.2, 1) == hold_out(100, 0.2, 1) != hold_out(100, 0.2, 2)


def test_too_few_examples_are_said():
    with pytest.raises(DataError, match=r"1 examples are too few.*--valid"):
        hold_out(1, 0.1, 0)
