"""The symbolic backward step, worked out in torch, is what autograd finds for the forward step."""

from dataclasses import dataclass, field
from random import Random

import pytest
import torch
from agreement import draw_given
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from throughtime.cells.cell import cell
from throughtime.cells.expression import ARITY, LAYER_NORM_EPSILON, maximum, relu
from throughtime.cells.gradient import DERIVED_ARITY, gradient
from throughtime.kernels.reference import OPERATORS
from throughtime.kernels.unroll import unroll

BATCH, INPUTS, HIDDEN = 3, 2, 4


def layer_norm_scale(a):
    return (a.var(-1, correction=0, keepdim=True) + LAYER_NORM_EPSILON).rsqrt().expand_as(a)


def maximum_backward(d, a, b):
    return d * torch.where(a == b, 0.5, (a > b).to(d))


DERIVED = {
    "row_mean": lambda a: a.mean(-1, keepdim=True).expand_as(a),
    "layer_norm_scale": layer_norm_scale,
    "relu_backward": lambda d, y: torch.where(y > 0, d, 0.0),
    "softplus_backward": lambda d, a, slope: torch.where(a > 20, d, d * slope),
    "maximum_backward": maximum_backward,
}


@dataclass
class Step:
    """One step of a graph and back: the value of each node, worked out when it is asked for."""

    graph: object
    weights: dict[str, Tensor]
    x: Tensor
    state: tuple[Tensor, ...]
    adjoints: tuple[Tensor, ...]
    given: dict[str, Tensor]
    known: dict = field(default_factory=dict)

    def __call__(self, node):
        if node not in self.known:
            self.known[node] = self.compute(node).expand(BATCH, HIDDEN)
        return self.known[node]

    def compute(self, node):
        match node.op:
            case "state":
                return self.state[self.graph.states.index(node.name)]
            case "adjoint":
                return self.adjoints[self.graph.states.index(node.name)]
            case "vector":
                return self.weights[node.name]
            case "table":
                return self.given[node.name][self.given["step"][0]]
            case "constant":
                return torch.tensor(node.number, dtype=torch.float64)
            case "map":
                terms = [self.operand(arg) @ self.block(node.name, arg).T for arg in node.args]
                return sum(terms) + self.bias(node)
            case "transposed":
                blocks = self.weights["weight_hh"].split(HIDDEN)
                return sum(self(arg) @ blocks[b] for arg, b in zip(node.args, node.blocks, strict=True))
        return (OPERATORS | DERIVED)[node.op](*map(self, node.args))

    def operand(self, arg):
        return self.x if arg.op == "x" else self(arg)

    def block(self, name, arg):
        if arg.op == "x":
            return self.weights["weight_ih"].split(HIDDEN)[self.graph.input_blocks.index(name)]
        return self.weights["weight_hh"].split(HIDDEN)[self.graph.recurrent_blocks.index((name, arg))]

    def bias(self, node):
        if not node.bias:
            return 0.0
        return self.weights["bias"].split(HIDDEN)[self.graph.bias_blocks.index(node.name)]


