"""Copying after a delay: its data, what a cell that has to remember nothing scores, and what is learned."""

from itertools import product

import pytest
import torch

from throughtime.cells.cell import cell
from throughtime.cells.elman import rnn
from throughtime.cells.library import CELLS
from throughtime.lab import copy


@cell(state="h")
def forgetful(x, s, w):
    """No memory: it can only guess."""
    return w.h(x)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(copy, "DELAYS", (1, 2))
    monkeypatch.setattr(copy, "STEPS", 60)
    monkeypatch.setattr(copy, "UNITS", 16)


@pytest.mark.parametrize("noise", [False, True])
def test_a_batch_by_its_parts(noise):
    tokens, said = copy.copy_batch(7, noise, 400, torch.Generator().manual_seed(0))
    k = copy.SAID
    assert tokens.shape == (400, k + 7 + k)
    assert torch.equal(tokens[:, :k], said)
    assert set(said.unique().tolist()) == set(range(8))
    between = set(tokens[:, k : k + 7].unique().tolist())
    assert between == (set(range(8, 16)) if noise else {16})
    assert (tokens[:, k + 7] == 17).all()
    assert (tokens[:, k + 8 :] == 16).all()
    assert tokens.max() < copy.TOKENS


def test_a_cell_without_memory_guesses_and_one_with_it_does_not(short, monkeypatch):
    monkeypatch.setattr(copy, "LEARNING_RATE", 2e-2)
    assert copy.learn(forgetful, 2, False, 0) == pytest.approx(copy.CHANCE, abs=0.05)
    assert copy.learn(rnn, 2, False, 0) > 0.9


def test_claims_follow_the_numbers():
    def shares(**by_cell):
        return {
            (name, noise, delay): share
            for name, (silence, loud) in by_cell.items()
            for (noise, delay) in product((False, True), copy.DELAYS)
            for share in [loud if noise else silence]
        }

    assert copy._vanilla_forgets(shares(rnn=(0.2, 0.2))).held == "yes"
    assert copy._vanilla_forgets(shares(rnn=(1.0, 0.2))).held == "in part"
    assert copy._vanilla_forgets(shares(rnn=(1.0, 1.0))).held == "no"
    both = shares(rnn=(0.9, 0.4), mine=(1.0, 1.0))
    assert copy._gates_keep(both, ["mine"]).held == "yes"
    assert copy._gates_protect(both, ["mine"]).held == "yes"
    assert "takes from rnn 50, mine 0 percentage points" in copy._gates_protect(both, ["mine"]).measured
    assert copy._gates_protect(shares(rnn=(0.9, 0.9), mine=(1.0, 1.0)), ["mine"]).held == "in part"
    guessing = shares(rnn=(0.9, 0.4), mine=(0.125, 0.125))
    assert copy._gates_keep(guessing, ["mine"]).held == "no"
    assert copy._gates_protect(guessing, ["mine"]).held == "no"


def test_a_cell_of_a_user_beside_the_vanilla_rnn(short):
    finding = copy.run(0, [forgetful])
    assert [row["cell"] for row in finding.rows] == ["rnn"] * 4 + ["forgetful"] * 4
    finding.draw()
    assert copy.run(0, [forgetful]).rows == finding.rows


@pytest.mark.slow
def test_what_held():
    finding = copy.run(0, [CELLS[name] for name in ("rnn", "lstm", "gru")])
    assert [claim.held for claim in finding.claims] == ["in part"] * 3
    right = {(row["cell"], row["delay_holds"], row["delay"]): row["right"] for row in finding.rows}
    assert right["rnn", "silence", 20] > 0.95
    for held in ("silence", "noise"):
        assert right["lstm", held, 10] > 0.95 > 0.3 > right["gru", held, 40]
