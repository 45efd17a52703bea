"""`checkpoint_every` of `unroll`: the same values and gradients, and far less that is kept for them."""

import re

import pytest
import torch
from agreement import close
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from throughtime.cells.library import CELLS
from throughtime.errors import ConfigError
from throughtime.kernels import reference
from throughtime.kernels.unroll import BACKENDS, unroll
from throughtime.nn import Recurrent

STEPS, BATCH = 7, 4
ONE = torch.ones(1, 1, 1, dtype=torch.float64)
RUNS = [
    pytest.param(CELLS[name], backend, id=f"{name}-{backend}")
    for name in ("lstm", "gru", "layer_norm_gru", "peephole_lstm")
    for backend, module in BACKENDS.items()
    if module.refusal(CELLS[name].graph, ONE) is None
]
every_run = pytest.mark.parametrize(("cell", "backend"), RUNS)
every_size = pytest.mark.parametrize("every", [1, 2, STEPS - 1, STEPS, STEPS + 5, "auto"])
every_kind = pytest.mark.parametrize("kind", ["full", "lengths", "no steps", "reset", "both"])
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def options_of(kind):
    """No row reaches the last pieces. Of the resets those of 2, 3 and 6 stand at a cut of 2 or "auto"."""
    lengths = torch.tensor([4, 0, 2, 3])
    reset = torch.zeros(STEPS, BATCH, dtype=torch.bool)
    for step, row in ((0, 0), (1, 2), (2, 0), (2, 3), (3, 0), (3, 1), (5, 2), (6, 1)):
        reset[step, row] = True
    return {
        "full": {},
        "lengths": {"lengths": lengths},
        "no steps": {"lengths": torch.zeros(BATCH, dtype=torch.int64)},
        "reset": {"reset": reset},
        "both": {"lengths": lengths, "reset": reset},
    }[kind]


@every_run
@every_size
@every_kind
def test_checkpoints_change_no_value_and_no_gradient(draw, cell, backend, every, kind):
    problem, options = draw(cell, STEPS, BATCH, 3, 5), options_of(kind)
    expected = problem.answer(problem.run(backend, **options))
    found = problem.answer(problem.run(backend, **options, checkpoint_every=every))
    close(found, expected, tolerance=1e-12)


@every_run
@every_size
def test_without_gradients_checkpoints_change_nothing(draw, cell, backend, every):
    problem, options = draw(cell, STEPS, BATCH, 3, 5), options_of("both")
    with torch.no_grad():
        y, final = problem.run(backend, **options)
        again, final_again = problem.run(backend, **options, checkpoint_every=every)
    assert torch.equal(again, y)
    assert all(map(torch.equal, final_again, final))


def test_a_state_that_was_left_out_is_zero_in_the_first_piece_only(draw):
    problem = draw(CELLS["lstm"], STEPS, BATCH, 3, 5)
    ys = [
        unroll(problem.cell, problem.weights, problem.x, backend="llvm", checkpoint_every=every)[0]
        for every in (None, 2)
    ]
    close({"y": ys[1]}, {"y": ys[0]}, tolerance=1e-12)


@pytest.fixture
def pieces(monkeypatch):
    """The number of steps of each run of the reference."""
    steps, run = [], reference.run

    def counted(graph, weights, x, *rest):
        steps.append(len(x))
        return run(graph, weights, x, *rest)

    monkeypatch.setattr(reference, "run", counted)
    return steps


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (1, [1]),
        (2, [2]),
        (4, [2, 2]),
        (5, [3, 2]),
        (9, [3, 3, 3]),
        (10, [4, 4, 2]),
        (16, [4] * 4),
        (17, [5, 5, 5, 2]),
    ],
)
def test_auto_takes_pieces_of_the_square_root_of_the_steps(draw, pieces, steps, expected):
    problem = draw(CELLS["gru"], steps, 2, 3, 4)
    y, _ = problem.run("reference", checkpoint_every="auto")
    assert pieces == expected
    y.sum().backward()
    assert sorted(pieces) == sorted(expected * (1 if len(expected) == 1 else 2)), "each is run once more"


