"""The scan: equal to the loop for every cell that is linear in its states, and refused for the others."""

from random import Random
from types import SimpleNamespace

import pytest
import torch
from agreement import KINDS, close, options_of
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.cells.cell import Cell, cell
from throughtime.cells.expression import Value, exp, relu, sigmoid, softplus, tanh
from throughtime.cells.library import CELLS
from throughtime.cells.trace import CellGraph
from throughtime.errors import ConfigError
from throughtime.kernels import scan as scan_backend
from throughtime.kernels.scan import scan
from throughtime.kernels.unroll import explain, unroll

ONE = torch.ones(1, 1, 1, dtype=torch.float64)


@cell(state="h")
def min_gru(x, s, w):
    z = sigmoid(w.z(x))
    return (1 - z) * s.h + z * w.n(x)


@cell(state="h")
def min_lstm(x, s, w):
    f, i = sigmoid(w.f(x)), sigmoid(w.i(x))
    return f / (f + i) * s.h + i / (f + i) * w.n(x)


@cell(state="y re im")
def rotation(x, s, w):
    """A diagonal of complex numbers a + ib, as in the LRU (Orvieto et al. 2023)."""
    re = w.a * s.re - w.b * s.im + w.u(x, bias=False)
    im = w.b * s.re + w.a * s.im + w.v(x, bias=False)
    return w.c(re, bias=False) - w.d(im, bias=False) + w.skip(x), re, im


@cell(state="h c")
def with_a_read_out(x, s, w):
    f = sigmoid(w.f(x))
    c = f * s.c + (1 - f) * w.g(x)
    return sigmoid(w.o(x, c)) * tanh(c) + w.m(s.c), c


@cell(state="h")
def with_a_vector(x, s, w):
    return w.decay * s.h + w.n(x)


@cell(state="h")
def with_divisions(x, s, w):
    return (s.h - w.n(x)) / (1 + exp(w.z(x))) - (-s.h + tanh(w.m(x))) / (1 + softplus(w.v))


@cell(state="b a")
def one_upon_another(x, s, w):
    """The coefficients of b are not linear in a: a is known by then."""
    a = sigmoid(w.z(x)) * s.a + w.n(x)
    return sigmoid(w.f(x, s.a)) * s.b + tanh(w.g(s.a, a)), a


@cell(state="h d")
def with_a_delay(x, s, w):
    d = tanh(w.d(x))
    return s.d + (s.h - s.d) * sigmoid(w.z(x)), d


@cell(state="a b c")
def a_ring(x, s, w):
    return s.b, w.v * s.c + w.n(x), sigmoid(w.z(x)) * (s.a - 0.5 * s.b) + 0.1


@cell(state="h")
def a_sum(x, s, w):
    return s.h + w.n(x)


LINEAR = (
    min_gru,
    min_lstm,
    rotation,
    with_a_read_out,
    with_a_vector,
    with_divisions,
    one_upon_another,
    with_a_delay,
    a_ring,
    a_sum,
)
every_linear_cell = pytest.mark.parametrize("linear", LINEAR, ids=[each.name for each in LINEAR])
every_kind = pytest.mark.parametrize("kind", KINDS)


def agrees(problem, **options):
    close(problem.answer(problem.run("scan", **options)), problem.answer(problem.run("reference", **options)))


def garbage_in_padding(problem, lengths, number):
    if lengths is None:
        return problem
    padding = torch.arange(len(problem.x))[:, None] >= lengths
    return problem.with_x(problem.x.masked_fill(padding[..., None], number))


# The backend.


@every_linear_cell
@every_kind
@pytest.mark.parametrize("steps", [1, 2, 3, 63, 64, 100])
def test_is_the_loop(draw, linear, kind, steps):
    options = options_of(kind, steps, 3)
    agrees(garbage_in_padding(draw(linear, steps, 3, 2, 4), options.get("lengths"), float("nan")), **options)


def random_linear_cell(random: Random) -> Cell:
    names = ["a", "b", "c"][: random.randint(1, 3)]

    def equations(x, s, w):
        values = [getattr(s, name) for name in names]
        for index in range(random.randint(1, 9)):
            one, other = random.choice(values), random.choice(values)
            gate, vector = sigmoid(getattr(w, f"g{index}")(x)), getattr(w, f"v{index}")
            forms = (
                one + gate,
                one - other,
                gate * one,
                one * vector,
                (gate - one) / (1 + exp(vector)),
                -one,
            )
            values.append(random.choice(forms) + 0.1 * gate * vector)
        news = [random.choice(values[-4:]) for _ in names]
        return 0.1 * sum(values) + news[0], *news[1:]

    return cell(state=" ".join(names))(equations)


