"""When the recurrent weights are packed for machine code.

For steps of a stream once, and again whenever they changed; for a sequence of steps at each call.
"""

import gc
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError

import pytest
import torch
from agreement import close

from throughtime.cells.library import CELLS
from throughtime.kernels import machine
from throughtime.kernels.unroll import unroll

if machine.unsupported():
    pytest.skip(machine.unsupported(), allow_module_level=True)

from throughtime.kernels import call

pytestmark = pytest.mark.usefixtures("nan_filled")
some_cells = pytest.mark.parametrize("name", ["lstm", "gru_reset_before", "layer_norm_gru", "peephole_lstm"])
W = "weight_hh"


@pytest.fixture
def packs(monkeypatch):
    """The panels that were packed, weakly held."""
    made, pack = [], call._pack

    def counted(*arguments):
        panels = pack(*arguments)
        made.append([weakref.ref(panel) for panel in panels.values()])
        return panels

    monkeypatch.setattr(call, "_pack", counted)
    return made


def right(problem, mode=torch.no_grad):
    """Run without gradients, and compare with the reference."""
    with mode():
        answers = [problem.run(backend) for backend in ("llvm", "reference")]
        mine, reference = (
            {"y": y} | dict(zip(problem.cell.states, final, strict=True)) for y, final in answers
        )
        close(mine, reference)


def test_a_sequence_sees_every_change(draw, packs):
    """Also one through `.data`, of a single number among many."""
    problem = draw(CELLS["lstm"], 2, 2, 3, 150)
    right(problem)
    problem.weights[W].data[17, 23] += 9
    right(problem)
    assert len(packs) == 2


@some_cells
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_weights_are_packed_once(draw, packs, name, mode):
    problem = draw(CELLS[name], 1, 2, 4, 20)
    for _ in range(3):
        right(problem, mode)
    assert len(packs) == 1


def test_weights_packed_in_inference_mode_serve_outside_of_it(draw, packs):
    problem = draw(CELLS["lstm"], 1, 2, 4, 20)
    for mode in (torch.inference_mode, torch.no_grad, torch.inference_mode):
        right(problem, mode)
    assert len(packs) == 1


def test_weights_that_want_no_gradient_are_packed_once(draw, packs):
    problem = draw(CELLS["lstm"], 1, 2, 4, 20)
    for leaf in problem.leaves.values():
        leaf.requires_grad_(False)
    for _ in range(3):
        problem.run("llvm")
    assert len(packs) == 1


def test_each_weight_has_panels_of_its_own(draw, packs):
    problems = [draw(CELLS["lstm"], 1, 2, 4, 20, seed) for seed in range(3)]
    for problem in problems * 2:
        right(problem)
    assert len(packs) == len(problems)


def step(weight):
    weight.grad = torch.randn_like(weight)
    torch.optim.SGD([weight], 0.1).step()


def copy(weight):
    with torch.no_grad():
        weight.copy_(torch.randn_like(weight))


def one_row(weight):
    with torch.no_grad():
        weight[3].mul_(2)


@some_cells
@pytest.mark.parametrize("change", [step, copy, one_row])
def test_weights_are_packed_again_after_a_change_in_place(draw, packs, name, change):
    problem = draw(CELLS[name], 1, 2, 4, 20)
    for count in (1, 2, 3):
        right(problem)
        right(problem)
        assert len(packs) == count
        change(problem.weights[W])


