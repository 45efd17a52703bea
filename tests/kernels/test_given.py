"""What a cell is given besides x, states and weights: machine code against the reference, and the door."""

from random import Random

import pytest
import torch
from agreement import KINDS, close, options_of

from throughtime.cells.library import CELLS
from throughtime.cells.transform import learned_begin, probed, recurrent_dropout, zoneout
from throughtime.errors import ShapeError
from throughtime.kernels import machine
from throughtime.kernels.unroll import unroll

if machine.unsupported():
    pytest.skip(machine.unsupported(), allow_module_level=True)

pytestmark = pytest.mark.usefixtures("nan_filled")

NAMES = ("lstm", "gru", "gru_reset_before", "layer_norm_lstm")
some_cells = pytest.mark.parametrize("name", NAMES)


def _zoneout(made):
    return zoneout(made, dict.fromkeys(made.states, 0.5))


def _probed(made):
    return probed(made, made.states)


TRANSFORMS = {
    "zoneout": _zoneout,
    "dropout": recurrent_dropout,
    "probes": _probed,
    "all": lambda made: _probed(learned_begin(_zoneout(recurrent_dropout(made)))),
}
every_transform = pytest.mark.parametrize("transform", TRANSFORMS)


def draw_given(problem, lengths=None, reset=None, **_):
    """Masks and probes that are not zero; those of steps are NaN in the padding, which no one may read."""
    steps, batch, _ = problem.x.shape
    generator = torch.Generator().manual_seed(steps * batch)
    given = {}
    shapes = problem.cell.graph.given_shapes(steps, batch, problem.state[0].shape[1])
    for name, shape in shapes.items():
        kind = problem.cell.graph.given[name]
        value = torch.randn(shape, generator=generator, dtype=torch.float64)
        if kind == "row_mask":
            value = (value > 0) * 2.0
        elif name == "reset":
            value = value.new_zeros(()).expand(shape) if reset is None else reset[..., None].expand(shape)
        elif kind == "step_mask":
            value = value > 0
        value = value.to(problem.x.dtype)
        if kind != "row_mask" and lengths is not None:
            padding = torch.arange(steps)[:, None] >= lengths
            value = value.masked_fill(padding[..., None], float("nan"))
        given[name] = value.requires_grad_(kind == "probe")
    return given


def run(problem, given, backend, **options):
    return unroll(
        problem.cell, problem.weights, problem.x, problem.state, backend=backend, given=given, **options
    )


def answer(problem, given, backend, **options):
    """y, the final states, and the gradients of every leaf and every probe."""
    y, final = run(problem, given, backend, **options)
    leaves = problem.leaves | {name: value for name, value in given.items() if value.requires_grad}
    loss = sum((value.square() + value).sum() for value in (y, *final))
    gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    finals = {f"final {name}": value for name, value in zip(problem.cell.states, final, strict=True)}
    return {"y": y, **finals, **{f"d {n}": g for n, g in zip(leaves, gradients, strict=True)}}


def agree(problem, kind, **more):
    options = options_of(kind, *problem.x.shape[:2])
    given = draw_given(problem, **options)
    mine, reference = (
        answer(problem, given, "llvm", **options, **more),
        answer(problem, given, "reference", **options),
    )
    close(mine, reference)
    return mine


# Values and gradients.


@some_cells
@every_transform
def test_values_and_gradients_are_those_of_the_reference(draw, name, transform):
    made = TRANSFORMS[transform](CELLS[name])
    for kind in KINDS:
        for steps, batch, inputs, hidden in ((4, 3, 2, 5), (1, 1, 1, 1), (3, 7, 3, 17)):
            agree(draw(made, steps, batch, inputs, hidden), kind)


@pytest.mark.parametrize("seed", [2, 5, 8])
def test_any_equations_may_be_given_all(draw, random_cell, seed):
    made = TRANSFORMS["all"](random_cell(Random(seed)))
    for kind in KINDS:
        agree(draw(made, 4, 3, 2, 5, seed), kind)


@some_cells
@pytest.mark.parametrize("every", [1, 2, 3, "auto"])
@pytest.mark.parametrize("kind", ["full", "both"])
def test_checkpoints_cut_what_is_given_where_they_cut_the_steps(draw, name, every, kind):
    problem = draw(TRANSFORMS["all"](CELLS[name]), 7, 3, 2, 5)
    mine = agree(problem, kind, checkpoint_every=every)
    close(mine, agree(problem, kind))


