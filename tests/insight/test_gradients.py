"""The view of gradients: norms by autograd, by closed forms, and what is told of them."""

import dataclasses
import math

import pytest
import torch
from subjects import Batch, linear, minimal_gated, subject_of

from throughtime.errors import ConfigError
from throughtime.heads.categorical import Loss
from throughtime.insight.gradients import Options, gradient_norms, look
from throughtime.insight.view import Subject


def scaled(factor, rows=2, steps=9, **options):
    """h_t = factor h_{t-1} + x_t: the gradient of the last step is factor to the power of the distance."""
    subject = subject_of(linear, rows, steps, inputs=3, **options)
    layer = subject.model.recurrence
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.eye(3))
        layer.weight_hh_l0.copy_(factor * torch.eye(3))
    return subject


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_a_linear_recurrence_keeps_its_factor_per_step(factor):
    view = look(scaled(factor), Options())
    [row] = view.rows
    assert row["rate"] == pytest.approx(factor, rel=1e-9)
    assert row["at_the_loss"] == pytest.approx(math.sqrt(3) / 2, rel=1e-9)  # 2 rows share the mean
    [far] = view.details["by_distance"].values()
    assert far == pytest.approx([math.sqrt(3) / 2 * factor**k for k in range(9)], rel=1e-9)


def test_vanishing_and_exploding_are_told():
    view = look(scaled(0.25, steps=12), Options())
    assert view.rows[0]["vanishes_at"] == 5  # 0.25^5 is the first below a thousandth
    assert view.rows[0]["vanished"] == pytest.approx(7 / 12)
    assert "below a thousandth of what it is at the loss 5 steps before it" in view.lines[0]
    view = look(scaled(4.0, steps=12), Options())
    assert view.rows[0]["exploded"] == pytest.approx(7 / 12)
    assert "explodes, by a factor of 4 a step" in view.lines[0]


def test_norms_are_those_of_autograd():
    subject = subject_of(minimal_gated, steps=5)
    x = subject.batch.x
    norms = gradient_norms(subject.model, subject.batch, ["gradient h"])
    state, states, loss = None, [], 0.0
    for t in range(x.shape[1]):
        _, ((h,),) = subject.model.recurrence.step(x[:, t], state)
        h.retain_grad()
        states.append(h)
        loss = loss + h.sum()
        state = ((h,),)
    (loss / subject.batch.targets.numel()).backward()
    expected = torch.stack([h.grad.norm(dim=-1) for h in states], 1)
    [(found, real)] = norms.values()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert real.all()


def test_padding_counts_nowhere():
    subject = scaled(0.5, rows=2, steps=6)
    lengths = torch.tensor([6, 3])
    targets = torch.zeros(2, 6, dtype=torch.long)
    targets[1, 3:] = -100
    batch = dataclasses.replace(subject.batch, targets=targets, lengths=lengths)
    view = look(Subject(subject.model, batch), Options())
    [far] = view.details["by_distance"].values()
    assert far == pytest.approx([math.sqrt(3) / 2 * 0.5**k for k in range(6)], rel=1e-9)


def test_the_gradients_of_parameters_stay_as_they_are():
    subject = subject_of(linear)
    weight = subject.model.recurrence.weight_hh_l0
    weight.grad = torch.ones_like(weight)
    look(subject, Options())
    assert torch.equal(weight.grad, torch.ones_like(weight))
    assert subject.model.recurrence.weight_ih_l0.grad is None


def test_layers_and_states_are_told_apart_and_the_end_has_no_distance_from_the_last_loss():
    subject = subject_of("lstm", layers=2, bidirectional=True)
    view = look(subject, Options(state="c"))
    assert [row["state"] for row in view.rows] == ["recurrence.0 c", "recurrence.1 c"]
    assert "recurrence.1.reverse c" in view.details["whole"]
    assert "no distance from directions from the end" in view.lines[2]


def test_a_loss_at_every_step_that_cannot_be_taken_apart_has_no_distance():
    @dataclasses.dataclass(frozen=True)
    class Tagged:
        x: torch.Tensor
        targets: torch.Tensor
        lengths: torch.Tensor | None = None

    subject = subject_of(linear)
    view = look(Subject(subject.model, Tagged(subject.batch.x, subject.batch.targets)), Options())
    assert "no distance is told" in view.lines[0]
    assert set(view.rows[0]) == {"state", "quarter_1", "quarter_2", "quarter_3", "quarter_4"}
    assert len(view.figures["gradients"]().axes) == 1


def test_a_beginning_is_no_vanishing():
    subject = subject_of(linear, rows=1, steps=6)
    model, inner = subject.model, subject.model.recurrence

    def loss(batch, state=None):
        y, state = inner(batch.x, reset=torch.tensor([[False, False, True, False, False, False]]))
        return Loss(y[:, -1].sum(), 1, state)

    model.loss = loss
    view = look(subject, Options())
    assert view.rows[0]["steps"] == 4
    assert view.rows[0]["vanishes_at"] is None


def test_clipping_is_read_from_the_records():
    records = [
        {"step": 50, "gradient_norm": 2.0, "clipped": 0.5, "loss": 1.0},
        {"step": 100, "gradient_norm": 1.0, "clipped": 0.0, "loss": 1.0},
        {"step": 100, "valid": {"loss": 1.0}},
    ]
    view = look(dataclasses.replace(subject_of(linear), records=records), Options())
    assert "In training 25% of the steps had their gradient clipped." in view.lines
    assert set(view.figures) == {"gradients", "gradients-in-training"}


def test_a_model_without_recurrence_is_refused():
    class Bare(torch.nn.Module):
        pass

    with pytest.raises(ConfigError, match="no recurrence to look into"):
        look(Subject(Bare(), Batch(torch.zeros(1, 1, 1), torch.zeros(1, 1))), Options())


def test_a_state_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match='nothing in this model is called "gradient q"'):
        look(subject_of("gru"), Options(state="q"))


def test_figures_can_be_drawn():
    view = look(subject_of("lstm", layers=2), Options())
    figure = view.figures["gradients"]()
    left, right = figure.axes
    assert left.get_xlabel() == "step t"
    assert right.get_ylabel() == "‖dL/ds‖ (nats per unit of the state)"
    assert [line.get_label() for line in right.lines] == ["recurrence.0 h", "recurrence.1 h"]
