"""Simplification: the value stays what it was, equal expressions are one node, and numbers are worked out."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.cells.algebra import Algebra
from throughtime.cells.expression import ARITY, COMMUTATIVE, Value
from throughtime.kernels.reference import OPERATORS

ELEMENTWISE = sorted(ARITY.keys() - {"layer_norm"})
LEAVES = {name: torch.randn(7, dtype=torch.float64) for name in "abc"}
LEAVES["a"][:3] = torch.tensor([math.nan, math.inf, -math.inf])
NUMBERS = [0.0, 1.0, -1.0, 2.0, -0.5, 3.0, 1000.0, -1000.0, math.inf, math.nan]


def trees(depth):
    """An operator and its arguments, a number, or the name of a leaf, as nested tuples."""
    leaf = st.sampled_from([*LEAVES, *NUMBERS])
    if depth == 0:
        return leaf
    below = trees(depth - 1)
    by_arity = {n: sorted(op for op in ELEMENTWISE if ARITY[op] == n) for n in (1, 2)}
    return st.one_of(
        leaf, *(st.tuples(st.sampled_from(ops), *[below] * count) for count, ops in by_arity.items())
    )


def made(algebra, tree):
    """The tree as the algebra makes it, from the leaves up."""
    if isinstance(tree, str):
        return algebra.leaf("vector", tree)
    if isinstance(tree, float):
        return algebra.constant(tree)
    op, *args = tree
    return algebra.make(op, *(made(algebra, arg) for arg in args))


def computed(tree):
    """The tree in torch, as it is written."""
    if isinstance(tree, str):
        return LEAVES[tree]
    if isinstance(tree, float):
        return torch.tensor(tree, dtype=torch.float64)
    op, *args = tree
    return OPERATORS[op](*map(computed, args))


def as_tree(node):
    """A node as a tree."""
    if node.op == "vector":
        return node.name
    return node.number if node.op == "constant" else (node.op, *map(as_tree, node.args))


@settings(max_examples=300, deadline=None)
@given(tree=trees(3))
def test_what_is_simplified_has_the_same_value(tree):
    simple = computed(as_tree(made(Algebra(), tree))).expand(7)
    torch.testing.assert_close(simple, computed(tree).expand(7), rtol=1e-12, atol=1e-300, equal_nan=True)


@settings(max_examples=100, deadline=None)
@given(tree=trees(3))
def test_what_is_made_twice_is_one_node(tree):
    algebra = Algebra()
    assert made(algebra, tree) is made(algebra, tree)


@pytest.mark.parametrize("op", [op for op in ELEMENTWISE if ARITY[op] == 2])
def test_the_order_of_arguments_matters_where_the_operator_says_so(op):
    algebra = Algebra()
    a, b = algebra.leaf("vector", "a"), algebra.leaf("vector", "b")
    assert (algebra.make(op, a, b) is algebra.make(op, b, a)) == (op in COMMUTATIVE)


def test_what_differs_in_anything_is_another_node():
    algebra = Algebra()
    a, b = algebra.leaf("vector", "a"), algebra.leaf("vector", "b")
    nodes = [
        a,
        b,
        algebra.leaf("state", "a"),
        algebra.constant(0.0),
        algebra.constant(-0.0),
        algebra.product("product", (a, b), (0, 1)),
        algebra.product("product", (a, b), (1, 0)),
        algebra.product("product", (b, a), (0, 1)),
        algebra.product("transposed", (a, b), (0, 1)),
        algebra.make("tanh", a),
        algebra.make("tanh", b),
        algebra.make("sigmoid", a),
    ]
    assert len(set(nodes)) == len(nodes)


def test_a_node_of_another_graph_can_be_an_argument():
    algebra, foreign = Algebra(), Value("vector", name="a")
    assert algebra.make("tanh", foreign) is algebra.make("tanh", foreign)
    assert algebra.make("tanh", foreign) is not algebra.make("tanh", algebra.leaf("vector", "a"))


@pytest.mark.parametrize(
    ("tree", "simple"),
    [
        (("add", "a", 0.0), "a"),
        (("add", 0.0, "a"), "a"),
        (("add", "a", ("neg", "b")), ("sub", "a", "b")),
        (("add", ("neg", "a"), "b"), ("sub", "b", "a")),
        (("sub", "a", 0.0), "a"),
        (("sub", 0.0, "a"), ("neg", "a")),
        (("sub", "a", ("neg", "b")), ("add", "a", "b")),
        (("mul", "a", 1.0), "a"),
        (("mul", 1.0, "a"), "a"),
        (("mul", "a", -1.0), ("neg", "a")),
        (("mul", ("neg", "a"), ("neg", "b")), ("mul", "a", "b")),
        (("mul", "a", 0.0), ("mul", "a", 0.0)),  # 0 NaN is NaN
        (("div", "a", 1.0), "a"),
        (("div", ("neg", "a"), "b"), ("neg", ("div", "a", "b"))),
        (("div", "a", "a"), ("div", "a", "a")),  # 0 / 0 is NaN
        (("sub", "a", "a"), ("sub", "a", "a")),  # and so is infinity less infinity
        (("neg", ("neg", "a")), "a"),
        (("add", ("mul", 2.0, 3.0), ("neg", 6.0)), 0.0),
        (("mul", ("exp", 0.0), "a"), "a"),
    ],
    ids=str,
)
def test_the_simplest_form(tree, simple):
    algebra = Algebra()
    assert made(algebra, tree) is made(algebra, simple)
    assert as_tree(made(Algebra(), simple)) == simple


@pytest.mark.parametrize("op", ELEMENTWISE)
def test_an_operator_on_numbers_is_a_number(op):
    numbers = [0.75, 1.5][: ARITY[op]]
    folded = made(Algebra(), (op, *numbers))
    assert folded.op == "constant"
    assert folded.number == pytest.approx(float(computed((op, *numbers))), rel=1e-15)


@pytest.mark.parametrize("pole", [("div", 1.0, 0.0), ("log", 0.0), ("log", -1.0), ("exp", 1000.0)], ids=str)
def test_a_pole_is_left_as_it_is_written(pole):
    assert as_tree(made(Algebra(), pole)) == pole
