"""The multi-label head against torch's loss and against its equations."""

import pytest
import torch
from torch import nn

from throughtime.heads import MultiLabel


def make(features=4, labels=3):
    head = MultiLabel(features, labels).double()
    with torch.no_grad():
        head.linear.bias.normal_()
    return head


@pytest.mark.parametrize("shape", [(1,), (5,), (2, 3), (0,), ()], ids=str)
@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.int64, torch.bool], ids=str)
def test_the_loss_and_its_gradients_are_those_of_torch(shape, kind):
    head, x = make(), torch.randn(*shape, 4, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(*shape, 3).round().to(kind)
    loss = head.loss(x, targets)
    expected = nn.BCEWithLogitsLoss(reduction="sum")(head.linear(x), targets.double())
    assert (loss.count, loss.penalty, loss.state) == (targets.numel(), 0.0, ())
    torch.testing.assert_close(loss.total, expected, rtol=1e-12, atol=1e-12)
    found, wanted = (torch.autograd.grad(total, [x, *head.parameters()]) for total in (loss.total, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_the_mean_is_over_rows_and_labels():
    head, x, targets = make(), torch.randn(5, 4, dtype=torch.float64), torch.rand(5, 3).round()
    expected = nn.BCEWithLogitsLoss()(head.linear(x), targets.double())
    torch.testing.assert_close(head.loss(x, targets).mean, expected)


def test_a_target_may_lie_between():
    head, x = make(1, 1), torch.randn(1, 1, dtype=torch.float64)
    one, zero = (head.loss(x, torch.tensor([[value]])).total for value in (1.0, 0.0))
    torch.testing.assert_close(head.loss(x, torch.tensor([[0.25]])).total, 0.25 * one + 0.75 * zero)


def test_log_probs_are_those_of_each_label_alone():
    head, x = make(), torch.randn(5, 4, dtype=torch.float64)
    log_probs = head.log_probs(x)
    logits = x @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(log_probs.exp(), 1 / (1 + (-logits).exp()))
    nats = -log_probs.sum() - (1 - log_probs[:, 1].exp()).log().sum() + log_probs[:, 1].sum()
    torch.testing.assert_close(head.loss(x, torch.tensor([[1, 0, 1]]).expand(5, 3)).total, nats)


def test_large_logits_stay_finite():
    head, x, targets = make(), torch.randn(5, 4, dtype=torch.float64), torch.rand(5, 3).round()
    assert head.loss(1e6 * x, targets).total.isfinite()
    assert head.log_probs(1e6 * x).isfinite().all()


def test_labels_do_not_depend_on_each_other():
    head, x = make(), torch.randn(5, 4, dtype=torch.float64)
    before = head.log_probs(x)
    with torch.no_grad():
        head.linear.weight[1] += 1
    after = head.log_probs(x)
    assert torch.equal(after[:, [0, 2]], before[:, [0, 2]])
    assert not torch.equal(after[:, 1], before[:, 1])


def test_targets_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="size"):
        make().loss(torch.randn(5, 4, dtype=torch.float64), torch.zeros(5))


def test_logits_of_unit_features_begin_with_unit_variance():
    head = MultiLabel(64, 2000)
    assert head.linear.weight.sum(1).std().item() == pytest.approx(1, abs=0.1)
    assert not head.linear.bias.any()
