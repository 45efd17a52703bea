"""What holds for all tests: one thread, the same random numbers, a cache of their own; and odd cells."""

import os
from random import Random

# For torch, here and in the processes that tests begin: several such processes share the cores.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["GOMP_SPINCOUNT"] = "1000"

import pytest
import torch
from hypothesis import HealthCheck, settings

from throughtime.cells.cell import Cell, cell
from throughtime.cells.expression import exp, layer_norm, log, maximum, relu, sigmoid, softplus, tanh
from throughtime.cells.library import CELLS

torch.set_num_threads(1)

# How long an example takes says nothing on a machine with other work.
settings.register_profile("any load", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any load")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def common_cache(tmp_path_factory):
    """The cache folder of the machine is left alone; what one test compiles, in any worker, serves all."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


# Cells that nobody would write: all that the equations allow, and more of it than is usual.


def _of_numbers(x, s, w):
    return tanh(w.a(x, s.h) + s.c) + log(2.0) * exp(0.0), s.c * (sigmoid(0.3) - relu(-1.0)) + maximum(1, 2)


def _of_vectors(x, s, w):
    gain = exp(tanh(w.v)) / (1 + w.u * w.u)
    mixed = w.from_vector(w.v) + w.from_expression(tanh(w.u) * w.v, bias=False)
    return tanh(w.a(x, s.h) * gain + mixed + s.c), gain * w.v


def _swapped(x, s, w):
    return s.b, s.a, s.same, tanh(w.m(x, s.a, s.same) + s.d)


def _twice_the_same(x, s, w):
    h = tanh(w.a(x, s.h, s.h * 1) + s.c)
    return h, h


def _nine_gates(x, s, w):
    total = 0.1 * s.h
    for index in range(9):
        total = total + 0.3 * sigmoid(getattr(w, f"g{index}")(x, s.h, bias=index % 2 == 0))
    return tanh(total - 1)


def _five_gates_on_a_gate(x, s, w):
    r = sigmoid(w.r(x, s.h)) * s.h
    gates = [getattr(w, f"g{index}")(r) for index in range(5)]
    return tanh(sum(gates) * 0.4 + w.n(x, s.h, r, bias=False)) * sigmoid(gates[3])


def _chain(x, s, w):
    a = s.h
    for index in range(6):
        a = tanh(getattr(w, f"m{index}")(*((x, a) if index % 2 else (a,))) + 0.1 * a)
    return a


def _norms(x, s, w):
    a = layer_norm(w.a(x, layer_norm(s.h), bias=False))
    c = s.c * 0.5 + layer_norm(a * w.gain + layer_norm(w.v))
    return tanh(layer_norm(w.b(a)) + c), c


def _only_of_x(x, s, w):
    return w.a(x, bias=False), tanh(w.b(w.c(x, bias=False)) + w.d(x))


def _linear(x, s, w):
    return w.a(x, s.h), w.b(s.c, bias=False)


def _ties(x, s, w):
    a, b = relu(w.a(x, s.h)), relu(w.b(x, s.h))
    return maximum(maximum(a, b), 0) - maximum(a, a * 1) * 0.5


def _deep(x, s, w):
    a = w.a(x, s.h)
    for _ in range(40):
        a = a + 0.01 * w.v
    return tanh(a)


#: Operators on two values, the first of which the last one made.
FORMS = (
    lambda a, b: sigmoid(a) * b,
    lambda a, b: tanh(a) - 0.5 * b,
    lambda a, b: relu(a + 0.3 * b),
    lambda a, b: exp(tanh(a)),
    lambda a, b: log(softplus(a) + 0.1),
    lambda a, b: softplus(-a),
    lambda a, b: maximum(a, b),
    lambda a, b: maximum(a, 0.2) * 2,
    lambda a, b: a / (1 + b * b),
    lambda a, b: 1 / (1 + exp(-tanh(a))),
    lambda a, b: (1 - sigmoid(a)) * b,
    lambda a, b: -(a * 0.5 - -b),
)


def _random_cell(random: Random) -> Cell:
    """Functions are taken where they are smooth and finite, and layer_norm where a row has some spread, that
    of a map: so rounding stays rounding."""
    names = ["h", "c", "a", "b"][: random.randint(1, 4)]

    def equations(x, s, w):
        states = [getattr(s, name) for name in names]
        values = states + [getattr(w, f"v{index}") for index in range(random.randint(0, 2))]
        maps = []

        def one_of(those):
            return those[random.randint(0, len(those) - 1)]

        def affine():
            operands = dict.fromkeys(one_of([x, *values, values[-1]]) for _ in range(random.randint(1, 3)))
            maps.append(getattr(w, f"m{len(maps)}")(*operands, bias=random.randint(0, 2) > 0))
            return maps[-1]

        def new_state():
            a, gate, old = one_of(values), sigmoid(one_of(values)), one_of(states)
            return one_of([gate * old + (1 - gate) * tanh(a), old, tanh(a), 0.5 * layer_norm(a + maps[0])])

        maps.append(w.m0(x, *values[: random.randint(0, 2)]))
        values.append(maps[0])
        for _ in range(random.randint(2, 14)):
            kind, a, b = random.randint(0, 7), values[-1], one_of(values)
            values.append(
                affine() if kind < 3 else layer_norm(a + affine()) if kind == 3 else one_of(FORMS)(a, b)
            )
        h = tanh(values[-1]) + 0.1 * sum(tanh(each) for each in maps)
        return h, *(one_of([h, new_state()]) for _ in names[1:])

    return cell(state=" ".join(names))(equations)


ODD = {
    "of_numbers": cell(state="h c")(_of_numbers),
    "of_vectors": cell(state="h c")(_of_vectors),
    "swapped": cell(state="a b same d")(_swapped),
    "twice_the_same": cell(state="h c")(_twice_the_same),
    "nine_gates": cell(state="h")(_nine_gates),
    "five_gates_on_a_gate": cell(state="h")(_five_gates_on_a_gate),
    "chain": cell(state="h")(_chain),
    "norms": cell(state="h c")(_norms),
    "only_of_x": cell(state="h c")(_only_of_x),
    "linear": cell(state="h c")(_linear),
    "ties": cell(state="h")(_ties),
    "deep": cell(state="h")(_deep),
}
RANDOM = {f"random_{seed}": _random_cell(Random(seed)) for seed in range(12)}
ANY = CELLS | ODD | RANDOM


@pytest.fixture(scope="session")
def random_cell():
    """`random_cell(Random(seed))`: a cell of equations that a person would not think of."""
    return _random_cell


@pytest.fixture(scope="session", params=ANY.values(), ids=ANY)
def any_cell(request) -> Cell:
    """The cells of the table, odd ones and random ones."""
    return request.param