@pytest.mark.parametrize("name", ["gru", "layer_norm_lstm"])
def test_float32_is_close_to_the_reference_in_float64(draw, name):
    made = TRANSFORMS["all"](CELLS[name])
    for kind in ("full", "both"):
        options = options_of(kind, 5, 7)
        single, double = (draw(made, 5, 7, 3, 17, dtype=dtype) for dtype in (torch.float32, torch.float64))
        found = answer(single, draw_given(single, **options), "llvm", **options)
        assert {value.dtype for value in found.values()} == {torch.float32}
        close(found, answer(double, draw_given(double, **options), "reference", **options), tolerance=2e-4)


@some_cells
def test_without_gradients_the_values_are_the_same_to_the_last_bit(draw, name):
    problem = draw(TRANSFORMS["all"](CELLS[name]), 9, 5, 3, 18)
    for kind in ("full", "both"):
        options = options_of(kind, 9, 5)
        given = draw_given(problem, **options)
        y, final = run(problem, given, "llvm", **options)
        with torch.no_grad():
            again, final_again = run(problem, given, "llvm", **options)
        assert torch.equal(again, y)
        assert all(map(torch.equal, final_again, final))


@some_cells
@pytest.mark.parametrize("kind", ["full", "both"])
def test_probes_have_gradients_where_nothing_else_has(draw, name, kind):
    problem = draw(TRANSFORMS["all"](CELLS[name]), 4, 3, 2, 5)
    options = options_of(kind, 4, 3)
    given = draw_given(problem, **options)
    expected = answer(problem, given, "llvm", **options)
    for leaf in problem.leaves.values():
        leaf.requires_grad_(False)
    probes = {name: value for name, value in given.items() if value.requires_grad}
    y, final = run(problem, given, "llvm", **options)
    loss = sum((value.square() + value).sum() for value in (y, *final))
    for name, gradient in zip(probes, torch.autograd.grad(loss, list(probes.values())), strict=True):
        assert torch.equal(gradient, expected[f"d {name}"]), name


@some_cells
def test_a_probe_that_wants_no_gradient_gets_none(draw, name):
    problem = draw(TRANSFORMS["probes"](CELLS[name]), 4, 3, 2, 5)
    given = draw_given(problem)
    expected = answer(problem, given, "llvm")
    frozen = {name: value.detach() for name, value in given.items()}
    found = answer(problem, frozen, "llvm")
    assert not set(found) & {f"d {name}" for name in given}
    close(found, {name: value for name, value in expected.items() if name in found}, tolerance=0)


@some_cells
def test_what_is_given_need_not_be_contiguous(draw, name):
    problem = draw(TRANSFORMS["all"](CELLS[name]), 4, 3, 2, 5)
    for kind in ("full", "both"):
        options = options_of(kind, 4, 3)
        given = draw_given(problem, **options)
        turned = {}
        for key, value in given.items():
            view = value.detach().transpose(0, -1).contiguous().transpose(0, -1)
            assert not view.is_contiguous()
            turned[key] = view.requires_grad_(value.requires_grad)
        close(*(answer(problem, each, "llvm", **options) for each in (turned, given)), tolerance=0)


def test_a_mask_of_rows_is_of_its_row_in_any_order_of_lengths(draw):
    """Machine code sorts the rows; here each has a mask of its own and all else is the same."""
    made = TRANSFORMS["dropout"](CELLS["lstm"])
    problem = draw(made, 5, 1, 2, 4)
    lengths = torch.tensor([2, 5, 0, 4])
    masks = torch.eye(4, dtype=torch.float64)
    y, _ = unroll(
        made,
        problem.weights,
        problem.x.expand(5, 4, 2),
        tuple(value.expand(4, 4) for value in problem.state),
        lengths,
        backend="llvm",
        given={"dropout 0": masks},
    )
    for row, length in enumerate(lengths):
        if not length:
            continue
        alone, _ = unroll(
            made,
            problem.weights,
            problem.x[:length],
            problem.state,
            backend="llvm",
            given={"dropout 0": masks[row : row + 1]},
        )
        close({"y": y[:length, row]}, {"y": alone[:, 0]}, tolerance=1e-14)


