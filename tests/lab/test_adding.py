"""The adding problem: its data, the score of a cell that adds by its equation, and what is learned."""

from functools import partial

import pytest
import torch

from throughtime.cells.cell import cell
from throughtime.cells.elman import rnn
from throughtime.cells.library import CELLS
from throughtime.lab import adding


@cell(state="h")
def running_sum(x, s, w):
    """What its input matrix makes of x, added up: it cannot multiply the number with the mark."""
    return s.h + w.h(x, bias=False)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(adding, "LENGTHS", (4, 6))
    monkeypatch.setattr(adding, "STEPS", 20)
    monkeypatch.setattr(adding, "UNITS", 8)


@pytest.mark.parametrize("length", [10, 31])
def test_two_marks_one_in_each_half_and_their_sum(length):
    x, sums = adding.adding_batch(length, 500, torch.Generator().manual_seed(0))
    numbers, marks = x.unbind(-1)
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert set(marks.unique().tolist()) == {0.0, 1.0}
    assert (marks[:, : length // 2].sum(1) == 1).all()
    assert (marks[:, length // 2 :].sum(1) == 1).all()
    by_hand = [
        sum(a for a, m in zip(*row, strict=True) if m)
        for row in zip(*map(torch.Tensor.tolist, (numbers, marks)), strict=True)
    ]
    torch.testing.assert_close(sums[:, 0], torch.tensor(by_hand))
    assert marks.sum(0).min() > 0  # every place is marked sometimes


def test_what_always_answering_1_costs():
    _, sums = adding.adding_batch(10, 200_000, torch.Generator().manual_seed(1))
    assert float((sums - 1).square().mean()) == pytest.approx(adding.BLIND, rel=0.01)
    assert float(((sums - 1).abs() < adding.CLOSE).float().mean()) == pytest.approx(
        adding.BLIND_RIGHT, rel=0.03
    )


def test_reach_stops_at_the_first_length_that_is_not_solved():
    score = partial(adding.Score, right=0.0)
    assert adding.reach({10: score(0.001), 30: score(0.5), 60: score(0.001)}) == 10
    assert adding.reach({10: score(0.02), 30: score(0.001)}) == 0
    assert adding.reach({10: score(0.001), 30: score(0.002)}) == 30


def test_claims_follow_the_numbers():
    solved, blind = adding.Score(0.001, 0.99), adding.Score(adding.BLIND, adding.BLIND_RIGHT)
    near = {10: solved, 100: blind}
    everywhere = {10: solved, 100: solved}
    assert adding._vanilla(near).held == "yes"
    assert adding._vanilla(everywhere).held == "no"
    assert adding._further(near, {"a": everywhere, "b": near}).held == "in part"
    assert adding._further(near, {"a": near}).held == "no"
    assert adding._to_the_end({"a": everywhere}).held == "yes"


def test_a_score_is_the_error_of_the_trained_model(short, monkeypatch):
    answers = torch.tensor([[0.5], [1.0]])
    monkeypatch.setattr(adding, "adding_batch", lambda *_: (torch.rand(2, 4, 2), answers))
    monkeypatch.setattr(adding, "train", lambda model, *_: model.output.weight.data.zero_())
    error, right = adding.learn(rnn, 4, 0)  # answers 0 to both
    assert error == pytest.approx((0.25 + 1) / 2)
    assert right == 0.0


def test_a_cell_of_a_user_beside_the_vanilla_rnn(short):
    finding = adding.run(0, [running_sum])
    assert {row["cell"] for row in finding.rows} == {"rnn", "running_sum"}
    assert len(finding.rows) == 4
    assert "running_sum" in finding.claims[1].measured
    finding.draw()
    again = adding.run(0, [running_sum])
    assert again.rows == finding.rows
    assert len(adding.run(0, [rnn]).claims) == 1


@pytest.mark.slow
def test_what_held():
    finding = adding.run(0, [CELLS[name] for name in ("rnn", "irnn", "lstm", "gru")])
    assert [claim.held for claim in finding.claims] == ["yes", "in part", "in part"]
    right = {(row["cell"], row["length"]): row["right"] for row in finding.rows}
    assert right["gru", 100] > 0.8 > 0.2 > right["rnn", 100]
    assert right["lstm", 30] > 0.8 > 0.4 > right["rnn", 30]