@pytest.mark.parametrize("hidden", [5, 8, 16, 17, 32, 33, 48, 63, 64])
def test_weights_are_packed_again_after_one_element_of_data_changed(draw, packs, hidden):
    """What torch does not count as a change."""
    problem = draw(CELLS["lstm"], 1, 2, 3, hidden)
    size = problem.weights[W].numel()
    places = {0, 1, size // 2, size - 2, size - 1, *torch.randint(size, (10,)).tolist()}
    right(problem)
    for count, place in enumerate(sorted(places), 2):
        version = problem.weights[W]._version
        problem.weights[W].data.view(-1)[place] += 1
        assert problem.weights[W]._version == version
        right(problem)
        assert len(packs) == count, f"element {place} of {size}"


@pytest.mark.parametrize("value", [float("nan"), -0.0])
def test_an_element_that_became_nan_or_minus_zero_is_seen(draw, packs, value):
    problem = draw(CELLS["lstm"], 1, 2, 3, 5)
    problem.weights[W].data[2, 1] = 0.0
    right(problem)
    problem.weights[W].data[2, 1] = value
    right(problem)


def test_large_weights_are_packed_again_after_most_of_data_changed(draw, packs):
    problem = draw(CELLS["lstm"], 1, 2, 3, 130)
    right(problem)
    problem.weights[W].data.mul_(0.5)
    right(problem)
    assert len(packs) == 2


def in_place(weight):
    with torch.no_grad():
        weight[0, 1].add_(1)


def replaced(weight):
    other = weight.detach().clone()
    other[0, 1] += 1
    weight.data = other


@pytest.mark.parametrize("change", [in_place, replaced])
def test_of_large_weights_an_element_that_is_not_compared_may_change(draw, packs, change):
    """The version, or the address, tells."""
    problem = draw(CELLS["lstm"], 1, 2, 3, 130)
    assert problem.weights[W].numel() > call.SAMPLE
    right(problem)
    change(problem.weights[W])
    right(problem)
    assert len(packs) == 2


def test_weights_are_packed_again_after_the_tensor_or_its_data_is_replaced(draw, packs):
    problem = draw(CELLS["lstm"], 1, 2, 4, 20)
    for count in range(1, 6):
        right(problem)
        assert len(packs) == 2 * count - 1
        problem.weights[W].data = torch.randn_like(problem.weights[W])
        right(problem)
        assert len(packs) == 2 * count
        fresh = torch.randn_like(problem.weights[W])
        problem.weights[W] = fresh.requires_grad_()  # where the old one was, perhaps
        del fresh


def test_training_never_runs_on_old_panels(draw, packs):
    problem = draw(CELLS["gru"], 1, 2, 4, 20)
    for _ in range(3):
        right(problem)
        close(problem.answer(problem.run("llvm")), problem.answer(problem.run("reference")))
        problem.weights[W].data.mul_(0.9)
        close(problem.answer(problem.run("llvm")), problem.answer(problem.run("reference")))


@pytest.mark.parametrize("what", ["weights", "all"])
def test_weights_made_in_inference_mode_serve(draw, what):
    problem = draw(CELLS["lstm"], 1, 2, 4, 20)
    with torch.inference_mode():
        weights = {name: weight.clone() for name, weight in problem.weights.items()}
        x = problem.x.clone() if what == "all" else problem.x
        assert weights[W].is_inference()
        for _ in range(2):
            ys = [
                unroll(problem.cell, weights, x, problem.state, backend=b)[0] for b in ("llvm", "reference")
            ]
            close({"y": ys[0]}, {"y": ys[1]})
            weights[W].mul_(0.5)  # what inference tensors do not count


def test_weights_that_are_not_contiguous_serve(draw, packs):
    problem = draw(CELLS["lstm"], 1, 2, 4, 20)
    problem.weights[W] = problem.weights[W].detach().T.contiguous().T
    for _ in range(2):
        right(problem)
        problem.weights[W].data[1, 1] += 1


@some_cells
def test_nothing_is_kept_of_weights_that_are_gone(draw, packs, name):
    problem = draw(CELLS[name], 1, 2, 4, 20)
    right(problem)
    panels, weight = packs[0], weakref.ref(problem.weights[W])
    assert panels
    assert all(panel() is not None for panel in panels), "they are kept while the weight is there"
    del problem
    gc.collect()
    assert weight() is None
    assert all(panel() is None for panel in panels)


def test_panels_of_a_weight_that_changed_are_not_kept(draw, packs):
    problem = draw(CELLS["lstm"], 1, 2, 4, 20)
    for _ in range(4):
        right(problem)
        copy(problem.weights[W])
    gc.collect()
    assert all(panel() is None for panels in packs[:-1] for panel in panels)


@pytest.fixture
def hasty():
    """Python changes threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def meeting(count):
    """Wait until all are there, or for a short while."""
    barrier = Barrier(count, timeout=0.2)

    def wait():
        with suppress(BrokenBarrierError):
            barrier.wait()

    return wait


def test_threads_that_pack_a_fresh_weight_at_once_get_right_answers(draw, monkeypatch):
    problem, pack, wait = draw(CELLS["lstm"], 1, 2, 4, 20), call._pack, meeting(2)

    def slow(*arguments):
        wait()
        panels = pack(*arguments)
        wait()
        return panels

    monkeypatch.setattr(call, "_pack", slow)
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(right, problem) for _ in range(2)]:
            future.result()


def test_cells_that_share_a_weight_do_not_share_its_panels(draw):
    """The two GRUs multiply the same blocks, but not at once."""
    one, other = (draw(CELLS[name], 1, 2, 4, 20) for name in ("gru", "gru_reset_before"))
    other.weights[W] = one.weights[W]
    for problem in (one, other) * 2:
        right(problem)


def test_cells_that_share_a_weight_may_be_called_by_threads_at_once(draw, hasty):
    one, other = (draw(CELLS[name], 1, 2, 3, 5) for name in ("gru", "gru_reset_before"))
    other.weights[W] = one.weights[W]
    expected = {}
    for problem in (one, other):
        with torch.no_grad():
            expected[id(problem)] = problem.run("reference")[0]

    def many(problem):
        with torch.no_grad():
            for _ in range(300):
                close({"y": problem.run("llvm")[0]}, {"y": expected[id(problem)]})

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(many, problem) for problem in (one, other) * 2]:
            future.result()
