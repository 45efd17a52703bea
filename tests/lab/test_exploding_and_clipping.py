"""The cliff and clipping: the unit by its fixed points, descents and updates by their definitions."""

import math
from itertools import pairwise

import pytest
import torch

from throughtime.lab import exploding_and_clipping as lab
from throughtime.lab.table import find_experiment


@pytest.fixture(scope="module")
def paths():
    return {way: lab.descend(lab.LIMIT * limit) for way, limit in lab.WAYS.items()}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lab, "UPDATES", 3)
    monkeypatch.setattr(lab, "WINDOW", 2)
    monkeypatch.setattr(lab, "POINTS", 5)


def test_the_loss_of_the_unit():
    w, b = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.tensor([0.3, 0.0], dtype=torch.float64)
    loss = lab.unit_loss(w, b)
    assert float(loss[0]) == pytest.approx((1 / (1 + math.exp(-0.3)) - 0.7) ** 2)
    resting = 0.6590460684074066  # h = σ(h)
    assert float(loss[1]) == pytest.approx((1 / (1 + math.exp(-resting)) - 0.7) ** 2, rel=1e-6)


def test_the_gradient_of_the_landscape_by_differences(monkeypatch):
    monkeypatch.setattr(lab, "POINTS", 7)
    losses, norms = lab.landscape()
    w, b, step = 5.4, -1.8, 1e-6  # the corner at the top right
    w_up, b_up = (
        float(lab.unit_loss(*(torch.tensor(each, dtype=torch.float64) for each in place)))
        for place in ((w + step, b), (w, b + step))
    )
    here = float(losses[-1, -1])
    assert here == pytest.approx(float(lab.unit_loss(torch.tensor(w), torch.tensor(b))), rel=1e-4)
    assert float(norms[-1, -1]) == pytest.approx(math.hypot(w_up - here, b_up - here) / step, rel=1e-3)


def test_clipping_bounds_every_step_and_changes_no_short_one(paths):
    for way, limit in lab.WAYS.items():
        for one, other in pairwise(paths[way]):
            length = lab.RATE * min(one.norm, lab.LIMIT * limit)
            assert math.dist(one[:2], other[:2]) == pytest.approx(length, abs=1e-12)
    free, clipped = paths.values()
    same = next(k for k, point in enumerate(free) if point.norm > lab.LIMIT)
    assert free[: same + 1] == clipped[: same + 1]
    assert free[same + 1] != clipped[same + 1]


def test_one_step_throws_the_weights_away(paths):
    free, clipped = paths.values()
    assert math.dist(free[-1][:2], lab.START) > 20
    assert free[-1].norm < 1e-6
    assert math.dist(clipped[-1][:2], lab.START) < 1


def test_updates_of_the_network(quick):
    free = lab.train_plainly(0.01, math.inf, 0)
    clipped = lab.train_plainly(0.01, 1.0, 0)
    assert len(free.losses) == len(clipped.losses) == 3
    assert free.losses[0] == clipped.losses[0]
    assert free.lengths[0] > 0.01
    assert max(clipped.lengths) == pytest.approx(0.01)
    assert clipped.error == pytest.approx(sum(clipped.losses[1:]) / 2)
    assert lab.train_plainly(0.01, 1.0, 0) == clipped


def test_training_that_breaks_off():
    training = lab.train_plainly(1e3, math.inf, 0)
    assert len(training.losses) < lab.UPDATES
    assert all(map(math.isfinite, training.losses + training.lengths))
    assert training.error == math.inf


def test_what_held_by_the_numbers():
    free = {0.003: 0.3, 0.01: 0.2, 0.03: 0.1, 0.1: math.inf, 0.3: math.inf}
    clipped = {0.003: 0.3, 0.01: 0.2, 0.03: 0.1, 0.1: 0.05, 0.3: 0.04}

    def held(**changed):
        errors = {"not clipped": free, "clipped": clipped} | changed
        return lab._diverges(errors).held, lab._no_harm(errors).held

    assert held() == ("yes", "yes")
    assert held(clipped=clipped | {0.3: 1.5, 0.003: 1.0}) == ("in part", "in part")
    assert held(clipped=dict.fromkeys(free, math.inf)) == ("no", "no")
    assert held(**{"not clipped": clipped})[0] == "no"


def test_the_figure_of_a_small_run(quick):
    finding = lab.run(0)
    assert len(finding.rows) == 2 * lab.DESCENT + 2 * len(lab.RATES)
    finding.draw()


@pytest.mark.slow
def test_the_full_run():
    finding = find_experiment("exploding-and-clipping").run(0)
    assert [claim.held for claim in finding.claims] == ["yes", "yes", "yes", "no"]