@pytest.mark.parametrize("name", ["lstm", "layer_norm_lstm"])
@pytest.mark.parametrize("kind", ["full", "both"])
def test_the_answer_does_not_depend_on_the_number_of_threads(draw, threads, name, kind):
    """torch divides its own products among threads, which may change how the sums of gradients round."""
    problem = draw(TRANSFORMS["all"](CELLS[name]), 9, 17, 9, 17)
    options = options_of(kind, 9, 17)
    given, expected = draw_given(problem, **options), None
    for count in (1, 2, 3, 5):
        threads(count)
        found = answer(problem, given, "llvm", **options)
        expected = expected or found
        for key, value in found.items():
            if key.startswith("d ") and not key.startswith("d probe"):
                close({key: value}, {key: expected[key]}, tolerance=1e-13)
            else:
                assert torch.equal(value, expected[key]), f"{key} on {count} threads"


@pytest.mark.parametrize("name", ["lstm", "gru_reset_before"])
@pytest.mark.parametrize("kind", ["full", "both"])
def test_gradients_are_those_by_finite_differences(draw, name, kind):
    problem = draw(TRANSFORMS["all"](CELLS[name]), 3, 2, 2, 3)
    options = options_of(kind, 3, 2)
    given = {key: value.detach().nan_to_num() for key, value in draw_given(problem, **options).items()}
    probes = [key for key, op in problem.cell.graph.given.items() if op == "probe"]
    names, states = list(problem.weights), len(problem.state)

    def outputs(x, *rest):
        state, weights = rest[:states], dict(zip(names, rest[states : states + len(names)], strict=True))
        added = dict(zip(probes, rest[states + len(names) :], strict=True))
        y, final = unroll(problem.cell, weights, x, state, **options, backend="llvm", given=given | added)
        return y, *final

    torch.use_deterministic_algorithms(False)  # gradcheck itself takes sums of what it does not fill
    leaves = (
        problem.x,
        *problem.state,
        *problem.weights.values(),
        *(given[key].requires_grad_() for key in probes),
    )
    assert torch.autograd.gradcheck(outputs, leaves)


# The door.


def refusal(transform="all", **changed):
    """The message with which `unroll` refuses what is given; None leaves it out."""
    made = TRANSFORMS[transform](CELLS["lstm"])
    weights = {key: torch.zeros(shape) for key, shape in made.graph.weight_shapes(3, 5).items()}
    given = {key: torch.zeros(shape) for key, shape in made.graph.given_shapes(4, 2, 5).items()}
    assert unroll(made, weights, torch.zeros(4, 2, 3), given=given)[0].shape == (4, 2, 5)
    given |= {key.replace("_", " "): value for key, value in changed.items()}
    with pytest.raises(ShapeError) as caught:
        unroll(
            made,
            weights,
            torch.zeros(4, 2, 3),
            given={key: value for key, value in given.items() if value is not None} or None,
        )
    return str(caught.value)


def test_what_is_missing_and_what_is_too_much_is_named():
    assert refusal("zoneout", zoneout_h=None) == (
        'cell "lstm" must be given zoneout h, zoneout c, got zoneout c'
    )
    assert refusal("dropout", dropout_0=None) == 'cell "lstm" must be given dropout 0, got nothing'
    assert refusal("dropout", more=torch.zeros(2, 5)) == (
        'cell "lstm" must be given dropout 0, got dropout 0, more'
    )
    with pytest.raises(ShapeError, match='cell "lstm" must be given nothing, got dropout 0'):
        weights = {key: torch.zeros(s) for key, s in CELLS["lstm"].graph.weight_shapes(3, 5).items()}
        unroll(CELLS["lstm"], weights, torch.zeros(4, 2, 3), given={"dropout 0": torch.zeros(2, 5)})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("zoneout_h", torch.zeros(2, 5), "zoneout h must have shape [4, 2, 5], got [2, 5]"),
        ("zoneout_c", torch.zeros(2, 4, 5), "zoneout c must have shape [4, 2, 5], got [2, 4, 5]"),
        ("dropout_0", torch.zeros(4, 2, 5), "dropout 0 must have shape [2, 5], got [4, 2, 5]"),
        ("dropout_0", torch.zeros(1, 5), "dropout 0 must have shape [2, 5], got [1, 5]"),
        ("probe_h", torch.zeros(4, 2, 3), "probe h must have shape [4, 2, 5], got [4, 2, 3]"),
        ("reset", torch.zeros(4, 2, 1), "reset must have shape [4, 2, 5], got [4, 2, 1]"),
        (
            "probe_c",
            torch.zeros(4, 2, 5).double(),
            "probe c must be torch.float32 on cpu as x is, got torch.float64 on cpu",
        ),
        (
            "dropout_0",
            torch.zeros(2, 5).bool(),
            "dropout 0 must be torch.float32 on cpu as x is, got torch.bool on cpu",
        ),
    ],
)
def test_what_is_given_must_have_its_shape_and_type(name, value, said):
    assert refusal(**{name: value}) == said


