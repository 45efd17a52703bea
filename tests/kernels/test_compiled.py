"""Machine code against the reference: values and gradients for any equations, sizes, lengths and threads."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random

import pytest
import torch
from agreement import KINDS, close, options_of, same
from torch.utils.checkpoint import checkpoint

from throughtime.cells.cell import cell
from throughtime.cells.expression import exp, log, maximum, relu, sigmoid, softplus, tanh
from throughtime.cells.library import CELLS
from throughtime.errors import ConfigError, KernelError
from throughtime.kernels import machine
from throughtime.kernels.unroll import explain, unroll
from throughtime.nn import Recurrent

if machine.unsupported():
    pytest.skip(machine.unsupported(), allow_module_level=True)

every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
some_cells = pytest.mark.parametrize("name", ["lstm", "gru_reset_before", "layer_norm_gru", "peephole_lstm"])
BATCHES, HIDDENS, TIMES = (1, 2, 3, 7, 33), (1, 5, 16, 17, 100, 128), (1, 2, 63)
SIZES = list(itertools.product(TIMES, BATCHES, HIDDENS))

BUFFERS = ("saved", "scratch", "projections", "deltas", "numbers", "state", "my_state", "initial", "carry")

pytestmark = pytest.mark.usefixtures("nan_filled")


def agree(problem, kind="full", **changed):
    options = options_of(kind, *problem.x.shape[:2]) | changed
    mine, reference = (problem.answer(problem.run(name, **options)) for name in ("llvm", "reference"))
    close(mine, reference)
    return mine


# Values and gradients.


@pytest.mark.parametrize("kind", KINDS)
def test_any_equations_give_the_values_and_gradients_of_the_reference(draw, any_cell, kind):
    for steps, batch, inputs, hidden in ((4, 3, 2, 5), (1, 1, 1, 1), (3, 7, 3, 17), (2, 2, 4, 32)):
        agree(draw(any_cell, steps, batch, inputs, hidden), kind)


@every_cell
def test_sizes_that_are_no_multiple_of_a_vector_or_a_tile(draw, cell):
    """Each cell of the table has sizes of its own, so that together they have them all."""
    place = list(CELLS).index(cell.name)
    sizes = SIZES[place % 8 :: 8] if place >= 8 else SIZES[place :: len(CELLS) - 1]
    for (steps, batch, hidden), kind in zip(sizes, itertools.cycle(KINDS), strict=False):
        agree(draw(cell, steps, batch, 3, hidden), kind)


@pytest.mark.slow
@every_cell
@pytest.mark.parametrize("kind", KINDS)
def test_all_sizes(draw, cell, kind):
    for steps, batch, hidden in SIZES:
        agree(draw(cell, steps, batch, 3, hidden), kind)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12, 200))
def test_many_random_equations(draw, random_cell, seed):
    made, random = random_cell(Random(seed)), Random(seed)
    for kind in KINDS:
        sizes = (random.randint(1, high) for high in (6, 9, 5, 40))
        agree(draw(made, *sizes, seed), kind)


@every_cell
def test_without_gradients_the_values_are_the_same_to_the_last_bit(draw, cell):
    problem = draw(cell, 9, 5, 3, 18)
    for kind in KINDS:
        options = options_of(kind, 9, 5)
        y, final = problem.run("llvm", **options)
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                again, final_again = problem.run("llvm", **options)
            assert torch.equal(again, y)
            assert all(map(torch.equal, final_again, final))


@every_cell
def test_float32_is_close_to_the_reference_in_float64(draw, cell):
    for kind in ("full", "both"):
        sizes, options = (5, 7, 3, 17), options_of(kind, 5, 7)
        single, double = draw(cell, *sizes, dtype=torch.float32), draw(cell, *sizes)
        answer = single.answer(single.run("llvm", **options))
        assert {value.dtype for value in answer.values()} == {torch.float32}
        close(answer, double.answer(double.run("reference", **options)), tolerance=2e-4)


# What a caller may want, and how tensors may lie in memory.


def gradients_of(problem, backend, names, loss, **options):
    """The gradients of only some of the leaves, the others not wanting any."""
    for name, leaf in problem.leaves.items():
        leaf.requires_grad_(name in names)
    outputs = problem.run(backend, **options)
    found = torch.autograd.grad(loss(*outputs), [problem.leaves[name] for name in names])
    return dict(zip(names, found, strict=True))


@some_cells
@pytest.mark.parametrize("kind", ["full", "both"])
def test_gradients_of_only_some_inputs(draw, name, kind):
    problem, options = draw(CELLS[name], 4, 3, 2, 5), options_of(kind, 4, 3)
    leaves = list(problem.leaves)
    for names in [[leaf] for leaf in leaves] + [leaves[:2], leaves[1:], leaves[::2]]:
        mine, reference = (
            gradients_of(problem, backend, names, lambda y, final: (y * y).sum() + final[-1].sum(), **options)
            for backend in ("llvm", "reference")
        )
        close(mine, reference)


@some_cells
@pytest.mark.parametrize(
    "loss",
    [
        lambda y, final: y.sum(),
        lambda y, final: y[-1].sum(),
        lambda y, final: y[:, :1, ::2].square().sum(),
        lambda y, final: final[0].sum(),
        lambda y, final: final[-1].square().sum(),
        lambda y, final: (y.transpose(0, 1) * torch.arange(y.numel()).view(y.transpose(0, 1).shape)).sum(),
        lambda y, final: (y.permute(2, 0, 1).exp() + final[0].T[:, None]).sum(),
    ],
    ids=["y expanded", "last y", "some y", "first state", "last state", "y transposed", "both permuted"],
)
def test_a_loss_of_only_some_outputs_and_their_adjoints_in_any_order(draw, name, loss):
    problem = draw(CELLS[name], 4, 3, 2, 5)
    wanted = [n for n in problem.leaves if n not in CELLS[name].states or "state" not in n]
    mine, reference = (gradients_of(problem, b, wanted, loss) for b in ("llvm", "reference"))
    close(mine, reference)


@some_cells
@pytest.mark.parametrize("kind", ["full", "both"])
def test_inputs_that_are_not_contiguous(draw, name, kind):
    problem, options = draw(CELLS[name], 4, 3, 2, 5), options_of(kind, 4, 3)

    def spread(value):
        """The same numbers, every other one of a larger tensor that lies the other way."""
        wide = torch.full([2 * size for size in reversed(value.shape)], float("nan"), dtype=value.dtype)
        view = wide[(slice(None, None, 2),) * value.dim()].permute(*reversed(range(value.dim())))
        view.copy_(value.detach())
        return view.requires_grad_()

    apart = type(problem)(
        problem.cell,
        {name: spread(weight) for name, weight in problem.weights.items()},
        spread(problem.x),
        tuple(map(spread, problem.state)),
        problem.given,
    )
    assert not any(leaf.is_contiguous() for leaf in apart.leaves.values())
    options = {key: spread(value) if value.is_floating_point() else value for key, value in options.items()}
    if "reset" in options:
        options["reset"] = options["reset"].T.contiguous().T
    same(apart.answer(apart.run("llvm", **options)), problem.answer(problem.run("llvm", **options)))


@some_cells
def test_one_tensor_may_be_several_states_and_rows_may_be_one_expanded(draw, name):
    problem = draw(CELLS[name], 4, 3, 5, 5)
    row = torch.randn(5, dtype=torch.float64, requires_grad=True)
    answers = []
    for backend in ("llvm", "reference"):
        state = (row.expand(3, 5),) * len(problem.state)
        y, final = unroll(problem.cell, problem.weights, row.expand(4, 3, 5), state, backend=backend)
        loss = y.square().sum() + sum(value.sum() for value in final)
        answers.append({"y": y, "d row": torch.autograd.grad(loss, row)[0]})
    close(*answers)


@some_cells
def test_lengths_of_any_integer_type(draw, name):
    problem = draw(CELLS[name], 4, 3, 2, 5)
    answers = [
        problem.answer(problem.run("llvm", torch.tensor([2, 4, 1], dtype=kind)))
        for kind in (torch.int64, torch.int32, torch.int16, torch.uint8)
    ]
    for answer in answers[1:]:
        same(answer, answers[0])


# NaN and infinity.


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e300])
@pytest.mark.parametrize("kind", ["full", "both"])
def test_nan_and_infinity_come_out_as_from_the_reference(draw, any_cell, bad, kind):
    problem = draw(any_cell, 4, 3, 2, 5)
    x = problem.x.detach().clone()
    x[1, 0, 1] = bad
    options = options_of(kind, 4, 3)
    with torch.no_grad():
        mine, reference = (problem.with_x(x).run(name, **options) for name in ("llvm", "reference"))
    names = ("y", *any_cell.states)
    close(*(dict(zip(names, (y, *final), strict=True)) for y, final in (mine, reference)))


def test_a_row_of_nan_touches_no_other_row_nor_its_gradients(draw, any_cell):
    """Only the gradients of the weights, to which every row adds, may be NaN."""
    clean = draw(any_cell, 4, 9, 2, 5)
    x = clean.x.detach().clone()
    x[1, 4] = float("nan")
    problem, rest = clean.with_x(x), [row for row in range(9) if row != 4]
    answers = [p.answer(p.run("llvm")) for p in (problem, clean)]
    rowwise = ["y", *(f"final {s}" for s in any_cell.states), *(f"d {s}" for s in any_cell.states), "d x"]
    for name in rowwise:
        axis = 1 if name in ("y", "d x") else 0
        mine, other = (a[name].index_select(axis, torch.tensor(rest)) for a in answers)
        assert torch.equal(mine, other), name


@pytest.mark.parametrize("form", [exp, log, relu, softplus, sigmoid, tanh, lambda a: maximum(a, 0.5)])
def test_numbers_at_the_ends_of_the_range(draw, form):
    """What has no x of its own comes from the state, so that the numbers are given exactly."""

    @cell(state="h c")
    def extremes(x, s, w):
        return form(s.c) + 0 * w.a(x), s.c

    values = [0.0, -0.0, 1e-300, -1e-300, 1e300, -1e300, 700.0, -700.0, float("inf"), -float("inf")]
    problem = draw(extremes, 2, 1, 1, len(values))
    state = (problem.state[0], torch.tensor([values], dtype=torch.float64))
    x = torch.ones(2, 1, 1, dtype=torch.float64)
    ys = [unroll(extremes, problem.weights, x, state, backend=b)[0] for b in ("llvm", "reference")]
    close(*({"y": y} for y in ys))


def test_denormal_numbers_of_the_caller_are_as_before(draw):
    problem, tiny = draw(CELLS["lstm"], 2, 2, 2, 5), torch.tensor([1e-310], dtype=torch.float64)
    before = tiny * 0.5
    problem.answer(problem.run("llvm"))
    assert before != 0
    assert torch.equal(tiny * 0.5, before)


# Derivatives by definition, and of second order.


GRADCHECKED = ["lstm", "layer_norm_lstm", "gru_reset_before", "peephole_lstm"]


@pytest.mark.parametrize("name", [*GRADCHECKED, "random"])
@pytest.mark.parametrize("kind", ["full", "both"])
def test_gradients_are_those_by_finite_differences(draw, random_cell, name, kind):
    made = random_cell(Random(3)) if name == "random" else CELLS[name]
    problem, options = draw(made, 3, 2, 2, 3), options_of(kind, 3, 2)
    names = list(problem.weights)

    def outputs(x, *rest):
        state, weights = rest[: len(made.states)], dict(zip(names, rest[len(made.states) :], strict=True))
        y, final = unroll(made, weights, x, state, **options, backend="llvm")
        return y, *final

    torch.use_deterministic_algorithms(False)  # gradcheck itself takes sums of what it does not fill
    assert torch.autograd.gradcheck(outputs, (problem.x, *problem.state, *problem.weights.values()))


@every_cell
def test_a_second_derivative_is_refused_with_the_backend_that_has_it(draw, cell):
    problem = draw(cell, 3, 2, 2, 4)
    y, _ = problem.run("llvm")
    (first,) = torch.autograd.grad(y.square().sum(), problem.x, create_graph=True)
    with pytest.raises(KernelError, match='backend="reference"'):
        torch.autograd.grad(first.square().sum(), problem.x)


@some_cells
def test_a_first_derivative_may_keep_its_graph(draw, name):
    problem = draw(CELLS[name], 3, 2, 2, 4)
    grads = []
    for create_graph in (False, True):
        y, _ = problem.run("llvm")
        grads.append(torch.autograd.grad(y.square().sum(), problem.x, create_graph=create_graph)[0])
    assert torch.equal(*grads)


# What is saved.


@some_cells
@pytest.mark.parametrize("kind", ["full", "both"])
def test_backward_twice_gives_the_same(draw, name, kind):
    problem = draw(CELLS[name], 5, 3, 2, 5)
    y, final = problem.run("llvm", **options_of(kind, 5, 3))
    loss = y.square().sum() + sum(value.square().sum() for value in final)
    leaves = list(problem.leaves.values())
    first, second = (
        torch.autograd.grad(loss, leaves, retain_graph=True, materialize_grads=True) for _ in range(2)
    )
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("spoilt", ["y", "x", "h", "c", "weight_hh"])
def test_a_tensor_that_was_changed_since_is_not_taken_for_what_it_was(draw, spoilt):
    problem = draw(CELLS["lstm"], 3, 2, 2, 4)
    y, _ = problem.run("llvm")
    loss = y.exp().sum()
    with torch.no_grad():
        (y if spoilt == "y" else problem.leaves[spoilt]).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@some_cells
def test_final_states_can_be_changed_in_place(draw, name):
    problem = draw(CELLS[name], 3, 2, 2, 4)
    expected = problem.answer(problem.run("llvm"))
    run = problem.run("llvm")
    for value in run[1]:
        value.detach().mul_(float("nan"))
    y, _ = run
    assert torch.equal(y, expected["y"])
    loss = (y.square() + y).sum()
    other = problem.run("reference")[0]
    grads = [torch.autograd.grad(v, problem.x)[0] for v in (loss, (other.square() + other).sum())]
    close({"d x": grads[0]}, {"d x": grads[1]})


@some_cells
def test_a_checkpoint_computes_it_again(draw, name):
    problem = draw(CELLS[name], 4, 3, 2, 5)

    def again(x):
        return unroll(problem.cell, problem.weights, x, problem.state, backend="llvm")

    same(
        problem.answer(checkpoint(again, problem.x, use_reentrant=False)), problem.answer(problem.run("llvm"))
    )


# Threads.


@pytest.mark.parametrize("kind", ["full", "both"])
@every_cell
def test_the_answer_does_not_depend_on_the_number_of_threads(draw, threads, cell, kind):
    """torch divides its own products among threads, which may change how the sums of gradients round."""
    problem, options = draw(cell, 9, 17, 9, 17), options_of(kind, 9, 17)
    expected = None
    for count in (1, 2, 3, 5):
        threads(count)
        answer = problem.answer(problem.run("llvm", **options))
        expected = expected or answer
        for name, value in answer.items():
            if name.startswith("d "):
                close({name: value}, {name: expected[name]}, tolerance=1e-13)
            else:
                assert torch.equal(value, expected[name]), f"{name} on {count} threads"


def test_more_threads_than_rows(draw, threads):
    threads(5)
    for batch in (1, 2, 3):
        agree(draw(CELLS["layer_norm_gru"], 4, batch, 2, 5), "both")


def test_python_threads_call_at_once(draw):
    """Cells that no one compiled before, in several sizes, each by several threads."""
    cells = [
        cell(state="h")(lambda x, s, w, k=k: tanh(w.a(x, s.h) + k / 7) * sigmoid(w.b(s.h))) for k in range(3)
    ]
    problems = [draw(made, 9, batch, 3, 20, batch) for batch in (1, 4, 6) for made in cells]
    expected = [problem.answer(problem.run("reference")) for problem in problems]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda problem: problem.answer(problem.run("llvm")), problems * 4))
    for answer, reference in zip(found, expected * 4, strict=True):
        close(answer, reference)


# What the schedule calls its buffers, and how deep and how entangled equations are, is no one's concern.


@pytest.mark.parametrize("name", BUFFERS)
def test_a_vector_and_a_state_may_have_any_name(draw, name):
    @cell(state="h")
    def vector(x, s, w):
        return tanh(w.a(x, s.h) * getattr(w, name) + w.m(getattr(w, name)))

    @cell(state=f"h {name}")
    def state(x, s, w):
        return tanh(w.a(x, s.h) + getattr(s, name)), tanh(w.b(x, getattr(s, name)))

    for made in (vector, state):
        agree(draw(made, 4, 3, 2, 5))


def test_equations_that_use_each_value_twice_are_compiled_at_once(draw):
    """Followed from the end, 40 values used twice are 2 to the power 40 ways back."""

    @cell(state="h")
    def entangled(x, s, w):
        a = w.a(x, s.h)
        for _ in range(40):
            a = 0.5 * (a + sigmoid(a))
        return tanh(a)

    agree(draw(entangled, 2, 2, 2, 3))


def test_equations_may_be_deeper_than_pythons_stack(draw):
    @cell(state="h")
    def deep(x, s, w):
        a = w.a(x, s.h)
        for _ in range(1200):
            a = a + 0.001 * w.v
        return tanh(a)

    agree(draw(deep, 2, 2, 2, 3))


# The choice of this backend.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_left_to_another_backend(draw, dtype):
    problem = draw(CELLS["lstm"], 2, 2, 3, 4, dtype=dtype)
    choice = explain(CELLS["lstm"], problem.x)
    assert choice.backend != "llvm"
    assert choice.refused["llvm"] == f"machine code computes in float32 and float64, and x is {dtype}"
    assert problem.run("auto")[0].dtype == dtype
    with pytest.raises(ConfigError, match="machine code computes in float32 and float64"):
        problem.run("llvm")


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3)])
def test_nothing_to_do_is_left_to_another_backend(draw, shape):
    problem = draw(CELLS["lstm"], *shape, 4)
    choice = explain(CELLS["lstm"], problem.x)
    assert choice.backend != "llvm"
    assert "empty" in choice.refused["llvm"]
    assert problem.run("auto")[0].shape == (*shape[:2], 4)


def test_where_no_machine_code_can_be_made_others_serve(draw, monkeypatch):
    monkeypatch.setattr(machine, "unsupported", lambda: "the processor is a toaster")
    for name, serves in (("lstm", "torch"), ("peephole_lstm", "reference")):
        problem = draw(CELLS[name], 3, 2, 2, 4)
        choice = explain(problem.cell, problem.x)
        assert choice.backend == serves
        assert choice.refused["llvm"] == "the processor is a toaster"
        close(problem.answer(problem.run("auto")), problem.answer(problem.run("reference")))
        with pytest.raises(ConfigError, match="the processor is a toaster"):
            problem.run("llvm")


# In torch's own compiler.


def layer_and_x(name, **options):
    generator = torch.Generator().manual_seed(0)
    layer = Recurrent(name, 3, 5, backend="llvm", generator=generator, **options).double()
    return layer, torch.randn(2, 4, 3, dtype=torch.float64, generator=generator, requires_grad=True)


def trained(layer, run, x):
    y, state = run(x)
    loss = y.square().sum() + sum(value.sum() for values in state for value in values)
    names = ["x", *dict(layer.named_parameters())]
    return {"y": y} | dict(zip(names, torch.autograd.grad(loss, [x, *layer.parameters()]), strict=True))


def calls(graph):
    """The operators of ours in a graph."""
    return [str(node.target) for node in graph.nodes if "throughtime" in str(node.target)]


@some_cells
def test_torch_compile_sees_one_operator(name):
    layer, x = layer_and_x(name)
    graphs = []

    def backend(module, inputs):
        graphs.append(module.graph)
        return module

    torch._dynamo.reset()
    expected = trained(layer, layer, x)
    same(trained(layer, torch.compile(layer, fullgraph=True, backend=backend), x), expected)
    assert [calls(graph) for graph in graphs] == [["throughtime.unroll.default"]]
    torch._dynamo.reset()
    same(trained(layer, torch.compile(layer, fullgraph=True, backend="aot_eager"), x), expected)


def test_torch_compile_takes_two_layers_in_two_directions():
    layer, x = layer_and_x("lstm", layers=2, bidirectional=True)
    torch._dynamo.reset()
    expected = trained(layer, layer, x)
    same(trained(layer, torch.compile(layer, fullgraph=True, backend="aot_eager"), x), expected)


@some_cells
@pytest.mark.parametrize("kind", ["lengths", "reset", "both"])
def test_torch_compile_takes_lengths_and_resets(name, kind):
    layer, x = layer_and_x(name)
    options = options_of(kind, 4, 2)
    if "reset" in options:
        options["reset"] = options["reset"].T
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    same(
        trained(layer, lambda x: compiled(x, **options), x), trained(layer, lambda x: layer(x, **options), x)
    )


def test_torch_compile_keeps_no_answer_for_other_lengths_and_resets():
    """What the first call was given must not be taken for what all are given."""
    layer, x = layer_and_x("lstm")
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for lengths, flags in (([4, 2], [0, 1]), ([3, 0], [0, 0]), ([4, 4], [1, 0]), ([0, 0], [1, 1])):
        reset = torch.tensor(flags).bool()[:, None].expand(2, 4)
        with torch.no_grad():
            mine, reference = (run(x, None, torch.tensor(lengths), reset)[0] for run in (compiled, layer))
        assert torch.equal(mine, reference), (lengths, flags)


@some_cells
def test_torch_export_keeps_one_operator(name):
    layer, x = layer_and_x(name)
    program = torch.export.export(layer, (x,))
    assert calls(program.graph) == ["throughtime.unroll.default"]
    y, state = program.module()(x)
    expected_y, expected_state = layer(x)
    assert torch.equal(y, expected_y)
    assert all(map(torch.equal, state[0], expected_state[0]))


@cell(state="h c")
def without_input(x, s, w):
    return tanh(w.a(s.h) + s.c), w.v * s.c


def approve(problem, kind, keep):
    """With lengths the end of what is kept is never written nor read, but torch would compare it."""
    options = options_of(kind, *problem.x.shape[:2])
    tensors = [problem.x, *problem.state, *problem.weights.values()]
    if not keep:
        tensors = [tensor.detach() for tensor in tensors]
    x, *rest = tensors
    states = len(problem.state)
    torch.library.opcheck(
        torch.ops.throughtime.unroll.default,
        (
            problem.cell.graph.text,
            x,
            rest[:states],
            rest[states:],
            options.get("lengths"),
            options.get("reset"),
            list(problem.given.values()),
            keep,
        ),
    )


approved = pytest.mark.parametrize("made", [CELLS["lstm"], CELLS["layer_norm_gru"], without_input])
in_all_ways = pytest.mark.parametrize(
    ("kind", "keep"), [("full", True), ("reset", True), ("full", False), ("both", False)]
)


@approved
@in_all_ways
def test_torch_approves_of_the_operator(draw, made, kind, keep):
    approve(draw(made, 3, 2, 2, 4), kind, keep)


@approved
@in_all_ways
def test_torch_approves_of_it_where_x_and_the_state_are_not_contiguous(draw, made, kind, keep):
    problem = draw(made, 3, 2, 2, 4)

    def turned(value):
        view = value.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
        assert not view.is_contiguous()
        return view

    x, state = turned(problem.x), tuple(map(turned, problem.state))
    approve(replace(problem, x=x, state=state), kind, keep)
