"""The contract of `unroll`, for every cell on every backend that can run it, and what it refuses."""

import itertools
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from agreement import given_at
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import pad

from throughtime.cells.cell import cell
from throughtime.cells.expression import exp, log
from throughtime.cells.library import CELLS
from throughtime.errors import ConfigError, ShapeError
from throughtime.kernels.unroll import BACKENDS, explain, unroll

ONE = torch.ones(1, 1, 1, dtype=torch.float64)
RUNS = [
    pytest.param(cell, backend, id=f"{cell.name}-{backend}")
    for cell in CELLS.values()
    for backend, module in BACKENDS.items()
    if module.refusal(cell.graph, ONE) is None
]
every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
every_run = pytest.mark.parametrize(("cell", "backend"), RUNS)
every_other_run = pytest.mark.parametrize(
    ("cell", "backend"), [r for r in RUNS if r.values[1] != "reference"]
)
quickly = settings(max_examples=25, deadline=None)


def equal(one, other, tolerance=1e-9):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@st.composite
def sizes(draw, min_steps=1):
    """T, B, I, H and a seed."""
    steps, batch = draw(st.integers(min_steps, 6)), draw(st.integers(1, 4))
    return steps, batch, draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(0, 2**16))


def some_lengths(data, steps, batch):
    return torch.tensor(data.draw(st.lists(st.integers(0, steps), min_size=batch, max_size=batch)))


def some_reset(data, steps, batch):
    flags = data.draw(st.lists(st.booleans(), min_size=steps * batch, max_size=steps * batch))
    return torch.tensor(flags).view(steps, batch)


def padding(lengths, steps):
    return torch.arange(steps)[:, None] >= lengths


def beside(runs):
    """Runs of single rows as one run of a batch."""
    ys, finals = zip(*runs, strict=True)
    return torch.cat(ys, 1), tuple(torch.cat(values) for values in zip(*finals, strict=True))


# Lengths and padding.


@every_run
@quickly
@given(sizes=sizes(), data=st.data())
def test_a_row_is_the_same_alone_and_in_a_batch_padded_with_nan(draw, cell, backend, sizes, data):
    problem = draw(cell, *sizes)
    steps, batch = sizes[:2]
    lengths = some_lengths(data, steps, batch)
    problem = problem.with_x(problem.x.masked_fill(padding(lengths, steps)[..., None], float("nan")))

    def alone(b):
        state, length = tuple(value[b : b + 1] for value in problem.state), int(lengths[b])
        if length == 0:
            return problem.x.new_zeros(steps, 1, sizes[3]), state
        y, final = problem.piece(slice(b, b + 1), slice(length), state, backend)
        return pad(y, (0, 0, 0, 0, 0, steps - length)), final

    mixed = problem.answer(problem.run(backend, lengths))
    equal(mixed, problem.answer(beside([alone(b) for b in range(batch)])))
    assert (mixed["y"][padding(lengths, steps)] == 0).all()
    assert (mixed["d x"][padding(lengths, steps)] == 0).all()


@every_run
def test_what_stands_in_the_padding_changes_nothing_at_all(draw, cell, backend):
    lengths = torch.tensor([2, 6, 0, 5])
    problem = draw(cell, 6, 4, 3, 5)
    answers = []
    for garbage in (0.0, 1e30, float("inf"), float("nan")):
        filled = problem.with_x(problem.x.masked_fill(padding(lengths, 6)[..., None], garbage))
        answers.append(filled.answer(filled.run(backend, lengths)))
    for answer in answers[1:]:
        equal(answer, answers[0], tolerance=0)


@every_run
def test_a_row_of_length_zero_returns_its_initial_state(draw, cell, backend):
    problem = draw(cell, 4, 2, 3, 5)
    for lengths in (torch.tensor([0, 0]), torch.tensor([0, 3])):
        y, final = problem.run(backend, lengths)
        assert (y[:, 0] == 0).all()
        for value, initial in zip(final, problem.state, strict=True):
            assert torch.equal(value[0], initial[0])