@every_kind
@pytest.mark.parametrize("seed", range(12))
def test_is_the_loop_for_a_random_linear_cell(draw, seed, kind):
    agrees(draw(random_linear_cell(Random(seed)), 6, 3, 2, 4), **options_of(kind, 6, 3))


@every_linear_cell
@every_kind
def test_reads_no_memory_that_it_has_not_written(draw, nan_filled, linear, kind):
    agrees(draw(linear, 7, 2, 2, 3), **options_of(kind, 7, 2))


@every_linear_cell
def test_what_stands_in_the_padding_changes_nothing_at_all(draw, linear):
    lengths, problem = torch.tensor([2, 6, 0, 5]), draw(linear, 6, 4, 3, 5)
    clean = garbage_in_padding(problem, lengths, 0.0)
    clean = clean.answer(clean.run("scan", lengths))
    for number in (1e30, float("inf"), float("nan")):
        filled = garbage_in_padding(problem, lengths, number)
        close(filled.answer(filled.run("scan", lengths)), clean, tolerance=0)


def test_padding_is_not_computed_even_where_zeros_would_be_a_pole(draw):
    @cell(state="h")
    def pole(x, s, w):
        return s.h / w.a(x, bias=False) + w.b(x)

    agrees(draw(pole, 5, 3, 1, 2), lengths=torch.tensor([5, 0, 3]))


@every_linear_cell
def test_nan_stays_in_its_row_and_a_reset_ends_it(draw, linear):
    problem = draw(linear, 7, 2, 3, 4)
    x, reset = problem.x.detach().clone(), torch.zeros(7, 2, dtype=torch.bool)
    x[1, 0], reset[4, 0] = float("nan"), True
    problem = problem.with_x(x)
    y, final = problem.run("scan", reset=reset)
    assert y[:, 0].isnan().any(-1).tolist() == [False, *y[1:4, 0].isnan().any(-1).tolist(), *3 * [False]]
    assert y[1:4, 0].isnan().any()
    assert y[:, 1].isfinite().all()
    (dx,) = torch.autograd.grad(sum(value.sum() for value in (y[4:], *final)), problem.x)
    assert dx[4:].isfinite().all()
    assert dx[:, 1].isfinite().all()
    agrees(problem, reset=reset)


@every_linear_cell
@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (3, 0), (0, 0)])
def test_no_steps_and_no_rows(draw, linear, steps, batch):
    problem = draw(linear, steps, batch, 2, 4)
    lengths, reset = torch.zeros(batch, dtype=torch.int64), torch.ones(steps, batch, dtype=torch.bool)
    for options in ({}, {"lengths": lengths}, {"reset": reset}):
        y, final = scan_backend.run(
            linear.graph, problem.weights, problem.x, problem.state, **_both(options), given={}
        )
        assert y.shape == (steps, batch, 4)
        for value, initial in zip(final, problem.state, strict=True):
            assert torch.equal(value, initial)


def _both(options):
    return {"lengths": options.get("lengths"), "reset": options.get("reset")}


@every_linear_cell
def test_float32_is_the_loop_to_rounding(draw, linear):
    problem = draw(linear, 33, 4, 5, 6, dtype=torch.float32)
    for kind in KINDS:
        options = options_of(kind, 33, 4)
        mine, loop = problem.run("scan", **options), problem.run("reference", **options)
        assert mine[0].dtype == torch.float32
        close(problem.answer(mine), problem.answer(loop), tolerance=1e-4)


@pytest.mark.parametrize("linear", [min_gru, rotation, one_upon_another], ids=lambda each: each.name)
@pytest.mark.parametrize("kind", ["full", "both"])
def test_derivatives_of_second_order(draw, linear, kind):
    problem = draw(linear, 3, 2, 1, 2)
    options = options_of(kind, 3, 2)

    def answer(*leaves):
        weights = dict(zip(problem.weights, leaves[1 + len(linear.states) :], strict=True))
        state = leaves[1 : 1 + len(linear.states)]
        y, final = scan_backend.run(linear.graph, weights, leaves[0], state, **_both(options), given={})
        return y, *final

    leaves = list(problem.leaves.values())
    assert torch.autograd.gradcheck(answer, leaves)
    assert torch.autograd.gradgradcheck(answer, leaves)