def check(cell, seed=0, weights=None, tolerance=1e-11):
    """Compare every gradient of one step with autograd's."""
    generator, graph = torch.Generator().manual_seed(seed), cell.graph

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    weights = weights or {name: normal(*shape) for name, shape in graph.weight_shapes(INPUTS, HIDDEN).items()}
    x, state = normal(1, BATCH, INPUTS), tuple(normal(BATCH, HIDDEN) for _ in graph.states)
    adjoints = tuple(normal(BATCH, HIDDEN).detach() for _ in graph.states)
    given = draw_given(graph, 1, BATCH, HIDDEN, generator)
    _, final = unroll(cell, weights, x, state, backend="reference", given=given)
    loss = sum((value * adjoint).sum() for value, adjoint in zip(final, adjoints, strict=True))
    leaves = {"x": x, **dict(zip(graph.states, state, strict=True)), **weights}
    expected = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)

    with torch.no_grad():
        back, step = gradient(graph), Step(graph, weights, x[0], state, adjoints, given)
        deltas = {name: step(node) for name, node in back.maps.items()}
        found = dict(zip(graph.states, map(step, back.states), strict=True))
        found |= {name: step(node).sum(0) for name, node in back.vectors.items()}
        by_x = [deltas[name] for name in graph.input_blocks]
        if by_x:
            found["x"] = torch.cat(by_x, 1) @ weights["weight_ih"]
            found["weight_ih"] = torch.cat(by_x, 1).T @ x[0]
        if graph.recurrent_blocks:
            products = [deltas[name].T @ step(operand) for name, operand in graph.recurrent_blocks]
            found["weight_hh"] = torch.cat(products)
        if graph.bias_blocks:
            found["bias"] = torch.cat([deltas[name].sum(0) for name in graph.bias_blocks])
    for name, answer in zip(leaves, expected, strict=True):
        difference = found.get(name, torch.zeros_like(answer)) - (answer[0] if name == "x" else answer)
        assert difference.abs().max() <= tolerance * answer.abs().max().clamp(min=1), name


def test_every_cell_is_differentiated_as_by_autograd(any_cell):
    check(any_cell)


@settings(max_examples=60, deadline=None)
@given(random=st.randoms(use_true_random=False), seed=st.integers(0, 2**16))
def test_whatever_the_equations_are(random_cell, random, seed):
    """A row that happens to have little spread makes layer_norm magnify what was rounded before."""
    check(random_cell(random), seed, tolerance=1e-8)


def test_random_equations_have_every_operator(random_cell):
    cells = [random_cell(Random(seed)) for seed in range(40)]
    assert OPERATORS.keys() <= {node.op for cell in cells for node in cell.graph.nodes}


def zeros(cell):
    return {
        name: torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        for name, shape in cell.graph.weight_shapes(INPUTS, HIDDEN).items()
    }


@pytest.mark.parametrize(
    "form",
    [
        lambda a, b: relu(a) + b,
        lambda a, b: maximum(a, b),
        lambda a, b: maximum(b, maximum(a, 0)),
        lambda a, b: maximum(a, a) * b,
        lambda a, b: maximum(a, -a) * relu(relu(b)),
    ],
)
def test_at_a_kink_the_gradient_is_torchs(form):
    """With weights of zero both maps are zero in every row: relu stands at 0, and maximum has a tie."""

    @cell(state="h")
    def kink(x, s, w):
        return form(w.a(x, s.h), w.b(x, s.h)) + w.c(s.h)

    check(kink, weights=zeros(kink))


def test_a_state_that_is_not_used_has_adjoint_zero_and_one_that_is_passed_on_its_own(any_cell):
    graph, back = any_cell.graph, gradient(any_cell.graph)
    for name, adjoint in zip(graph.states, back.states, strict=True):
        state = next((node for node in graph.nodes if node.op == "state" and node.name == name), None)
        if state is None:
            assert (adjoint.op, adjoint.number) == ("constant", 0.0)
        elif not graph.users[state]:
            passed = [n for n, output in zip(graph.states, graph.outputs, strict=True) if output is state]
            assert adjoint.op == ("adjoint" if len(passed) == 1 else "add")


def test_there_is_an_adjoint_for_each_map_and_vector_and_no_unknown_operator(any_cell):
    graph, back = any_cell.graph, gradient(any_cell.graph)
    assert list(back.maps) == [node.name for node in graph.maps]
    assert list(back.vectors) == list(graph.vectors)
    known = OPERATORS.keys() | DERIVED_ARITY.keys() | {"adjoint", "transposed", "constant"}
    waiting = [*back.states, *back.maps.values(), *back.vectors.values()]
    seen = set(graph.nodes)
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            assert node.op in known
            assert len(node.args) == (ARITY | DERIVED_ARITY).get(node.op, len(node.args))
            waiting.extend(node.args)