@every_run
def test_full_lengths_are_no_lengths(draw, cell, backend):
    problem = draw(cell, 5, 2, 3, 4)
    equal(problem.answer(problem.run(backend, torch.tensor([5, 5]))), problem.answer(problem.run(backend)))


def test_padding_is_not_computed_even_where_zeros_would_be_a_pole(draw):
    """log(0) and 1 / 0 in a step that is not there would make every gradient NaN."""

    @cell(state="h")
    def pole(x, s, w):
        a = exp(w.a(x, s.h))
        return log(w.b(a, bias=False) / w.c(s.h, bias=False)) + w.d(x)

    problem = draw(pole, 3, 2, 1, 1)
    weights = {name: weight.detach().abs().requires_grad_() for name, weight in problem.weights.items()}
    state = (torch.tensor([[1.0], [0.0]], dtype=torch.float64),)
    y, (h,) = unroll(pole, weights, problem.x, state, torch.tensor([1, 0]), backend="reference")
    gradients = torch.autograd.grad(y.sum() + h.sum(), list(weights.values()))
    assert all(gradient.isfinite().all() for gradient in gradients)


# Resets.


@every_run
@quickly
@given(sizes=sizes(), data=st.data())
def test_reset_cuts_the_sequence_and_starts_from_zeros(draw, cell, backend, sizes, data):
    problem = draw(cell, *sizes)
    steps, batch = sizes[:2]
    reset = some_reset(data, steps, batch)

    def in_parts(b):
        state = tuple(value[b : b + 1] for value in problem.state)
        cuts = sorted({0, steps, *reset[:, b].nonzero().flatten().tolist()})
        ys = []
        for start, stop in itertools.pairwise(cuts):
            if reset[start, b]:
                state = tuple(torch.zeros_like(value) for value in state)
            y, state = problem.piece(slice(b, b + 1), slice(start, stop), state, backend)
            ys.append(y)
        return torch.cat(ys), state

    equal(
        problem.answer(problem.run(backend, reset=reset)),
        problem.answer(beside([in_parts(b) for b in range(batch)])),
    )


@every_run
def test_a_reset_in_the_padding_changes_nothing_at_all(draw, cell, backend):
    problem, lengths = draw(cell, 4, 3, 2, 5), torch.tensor([2, 0, 4])
    reset = torch.zeros(4, 3, dtype=torch.bool)
    reset[1, 0] = True
    without = problem.answer(problem.run(backend, lengths, reset))
    equal(problem.answer(problem.run(backend, lengths, reset | padding(lengths, 4))), without, tolerance=0)


@every_run
def test_reset_clears_a_state_that_is_nan(draw, cell, backend):
    problem = draw(cell, 4, 2, 3, 5)
    x = problem.x.detach().clone()
    x[0, 0] = float("nan")
    reset = torch.zeros(4, 2, dtype=torch.bool)
    reset[2, 0] = True
    y, final = problem.with_x(x).run(backend, reset=reset)
    assert y[:2, 0].isnan().any(-1).all()
    assert y[2:].isfinite().all()
    assert all(value.isfinite().all() for value in final)


# Pieces, backends, NaN, and the empty.


@every_run
@quickly
@given(sizes=sizes(min_steps=2), data=st.data())
def test_in_pieces_is_at_once(draw, cell, backend, sizes, data):
    problem = draw(cell, *sizes)
    steps, batch = sizes[:2]
    lengths, reset = some_lengths(data, steps, batch), some_reset(data, steps, batch)
    cut = data.draw(st.integers(1, steps - 1))
    x, weights = problem.x, problem.weights
    given = [given_at(cell.graph, problem.given, part) for part in (slice(cut), slice(cut, None))]
    first, state = unroll(
        cell,
        weights,
        x[:cut],
        problem.state,
        lengths.clamp(max=cut),
        reset[:cut],
        backend,
        given=given[0],
    )
    left = (lengths - cut).clamp(min=0)
    rest, state = unroll(cell, weights, x[cut:], state, left, reset[cut:], backend, given=given[1])
    equal(
        problem.answer((torch.cat([first, rest]), state)),
        problem.answer(problem.run(backend, lengths, reset)),
    )


