"""Single steps without gradients: what was made ready for one serves the next, and nothing else changes."""

import copy
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from agreement import close, same

from throughtime.cells.library import CELLS
from throughtime.cells.transform import learned_begin, recurrent_dropout, zoneout
from throughtime.errors import ConfigError, ShapeError
from throughtime.kernels import machine
from throughtime.kernels.unroll import unroll

if machine.unsupported():
    pytest.skip(machine.unsupported(), allow_module_level=True)

from throughtime.kernels import call, stream

pytestmark = pytest.mark.usefixtures("nan_filled")
every_cell = pytest.mark.parametrize("name", CELLS)
TRANSFORMED = {
    "dropout": recurrent_dropout(CELLS["lstm"]),
    "zoneout": zoneout(CELLS["lstm"], {"h": 0.1, "c": 0.5}),
    "learned begin": learned_begin(CELLS["layer_norm_lstm"]),
}


@pytest.fixture(autouse=True)
def made(monkeypatch):
    """What was made ready in this test."""
    stream._idle.cache_clear()
    made = []

    class Counted(stream._Step):
        def __init__(self, problem):
            super().__init__(problem)
            made.append(self)

    monkeypatch.setattr(stream, "_Step", Counted)
    return made


def named(cell, run):
    y, final = run
    return {"y": y} | {f"final {name}": value for name, value in zip(cell.states, final, strict=True)}


def steps(problem, backend="llvm"):
    """One step after the other: y of all, and the last states."""
    state, outputs = problem.state, []
    with torch.no_grad():
        for t in range(len(problem.x)):
            y, state = problem.piece(slice(None), slice(t, t + 1), state, backend)
            outputs.append(y)
    return torch.cat(outputs), state


def right(problem):
    """Steps are what the definition gives."""
    answers = (named(problem.cell, steps(problem, backend=backend)) for backend in ("llvm", "reference"))
    close(*answers, tolerance=1e-10 if problem.x.dtype == torch.float64 else 1e-5)


@every_cell
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_are_those_of_the_whole_sequence(draw, made, name, batch, dtype):
    problem = draw(CELLS[name], 4, batch, 5, 13, dtype=dtype)
    with torch.no_grad():
        whole = named(problem.cell, problem.run("llvm"))
        close(named(problem.cell, steps(problem)), whole, tolerance=1e-10 if dtype == torch.float64 else 1e-5)
    right(problem)
    assert len(made) == 1


@pytest.mark.parametrize("cell", TRANSFORMED.values(), ids=TRANSFORMED)
def test_what_is_given_may_be_other_numbers_at_each_step(draw, made, cell):
    for seed in range(3):
        right(draw(cell, 3, 3, 5, 13, seed))
    assert len(made) == 1


def test_old_outputs_and_states_stay_as_they_were(draw):
    problem = draw(CELLS["lstm"], 6, 2, 4, 9)
    state, seen = problem.state, []
    with torch.no_grad():
        for x in problem.x:
            y, state = unroll(problem.cell, problem.weights, x[None], state)
            seen += [(value, value.clone()) for value in (y, *state)]
    assert all(torch.equal(value, then) for value, then in seen)
    places = {value.data_ptr() for value, _ in seen}
    assert len(places) == len(seen)


def test_a_state_can_be_continued_twice(draw):
    problem = draw(CELLS["gru"], 3, 1, 4, 9)
    one = named(problem.cell, steps(problem))
    steps(replace(problem, x=-problem.x))
    same(named(problem.cell, steps(problem)), one)


def one_element(weight):
    with torch.no_grad():
        weight.view(-1)[3].add_(1)


def one_of_data(weight):
    weight.data.view(-1)[-1] += 1


def all_of_data(weight):
    weight.data.mul_(0.5)


def other_data(weight):
    weight.data = torch.randn_like(weight)


def optimizer(weight):
    weight.grad = torch.randn_like(weight)
    torch.optim.Adam([weight], 0.1).step()


@pytest.mark.parametrize("change", [one_element, one_of_data, all_of_data, other_data, optimizer])
@pytest.mark.parametrize("name", ["lstm", "peephole_lstm", "layer_norm_gru", "deep_transition_rnn"])
def test_a_change_of_any_weight_is_seen(draw, made, name, change):
    problem = draw(CELLS[name], 2, 1, 4, 20)
    right(problem)
    for weight in problem.weights.values():
        before = steps(problem)[0]
        change(weight)
        right(problem)
        assert not torch.equal(steps(problem)[0], before)
    assert len(made) == 1


@pytest.mark.parametrize("change", [one_element, all_of_data, other_data, optimizer])
@pytest.mark.parametrize("name", ["weight_ih", "weight_hh"])
def test_a_change_of_a_large_weight_is_seen(draw, name, change):
    problem = draw(CELLS["lstm"], 1, 1, 130, 130)
    assert problem.weights[name].numel() > call.WHOLE
    for _ in range(3):
        right(problem)
        change(problem.weights[name])


