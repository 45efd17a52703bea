"""Streams: nothing is lost, and every row goes on where it ended."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from throughtime.data.streams import Chunk, Streams
from throughtime.data.tokens import BOUNDARY
from throughtime.errors import DataError

sizes = {"length": st.integers(2, 120), "rows": st.integers(1, 9), "steps": st.integers(1, 11)}
quickly = settings(max_examples=200, deadline=None)


def numbered(length: int) -> np.ndarray:
    """Tokens that are their own positions, from 1 on."""
    return np.arange(1, length + 1, dtype=np.uint16)


@quickly
@given(**sizes)
@example(length=2, rows=9, steps=11)
@example(length=101, rows=9, steps=10)
def test_every_token_after_the_first_is_predicted(length, rows, steps):
    targets = torch.cat([chunk.targets.flatten() for chunk in Streams(numbered(length), rows, steps)])
    assert set(targets.tolist()) == set(range(2, length + 1))


@quickly
@given(**sizes)
def test_a_target_is_the_token_after_its_input(length, rows, steps):
    for chunk in Streams(numbered(length), rows, steps):
        assert torch.equal(chunk.targets, chunk.inputs + 1)


@quickly
@given(**sizes)
def test_every_row_goes_on_where_it_ended(length, rows, steps):
    for before, after in itertools.pairwise(Streams(numbered(length), rows, steps)):
        assert torch.equal(after.inputs[:, 0], before.targets[:, -1])


@quickly
@given(**sizes)
def test_chunks_are_whole_save_the_last(length, rows, steps):
    streams = Streams(numbered(length), rows, steps)
    chunks = list(streams)
    assert len(chunks) == len(streams)
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    assert all(chunk.inputs.shape == chunk.targets.shape == (streams.rows, steps) for chunk in chunks[:-1])
    assert chunks[-1].inputs.shape == chunks[-1].targets.shape
    assert 1 <= chunks[-1].inputs.shape[1] <= steps
    assert all(chunk.steps == chunk.targets.numel() for chunk in chunks)
    assert all(torch.equal(streams.batch(k).inputs, chunk.inputs) for k, chunk in enumerate(chunks))


@quickly
@given(**sizes)
def test_few_tokens_are_read_twice(length, rows, steps):
    streams = Streams(numbered(length), rows, steps)
    assert streams.rows <= rows
    assert 0 <= streams.rows * streams.length - (length - 1) < streams.rows
    assert sum(chunk.steps for chunk in streams) == streams.rows * streams.length


@quickly
@given(**sizes)
def test_a_short_text_has_fewer_rows_rather_than_shorter_chunks(length, rows, steps):
    streams = Streams(numbered(length), rows, steps)
    assert streams.rows == rows or streams.length >= steps or streams.rows == 1
    if streams.rows < rows:
        assert (length - 1) // (streams.rows + 1) < steps


def test_rows_are_parts_of_the_text_in_its_order():
    (first, second) = Streams(numbered(13), 3, 2)
    assert first.inputs.tolist() == [[1, 2], [5, 6], [9, 10]]
    assert second.targets.tolist() == [[4, 5], [8, 9], [12, 13]]


def test_tokens_are_whole_numbers_that_torch_can_look_up():
    for kind in ("uint16", "uint32"):
        chunk = Streams(np.array([1, 2, np.iinfo(kind).max], dtype=kind), 1, 2).batch(0)
        assert chunk.inputs.dtype == chunk.targets.dtype == torch.int64
        assert chunk.targets[0, -1].item() == np.iinfo(kind).max


@pytest.mark.parametrize("length", [0, 1])
def test_a_text_with_nothing_to_predict(length):
    with pytest.raises(
        DataError, match=f"a text of {length} tokens has nothing to predict: give a longer one"
    ):
        Streams(numbered(length), 2, 3)


def test_a_chunk_goes_to_a_device_as_it_is():
    chunk = Streams(numbered(9), 2, 4).batch(0)
    moved = chunk.to(torch.device("meta"))
    assert isinstance(moved, Chunk)
    assert moved.inputs.device.type == moved.targets.device.type == "meta"
    assert (moved.inputs.shape, moved.number) == (chunk.inputs.shape, chunk.number)


# Rows that begin anew now and then.


@quickly
@given(**sizes, fresh=st.integers(1, 7))
def test_fresh_rows_begin_with_a_boundary_and_change_nothing_else(length, rows, steps, fresh):
    tokens = numbered(length)
    carried, begun = Streams(tokens, rows, steps), Streams(tokens, rows, steps, fresh)
    begins = []
    for before, after in zip(carried, begun, strict=True):
        assert torch.equal(after.targets, before.targets)
        assert torch.equal(after.inputs[:, 1:], before.inputs[:, 1:])
        begin = after.inputs[:, 0] == BOUNDARY
        assert torch.equal(after.inputs[~begin, 0], before.inputs[~begin, 0])
        begins.append(begin)
    assert begins[0].all()
    for row in torch.stack(begins[1:] or begins, 1).int():
        at = row.nonzero().flatten().tolist()
        assert all(b - a == fresh for a, b in itertools.pairwise(at))
        assert len(row) < fresh or at


def test_rows_take_turns_in_beginning_anew():
    begun = list(Streams(numbered(4 * 8 + 1), 4, 1, fresh=4))[1:5]
    turns = [(chunk.inputs[:, 0] == BOUNDARY).nonzero().flatten().tolist() for chunk in begun]
    assert turns == [[1], [2], [3], [0]]


def test_the_tokens_themselves_stay_as_they_were():
    tokens = numbered(20)
    list(Streams(tokens, 2, 3, fresh=1))
    assert tokens.tolist() == list(range(1, 21))