@every_other_run
@quickly
@given(sizes=sizes(), data=st.data())
def test_backends_agree_with_the_reference(draw, cell, backend, sizes, data):
    problem = draw(cell, *sizes)
    lengths, reset = some_lengths(data, *sizes[:2]), some_reset(data, *sizes[:2])
    equal(
        problem.answer(problem.run(backend, lengths, reset)),
        problem.answer(problem.run("reference", lengths, reset)),
    )


@every_other_run
def test_backends_agree_with_the_reference_in_float32(draw, cell, backend):
    problem = draw(cell, 7, 4, 5, 6, dtype=torch.float32)
    lengths, reset = torch.tensor([7, 3, 0, 6]), torch.zeros(7, 4, dtype=torch.bool)
    reset[2, 0] = reset[4, 3] = True
    for options in ({}, {"lengths": lengths}, {"lengths": lengths, "reset": reset}):
        by_backend, by_reference = problem.run(backend, **options), problem.run("reference", **options)
        assert by_backend[0].dtype == torch.float32
        equal(problem.answer(by_backend), problem.answer(by_reference), tolerance=1e-4)
        with torch.no_grad():
            equal(problem.run(backend, **options), by_reference, tolerance=1e-4)


@every_run
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_nan_in_an_input_comes_out_as_nan_in_its_row_alone(draw, cell, backend, dtype):
    problem = draw(cell, 4, 3, 2, 5, dtype=dtype)
    x = problem.x.detach().clone()
    x[1, 0, 1] = float("nan")
    problem = problem.with_x(x)
    for lengths in (None, torch.tensor([3, 0, 4])):
        for gradients in (True, False):
            with torch.set_grad_enabled(gradients):
                y, final = problem.run(backend, lengths)
            assert y[1:3, 0].isnan().all()
            assert final[0][0].isnan().all()
            assert y[0].isfinite().all()
            assert y[:, 1:].isfinite().all()
            assert all(value[1:].isfinite().all() for value in final)


@every_run
def test_the_state_is_zeros_where_it_is_left_out(draw, cell, backend):
    problem = draw(cell, 3, 2, 3, 4)
    zeros = tuple(torch.zeros(2, 4, dtype=torch.float64) for _ in cell.states)
    left_out = unroll(cell, problem.weights, problem.x, backend=backend, given=problem.given)
    equal(left_out, replace(problem, state=zeros).run(backend), tolerance=0)


@every_run
def test_arguments_are_left_as_they_were(draw, cell, backend):
    problem = draw(cell, 4, 2, 3, 4)
    before = {name: leaf.detach().clone() for name, leaf in problem.leaves.items()}
    lengths, reset = torch.tensor([2, 4]), torch.ones(4, 2, dtype=torch.bool)
    problem.answer(problem.run(backend, lengths, reset))
    equal({name: leaf.detach() for name, leaf in problem.leaves.items()}, before, tolerance=0)
    assert lengths.tolist() == [2, 4]
    assert reset.all()


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (3, 0), (0, 0)])
@every_cell
def test_no_steps_and_no_rows(draw, cell, steps, batch, backend):
    problem = draw(cell, steps, batch, 2, 4)
    if backend in BACKENDS and (reason := BACKENDS[backend].refusal(cell.graph, problem.x)):
        with pytest.raises(ConfigError) as caught:
            problem.run(backend)
        assert reason in str(caught.value)
        return
    lengths = torch.zeros(batch, dtype=torch.int64)
    reset = torch.ones(steps, batch, dtype=torch.bool)
    for options in ({}, {"lengths": lengths}, {"reset": reset}, {"lengths": lengths, "reset": reset}):
        y, final = problem.run(backend, **options)
        assert y.shape == (steps, batch, 4)
        for value, initial in zip(final, problem.state, strict=True):
            assert torch.equal(value, initial)


