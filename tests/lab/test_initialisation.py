"""How a ReLU recurrence begins: spectra, states and gradients in closed form, and what counts as learned."""

import math

import pytest
import torch

from throughtime.cells.cell import cell
from throughtime.cells.expression import sigmoid, tanh
from throughtime.cells.library import CELLS
from throughtime.lab import initialisation
from throughtime.lab.initialisation import STEPS, UNITS, Begin
from throughtime.lab.table import find_experiment
from throughtime.nn.recurrent import Recurrent


@cell(state="h", recurrent="identity")
def adder(x, s, w):
    """Linear, begins with the identity."""
    return w.h(x, s.h)


@cell(state="h c")
def gated(x, s, w):
    """Two states, two blocks."""
    f = sigmoid(w.f(x, s.h))
    c = f * s.c + (1 - f) * tanh(w.g(x))
    return tanh(w.o(c)), c


@cell(state="h", vectors={"u": 0.5})
def alone(x, s, w):
    """No recurrent matrix."""
    return w.h(x) + w.u * s.h


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(initialisation, "UPDATES", 4)
    monkeypatch.setattr(initialisation, "WINDOW", 2)
    monkeypatch.setattr(initialisation, "LENGTH", 6)


def eigenvalues(which):
    return initialisation.eigenvalues_of(
        Recurrent(which, 3, UNITS, generator=torch.Generator().manual_seed(0))
    )


def test_the_spectra_are_those_of_the_papers():
    assert eigenvalues(CELLS["irnn"]) == [1.0] * UNITS
    assert [abs(value) for value in eigenvalues(CELLS["rnn_relu"])] == pytest.approx([1.0] * UNITS, abs=1e-4)
    positive = eigenvalues(CELLS["np_rnn"])
    assert max(value.real for value in positive) == pytest.approx(1.0, abs=1e-5)
    assert min(value.real for value in positive) > 0
    assert max(abs(value.imag) for value in positive) < 1e-5
    assert sorted({round(value.real, 4) for value in positive})[0] < 0.5
    assert len(eigenvalues(CELLS["lstm"])) == 4 * UNITS
    assert eigenvalues(alone) == []


def test_the_identity_without_relu_keeps_gradients_and_adds_inputs(quick):
    begun = initialisation.begin(adder, 0)
    assert begun.radius == 1.0
    assert begun.gradients == pytest.approx([1.0] * STEPS)
    # a sum of t inputs of the same variance grows as the root of t
    assert begun.states[-1] / begun.states[0] == pytest.approx(math.sqrt(STEPS), rel=0.15)


def test_a_unit_alone_forgets_by_its_factor(quick):
    begun = initialisation.begin(alone, 0)
    assert begun.radius == 0.0
    assert begun.gradients[:30] == pytest.approx([0.5**d for d in range(30)])


def test_when_a_problem_is_solved():
    losses = [0.2, 0.1, 0.009, 0.02]
    assert Begin([], [], [], losses).solved == 3 * initialisation.WINDOW
    assert Begin([], [], [], losses[:2]).solved is None


def test_losses_are_means_over_a_window(quick, monkeypatch):
    monkeypatch.setattr(initialisation, "train", lambda *arguments: [1.0, 3.0, 2.0, 6.0])
    assert initialisation.learn(CELLS["irnn"], 0) == [2.0, 4.0]


def faked(monkeypatch, losses, gradient=1.0, states=(1.0,) * STEPS):
    def begin(cell, seed):
        return Begin([1.0], list(states), [1.0, gradient], losses[cell.name])

    monkeypatch.setattr(initialisation, "begin", begin)
    names = [name for name in losses if name in CELLS]
    return [claim.held for claim in initialisation.run(0, [CELLS[name] for name in names]).claims]


def test_what_held_by_the_numbers(monkeypatch):
    good, bad = [0.001], [0.2]
    taught = {"rnn_relu": bad, "irnn": good, "np_rnn": good, "irnn, usual U": bad}
    assert faked(monkeypatch, taught) == ["yes", "yes", "yes", "yes"]
    assert faked(monkeypatch, taught | {"np_rnn": bad})[2] == "in part"
    assert faked(monkeypatch, taught | {"rnn_relu": good})[2] == "no"
    assert faked(monkeypatch, taught | {"irnn, usual U": good})[3] == "no"
    assert faked(monkeypatch, taught, gradient=0.05)[:2] == ["no", "in part"]
    assert faked(monkeypatch, taught, gradient=1e-9)[:2] == ["no", "no"]


def test_cells_of_a_user_and_the_same_numbers_again(quick):
    finding = initialisation.run(0, [gated, alone])
    assert len(finding.claims) == 1
    assert finding.rows == initialisation.run(0, [gated, alone]).rows
    assert {row["cell"] for row in finding.rows} == {"gated", "alone"}
    finding.draw()


@pytest.mark.slow
def test_the_full_run():
    finding = find_experiment("initialisation").run(0)
    assert [claim.held for claim in finding.claims] == ["in part", "in part", "no", "no"]
    last = {row["cell"]: row["value"] for row in finding.rows if row["what"] == "loss"}
    assert last["irnn, usual U"] < initialisation.SOLVED < last["irnn"]
    assert max(last["rnn_relu"], last["np_rnn"]) < initialisation.SOLVED
