"""Which cells are linear in their states, and with which coefficients."""

import pytest

from throughtime.cells.expression import exp, layer_norm, maximum, relu, sigmoid, tanh
from throughtime.cells.library import CELLS
from throughtime.cells.linearity import linear_parts
from throughtime.cells.trace import trace


def parts_of(equations, states="h"):
    return linear_parts(trace("mine", tuple(states.split()), equations))


def text(node):
    """An expression as its operators and names."""
    if node.op == "constant":
        return f"{node.number:g}"
    if node.op in {"x", "map", "vector", "state"}:
        return node.name or "x"
    return f"{node.op}({', '.join(text(arg) for arg in node.args)})"


def form(equations, states="h"):
    """The states, coefficients and offsets of each part."""
    return [
        (part.states, [[text(c) for c in row] for row in part.coefficients], [text(b) for b in part.offsets])
        for part in parts_of(equations, states)
    ]


@pytest.mark.parametrize(
    ("new", "coefficient", "offset"),
    [
        (lambda h, a, b: h + a, "1", "a"),
        (lambda h, a, b: a + h, "1", "a"),
        (lambda h, a, b: h - a, "1", "neg(a)"),
        (lambda h, a, b: a - h, "-1", "a"),
        (lambda h, a, b: -h + a, "-1", "a"),
        (lambda h, a, b: -(h + a) + b, "-1", "sub(b, a)"),
        (lambda h, a, b: a * h + b, "a", "b"),
        (lambda h, a, b: h * a + b, "a", "b"),
        (lambda h, a, b: (h + b) * a, "a", "mul(b, a)"),
        (lambda h, a, b: a * (h + b), "a", "mul(b, a)"),
        (lambda h, a, b: h / a + b, "div(1, a)", "b"),
        (lambda h, a, b: (h * b + 2) / a, "div(b, a)", "div(2, a)"),
        (lambda h, a, b: h + a * (b - h), "sub(1, a)", "mul(b, a)"),
        (lambda h, a, b: (1 - a) * b + a * h, "a", "mul(sub(1, a), b)"),
        (lambda h, a, b: a * h + b * h, "add(a, b)", "0"),
        (lambda h, a, b: h * 0.5 + tanh(a), "0.5", "tanh(a)"),
    ],
)
def test_a_state_is_a_coefficient_times_itself_and_an_offset(new, coefficient, offset):
    def equations(x, s, w):
        return new(s.h, w.a(x), w.b)

    assert form(equations) == [(("h",), [[coefficient]], [offset])]


def test_states_that_read_each_other_are_one_part_in_their_order():
    def equations(x, s, w):
        return w.a * s.re - w.b * s.im, w.u(x) + w.b * s.re

    assert form(equations, "re im") == [(("re", "im"), [["a", "neg(b)"], ["b", "0"]], ["0", "u"])]


def test_a_ring_of_states_is_one_part():
    def equations(x, s, w):
        return s.b, s.c, s.a + w.n(x)

    (part,) = parts_of(equations, "a b c")
    assert part.states == ("a", "b", "c")


def test_a_read_out_is_a_part_without_coefficients_after_the_states_it_reads():
    def equations(x, s, w):
        c = w.a * s.c + w.n(x)
        return tanh(w.o(c, s.c)), c

    assert form(equations, "h c") == [(("c",), [["a"]], ["n"]), (("h",), [], ["tanh(o)"])]


def test_a_coefficient_may_depend_on_the_states_of_an_earlier_part():
    def equations(x, s, w):
        return sigmoid(w.f(s.a)) * s.b + layer_norm(s.a) * s.d, tanh(w.d(x)), w.v * s.a + w.n(x)

    found = form(equations, "b d a")
    assert found[-1] == (("b",), [["sigmoid(f)"]], ["mul(layer_norm(a), d)"])
    assert sorted(found[:-1]) == [(("a",), [["v"]], ["n"]), (("d",), [], ["tanh(d)"])]


def test_parts_are_found_once_for_a_graph():
    graph = CELLS["lstm"].graph
    assert linear_parts(graph) is linear_parts(graph)


@pytest.mark.parametrize("name", CELLS)
def test_every_state_is_in_one_part(name):
    parts = linear_parts(CELLS[name].graph)
    if not isinstance(parts, str):
        assert sorted(state for part in parts for state in part.states) == sorted(CELLS[name].states)


# Why a cell is not linear.


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("rnn", 'the map "h" mixes the units of the state h'),
        ("lstm", 'the map "i" mixes the units of the state h'),
        ("gru", 'the map "r" mixes the units of the state h'),
        ("gru_reset_before", 'the map "z" mixes the units of the state h'),
    ],
)
def test_a_map_of_a_state_is_refused_by_its_name(name, reason):
    assert linear_parts(CELLS[name].graph) == reason


@pytest.mark.parametrize(
    ("new", "operator"),
    [
        (lambda h, a: relu(a + h), "relu"),
        (lambda h, a: a + tanh(h * 0.5), "tanh"),
        (lambda h, a: exp(-h) + a, "exp"),
        (lambda h, a: maximum(h, a), "maximum"),
        (lambda h, a: layer_norm(a - h), "layer_norm"),
        (lambda h, a: (h + a) * h, "mul"),
        (lambda h, a: a / (1 + h), "div"),
        (lambda h, a: h / (a + h), "div"),
    ],
)
def test_an_operator_on_a_state_is_refused_by_its_name(new, operator):
    def equations(x, s, w):
        return new(s.h, w.a(x))

    assert parts_of(equations) == f'the operator "{operator}" is not linear in the state h'


def test_a_refusal_names_all_states_that_meet():
    def equations(x, s, w):
        return s.a * s.b + w.n(x), s.a

    assert parts_of(equations, "a b") == 'the operator "mul" is not linear in the states a, b'