# The choice of a backend.


def test_explain_names_the_backend():
    assert explain(CELLS["lstm"], ONE).backend == next(iter(BACKENDS))
    assert str(explain(CELLS["lstm"], ONE, "reference")) == "reference"


def test_explain_gives_a_reason_for_each_backend_passed_over():
    choice = explain(CELLS["peephole_lstm"], ONE.half(), "auto")
    assert list(choice.refused) == list(BACKENDS)[: list(BACKENDS).index(choice.backend)]
    assert "torch" in choice.refused
    assert f"not torch: {choice.refused['torch']}" in str(choice)


@every_cell
def test_auto_takes_the_first_backend_that_can(draw, cell):
    able = [name for name, module in BACKENDS.items() if module.refusal(cell.graph, ONE) is None]
    assert explain(cell, ONE).backend == able[0]
    assert "reference" in able
    problem = draw(cell, 4, 2, 3, 5)
    equal(problem.run("auto"), problem.run(able[0]), tolerance=0)


def test_an_unknown_backend_is_answered_with_those_there_are():
    with pytest.raises(ConfigError) as caught:
        unroll(CELLS["lstm"], CELLS_WEIGHTS["lstm"], X, backend="cuda")
    assert f'there is no backend "cuda": there are auto, {", ".join(BACKENDS)}' in str(caught.value)


def test_a_backend_that_cannot_says_why_and_what_would_do():
    with pytest.raises(ConfigError) as caught:
        unroll(CELLS["peephole_lstm"], CELLS_WEIGHTS["peephole_lstm"], X, backend="torch")
    message = str(caught.value)
    assert message.startswith('backend "torch" cannot run cell "peephole_lstm": ')
    assert "not those of torch's LSTM, GRU or RNN" in message
    assert 'backend="auto"' in message


# What does not fit is refused at the door, before any backend sees it.

X = torch.zeros(4, 2, 3)
CELLS_WEIGHTS = {
    name: {key: torch.zeros(shape) for key, shape in cell.graph.weight_shapes(3, 5).items()}
    for name, cell in CELLS.items()
}


def refusal(name="lstm", x=X, state=None, lengths=None, reset=None, **weights):
    """The message with which `unroll` refuses."""
    changed = {k: w for k, w in (CELLS_WEIGHTS[name] | weights).items() if w is not None}
    with pytest.raises(ShapeError) as caught:
        unroll(CELLS[name], changed, x, state, lengths, reset)
    return str(caught.value)


def test_what_the_refusals_change_is_otherwise_accepted():
    state = (torch.zeros(2, 5), torch.zeros(2, 5))
    lengths, reset = torch.tensor([4, 0]), torch.zeros(4, 2, dtype=torch.bool)
    y, _ = unroll(CELLS["lstm"], CELLS_WEIGHTS["lstm"], X, state, lengths, reset)
    assert y.shape == (4, 2, 5)


@pytest.mark.parametrize(
    ("x", "given"),
    [
        (torch.zeros(4, 3), "torch.float32 of shape [4, 3]"),
        (torch.zeros(4, 2, 3, 1), "torch.float32 of shape [4, 2, 3, 1]"),
        (torch.zeros(4, 2, 3, dtype=torch.int64), "torch.int64 of shape [4, 2, 3]"),
    ],
)
def test_x_must_be_floating_of_three_axes(x, given):
    assert refusal(x=x) == f"x must be floating point of shape [T, B, I], got {given}"


