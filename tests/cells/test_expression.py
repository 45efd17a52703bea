"""Symbols and operators: what builds a graph, and what is refused with a clear message."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from throughtime.cells import expression
from throughtime.cells.expression import ARITY, Value, apply, as_value, sigmoid, tanh
from throughtime.cells.trace import trace
from throughtime.errors import CellError


def refusal(equations):
    """The message with which the equations of a cell "mine" with the state h are refused."""
    with pytest.raises(CellError) as caught:
        trace("mine", ("h",), equations)
    return str(caught.value)


@pytest.mark.parametrize(
    ("build", "op"),
    [
        (lambda a, b: a + b, "add"),
        (lambda a, b: a - b, "sub"),
        (lambda a, b: a * b, "mul"),
        (lambda a, b: a / b, "div"),
    ],
)
def test_infix_operators_keep_the_order_of_their_operands(build, op):
    a, b = Value("state", name="a"), Value("state", name="b")
    assert (build(a, b).op, build(a, b).args) == (op, (a, b))
    left, right = build(2, a), build(a, 2.5)
    assert (left.op, left.args[0].number, left.args[1]) == (op, 2.0, a)
    assert (right.op, right.args[0], right.args[1].number) == (op, a, 2.5)


def test_minus_before_a_value_is_neg():
    a = Value("state", name="a")
    assert ((-a).op, (-a).args) == ("neg", (a,))


@pytest.mark.parametrize("name", [op for op in ARITY if op not in {"add", "sub", "mul", "div", "neg"}])
def test_each_function_makes_the_node_of_its_name(name):
    operands = tuple(Value("state", name=f"a{k}") for k in range(ARITY[name]))
    node = getattr(expression, name)(*operands)
    assert (node.op, node.args) == (name, operands)


def test_arguments_come_before_their_users():
    a = Value("state", name="a")
    node = sigmoid(a + 1) * tanh(a)
    assert all(arg.serial < node.serial for arg in node.args)


@pytest.mark.parametrize("operand", ["1", None, True, [1.0], torch.ones(2)])
def test_only_values_and_numbers_are_operands(operand):
    with pytest.raises(
        CellError, match=f"of type {type(operand).__name__}: equations take values and numbers"
    ):
        as_value(operand)


@pytest.mark.parametrize("op", ARITY)
def test_x_does_not_meet_values_of_hidden_size(op):
    x, h = Value("x"), Value("state", name="h")
    with pytest.raises(CellError, match=r"pass it through a map first, as in w\.i\(x\)"):
        apply(op, *(h, x)[-ARITY[op] :])


@pytest.mark.parametrize(
    ("equations", "named"),
    [
        (lambda x, s, w: w.h(x, s.h) ** 2, "**"),
        (lambda x, s, w: w.h(x, s.h) @ s.h, "@"),
        (lambda x, s, w: abs(w.h(x, s.h)), "abs"),
        (lambda x, s, w: max(w.h(x, s.h), s.h), "'>'"),
        (lambda x, s, w: math.tanh(w.h(x, s.h)), "real number"),
        (lambda x, s, w: torch.tanh(w.h(x, s.h)), '"tanh" is not an operator'),
        (lambda x, s, w: F.softplus(w.h(x, s.h)), '"softplus" is not an operator'),
        (lambda x, s, w: torch.ones(2) * w.h(x, s.h), '"mul" is not an operator'),
        (lambda x, s, w: np.tanh(w.h(x, s.h)), '"tanh" is not an operator'),
        (lambda x, s, w: w.h(x, s.h) * np.ones(2), "ndarray"),
        (lambda x, s, w: s.h if w.h(x, s.h) else -s.h, "cannot branch on a value"),
        (lambda x, s, w: w.h(x, s.h) and s.h, "cannot branch on a value"),
        (lambda x, s, w: w.h(s.h) + x, "pass it through a map first"),
        (lambda x, s, w: tanh(x), "pass it through a map first"),
    ],
)
def test_what_is_no_operator_is_refused_with_the_cell_and_the_line(equations, named):
    message = refusal(equations)
    assert message.startswith('cell "mine", line ')
    assert f"line {equations.__code__.co_firstlineno} of {__file__}" in message
    assert named in message


def test_the_refusal_of_a_foreign_function_lists_those_that_would_do():
    message = refusal(lambda x, s, w: torch.tanh(w.h(x, s.h)))
    for name in ("sigmoid", "tanh", "relu", "exp", "log", "softplus", "maximum", "layer_norm"):
        assert name in message.partition("functions")[2]
