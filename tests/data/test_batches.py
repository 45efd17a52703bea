"""Buckets: every example once an epoch, little padding, the same batches whenever they are asked for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from throughtime.data.batches import Buckets, by_length, cuts, pad

lengths_of = st.lists(st.integers(0, 30), min_size=1, max_size=60)


def buckets(lengths, tokens, seed=0):
    return Buckets(lengths, tokens, lambda rows, number: (rows, number), seed)


@given(lengths=lengths_of, tokens=st.integers(1, 80), epoch=st.integers(0, 3))
def test_every_example_comes_once_and_no_batch_is_too_large(lengths, tokens, epoch):
    made = buckets(lengths, tokens)
    batches = [made.batch(number, epoch) for number in range(len(made))]
    assert sorted(row for rows, _ in batches for row in rows) == list(range(len(lengths)))
    assert [number for _, number in batches] == list(range(len(made)))
    for rows, _ in batches:
        longest = max(max(lengths[row], 1) for row in rows)
        assert len(rows) == 1 or longest * len(rows) <= tokens


@given(lengths=lengths_of, tokens=st.integers(1, 80))
def test_a_batch_is_the_same_whenever_it_is_asked_for(lengths, tokens):
    one, other = buckets(lengths, tokens, 7), buckets(lengths, tokens, 7)
    expected = [[one.batch(k, epoch) for k in range(len(one))] for epoch in range(3)]
    for epoch in (2, 0, 1):
        for k in reversed(range(len(other))):
            assert other.batch(k, epoch) == expected[epoch][k]


def test_epochs_and_seeds_differ_in_order_and_in_company():
    lengths = [3, 4] * 40
    orders = [
        [buckets(lengths, 24, seed).batch(k, epoch)[0] for k in range(10)]
        for seed, epoch in [(0, 0), (0, 1), (1, 0)]
    ]
    assert orders[0] != orders[1] != orders[2]
    companies = [{frozenset(rows) for rows in order} for order in orders]
    assert companies[0] != companies[1]


def test_examples_of_a_batch_are_of_about_equal_length():
    lengths = np.random.default_rng(0).integers(1, 100, 500)
    made = buckets(lengths, 1000)
    padded = sum(len(rows) * max(lengths[rows]) for rows, _ in (made.batch(k, 0) for k in range(len(made))))
    assert padded < 1.1 * lengths.sum()


@given(lengths=st.lists(st.integers(0, 30), max_size=40), tokens=st.integers(1, 50))
def test_groups_for_use_hold_every_example_once(lengths, tokens):
    groups = list(by_length(lengths, tokens))
    assert sorted(k for group in groups for k in group) == list(range(len(lengths)))
    assert all(groups)


def test_cuts_are_where_the_next_would_be_too_much():
    assert cuts(np.array([1, 1, 2, 3, 9]), 6) == [0, 3, 4, 5]
    assert cuts(np.array([], dtype=np.int64), 6) == [0]


@pytest.mark.parametrize("value", [0, -100])
def test_rows_are_filled_up(value):
    padded, lengths = pad([[1, 2, 3], [], [4]], value)
    assert padded.tolist() == [[1, 2, 3], [value] * 3, [4, value, value]]
    assert lengths.tolist() == [3, 0, 1] and padded.dtype == lengths.dtype == torch.int64
    assert pad([])[0].shape == (0, 0)
