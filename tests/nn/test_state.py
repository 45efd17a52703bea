"""The carried state: its rows taken, reset and joined as plain lists are, and its way to a file and back."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from throughtime.errors import DataError, ShapeError, StorageError
from throughtime.nn.recurrent import Recurrent
from throughtime.nn.state import (
    detach,
    join_rows,
    load_state,
    map_state,
    reset_rows,
    save_state,
    select_rows,
)

BATCH = 4
quickly = settings(max_examples=30, deadline=None)


def ragged(batch=BATCH):
    """Two states of width 3, none, one of width 5, and two of a transformer: for each head, and a count."""
    return (
        (torch.randn(batch, 3), torch.randn(batch, 3, dtype=torch.float64)),
        (),
        (torch.randn(batch, 5),),
        (torch.randn(batch, BATCH, 2, 3), torch.randint(9, (batch,))),
    )


def flat(state):
    return [value for values in state for value in values]


def as_rows(state):
    """The rows of every tensor as lists of numbers."""
    return [value.tolist() for value in flat(state)]


def form(state):
    return [[(value.shape[1:], value.dtype) for value in values] for values in state]


def same(one, other):
    assert form(one) == form(other)
    assert as_rows(one) == as_rows(other)


# Rows.


def test_map_state_keeps_the_form():
    state = ragged()
    doubled = map_state(lambda value: value * 2, state)
    assert form(doubled) == form(state)
    assert torch.equal(doubled[2][0], state[2][0] * 2)


@given(rows=st.lists(st.integers(0, BATCH - 1), max_size=6))
@quickly
def test_rows_by_index(rows):
    state = ragged()
    expected = [[value[row] for row in rows] for value in as_rows(state)]
    for given_rows in (rows, torch.tensor(rows, dtype=torch.long), torch.tensor(rows, dtype=torch.int32)):
        chosen = select_rows(state, given_rows)
        assert form(chosen) == form(state)
        assert as_rows(chosen) == expected


@given(mask=st.lists(st.booleans(), min_size=BATCH, max_size=BATCH))
@quickly
def test_rows_by_mask(mask):
    state = ragged()
    expected = [[row for row, wanted in zip(value, mask, strict=True) if wanted] for value in as_rows(state)]
    for given_rows in (mask, torch.tensor(mask)):
        chosen = select_rows(state, given_rows)
        assert form(chosen) == form(state)
        assert as_rows(chosen) == expected


def test_a_row_selected_twice_gets_both_gradients():
    value = torch.randn(3, 2, requires_grad=True)
    ((chosen,),) = select_rows(((value,),), [0, 2, 0])
    (chosen * torch.tensor([[1.0], [10.0], [100.0]])).sum().backward()
    assert value.grad.tolist() == [[101, 101], [0, 0], [10, 10]]


def test_selected_rows_run_as_they_would_have():
    layer = Recurrent("lstm", 2, 3, layers=2)
    _, state = layer(torch.randn(3, 5, 2))
    x, rows = torch.randn(3, 4, 2), torch.tensor([2, 0])
    expected, after = layer(x, state)
    y, chosen = layer(x[rows], select_rows(state, rows))
    torch.testing.assert_close(y, expected[rows])
    torch.testing.assert_close(chosen, select_rows(after, rows))


@given(mask=st.lists(st.booleans(), min_size=BATCH, max_size=BATCH))
@quickly
def test_reset_rows_take_the_beginning(mask):
    state, begin = ragged(), ragged()
    expected = [
        [new if reset else old for old, new, reset in zip(values, news, mask, strict=True)]
        for values, news in zip(as_rows(state), as_rows(begin), strict=True)
    ]
    after = reset_rows(state, torch.tensor(mask), begin)
    assert form(after) == form(state)
    assert as_rows(after) == expected


def test_nothing_flows_through_a_reset_row():
    value = torch.tensor([[1.0], [torch.nan]], requires_grad=True)
    begin = torch.tensor([[5.0], [6.0]], requires_grad=True)
    ((after,),) = reset_rows(((value,),), torch.tensor([False, True]), ((begin,),))
    after.square().sum().backward()
    assert after.tolist() == [[1], [6]]
    assert value.grad.tolist() == [[2], [0]]
    assert begin.grad.tolist() == [[0], [12]]


@given(sizes=st.lists(st.integers(0, 3), min_size=1, max_size=4))
@quickly
def test_joined_rows_come_apart_again(sizes):
    states = [ragged(size) for size in sizes]
    joined = join_rows(states)
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    for state, start, size in zip(states, starts, sizes, strict=True):
        same(select_rows(joined, list(range(start, start + size))), state)
    assert all(len(value) == sum(sizes) for value in flat(joined))


def test_detach_cuts_the_gradient_alone():
    value = torch.randn(2, 3, requires_grad=True)
    state = ((value * 2, value * 3), (value * 4,))
    cut = detach(state)
    same(cut, map_state(lambda value: value.detach(), state))
    assert not any(value.requires_grad for value in flat(cut))
    assert all(value.requires_grad for value in flat(state))


@pytest.mark.parametrize("empty", [(), ((), ())])
def test_a_state_without_tensors_stays_as_it_is(empty, tmp_path):
    assert select_rows(empty, [0, 0]) == empty
    assert reset_rows(empty, torch.tensor([True]), empty) == empty
    assert join_rows([empty, empty]) == empty
    save_state(empty, tmp_path / "state")
    assert load_state(tmp_path / "state") == empty


# Files.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("batch", [0, 1, BATCH])
def test_a_saved_state_comes_back_exactly(tmp_path, dtype, batch):
    state = map_state(lambda value: value.to(dtype), ragged(batch))
    save_state(state, tmp_path / "state.safetensors")
    same(load_state(tmp_path / "state.safetensors"), state)


def test_more_than_ten_layers_come_back_in_their_order(tmp_path):
    state = tuple(tuple(torch.full((1, 1), 100.0 * k + j) for j in range(12)) for k in range(12))
    save_state(state, tmp_path / "state")
    same(load_state(tmp_path / "state"), state)


def test_special_numbers_are_kept(tmp_path):
    value = torch.tensor([[torch.nan, torch.inf, -torch.inf, -0.0]])
    save_state(((value,),), tmp_path / "state")
    ((back,),) = load_state(tmp_path / "state")
    assert torch.equal(back.view(torch.int32), value.view(torch.int32))


def test_views_and_shared_tensors_are_saved_as_what_they_show(tmp_path):
    one = torch.randn(3, 2, requires_grad=True)
    state = ((one, one), (one.T[:, :2], torch.zeros(1, 1).expand(3, 4)[:2]))
    state = (state[0], tuple(value[:2] for value in state[1]))
    save_state(state, tmp_path / "state")
    same(load_state(tmp_path / "state"), state)


def test_entries_are_named_by_layer_and_state(tmp_path):
    save_state(ragged(), tmp_path / "state")
    assert set(load_file(tmp_path / "state")) == {"0.0", "0.1", "2.0", "3.0", "3.1"}


def test_a_path_may_be_text_and_its_folder_is_made(tmp_path):
    path = tmp_path / "a" / "b" / "state"
    state = ragged()
    save_state(state, str(path))
    same(load_state(str(path)), state)
    assert [file.name for file in path.parent.iterdir()] == ["state"]


def test_a_layer_goes_on_from_a_saved_state(tmp_path):
    layer = Recurrent("lstm", 2, 3, layers=2, bidirectional=True)
    x = torch.randn(3, 4, 2)
    _, state = layer(x)
    save_state(state, tmp_path / "state")
    assert torch.equal(layer(x, load_state(tmp_path / "state"))[0], layer(x, state)[0])


def test_a_loaded_state_does_not_hang_on_its_file(tmp_path):
    state, path = ragged(), tmp_path / "state"
    save_state(state, path)
    loaded = load_state(path)
    path.write_bytes(bytes(path.stat().st_size))
    same(loaded, state)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    state, path = ragged(), tmp_path / "state"
    save_state(state, path)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device; make room, or give another path"):
        save_state(ragged(), path)
    same(load_state(path), state)
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_what_safetensors_cannot_write_is_a_storage_error(tmp_path, monkeypatch):
    def full(*_):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("throughtime.nn.state.save_file", full)
    with pytest.raises(StorageError, match="No space left on device"):
        save_state(ragged(), tmp_path / "state")
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_way_is_a_storage_error(tmp_path):
    (tmp_path / "state").mkdir()
    with pytest.raises(StorageError, match="state cannot be written"):
        save_state(ragged(), tmp_path / "state")


def test_a_missing_file_and_a_folder_are_not_states(tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(DataError, match="is not a file: give the path that save_state wrote to"):
            load_state(path)


@pytest.mark.parametrize("kept", [0, 4, 8, 100, -1])
def test_a_cut_file_is_refused(tmp_path, kept):
    path = tmp_path / "state"
    save_state(ragged(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match="state cannot be read as a saved state"):
        load_state(path)


def test_some_other_file_is_refused(tmp_path):
    path = tmp_path / "state"
    path.write_text("To be, or not to be, that is the question")
    with pytest.raises(DataError, match="state cannot be read as a saved state"):
        load_state(path)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"states_of_layers": "[2"},
        {"states_of_layers": "2"},
        {"states_of_layers": '["a"]'},
        {"states_of_layers": "[3]"},
        {"states_of_layers": "[1]"},
    ],
)
def test_other_tensors_are_not_a_state(tmp_path, metadata):
    path = tmp_path / "weights"
    save_file({"0.0": torch.zeros(1, 2), "0.1": torch.zeros(1, 2)}, path, metadata)
    with pytest.raises(DataError, match="weights is not a saved state: give a file that save_state wrote"):
        load_state(path)


# What is refused.


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([0, 4], r"rows must lie in 0\.\.3, got \[0, 4\]"),
        ([-1], r"rows must lie in 0\.\.3, got \[-1\]"),
        ([0.0], r"indices of shape \[N\] or booleans of shape \[4\], got torch.float32 of shape \[1\]"),
        ([True], r"indices of shape \[N\] or booleans of shape \[4\], got torch.bool of shape \[1\]"),
        (torch.zeros(0, dtype=torch.bool), r"got torch.bool of shape \[0\]"),
        ([[0]], r"got torch.int64 of shape \[1, 1\]"),
        (torch.tensor(1), r"got torch.int64 of shape \[\]"),
    ],
)
def test_rows_that_cannot_be_selected(rows, said):
    with pytest.raises(ShapeError, match=said):
        select_rows(ragged(), rows)


def test_no_row_of_an_empty_batch_can_be_selected():
    assert as_rows(select_rows(ragged(0), [])) == [[]] * 5
    with pytest.raises(ShapeError, match="rows must lie in"):
        select_rows(ragged(0), [0])


@pytest.mark.parametrize("rows", [torch.tensor([True]), torch.zeros(BATCH), torch.tensor([0, 1, 2, 3])])
def test_a_reset_needs_a_mask(rows):
    with pytest.raises(ShapeError, match=r"rows must be booleans of shape \[4\], got "):
        reset_rows(ragged(), rows, ragged())


def test_a_reset_needs_a_beginning_for_each_row():
    with pytest.raises(ShapeError, match="begin must have as many rows as the state, 4, got 1"):
        reset_rows(ragged(), torch.ones(BATCH, dtype=torch.bool), ragged(1))


@pytest.mark.parametrize(
    "other",
    [
        ragged()[:2],
        ((), *ragged()[1:]),
        map_state(lambda value: value.double(), ragged()),
        (*ragged()[:2], (torch.randn(BATCH, 4),), ragged()[3]),
        (*ragged()[:3], (torch.randn(BATCH, BATCH, 5, 3), ragged()[3][1])),
    ],
    ids=["layers", "states", "type", "width", "age"],
)
def test_states_must_be_alike(other):
    with pytest.raises(ShapeError, match="states must agree in layers, shapes, types and devices"):
        join_rows([ragged(), other])
    with pytest.raises(ShapeError, match="states must agree in layers, shapes, types and devices"):
        reset_rows(ragged(), torch.ones(BATCH, dtype=torch.bool), other)


def test_there_must_be_a_state_to_join():
    with pytest.raises(ShapeError, match="there is no state to join"):
        join_rows([])


@pytest.mark.parametrize("broken", [((torch.zeros(()),),), ((torch.zeros(3, 2),), (torch.zeros(4, 2),))])
def test_a_state_must_have_one_batch(broken):
    for change in (
        lambda: select_rows(broken, [0]),
        lambda: join_rows([broken]),
        lambda: reset_rows(broken, torch.ones(3, dtype=torch.bool), broken),
    ):
        with pytest.raises(ShapeError, match=r"shape \[batch, \.\.\.\] with one batch, got \["):
            change()


@pytest.mark.parametrize("layer", [torch.nn.LSTM(3, 4), torch.nn.GRU(3, 4)])
def test_the_states_of_torchs_layers_are_refused(layer, tmp_path):
    _, state = layer(torch.zeros(2, 1, 3))
    for function in (
        detach,
        lambda state: select_rows(state, [0]),
        lambda state: save_state(state, tmp_path / "state"),
    ):
        with pytest.raises(ShapeError, match="torch's h, or"):
            function(state)