def test_x_of_another_input_size_is_told_by_the_weight():
    message = refusal(x=torch.zeros(4, 2, 6))
    assert 'weight "weight_ih" must have shape [20, 6] for input size 6, got [20, 3]' in message


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"weight_ih": None}, 'cell "lstm" needs the weight "weight_ih", got weight_hh, bias'),
        ({"weight_hh": None}, 'weight "weight_hh" must have shape [20, 5] for input size 3, got none'),
        ({"weight_hh": torch.zeros(20, 4)}, 'weight "weight_hh" must have shape [20, 5]'),
        ({"bias": torch.zeros(15)}, 'weight "bias" must have shape [20] for input size 3, got [15]'),
        ({"weight_ih": torch.zeros(21, 3)}, 'weight "weight_ih" must have shape [20, 3]'),
        (
            {"weight_ih": torch.zeros(3, 3)},
            'weight "weight_ih" must have 4 blocks of hidden_size rows, got shape [3, 3]',
        ),
        ({"weight_ih": torch.tensor(1.0)}, "4 blocks of hidden_size rows, got shape []"),
    ],
)
def test_weights_must_have_the_shapes_of_the_graph(weights, said):
    assert said in refusal(**weights)


def test_a_vector_must_have_hidden_size():
    message = refusal("peephole_lstm", p_f=torch.zeros(4))
    assert 'cell "peephole_lstm": weight "p_f" must have shape [5]' in message
    assert "got [4]" in message


def test_no_weights_at_all():
    with pytest.raises(ShapeError, match='needs the weight "weight_ih", got none'):
        unroll(CELLS["lstm"], {}, X)


@pytest.mark.parametrize(
    ("name", "state", "said"),
    [
        ("lstm", (torch.zeros(2, 5),), 'cell "lstm" has 2 states (h, c), got 1: pass the tuple (h, c,)'),
        ("lstm", torch.zeros(2, 5), 'cell "lstm" has 2 states (h, c), got a tensor'),
        ("gru", torch.zeros(2, 5), 'cell "gru" has 1 states (h), got a tensor: pass the tuple (h,)'),
        ("gru", (torch.zeros(2, 5),) * 2, "has 1 states (h), got 2"),
        (
            "lstm",
            (torch.zeros(2, 5), torch.zeros(1, 5)),
            "state c must have shape [batch, hidden] = [2, 5], got [1, 5]",
        ),
        ("gru", (torch.zeros(1, 2, 5),), "state h must have shape [batch, hidden] = [2, 5], got [1, 2, 5]"),
    ],
)
def test_the_state_must_be_a_tuple_with_a_row_for_each_of_the_batch(name, state, said):
    message = refusal(name, state=state)
    assert said in message
    if "tuple" in said:
        assert message.endswith("or leave the state out")


@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        (torch.tensor([4]), "lengths must be integers of shape [2], got torch.int64 of shape [1]"),
        (torch.tensor([[4, 4]]), "got torch.int64 of shape [1, 2]"),
        (torch.tensor([4.0, 2.0]), "lengths must be integers of shape [2], got torch.float32"),
        (torch.tensor([4, 5]), "lengths must lie in 0..4, got [4, 5]"),
        (torch.tensor([-1, 4]), "lengths must lie in 0..4, got [-1, 4]"),
    ],
)
def test_lengths_must_be_a_number_of_steps_for_each_row(lengths, said):
    assert said in refusal(lengths=lengths)


@pytest.mark.parametrize(
    ("reset", "given"),
    [
        (torch.zeros(2, 4, dtype=torch.bool), "torch.bool of shape [2, 4]"),
        (torch.zeros(4, dtype=torch.bool), "torch.bool of shape [4]"),
        (torch.zeros(4, 2), "torch.float32 of shape [4, 2]"),
    ],
)
def test_reset_must_be_bool_for_each_step_and_row(reset, given):
    assert refusal(reset=reset) == f"reset must be bool of shape [T, B] = [4, 2], got {given}"


def test_importing_does_not_load_the_compilers_of_torch_and_llvm():
    code = (
        "import sys, throughtime.kernels.unroll as _; print({'torch._dynamo', 'llvmlite'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
