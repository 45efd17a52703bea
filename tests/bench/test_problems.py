"""Sizes, lengths and counts of operations."""

import pytest
import torch

from throughtime.bench.problems import GRID, Size, distinct, draw, flops, spread_lengths
from throughtime.cells.library import CELLS
from throughtime.errors import ConfigError


def test_a_size_is_read_as_it_is_shown():
    for size in GRID:
        assert Size.parse(str(size)) == size
    assert Size.parse("50, 64, 1, 8") == Size(50, 64, 1, 8)


@pytest.mark.parametrize("text", ["50,64,128", "50,64,128,128,1", "0,1,1,1", "a,1,1,1", "-1,1,1,1", ""])
def test_what_is_no_size_is_said(text):
    with pytest.raises(ConfigError, match=f'"{text}" is not a size: .* as in 50,64,128,128'):
        Size.parse(text)


def test_operations_are_those_of_the_matrix_products():
    # An LSTM has four products with x and four with h; a GRU three and three; both passes three times one.
    size = Size(steps=2, batch=3, inputs=5, hidden=7)
    assert flops(CELLS["lstm"], size, "infer") == 2 * 2 * 3 * (4 * 5 * 7 + 4 * 7 * 7)
    assert flops(CELLS["gru"], size, "train") == 3 * 2 * 2 * 3 * (3 * 5 * 7 + 3 * 7 * 7)
    assert flops(CELLS["layer_norm_gru"], size, "train") == flops(CELLS["gru"], size, "train")


@pytest.mark.parametrize("size", [*GRID, Size(7, 3, 1, 1), Size(4, 1, 1, 1), Size(1, 5, 1, 1)], ids=str)
def test_half_of_the_steps_are_padding_and_no_row_is_empty(size):
    lengths = spread_lengths(size, torch.Generator().manual_seed(0))
    assert lengths.shape == (size.batch,)
    assert lengths.min() >= 1 and lengths.max() <= size.steps
    assert size.steps / 2 <= lengths.double().mean() <= size.steps / 2 + 0.5 + 0.5 / size.batch


def test_lengths_are_in_no_order():
    lengths = spread_lengths(GRID[0], torch.Generator().manual_seed(0))
    assert not torch.equal(lengths, lengths.sort().values)


def test_the_same_seed_draws_the_same_problem():
    one, other = (draw(CELLS["lstm"], Size(3, 2, 4, 5), half_padded=True) for _ in range(2))
    assert torch.equal(one.x, other.x) and torch.equal(one.lengths, other.lengths)
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
    assert one.x.dtype == torch.float32 and all(leaf.requires_grad for leaf in one.leaves)


def test_cells_with_the_same_equations_are_timed_once():
    names = [cell.name for cell in distinct(list(CELLS.values()))]
    assert "rnn_relu" in names and "irnn" not in names and "np_rnn" not in names
    assert "batch_norm_lstm" not in names, "it takes the statistics of batches from its layer"
    assert len(names) == len(CELLS) - 3
