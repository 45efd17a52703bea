"""Gradients that go back p steps: what they leave out, and what they can learn."""

import pytest
import torch

from throughtime.cells.cell import cell
from throughtime.cells.elman import rnn
from throughtime.cells.expression import tanh
from throughtime.cells.library import CELLS
from throughtime.lab import truncation
from throughtime.lab.table import find_experiment


@cell(state="h")
def forgetful(x, s, w):
    """No memory."""
    return tanh(w.h(x))


@cell(state="h c")
def leaky(x, s, w):
    """Two states."""
    c = 0.9 * s.c + 0.1 * tanh(w.c(x, s.h))
    return tanh(w.h(c)), c


@pytest.fixture
def quick(monkeypatch):
    for name, value in {"UPDATES": 3, "ROWS": 4, "UNITS": 5, "TEST_ROWS": 20, "BACK": (0, 20, 24)}.items():
        monkeypatch.setattr(truncation, name, value)


def test_the_answer_stands_at_the_mark_d_steps_before_the_end():
    x, positive = truncation.draw_batch(truncation.DISTANCE, 500, torch.Generator().manual_seed(0))
    assert x.shape == (500, truncation.BEFORE + 1 + truncation.DISTANCE, 2)
    assert (x[..., 1].nonzero()[:, 1] == x.shape[1] - 1 - truncation.DISTANCE).all()
    assert x[..., 1].sum() == 500
    assert torch.equal((x[..., 0] * x[..., 1]).sum(1) > 0, positive > 0)
    assert set(x[..., 0].flatten().tolist()) == {-1.0, 1.0}
    assert 0.4 < float(positive.mean()) < 0.6


@pytest.mark.parametrize("back", [0, 3, 19, 20, 24])
def test_the_value_is_the_same_and_the_gradient_stops(back):
    model = truncation.new_model(CELLS["lstm"], 0).double()
    x = (
        truncation.draw_batch(truncation.DISTANCE, 3, torch.Generator().manual_seed(1))[0]
        .double()
        .requires_grad_()
    )
    y = truncation.last_output(model.recurrent, x, back)
    torch.testing.assert_close(y, model.recurrent(x)[0][:, -1])
    y.sum().backward()
    reached = x.grad.abs().sum(dim=(0, 2)) > 0
    assert reached.tolist() == [False] * (24 - back) + [True] * (back + 1)


def test_what_is_left_out_is_the_terms_of_earlier_steps():
    """With weights W_k of each step's own, a truncated gradient is the sum of the last dL/dW_k."""
    model = truncation.new_model(rnn, 2).double()
    x, positive = truncation.draw_batch(
        truncation.DISTANCE, truncation.ROWS, torch.Generator().manual_seed(4)
    )
    weights = [weight.detach() for weight in model.recurrent.parameters()]
    copies = [[weight.clone().requires_grad_() for weight in weights] for _ in range(x.shape[1])]
    h = torch.zeros(truncation.ROWS, truncation.UNITS, dtype=torch.float64)
    for k, (u, w, b) in enumerate(copies):
        h = torch.tanh(x[:, k].double() @ u.T + h @ w.T + b)
    logits = model.output(h).squeeze(-1)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, positive.double())
    loss.backward()
    terms = torch.stack([torch.cat([weight.grad.flatten() for weight in each]) for each in copies])
    full = terms.sum(0)
    for back, (cosine, error) in enumerate(truncation.against_full(model, 2)):
        kept = terms[-(back + 1) :].sum(0)
        assert cosine == pytest.approx(float(kept @ full / kept.norm() / full.norm()), rel=1e-9)
        assert error == pytest.approx(float((kept - full).norm() / full.norm()), abs=1e-9)


def test_a_cell_without_memory_loses_nothing():
    for cosine, error in truncation.against_full(truncation.new_model(forgetful, 0), 0):
        assert (cosine, error) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-12))


def test_accuracy_of_known_answers(monkeypatch):
    """A model that reads the marked sign itself is right, one that reads its opposite is wrong."""

    class Reader(torch.nn.Module):
        def __init__(self, sign):
            super().__init__()
            self.sign = sign

        def forward(self, x):
            return self.sign * (x[..., 0] * x[..., 1]).sum(1, keepdim=True)

    assert truncation.measure(Reader(1.0), 7, 0) == 1.0
    assert truncation.measure(Reader(-1.0), 7, 0) == 0.0


def test_what_held_by_the_numbers(quick, monkeypatch):
    told = iter([0.5, 1.0, 0.99, 0.96, 0.9, 0.5, 0.5, 1.0, 0.5])
    monkeypatch.setattr(truncation, "measure", lambda model, distance, seed: next(told))
    learned = [claim.held for claim in truncation.run(0, [rnn]).claims[1:]]
    assert learned == ["yes", "yes"]
    learned = [claim.held for claim in truncation.run(0, [rnn]).claims[1:]]
    assert learned == ["no", "no"]
    learned = [claim.held for claim in truncation.run(0, [rnn]).claims[1:]]
    assert learned == ["in part", "yes"]


def test_a_cell_of_a_user_and_the_same_numbers_again(quick):
    finding = truncation.run(3, [leaky])
    assert finding.rows == truncation.run(3, [leaky]).rows
    assert len(finding.rows) == 2 * 25 + 3
    assert finding.rows[24]["cosine"] == pytest.approx(1.0)
    finding.draw()


@pytest.mark.slow
def test_the_full_run():
    finding = find_experiment("truncation").run(0)
    assert [claim.held for claim in finding.claims] == ["in part", "in part", "in part"]
    accuracy = {(row["cell"], row["back"]): row["accuracy"] for row in finding.rows if "accuracy" in row}
    assert accuracy["gru", 19] < 0.6 < 0.95 < min(accuracy["gru", 20], accuracy["lstm", 20])
    assert accuracy["rnn", 20] < 0.9 < accuracy["rnn", 21]