# In torch's own compiler.


@some_cells
def test_torch_compile_sees_one_operator(draw, name):
    problem = draw(TRANSFORMS["all"](CELLS[name]), 4, 3, 2, 5)
    given, graphs = draw_given(problem), []

    def backend(module, inputs):
        graphs.append([str(n.target) for n in module.graph.nodes if "throughtime" in str(n.target)])
        return module

    def outputs(weights, x, state, given):
        return unroll(problem.cell, weights, x, state, backend="llvm", given=given)

    def trained(function):
        y, final = function(problem.weights, problem.x, problem.state, given)
        leaves = problem.leaves | {key: value for key, value in given.items() if value.requires_grad}
        loss = y.square().sum() + sum(value.sum() for value in final)
        return {"y": y} | dict(
            zip(leaves, torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True), strict=True)
        )

    torch._dynamo.reset()
    expected = trained(outputs)
    close(trained(torch.compile(outputs, fullgraph=True, backend=backend)), expected, tolerance=0)
    assert graphs == [["throughtime.unroll.default"]]
    torch._dynamo.reset()
    close(trained(torch.compile(outputs, fullgraph=True, backend="aot_eager")), expected, tolerance=0)


@pytest.mark.parametrize("transform", ["probes", "all"])
@pytest.mark.parametrize(
    ("kind", "keep"), [("full", True), ("reset", True), ("full", False), ("both", False)]
)
def test_torch_approves_of_the_operator(draw, transform, kind, keep):
    """With lengths the end of what is kept is never written nor read, but torch would compare it."""
    problem = draw(TRANSFORMS[transform](CELLS["lstm"]), 3, 2, 2, 4)
    options = options_of(kind, 3, 2)
    given = {key: value.detach().nan_to_num() for key, value in draw_given(problem, **options).items()}
    for key, op in problem.cell.graph.given.items():
        given[key].requires_grad_(op == "probe")

    def of(values):
        return [value if keep else value.detach() for value in values]

    torch.library.opcheck(
        torch.ops.throughtime.unroll.default,
        (
            problem.cell.graph.text,
            *of([problem.x]),
            of(problem.state),
            of(problem.weights.values()),
            options.get("lengths"),
            options.get("reset"),
            of(given.values()),
            keep,
        ),
    )


def test_a_mask_that_wants_a_gradient_is_refused():
    assert refusal("zoneout", zoneout_h=torch.zeros(4, 2, 5, requires_grad=True)) == (
        "zoneout h has no gradient, as only probes have: pass it through detach()"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"step": torch.zeros(4, 2, dtype=torch.int32)}, "step must be int64"),
        ({"step": torch.zeros(4, 2)}, "step must be int64"),
        ({"step": torch.full((4, 2), 3)}, "step must lie in 0..2, got 3 to 3"),
        ({"step": torch.full((4, 2), -1)}, "step must lie in 0..2, got -1 to -1"),
        ({"mean i": torch.zeros(2, 5)}, "all tables must have as many rows"),
    ],
)
@pytest.mark.parametrize("backend", ["llvm", "reference"])
def test_no_step_reads_beyond_its_tables(change, said, backend):
    made = CELLS["batch_norm_lstm"]
    weights = {key: torch.zeros(shape) for key, shape in made.graph.weight_shapes(3, 5).items()}
    given = {key: torch.zeros(3, 5) for key in made.graph.given} | {"step": torch.full((4, 2), 2)}
    assert unroll(made, weights, torch.zeros(4, 2, 3), given=given, backend=backend)[0].isfinite().all()
    with pytest.raises(ShapeError, match=said):
        unroll(made, weights, torch.zeros(4, 2, 3), given=given | change, backend=backend)