def test_without_gradients_nothing_is_run_in_pieces(draw, pieces):
    problem = draw(CELLS["gru"], 9, 2, 3, 4)
    with torch.no_grad():
        problem.run("reference", checkpoint_every=2)
    assert pieces == [9]


@pytest.mark.parametrize("bad", [0, -1, 2.5, True, False, "sqrt", float("nan"), [2]], ids=repr)
def test_what_is_no_number_of_steps_is_refused_by_name(draw, bad):
    problem = draw(CELLS["lstm"], 4, 2, 3, 4)
    with pytest.raises(ConfigError, match=rf"checkpoint_every.*{re.escape(repr(bad))}"):
        problem.run("auto", checkpoint_every=bad)
    with pytest.raises(ConfigError, match=rf"checkpoint_every.*{re.escape(repr(bad))}"):
        Recurrent("lstm", 3, 4, checkpoint_every=bad)(torch.zeros(2, 4, 3))


@pytest.mark.parametrize("ways", [1, 2])
def test_a_layer_with_checkpoints_is_the_same_layer(ways):
    x = torch.randn(BATCH, STEPS, 3, dtype=torch.float64, requires_grad=True)
    answers = []
    for every in (None, "auto"):
        layer = Recurrent(
            "lstm",
            3,
            5,
            layers=2,
            bidirectional=ways == 2,
            checkpoint_every=every,
            generator=torch.Generator().manual_seed(0),
        ).double()
        y, state = layer(x, lengths=torch.tensor([7, 0, 2, 5]))
        loss = y.square().sum() + sum(value.sum() for values in state for value in values)
        names = ["x", *dict(layer.named_parameters())]
        gradients = torch.autograd.grad(loss, [x, *layer.parameters()])
        answers.append({"y": y} | dict(zip(names, gradients, strict=True)))
    close(answers[1], answers[0], tolerance=1e-12)


class Alive(TorchDispatchMode):
    """The bytes of what operators made and someone still keeps, besides what was `given`."""

    def __init__(self, given):
        super().__init__()
        self.given = {StorageWeakRef(value.untyped_storage()).cdata for value in given}
        self.made = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        for value in tree_leaves(outputs):
            if isinstance(value, torch.Tensor):
                ref = StorageWeakRef(value.untyped_storage())
                if ref.cdata not in self.given:
                    self.made[ref.cdata] = ref, value.untyped_storage().nbytes()
        return outputs

    def bytes(self):
        self.made = {key: made for key, made in self.made.items() if not made[0].expired()}
        return sum(size for _, size in self.made.values())


@every_backend
def test_of_a_long_sequence_little_more_than_y_is_kept(draw, backend):
    steps = 400 if backend == "reference" else 4000
    problem, kept = draw(CELLS["min_gru" if backend == "scan" else "lstm"], steps, 2, 8, 16), {}
    for every in (None, "auto"):
        with Alive(problem.leaves.values()) as alive:
            y, _ = problem.run(backend, checkpoint_every=every)
        kept[every] = alive.bytes() - y.nbytes
    assert kept[None] > 2 * y.nbytes, "else this test measures nothing"
    assert kept["auto"] < kept[None] / 10


@pytest.mark.parametrize("every", [20, 40, 80])
def test_what_is_kept_is_the_states_before_the_pieces(draw, every):
    steps, batch, hidden = 800, 2, 16
    problem = draw(CELLS["lstm"], steps, batch, 8, hidden)
    with Alive(problem.leaves.values()) as alive:
        y, _ = problem.run("llvm", checkpoint_every=every)
    states = steps // every * 2 * batch * hidden * y.element_size()
    assert states / 2 <= alive.bytes() - y.nbytes <= 2 * states