@every_kind
def test_what_is_given_is_read_at_its_step_and_row(draw, kind):
    """h' = row s + step (z s + n + probe - s), as zoneout and a probe make it."""
    x, h = Value("x"), Value("state", name="h")
    row, step, probe = Value("row_mask", name="r"), Value("step_mask", name="m"), Value("probe", name="p")
    new = sigmoid(Value("map", (x,), "z", bias=True)) * h + Value("map", (x,), "n", bias=True) + probe
    output = row * h + step * (new - h)
    nodes: list[Value] = []

    def visit(node):
        for arg in node.args:
            visit(arg)
        if node not in nodes:
            nodes.append(node)

    visit(output)
    graph = CellGraph(("h",), (output,), tuple(nodes))
    options, problem = options_of(kind, 5, 3), draw(min_gru, 5, 3, 2, 4)
    given = {"r": torch.randn(3, 4).double(), "m": torch.randn(5, 3, 4).double()}
    given["p"] = torch.randn(5, 3, 4, dtype=torch.float64, requires_grad=True)
    answers = []
    masked = SimpleNamespace(name="masked", states=graph.states, graph=graph)
    for backend in ("scan", "reference"):
        run = unroll(
            masked, problem.weights, problem.x, problem.state, backend=backend, given=given, **options
        )
        loss = sum(value.square().sum() for value in (run[0], *run[1]))
        (d_probe,) = torch.autograd.grad(loss, given["p"], retain_graph=True)
        answers.append(problem.answer(run) | {"d probe": d_probe})
    close(*answers)


# What it refuses.


@cell(state="h")
def diagonal_relu(x, s, w):
    """IndRNN (Li et al. 2018)."""
    return relu(w.n(x) + w.u * s.h)


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (CELLS["lstm"], 'the map "i" mixes the units of the state h'),
        (CELLS["gru"], 'the map "r" mixes the units of the state h'),
        (CELLS["rnn"], 'the map "h" mixes the units of the state h'),
        (diagonal_relu, 'the operator "relu" is not linear in the state h'),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_refuses_what_is_not_linear(draw, refused, reason):
    assert (
        scan_backend.refusal(refused.graph, ONE) == f"the equations are not linear in their states: {reason}"
    )
    with pytest.raises(ConfigError) as caught:
        draw(refused, 2, 1, 1, 2).run("scan")
    assert reason in str(caught.value)


@every_linear_cell
def test_takes_what_is_linear(linear):
    assert explain(linear, ONE, "scan").backend == "scan"


# The scan by itself.


def by_loop(a, b, state, reset=None):
    states = []
    for t in range(len(b)):
        if reset is not None:
            state = torch.where(reset[t][:, None], 0.0, state)
        state = torch.einsum("ijbh,jkbh->ikbh", a[t], state) + b[t]
        states.append(state)
    return torch.stack(states)


@settings(max_examples=150, deadline=None)
@given(
    steps=st.integers(1, 70),
    k=st.integers(1, 3),
    batch=st.integers(1, 3),
    zeros=st.sampled_from([0.0, 0.3, 1.0]),
    resets=st.sampled_from([None, 0.0, 0.2, 1.0]),
    seed=st.integers(0, 2**16),
)
def test_scan_is_the_loop(steps, k, batch, zeros, resets, seed):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    a = normal(steps, k, k, batch, 2) / k
    a[torch.rand(a.shape, generator=generator) < zeros] = 0.0
    leaves = [a, normal(steps, k, 1, batch, 2), normal(k, 1, batch, 2)]
    reset = None if resets is None else torch.rand(steps, batch, generator=generator) < resets
    weight = normal(steps, k, 1, batch, 2)
    answers = []
    for function in (scan, by_loop):
        wanted = [leaf.clone().requires_grad_() for leaf in leaves]
        states = function(*wanted, reset)
        gradients = torch.autograd.grad((states * weight).sum(), wanted)
        answers.append(dict(zip(("states", "d a", "d b", "d initial"), (states, *gradients), strict=True)))
    close(*answers)
