"""Waves by their closed form, free running by hand, and which ways of training read what."""

import pytest
import torch

from throughtime.cells.gru import gru
from throughtime.lab import teacher_forcing as lab
from throughtime.lab.teacher_forcing import OWN, SAMPLING, TRUTH, Batch, Errors, Way
from throughtime.lab.training import Readout


@pytest.fixture
def model():
    return Readout(gru, 1, 8, 1, torch.Generator().manual_seed(0), last=False)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(lab, "STEPS", 8)
    monkeypatch.setattr(lab, "TAUGHT", 4)
    monkeypatch.setattr(lab, "HELD_OUT", 20)


def by_hand(model, x, own):
    """Each step by itself, after all that was read."""
    read, said = x[:, :1], []
    for t in range(x.shape[1]):
        said.append(model(read[..., None])[:, -1, 0])
        if t + 1 < x.shape[1]:
            read = torch.cat([read, torch.where(own[:, t + 1], said[-1], x[:, t + 1])[:, None]], 1)
    return torch.stack(said, 1)


def test_waves_are_two_sines():
    x = lab.waves(50, 226, torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(x[:, 225], x[:, 0], atol=1e-4, rtol=0)  # 225 is a multiple of both periods
    # Over whole periods the sum with a sine picks out the one of that period.
    times = torch.arange(225.0, dtype=torch.float64)
    for period in (25, 9):
        turn = torch.exp(-2j * torch.pi * times / period)
        amplitude = (x[:, :225] * turn).sum(1).abs() * 2 / 225
        assert 0.3 - 1e-4 < amplitude.min() < 0.4 and 0.6 < amplitude.max() < 0.7 + 1e-4


def test_free_running_reads_what_it_said(model, monkeypatch):
    monkeypatch.setattr(lab, "WARM", 3)
    x = torch.randn(4, 9, generator=torch.Generator().manual_seed(1))
    own = torch.rand(4, 9, generator=torch.Generator().manual_seed(2)) < 0.5
    own[:, :3] = False
    for mask in (own, own | (torch.arange(9) >= 3), torch.zeros_like(own)):
        torch.testing.assert_close(lab.foretell(model, Batch(x, x, mask)), by_hand(model, x, mask))
    warm = lab.foretell(model, Batch(x, x, torch.ones_like(own)))
    torch.testing.assert_close(warm, by_hand(model, x, own | (torch.arange(9) >= 3)))  # warm steps stay true


def test_the_gradient_goes_through_own_inputs_where_it_is_told_to(model, monkeypatch):
    monkeypatch.setattr(lab, "WARM", 3)
    model = model.double()
    x = torch.randn(2, 7, generator=torch.Generator().manual_seed(1)).double()
    own = torch.ones(2, 7, dtype=torch.bool)

    def slope(through):
        said = lab.foretell(model, Batch(x, x, own), through)
        return float(torch.autograd.grad(said[:, -1].sum(), model.output.bias)[0])

    size = 1e-5
    with torch.no_grad():
        ends = []
        for shift in (size, -size):
            model.output.bias += shift
            ends.append(float(lab.foretell(model, Batch(x, x, own))[:, -1].sum()))
            model.output.bias -= shift
    assert slope(through=True) == pytest.approx((ends[0] - ends[1]) / (2 * size), rel=1e-6)
    assert slope(through=False) == pytest.approx(2.0)  # of the bias at the last step alone, for both rows


@pytest.mark.parametrize(
    ("way", "shares"),
    [(Way(), (0, 0)), (Way("more"), (0, 1)), (Way("all"), (1, 1)), (Way(noise=0.1), (0, 0))],
)
def test_what_each_way_of_training_reads(short, monkeypatch, way, shares):
    batches = []
    monkeypatch.setattr(lab, "train", lambda model, draw, *_: batches.extend(draw() for _ in range(8)))
    lab.learn(way, 0)
    own = [float(batch.own.float().mean()) for batch in batches]
    assert (own[0], own[-1]) == shares
    assert own == sorted(own) or way.own != "more"
    difference = torch.stack([batch.inputs[:, 1:] - batch.targets[:, :-1] for batch in batches])
    assert float(difference.std()) == pytest.approx(way.noise, rel=0.05)


def test_errors_are_those_of_the_last_true_step_and_after(model, monkeypatch):
    monkeypatch.setattr(
        lab, "foretell", lambda model, batch: batch.targets + 0.5 * batch.own + 0.1 * ~batch.own
    )
    errors = lab.measure(model, 0)
    assert errors.one_step == pytest.approx(0.1)
    assert errors.free == pytest.approx([0.5] * lab.TESTED)


def test_claims_follow_the_numbers():
    def errors(size):
        return Errors(0.01, [size] * lab.TESTED)

    assert lab._grows(errors(0.1), errors(0.1)).held == "yes"
    assert lab._grows(errors(0.1), errors(0.02)).held == "in part"
    assert lab._grows(errors(0.01), errors(0.01)).held == "no"
    every = {TRUTH: errors(0.1), SAMPLING: errors(0.08), OWN: errors(0.04)}
    assert lab._helps("", every, TRUTH, SAMPLING).held == "in part"
    assert lab._helps("", every, TRUTH, OWN).held == "yes"
    assert lab._helps("", every, SAMPLING, TRUTH).held == "no"
    assert lab._next_step(every).held == "no"
    assert lab._next_step(every | {TRUTH: Errors(0.001, [])}).held == "yes"


def test_a_whole_run_of_a_few_steps(short):
    finding = lab.run(0)
    assert len(finding.rows) == len(lab.WAYS) * lab.TESTED
    finding.draw()
    assert lab.run(0).rows == finding.rows


@pytest.mark.slow
def test_what_held():
    held = [claim.held for claim in lab.run(0).claims]
    assert held[:2] == held[3:] == ["yes", "yes"]
    assert held[2] in {"in part", "no"}  # it depends on the seed
