"""Tracing: the graph of a cell, the layout of its weights, its gates, and the errors of its equations."""

import re

import pytest

from throughtime.cells.expression import log, maximum, relu, sigmoid, tanh
from throughtime.cells.gru import gru, gru_reset_before, layer_norm_gru
from throughtime.cells.library import CELLS
from throughtime.cells.lstm import layer_norm_lstm, lstm, peephole_lstm
from throughtime.cells.trace import trace
from throughtime.errors import CellError

every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)


def graph_of(equations, states="h"):
    return trace("mine", tuple(states.split()), equations)


def refusal(equations, states="h"):
    """The message with which the equations of a cell "mine" are refused."""
    with pytest.raises(CellError) as caught:
        graph_of(equations, states)
    return str(caught.value)


@every_cell
def test_nodes_are_all_that_the_outputs_need_arguments_first(cell):
    graph = cell.graph
    place = {node: k for k, node in enumerate(graph.nodes)}
    assert all(place[arg] < place[node] for node in graph.nodes for arg in node.args)
    assert all(node in graph.outputs or graph.users[node] for node in graph.nodes)
    assert set(graph.outputs) <= set(graph.nodes)


@every_cell
def test_users_are_the_other_side_of_arguments(cell):
    for node in cell.graph.nodes:
        for user in cell.graph.users[node]:
            assert node in user.args
        assert all(node in cell.graph.users[arg] for arg in node.args)


def test_tracing_twice_gives_a_graph_of_the_same_form():
    again = trace(lstm.name, lstm.states, lstm.equations)
    assert [(n.op, n.name) for n in again.nodes] == [(n.op, n.name) for n in lstm.graph.nodes]


def test_blocks_of_weights_stand_in_the_order_of_the_calls():
    assert lstm.graph.input_blocks == ("i", "f", "g", "o")
    assert [name for name, _ in lstm.graph.recurrent_blocks] == ["i", "f", "g", "o"]
    assert gru.graph.input_blocks == ("r", "z", "n")
    assert [name for name, _ in gru.graph.recurrent_blocks] == ["r", "z", "m"]
    assert gru.graph.bias_blocks == ("r", "z", "n", "m")
    assert peephole_lstm.graph.vectors == ("p_i", "p_f", "p_o")


def test_a_map_of_two_hidden_values_has_two_blocks_of_weight_hh():
    graph = graph_of(lambda x, s, w: (tanh(w.h(s.h, x, s.c)), w.c(s.c)), "h c")
    assert [(name, value.name) for name, value in graph.recurrent_blocks] == [
        ("h", "h"),
        ("h", "c"),
        ("c", "c"),
    ]
    assert graph.weight_shapes(3, 5) == {"weight_ih": (5, 3), "weight_hh": (15, 5), "bias": (10,)}


@pytest.mark.parametrize(
    ("cell", "shapes"),
    [
        (lstm, {"weight_ih": (20, 3), "weight_hh": (20, 5), "bias": (20,)}),
        (gru, {"weight_ih": (15, 3), "weight_hh": (15, 5), "bias": (20,)}),
        (gru_reset_before, {"weight_ih": (15, 3), "weight_hh": (15, 5), "bias": (15,)}),
        (
            peephole_lstm,
            {
                "weight_ih": (20, 3),
                "weight_hh": (20, 5),
                "bias": (20,),
                "p_i": (5,),
                "p_f": (5,),
                "p_o": (5,),
            },
        ),
    ],
)
def test_weights_have_torchs_shapes(cell, shapes):
    assert cell.graph.weight_shapes(3, 5) == shapes


def test_weights_that_the_equations_lack_have_no_name():
    assert "bias" not in layer_norm_lstm.graph.weight_shapes(3, 5)
    only_x = graph_of(lambda x, s, w: s.h + w.h(x, bias=False))
    assert only_x.weight_shapes(3, 5) == {"weight_ih": (5, 3)}
    without_x = graph_of(lambda x, s, w: w.h(s.h))
    assert without_x.weight_shapes(3, 5) == {"weight_hh": (5, 5), "bias": (5,)}


def test_the_order_of_the_operands_of_a_map_does_not_matter():
    there = graph_of(lambda x, s, w: w.h(x, s.h))
    back = graph_of(lambda x, s, w: w.h(s.h, x))
    assert [arg.op for arg in there.maps[0].args] == [arg.op for arg in back.maps[0].args] == ["x", "state"]


def test_a_gate_is_the_activation_that_its_map_leads_to():
    assert {name: gate.op for name, gate in lstm.graph.gates.items()} == {
        "i": "sigmoid",
        "f": "sigmoid",
        "g": "tanh",
        "o": "sigmoid",
    }
    through_sum_and_norm = layer_norm_lstm.graph.gates
    assert [through_sum_and_norm[name].op for name in "ifgo"] == ["sigmoid", "sigmoid", "tanh", "sigmoid"]


