"""The loops that we are measured against compute what they should, in values and gradients."""

import importlib.util

import pytest
import torch

from throughtime.bench.by_hand import jax_scan, torch_loop
from throughtime.bench.problems import Size, can_be_timed, draw
from throughtime.cells.cell import cell
from throughtime.cells.expression import exp, log, maximum, relu, sigmoid, softplus, tanh
from throughtime.cells.library import CELLS
from throughtime.kernels.unroll import unroll

SIZE = Size(steps=6, batch=3, inputs=4, hidden=5)


@cell(state="h c", vectors={"v": 0.5})
def stages(x, s, w):
    """Every operator; stages; maps of two values, of a vector and of x alone; some without bias."""
    a = tanh(w.a(s.c, s.h))
    b = sigmoid(w.b(a * s.h, x, bias=False)) + softplus(w.e(s.h)) / exp(w.f(x))
    c = -s.c + b * w.d(w.v, bias=False) - log(2 + relu(w.g(x, s.h)))
    return tanh(w.h(c, a)), maximum(c, w.u(x, s.h))


@cell(state="h c")
def no_x(x, s, w):
    """Neither x nor, in its second state, a row of the batch."""
    return tanh(w.h(s.h, s.c)), sigmoid(w.v)


@cell(state="h c")
def three(x, s, w):
    """A map of x and two values beside one of x and one."""
    return tanh(w.h(x, s.h, s.c)), sigmoid(w.c(x, s.c)) * s.c


every_cell = pytest.mark.parametrize(
    "cell", [*filter(can_be_timed, CELLS.values()), stages, no_x, three], ids=lambda cell: cell.name
)


def reference(problem):
    y, _ = unroll(problem.cell, problem.weights, problem.x, backend="reference")
    gradients = torch.autograd.grad(y, problem.leaves, problem.dy, materialize_grads=True)
    return y.detach(), gradients


@every_cell
def test_the_loop_in_torch_is_the_reference(cell):
    problem = draw(cell, SIZE)
    expected, expected_gradients = reference(problem)
    y = torch_loop(cell.graph, problem.weights, problem.x)
    gradients = torch.autograd.grad(y, problem.leaves, problem.dy, materialize_grads=True)
    torch.testing.assert_close(y.detach(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
@every_cell
def test_the_scan_in_jax_is_the_reference(cell):
    import jax

    problem = draw(cell, SIZE)
    expected, (expected_dx, *expected_dw) = reference(problem)
    weights = {name: weight.detach().numpy() for name, weight in problem.weights.items()}
    y, back = jax.vjp(jax_scan(cell.graph), weights, problem.x.detach().numpy())
    dw, dx = back(problem.dy.numpy())

    def equal(given, wanted):
        torch.testing.assert_close(torch.tensor(given.tolist()), wanted, rtol=1e-4, atol=1e-5)

    equal(y, expected)
    equal(dx, expected_dx)
    for name, wanted in zip(weights, expected_dw, strict=True):
        equal(dw[name], wanted)


def test_the_loop_does_one_product_in_a_step_where_all_gates_multiply_the_same(monkeypatch):
    """What makes it fair: no product of x in the loop, one of h for the four gates of an LSTM."""
    problem, shapes = draw(CELLS["lstm"], SIZE), []

    class Count(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
                shapes.append(tuple(args[-2].shape))
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Count():
        torch_loop(problem.cell.graph, problem.weights, problem.x)
    assert shapes == [(SIZE.steps * SIZE.batch, SIZE.inputs)] + [(SIZE.batch, SIZE.hidden)] * SIZE.steps
