"""The terms of backpropagation through time, against weights that are copied for every step."""

import pytest
import torch

from throughtime.cells.cell import cell
from throughtime.cells.elman import rnn
from throughtime.cells.expression import sigmoid, tanh
from throughtime.cells.initial import initial_weights
from throughtime.lab import two_sums


@cell(state="h fast slow")
def two_speeds(x, s, w):
    """Three states, one of which the output sees a step late."""
    fast = 0.5 * s.fast + tanh(w.a(x, s.h))
    slow = 0.9 * s.slow + 0.1 * s.fast
    return sigmoid(w.b(fast)) * slow, fast, slow


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(two_sums, "STEPS", 6)
    monkeypatch.setattr(two_sums, "UNITS", 4)
    monkeypatch.setattr(two_sums, "ROWS", 3)


def test_the_sum_is_autograds_gradient_for_any_cell(any_cell, small):
    if any_cell.states[0] not in any_cell.graph.driven:
        pytest.skip("no weight reaches the output")
    sums = two_sums.two_sums(any_cell, 1)
    assert sums.autograd.norm() > 0
    assert float((sums.total - sums.autograd).norm() / sums.autograd.norm()) < two_sums.EQUAL


def test_each_term_is_the_gradient_by_a_copy_of_the_weights(small):
    """With weights W_k of its own at each step k, the term (t, k) is dL_t/dW_k."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(3, 6, two_sums.FEATURES, generator=generator).double()
    target = torch.randn(3, 6, 4, generator=generator).double()
    weights = [w.double() for w in initial_weights(rnn, two_sums.FEATURES, 4, generator).values()]
    copies = [[w.clone().requires_grad_() for w in weights] for _ in range(6)]
    h, losses = torch.zeros(3, 4, dtype=torch.float64), []
    for k, (u, w, b) in enumerate(copies):
        h = torch.tanh(x[:, k] @ u.T + h @ w.T + b)
        losses.append(0.5 * ((h - target[:, k]) ** 2).sum(1).mean())
    norms = two_sums.two_sums(rnn, 2).norms
    for t, loss in enumerate(losses):
        for k, copy in enumerate(copies[: t + 1]):
            gradients = torch.autograd.grad(loss, copy, retain_graph=True)
            assert float(norms[t, k]) == pytest.approx(
                float(torch.cat([each.flatten() for each in gradients]).norm()), rel=1e-5
            )
    assert norms.triu(1).abs().max() == 0


def test_share_of_near_terms():
    ones = torch.ones(two_sums.STEPS, two_sums.STEPS).tril()
    near = sum(min(t + 1, two_sums.NEAR) for t in range(two_sums.STEPS))
    assert two_sums.near_share(ones) == pytest.approx(near / 300)
    assert two_sums.near_share(torch.eye(two_sums.STEPS)) == 1.0


def test_what_held(small):
    finding = two_sums.run(0, [rnn, two_speeds])
    assert finding.claims[0].held == "yes"
    assert len(finding.rows) == 2 * 21
    assert {(row["loss step"], row["state step"]) for row in finding.rows} == {
        (t, k) for t in range(6) for k in range(t + 1)
    }
    assert two_sums.run(0, [rnn, two_speeds]).rows == finding.rows
    assert two_sums.run(1, [rnn, two_speeds]).rows != finding.rows
    finding.draw()


def test_a_wrong_sum_does_not_hold(small, monkeypatch):
    true = two_sums.two_sums

    def without_one_term(cell, seed):
        sums = true(cell, seed)
        return sums._replace(total=sums.total * (1 - 1e-8))

    monkeypatch.setattr(two_sums, "two_sums", without_one_term)
    assert two_sums.run(0, [rnn]).claims[0].held == "no"