def test_a_map_that_shares_an_activation_is_itself_the_gate():
    for cell in (gru, layer_norm_gru):
        assert {name: gate.op for name, gate in cell.graph.gates.items()} == {
            "r": "sigmoid",
            "z": "sigmoid",
            "n": "tanh",
            "m": "map",
        }


def test_a_new_state_is_no_gate():
    assert graph_of(lambda x, s, w: tanh(w.h(x, s.h))).gates == {}


def test_a_map_whose_way_forks_is_itself_the_gate():
    def forks(x, s, w):
        a = w.a(x, s.h)
        return sigmoid(a) * tanh(a)

    assert graph_of(forks).gates["a"].op == "map"


# What is refused, and how it is said.


def test_a_wrong_number_of_new_states_names_what_came_and_what_is_wanted():
    message = refusal(lambda x, s, w: tanh(w.h(x, s.h)), "h c")
    assert re.search(r'cell "mine", line \d+ of .*test_trace.py, ".*w.h.*", has 2 states \(h, c\)', message)
    assert "return 1 values" in message
    assert "return the new value of each state, in their order" in message
    assert "return 2 values" in refusal(lambda x, s, w: (w.h(x), s.h))


@pytest.mark.parametrize("returned", [None, 1.0, "h"])
def test_a_new_state_that_is_no_value_names_its_type(returned):
    assert f"({type(returned).__name__})" in refusal(lambda x, s, w: returned)


@pytest.mark.parametrize("equations", [lambda x, s, w: x, lambda x, s, w: w.v])
def test_a_new_state_must_be_computed(equations):
    message = refusal(equations)
    assert re.search(
        r'cell "mine", line \d+ of .*test_trace.py, ".*", returns a state that no equation', message
    )


def test_a_cell_without_weights_is_refused():
    assert 'cell "mine" has no weights' in refusal(lambda x, s, w: tanh(s.h))


def test_an_unknown_state_names_those_there_are():
    message = refusal(lambda x, s, w: (w.h(x, s.k), s.c), "h c")
    assert "there is no state 'k': the states are h, c" in message


def test_an_error_names_the_line_of_the_equation_and_shows_it():
    def twice(x, s, w):
        a = sigmoid(w.a(x, s.h))
        b = tanh(w.a(x))
        return a * b

    message = refusal(twice)
    assert message.startswith('cell "mine"')
    assert f"line {twice.__code__.co_firstlineno + 2} of {__file__}" in message
    assert '"b = tanh(w.a(x))"' in message
    assert 'the name "a" is used twice' in message


def test_an_error_inside_a_helper_names_the_line_that_calls_it():
    def square(a):
        return a**2

    def equations(x, s, w):
        return square(w.h(x, s.h))

    assert '"return square(w.h(x, s.h))"' in refusal(equations)


@pytest.mark.parametrize(
    ("equations", "said"),
    [
        (lambda x, s, w: tanh(w.h()), "w.h() multiplies nothing: give it x, a state, or a value"),
        (lambda x, s, w: tanh(w.h(x, 1.0)), "w.h is given a number: a map takes x, states and values"),
        (lambda x, s, w: tanh(w.h(x, s.h, x)), "w.h is given the same value twice"),
        (lambda x, s, w: tanh(w.bias(x, s.h)), '"bias" is the name of a whole weight matrix: choose another'),
        (lambda x, s, w: w.weight_ih * s.h, '"weight_ih" is the name of a whole weight matrix'),
        (lambda x, s, w: w.weight_hh(s.h), '"weight_hh" is the name of a whole weight matrix'),
        (lambda x, s, w: tanh(w.h(x, "h")), "equations take values and numbers"),
    ],
)
def test_a_misused_weight_is_refused_with_its_line(equations, said):
    message = refusal(equations)
    assert message.startswith(f'cell "mine", line {equations.__code__.co_firstlineno} of ')
    assert said in message


def test_a_name_is_either_a_map_or_a_vector():
    assert '"v" is called as a map and used as a vector' in refusal(lambda x, s, w: w.v(x) * w.v)


def test_a_map_without_effect_is_named():
    def idle(x, s, w):
        w.idle(x)
        return tanh(w.h(x, s.h))

    assert 'the map "idle" has no effect on the new states' in refusal(idle)


def test_errors_of_other_kinds_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        graph_of(lambda x, s, w: w.h(x) * (1 / 0))


def test_shared_values_are_one_node():
    def shares(x, s, w):
        a = relu(w.a(x, s.h))
        return maximum(a, log(a + 1))

    graph = graph_of(shares)
    assert [node.op for node in graph.nodes].count("relu") == 1
