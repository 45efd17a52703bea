"""How rows stand in memory: there and back, and the state before each step, by plain loops."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.kernels import layout as module
from throughtime.kernels.layout import Layout

HIDDEN = 2


@st.composite
def layouts(draw):
    """T, B, lengths or None, reset or None."""
    steps, batch = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    lengths = st.lists(st.integers(0, steps), min_size=batch, max_size=batch).map(torch.tensor)
    flags = st.lists(st.booleans(), min_size=steps * batch, max_size=steps * batch)
    resets = flags.map(lambda values: torch.tensor(values).view(steps, batch))
    return steps, batch, draw(st.none() | lengths), draw(st.none() | resets)


def present(steps, batch, lengths):
    """[T, B]: the steps that rows have."""
    lengths = torch.full((batch,), steps) if lengths is None else lengths
    return torch.arange(steps)[:, None] < lengths


def numbered(*shape):
    return 1.0 + torch.arange(torch.tensor(shape).prod(), dtype=torch.float64).view(shape)


@pytest.fixture(scope="module")
def few_rows():
    """Pieces may be small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LEAST_ROWS", 1)
        yield


quickly = settings(max_examples=200, deadline=None)


@quickly
@given(case=layouts())
def test_the_steps_of_all_rows_stand_one_after_the_other(case):
    steps = case[0]
    layout, there = Layout.of(*case), present(*case[:3])
    assert layout.rows == there.sum()
    assert layout.count.tolist() == there.sum(1).tolist()
    assert layout.start.tolist() == [int(there[:step].sum()) for step in range(steps + 1)]
    assert [layout.first_row(step) for step in range(steps + 1)] == layout.start.tolist()
    assert layout.start.dtype == layout.count.dtype == torch.int64


@quickly
@given(case=layouts())
def test_packing_leaves_the_padding_out_and_unpacking_puts_zeros_there(case):
    layout, there, values = Layout.of(*case), present(*case[:3])[..., None], numbered(*case[:2], HIDDEN)
    packed = layout.pack(values.masked_fill(~there, float("nan")))
    assert packed.shape == (layout.rows, HIDDEN)
    assert torch.equal(layout.unpack(packed), values.masked_fill(~there, 0.0))


@quickly
@given(case=layouts())
def test_within_a_step_the_rows_stand_in_the_order_of_their_ranks_longest_first(case):
    steps, batch, lengths, _ = case
    layout = Layout.of(*case)
    rows = layout.by_rank(torch.arange(batch))
    if lengths is not None:
        assert lengths[rows].tolist() == sorted(lengths.tolist(), reverse=True)
        assert torch.equal(layout.lengths, lengths[rows])
    packed = layout.pack(torch.arange(batch, dtype=torch.float64).expand(steps, batch)[..., None])[:, 0]
    for step in range(steps):
        here = packed[layout.first_row(step) : layout.first_row(step + 1)]
        assert here.tolist() == rows[: len(here)].tolist()


@quickly
@given(case=layouts())
def test_by_rank_and_back(case):
    layout, values = Layout.of(*case), numbered(case[1], HIDDEN)
    assert torch.equal(layout.from_rank(layout.by_rank(values)), values)
    assert layout.from_rank(values).data_ptr() != values.data_ptr()


@quickly
@given(case=layouts(), cut=st.integers(0, 5))
def test_the_state_before_a_step_is_that_of_the_step_before_unless_the_row_begins_there(case, cut):
    steps, batch, lengths, reset = case
    layout, there = Layout.of(*case), present(*case[:3])
    values, initial = numbered(steps, batch, HIDDEN), -numbered(batch, HIDDEN)
    expected = torch.cat([initial[None], values[:-1]])
    if reset is not None:
        expected[reset] = 0.0
    history, start = (layout.pack(values), layout.by_rank(initial)), cut % steps
    spans = [(0, start), (start, steps)] if start else [(0, steps)]
    before = torch.cat([layout.before(*history, *span) for span in spans])
    assert torch.equal(layout.unpack(before), expected.masked_fill(~there[..., None], 0.0))
    assert layout.regular == (lengths is None and reset is None)


@quickly
@given(case=layouts())
def test_the_final_state_is_that_of_the_last_step_a_row_has(case):
    steps, batch, lengths, _ = case
    layout = Layout.of(*case)
    values, initial = numbered(steps, batch, HIDDEN), -numbered(batch, HIDDEN)
    lasts = [steps] * batch if lengths is None else lengths.tolist()
    expected = [values[last - 1, row] if last else initial[row] for row, last in enumerate(lasts)]
    history = torch.full((steps * batch, HIDDEN), float("nan"), dtype=torch.float64)
    history[: layout.rows] = layout.pack(values)
    assert torch.equal(layout.finals(history, layout.by_rank(initial)), torch.stack(expected))


@quickly
@given(case=layouts(), rows=st.integers(1, 20), from_end=st.booleans())
def test_pieces_follow_one_another_and_are_even_where_they_are_cut_from_the_end(
    few_rows, case, rows, from_end
):
    layout = Layout.of(*case)
    pieces = layout.pieces(rows, from_end)
    assert [step for piece in pieces for step in range(*piece)] == list(range(case[0]))
    assert all(start < stop for start, stop in pieces)
    if from_end:
        assert all((stop - start) % 2 == 0 for start, stop in pieces[1:])
    if layout.rows <= rows:
        assert len(pieces) == 1
    elif case[2] is None:  # as many steps each, one more to be even, and at least one
        wanted = -(-layout.rows // rows)
        longest = max(stop - start for start, stop in pieces)
        assert longest <= -(-case[0] // wanted) + from_end


@quickly
@given(case=layouts(), threads=st.integers(1, 8))
def test_cuts_divide_the_ranks_so_that_no_thread_has_a_row_more_than_its_share(case, threads):
    steps, batch, lengths, _ = case
    threads = min(threads, batch)
    cuts = Layout.of(*case).cuts(threads).tolist()
    assert len(cuts) == threads + 1
    assert (cuts[0], cuts[-1]) == (0, batch)
    assert cuts == sorted(cuts)
    ranked = [steps] * batch if lengths is None else sorted(lengths.tolist(), reverse=True)
    share = sum(ranked) / threads
    assert all(sum(ranked[start:stop]) < share + max(ranked) + 1 for start, stop in itertools.pairwise(cuts))


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_full_rows_are_cut_evenly(threads):
    cuts = Layout.of(4, 7, None, None).cuts(threads)
    assert cuts.diff().max() - cuts.diff().min() <= 1


def test_rows_without_reset_have_no_flags_and_the_flags_of_padding_are_left_out():
    reset = torch.tensor([[True, False], [False, True], [True, True]])
    assert Layout.of(3, 2, None, None).reset is None
    assert Layout.of(3, 2, None, reset).reset.tolist() == [1, 0, 0, 1, 1, 1]
    # Ranks: row 1 with two steps, then row 0 with one.
    assert Layout.of(3, 2, torch.tensor([1, 2]), reset).reset.tolist() == [0, 1, 1]