@pytest.fixture
def rows_times(monkeypatch):
    """The weights of x that were packed, weakly held."""
    packed = []

    class Counted(stream.RowTimes):
        def __init__(self, matrix):
            super().__init__(matrix)
            packed.append(weakref.ref(self))

    monkeypatch.setattr(stream, "RowTimes", Counted)
    return packed


@pytest.mark.parametrize("name", ["lstm", "gru", "min_gru"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("inputs", "hidden"), [(1800, 37), (1, 33000), (333, 200), (640, 129)])
def test_large_weights_of_x_are_packed_once(draw, rows_times, name, dtype, inputs, hidden):
    if name != "min_gru" and hidden > 1000:
        pytest.skip("weight_hh would fill the memory")
    problem = draw(CELLS[name], 3, 1, inputs, hidden, dtype=dtype)
    assert call.WHOLE < problem.weights["weight_ih"].numel() <= stream.LARGEST
    for x in (problem.x, problem.x.detach().repeat_interleave(2, -1)[..., ::2]):
        right(replace(problem, x=x))
    assert len(rows_times) == 1


def test_the_packed_weight_of_x_goes_with_the_weight(draw, rows_times):
    problem = draw(CELLS["lstm"], 1, 1, 130, 130)
    right(problem)
    gone = [rows_times[0], weakref.ref(problem.weights["weight_ih"])]
    del problem
    gc.collect()
    assert [value() for value in gone] == [None] * 2


def test_training_keeps_no_packed_weight_of_x(draw, rows_times):
    problem = draw(CELLS["lstm"], 1, 1, 130, 130)
    right(problem)
    problem.run("llvm")
    assert rows_times[0]() is None
    right(problem)


def test_a_weight_may_be_that_of_x_and_of_the_state(draw, rows_times):
    problem = draw(CELLS["lstm"], 2, 1, 130, 130)
    problem.weights["weight_ih"] = problem.weights["weight_hh"]
    for _ in range(2):
        right(problem)
    one_element(problem.weights["weight_hh"])
    right(problem)
    assert len(rows_times) == 2


def test_weights_made_in_inference_mode_are_not_kept(draw, rows_times):
    problem = draw(CELLS["lstm"], 1, 1, 130, 130)
    with torch.inference_mode():
        made = replace(problem, weights={name: value.clone() for name, value in problem.weights.items()})
        for _ in range(2):
            same(named(problem.cell, steps(made)), named(problem.cell, steps(made)))
            made.weights["weight_ih"].mul_(2)
    right(made)
    assert not rows_times


@pytest.mark.parametrize("hidden", [129, 256, 257, 362])
def test_of_a_large_weight_enough_numbers_are_compared(hidden):
    weight = torch.randn(4 * hidden, hidden)
    sample = call._sample(weight)
    assert call.SAMPLE <= len(sample) <= 1.1 * call.SAMPLE
    assert sample[-1] in weight[-4:]


def test_other_weights_of_the_same_shapes_are_served(draw, made):
    problems = [draw(CELLS["lstm"], 2, 1, 4, 20, seed) for seed in range(3)]
    for problem in problems * 2:
        right(problem)
    assert len(made) == 1


def test_a_weight_may_shrink_where_it_lies(draw):
    problem = draw(CELLS["lstm"], 1, 1, 20, 20)
    right(problem)
    small = draw(CELLS["lstm"], 1, 1, 20, 10)
    for name, weight in problem.weights.items():
        weight.data = weight.data.view(-1)[: small.weights[name].numel()].view_as(small.weights[name])
    right(replace(small, weights=problem.weights))


def test_batches_and_types_may_alternate(draw, made):
    problems = [
        draw(CELLS["gru"], 2, batch, 4, 9, dtype=dtype)
        for batch in (1, 2, 5)
        for dtype in (torch.float32, torch.float64)
    ]
    for problem in problems * 2:
        right(problem)
    assert len(made) == len(problems)


def test_steps_of_many_rows_are_right_and_not_kept(draw, made):
    problem = draw(CELLS["gru"], 2, stream.MOST_ROWS + 1, 9, 9)
    right(problem)
    assert len(made) == 2


def test_tensors_that_are_not_contiguous_serve(draw):
    for batch in (1, 3):
        problem = draw(CELLS["lstm"], 2, batch, 6, 9)
        spread = replace(
            problem,
            x=problem.x.detach().repeat_interleave(2, -1)[..., ::2],
            state=tuple(value.detach().T.contiguous().T for value in problem.state),
            weights={
                name: value.detach().repeat_interleave(2, 0)[::2] for name, value in problem.weights.items()
            },
        )
        right(spread)
        right(replace(problem, x=problem.x.detach()[..., :1].expand(-1, -1, 6)))


def test_modes_may_alternate(draw, made):
    problem = draw(CELLS["lstm"], 2, 1, 4, 9)
    with torch.inference_mode():
        drawn = problem.x.clone()
        inside = steps(replace(problem, x=drawn))
    outside = steps(problem)
    same(named(problem.cell, inside), named(problem.cell, outside))
    with torch.inference_mode():
        unroll(problem.cell, problem.weights, drawn[:1], inside[1])
    with torch.autocast("cpu"):
        same(named(problem.cell, steps(problem)), named(problem.cell, outside))
    assert len(made) == 1


@pytest.mark.parametrize("leaf", ["x", "h", "weight_ih", "weight_hh", "bias"])
def test_gradients_flow_where_they_are_wanted(draw, leaf):
    problem = draw(CELLS["lstm"], 1, 2, 4, 9)
    right(problem)
    for name, value in problem.leaves.items():
        value.requires_grad_(name == leaf)
    answers = []
    for backend in ("llvm", "reference"):
        y, final = problem.run(backend)
        assert y.requires_grad
        loss = sum((value.square() + value).sum() for value in (y, *final))
        answers.append({leaf: torch.autograd.grad(loss, problem.leaves[leaf])[0]})
    close(*answers)


class Odd(torch.Tensor):
    """A tensor of another kind."""


def test_kinds_of_tensors_stay_what_they_are(draw):
    problem = draw(CELLS["lstm"], 1, 1, 4, 9)
    right(problem)
    with torch.no_grad():
        y, _ = unroll(problem.cell, problem.weights, problem.x.as_subclass(Odd), problem.state)
    assert isinstance(y, Odd)


WRONG = {
    "x of two dimensions": lambda p: {"x": p["x"][0]},
    "x of no dimensions": lambda p: {"x": p["x"][0, 0, 0]},
    "x of another width": lambda p: {"x": p["x"][..., 1:]},
    "x of another type": lambda p: {"x": p["x"].float()},
    "a state of another width": lambda p: {"state": tuple(value[:, 1:] for value in p["state"])},
    "a state of another batch": lambda p: {"state": tuple(value[:1] for value in p["state"])},
    "a state too few": lambda p: {"state": p["state"][:1]},
    "a tensor of states": lambda p: {"state": torch.stack(p["state"])},
    "a state of another type": lambda p: {"state": (p["state"][0].float(), p["state"][1])},
    "a weight less": lambda p: {"weights": {n: w for n, w in p["weights"].items() if n != "bias"}},
    "a weight of another shape": lambda p: {"weights": p["weights"] | {"bias": p["weights"]["bias"][1:]}},
    "no such backend": lambda p: {"backend": "fast"},
    "no such interval": lambda p: {"checkpoint_every": 0},
    "given too much": lambda p: {"given": {"more": p["x"]}},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_errors_are_the_same_after_a_step(draw, change):
    problem = draw(CELLS["lstm"], 1, 2, 4, 9)
    arguments = {"x": problem.x.detach(), "weights": problem.weights, "state": problem.state}
    arguments |= change(arguments)

    def said():
        with torch.no_grad(), pytest.raises((ConfigError, ShapeError)) as error:
            unroll(problem.cell, **arguments)
        return str(error.value)

    before = said()
    right(problem)
    right(problem)
    assert said() == before


def test_nothing_is_kept_of_tensors_that_are_gone(draw, made):
    problem = draw(CELLS["peephole_lstm"], 2, 1, 4, 20)
    right(problem)
    gone = [weakref.ref(value) for value in problem.leaves.values()]
    known = call._known[id(problem.weights["weight_hh"])]
    gone += [weakref.ref(value) for kept in known.values() for value in kept.made.values()]
    del known
    del problem
    gc.collect()
    assert [value() for value in gone] == [None] * len(gone)
    assert made


@pytest.mark.parametrize("batch", [1, 3])
def test_the_number_of_threads_may_change(draw, made, threads, batch):
    problem = draw(CELLS["layer_norm_gru"], 3, batch, 6, 20)
    answers = []
    for count in (1, 3, 2, 1):
        threads(count)
        answers.append(named(problem.cell, steps(problem)))
    for answer in answers[1:]:
        close(answer, answers[0])
    assert len(made) == 3, "for 1, 2 and 3 threads"
    assert {ready.call.threads for ready in made} == ({1} if batch == 1 else {1, 2, 3})


def test_python_threads_step_at_once(draw):
    problems = [draw(CELLS["lstm"], 40, 1, 40, 100, seed) for seed in range(4)]
    expected = [named(problem.cell, steps(problem)) for problem in problems]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for got, wanted in zip(pool.map(steps, problems), expected, strict=True):
                same(named(problems[0].cell, got), wanted)


def test_an_exception_within_a_step_leaves_the_next_one_right(draw, monkeypatch):
    problem = draw(CELLS["lstm"], 2, 1, 4, 9)
    expected = copy.deepcopy(named(problem.cell, steps(problem)))
    with monkeypatch.context() as patch:

        def interrupted(*arguments):
            raise KeyboardInterrupt

        patch.setattr(call, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            steps(problem)
    same(named(problem.cell, steps(problem)), expected)
