"""Whether two cells are the same computation under other names."""

import itertools

import pytest

from throughtime.cells.expression import maximum, relu, sigmoid, tanh
from throughtime.cells.gru import gru
from throughtime.cells.library import CELLS
from throughtime.cells.lstm import lstm, peephole_lstm
from throughtime.cells.match import match
from throughtime.cells.trace import trace


def graph_of(equations, states="h c"):
    return trace("mine", tuple(states.split()), equations)


def renamed_lstm(x, s, w):
    out = sigmoid(w.out(s.a, x))
    new = tanh(w.new(s.a, x))
    keep = sigmoid(w.keep(x, s.a))
    take = sigmoid(w.take(x, s.a))
    memory = new * take + s.b * keep
    return tanh(memory) * out, memory


def test_an_lstm_of_other_names_order_and_products_is_found():
    names = match(graph_of(renamed_lstm, "a b"), lstm.graph)
    assert names == {"i": "take", "f": "keep", "g": "new", "o": "out"}


def test_a_gru_with_its_sum_turned_round_is_found():
    def turned(x, s, w):
        keep = sigmoid(w.keep(x, s.h))
        old = w.old(s.h)
        drop = sigmoid(w.drop(x, s.h))
        new = tanh(old * drop + w.new(x))
        return s.h * keep + new * (1 - keep)

    names = match(graph_of(turned, "h"), gru.graph)
    assert names == {"r": "drop", "z": "keep", "n": "new", "m": "old"}


def nearly(input=sigmoid, cell=tanh, bias=True, swap=False, sign=1, shared=False, reads="x h"):
    """An LSTM but for one thing."""

    def equations(x, s, w):
        i = input(w.i(x, s.h))
        f = sigmoid(w.f(*({"x": x, "h": s.h, "c": s.c}[name] for name in reads.split()), bias=bias))
        g = tanh(w.g(x, s.h))
        o = i if shared else sigmoid(w.o(x, s.h))
        c = f * s.c + sign * i * g if sign != 1 else f * s.c + i * g
        return (c, o * cell(c)) if swap else (o * cell(c), c)

    return equations


@pytest.mark.parametrize(
    "change",
    [
        {"input": tanh},
        {"input": relu},
        {"cell": relu},
        {"bias": False},
        {"swap": True},
        {"sign": -1},
        {"shared": True},
        {"reads": "x h c"},
        {"reads": "x c"},
        {"reads": "x"},
        {"reads": "h"},
    ],
    ids=lambda change: " ".join(f"{what}={getattr(to, '__name__', to)}" for what, to in change.items()),
)
def test_a_cell_nearly_an_lstm_is_not_an_lstm(change):
    assert match(graph_of(nearly()), lstm.graph) is not None
    assert match(graph_of(nearly(**change)), lstm.graph) is None


def test_states_in_another_order_do_not_match():
    def turned(x, s, w):
        h, c = lstm.equations(x, s, w)
        return c, h

    assert match(graph_of(turned, "c h"), lstm.graph) is None


def test_a_gate_that_reads_another_state_does_not_match():
    def reads_c(x, s, w):
        f = sigmoid(w.f(x, s.c))
        c = f * s.c + sigmoid(w.i(x, s.h)) * tanh(w.g(x, s.h))
        return sigmoid(w.o(x, s.h)) * tanh(c), c

    assert match(graph_of(reads_c), lstm.graph) is None


def test_another_number_of_states_does_not_match():
    assert match(gru.graph, lstm.graph) is None


def test_other_constants_do_not_match():
    one, two = (graph_of(lambda x, s, w, k=k: (k - s.h) * w.h(x), "h") for k in (1, 2))
    assert match(one, one) == {"h": "h"}
    assert match(two, one) is None


def test_differences_and_quotients_keep_their_order():
    for build in (lambda a, b: a - b, lambda a, b: a / b):
        there = graph_of(lambda x, s, w, build=build: build(tanh(w.a(x)), s.h), "h")
        back = graph_of(lambda x, s, w, build=build: build(s.h, tanh(w.a(x))), "h")
        assert match(back, there) is None


def test_maxima_may_stand_in_either_order():
    there = graph_of(lambda x, s, w: maximum(w.a(x), s.h), "h")
    back = graph_of(lambda x, s, w: maximum(s.h, w.a(x)), "h")
    assert match(back, there) == {"a": "a"}


def test_equal_terms_of_a_sum_are_told_apart_by_what_stands_outside_it():
    def template(x, s, w):
        a, b = sigmoid(w.a(x, s.h)), sigmoid(w.b(x, s.h))
        return (a + b) / b

    def turned(x, s, w):
        p, q = sigmoid(w.p(x, s.h)), sigmoid(w.q(x, s.h))
        return (p + q) / p

    assert match(graph_of(turned, "h"), graph_of(template, "h")) == {"a": "q", "b": "p"}


def test_two_hidden_operands_of_a_map_may_stand_in_either_order():
    there = graph_of(lambda x, s, w: (tanh(w.a(s.h, s.c)), s.c))
    back = graph_of(lambda x, s, w: (tanh(w.b(s.c, s.h)), s.c))
    assert match(back, there) == {"a": "b"}


def test_vectors_are_matched_by_what_they_weigh():
    def renamed(x, s, w):
        o_bias, f_bias, i_bias = w.mine_o, w.mine_f, w.mine_i
        i = sigmoid(w.i(x, s.h) + i_bias * s.c)
        f = sigmoid(w.f(x, s.h) + f_bias * s.c)
        c = f * s.c + i * tanh(w.g(x, s.h))
        return sigmoid(w.o(x, s.h) + o_bias * c) * tanh(c), c

    names = match(graph_of(renamed), peephole_lstm.graph)
    assert names is not None
    assert (names["p_i"], names["p_f"], names["p_o"]) == ("mine_i", "mine_f", "mine_o")


def test_each_cell_of_the_table_matches_itself_and_only_its_own_equations():
    for one, other in itertools.product(CELLS.values(), repeat=2):
        assert (match(one.graph, other.graph) is not None) == (one.equations is other.equations)


def test_a_match_gives_each_name_once():
    for cell in CELLS.values():
        names = match(cell.graph, cell.graph)
        assert names == {name: name for name in (*(m.name for m in cell.graph.maps), *cell.graph.vectors)}
