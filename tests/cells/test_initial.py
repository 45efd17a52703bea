"""How weights begin."""

import pytest
import torch

from throughtime.cells.cell import cell
from throughtime.cells.expression import tanh
from throughtime.cells.initial import MATRICES, VECTORS, initial_weights
from throughtime.cells.library import CELLS
from throughtime.errors import CellError

every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
SIZES = {"input_size": 4, "hidden_size": 7}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def blocks(weight, hidden_size=7):
    return weight.split(hidden_size)


@every_cell
def test_weights_have_the_names_and_shapes_of_the_graph(cell):
    weights = initial_weights(cell, **SIZES)
    assert {name: tuple(w.shape) for name, w in weights.items()} == cell.graph.weight_shapes(*SIZES.values())
    assert all(w.isfinite().all() and w.dtype == torch.get_default_dtype() for w in weights.values())


@every_cell
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(cell):
    one, same, other = (initial_weights(cell, **SIZES, generator=seeded(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["weight_ih"], other["weight_ih"])


@every_cell
def test_a_generator_leaves_the_global_one_alone(cell):
    before = torch.get_rng_state()
    initial_weights(cell, **SIZES, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)


@every_cell
def test_without_a_generator_the_global_one_is_used(cell):
    torch.manual_seed(3)
    one = initial_weights(cell, **SIZES)
    torch.manual_seed(3)
    assert torch.equal(initial_weights(cell, **SIZES)["weight_ih"], one["weight_ih"])


@every_cell
def test_constants_are_those_the_cell_names_and_else_zero(cell):
    weights = initial_weights(cell, **SIZES)
    if "bias" in weights:
        for name, block in zip(cell.graph.bias_blocks, blocks(weights["bias"]), strict=True):
            assert (block == cell.initial.bias.get(name, 0.0)).all(), name
    for name in cell.graph.vectors:
        begins = cell.initial.vectors.get(name, 0.0)
        assert isinstance(begins, str) or (weights[name] == begins).all(), name


@pytest.mark.parametrize(
    "cell",
    [c for c in CELLS.values() if c.initial.recurrent == "orthogonal" and c.graph.recurrent_blocks],
    ids=lambda cell: cell.name,
)
def test_recurrent_blocks_are_orthogonal_each_by_itself(cell):
    drawn = blocks(initial_weights(cell, **SIZES, generator=seeded())["weight_hh"])
    for block in drawn:
        torch.testing.assert_close(block @ block.T, torch.eye(7))
    assert all(not torch.equal(drawn[0], block) for block in drawn[1:])


@pytest.mark.parametrize("name", ["lstm", "peephole_lstm", "coupled_lstm", "multiplicative_lstm", "slstm"])
def test_the_forget_gate_of_an_lstm_begins_open(name):
    lstm = CELLS[name]
    bias = dict(zip(lstm.graph.bias_blocks, blocks(initial_weights(lstm, **SIZES)["bias"]), strict=True))
    assert (bias.pop("f") == 1).all()
    assert all((block == 0).all() for block in bias.values())


def test_the_forget_gate_of_a_layer_norm_lstm_begins_open():
    weights = initial_weights(CELLS["layer_norm_lstm"], **SIZES)
    assert (weights["shift_f"] == 1).all()
    assert (weights["gain_f"] == 1).all()
    assert (weights["shift_i"] == 0).all()


def test_irnn_begins_with_the_identity_and_no_bias():
    weights = initial_weights(CELLS["irnn"], 300, 200, seeded())
    assert torch.equal(weights["weight_hh"], torch.eye(200))
    assert (weights["bias"] == 0).all()
    assert weights["weight_ih"].std() == pytest.approx(0.001, rel=0.02)


@pytest.mark.parametrize("hidden_size", [1, 2, 30, 100])
def test_np_rnn_begins_positive_definite_with_largest_eigenvalue_one(hidden_size):
    matrix = initial_weights(CELLS["np_rnn"], 3, hidden_size, seeded())["weight_hh"].double()
    torch.testing.assert_close(matrix, matrix.T)
    eigenvalues = torch.linalg.eigvalsh(matrix)
    assert eigenvalues[0] > 0
    assert eigenvalues[-1].item() == pytest.approx(1.0, abs=1e-5)


def test_a_recurrent_highway_begins_by_carrying():
    highway = CELLS["recurrent_highway"]
    bias = dict(
        zip(highway.graph.bias_blocks, blocks(initial_weights(highway, **SIZES)["bias"]), strict=True)
    )
    for depth in "123":
        assert (bias[f"t{depth}"] == -2).all()
        assert (bias[f"h{depth}"] == 0).all()


def test_indrnn_begins_with_memories_of_all_lengths():
    u = initial_weights(CELLS["indrnn"], 1, 2000, seeded())["u"].sort().values
    assert u.min() >= 0 and u.max() <= 1
    torch.testing.assert_close(u, torch.linspace(0, 1, 2000), rtol=0, atol=0.04)


def test_lru_begins_with_eigenvalues_uniform_on_a_ring():
    names, generator = CELLS["lru"].initial.vectors, seeded()
    weights = {name: VECTORS[names[name]](20_000, generator).double() for name in ("nu", "u", "v")}
    radius = torch.exp(-torch.exp(weights["nu"]))
    assert 0.9 <= radius.min() < 0.9005
    assert 0.9985 < radius.max() <= 0.999
    squared = radius.square().sort().values
    even = torch.linspace(0.9**2, 0.999**2, len(squared), dtype=squared.dtype)
    assert (squared - even).abs().max() < 0.02 * (0.999**2 - 0.9**2)
    angle = torch.atan2(weights["v"], weights["u"]).sort().values / torch.pi
    assert (angle - torch.linspace(-1, 1, len(angle), dtype=angle.dtype)).abs().max() < 0.04


def test_glorot_fills_its_bounds():
    drawn = MATRICES["glorot"](60, 40, seeded())
    bound = (6 / 100) ** 0.5
    assert 0.99 * bound < drawn.abs().max() <= bound
    assert drawn.mean().abs() < 0.05 * bound


@pytest.mark.parametrize("option", ["input", "recurrent"])
def test_an_unknown_initialisation_names_those_there_are(option):
    @cell(state="h", **{option: "magic"})
    def mine(x, s, w):
        return w.h(x, s.h)

    with pytest.raises(CellError) as caught:
        initial_weights(mine, **SIZES)
    assert 'cell "mine": there is no initialisation "magic"' in str(caught.value)
    assert all(name in str(caught.value) for name in MATRICES)


def test_an_unknown_draw_of_a_vector_names_those_there_are():
    @cell(state="h", vectors={"u": "magic", "v": 0.5})
    def mine(x, s, w):
        return tanh(w.h(x) + w.u * s.h + w.v)

    with pytest.raises(CellError) as caught:
        initial_weights(mine, **SIZES)
    assert 'cell "mine": there is no initialisation "magic"' in str(caught.value)
    assert str(caught.value).endswith(f"there are {', '.join(VECTORS)}")
