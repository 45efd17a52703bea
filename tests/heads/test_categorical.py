"""The categorical head against torch's cross-entropy, with few classes and with many."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from throughtime.errors import ConfigError
from throughtime.heads.categorical import ROWS, Categorical, Loss

#: Features and classes: fewer classes than features, as many, and more, where the loss is made in pieces.
every_size = pytest.mark.parametrize(("features", "classes"), [(8, 3), (6, 6), (5, 6), (3, 700)])


def make(features, classes, dtype=torch.float64):
    head = Categorical(features, classes).to(dtype)
    with torch.no_grad():
        head.bias.normal_()
    return head


def problem(features, classes, *shape, dtype=torch.float64):
    x = torch.randn(*shape, features, dtype=dtype, requires_grad=True)
    return x, torch.randint(classes, shape)


def by_torch(head, x, targets):
    logits = F.linear(x, head.weight, head.bias).flatten(0, -2)
    return F.cross_entropy(logits, targets.flatten(), reduction="sum")


def gradients(total, head, x):
    return torch.autograd.grad(total, [x, *head.parameters()])


@every_size
@pytest.mark.parametrize("shape", [(1,), (2, 5), (ROWS,), (ROWS + 1,), (3, ROWS), (2, 3, 4)], ids=str)
def test_the_loss_and_its_gradients_are_those_of_torch(features, classes, shape):
    head, (x, targets) = make(features, classes), problem(features, classes, *shape)
    loss, expected = head.loss(x, targets), by_torch(head, x, targets)
    assert loss.count == targets.numel()
    torch.testing.assert_close(loss.total, expected, rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(
        gradients(loss.total, head, x), gradients(expected, head, x), rtol=1e-11, atol=1e-11
    )


@every_size
def test_float32_is_torchs_to_rounding(features, classes):
    head, (x, targets) = (
        make(features, classes, torch.float32),
        problem(features, classes, 40, 10, dtype=torch.float32),
    )
    loss, expected = head.loss(x, targets), by_torch(head, x, targets)
    torch.testing.assert_close(loss.total, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        gradients(loss.total, head, x), gradients(expected, head, x), rtol=1e-4, atol=1e-4
    )


@every_size
def test_the_mean_is_that_of_torch_with_its_gradients(features, classes):
    """The gradient that comes back to the loss need not be 1."""
    head, (x, targets) = make(features, classes), problem(features, classes, 30, 10)
    mean = head.loss(x, targets).mean
    expected = F.cross_entropy(F.linear(x, head.weight, head.bias).flatten(0, 1), targets.flatten())
    torch.testing.assert_close(mean, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients(mean, head, x), gradients(expected, head, x), rtol=1e-11, atol=1e-12)


@every_size
def test_targets_of_minus_100_are_left_out(features, classes):
    head, (x, targets) = make(features, classes), problem(features, classes, 4, ROWS)
    left_out = torch.rand(targets.shape) < 0.4
    left_out[1] = True
    targets[left_out] = -100
    loss, expected = head.loss(x, targets), by_torch(head, x, targets)
    assert loss.count == (~left_out).sum()
    torch.testing.assert_close(loss.total, expected, rtol=1e-12, atol=1e-10)
    found = gradients(loss.total, head, x)
    torch.testing.assert_close(found, gradients(expected, head, x), rtol=1e-11, atol=1e-11)
    assert (found[0][left_out] == 0).all()


@every_size
@pytest.mark.parametrize("smoothing", [0.1, 0.7, 1.0])
def test_smoothed_targets_are_those_of_torch_and_the_total_stays_plain(features, classes, smoothing):
    head, (x, targets) = make(features, classes), problem(features, classes, 4, 20)
    left_out = torch.rand(targets.shape) < 0.4
    targets[left_out] = -100
    loss = head.loss(x, targets, smoothing)
    logits = F.linear(x, head.weight, head.bias).flatten(0, 1)
    expected = F.cross_entropy(logits, targets.flatten(), label_smoothing=smoothing)
    torch.testing.assert_close(loss.total, by_torch(head, x, targets), rtol=1e-12, atol=1e-10)
    trained = loss.mean + loss.penalty
    torch.testing.assert_close(trained, expected, rtol=1e-12, atol=1e-12)
    found = gradients(trained, head, x)
    torch.testing.assert_close(found, gradients(expected, head, x), rtol=1e-11, atol=1e-12)
    assert (found[0][left_out] == 0).all()


def test_without_smoothing_there_is_no_penalty():
    head, (x, targets) = make(3, 5), problem(3, 5, 4)
    assert head.loss(x, targets).penalty == 0.0
    assert head.loss(x, targets.fill_(-100), 0.1).penalty == 0.0


def test_smoothing_and_class_weights_are_not_taken_together():
    head = Categorical(3, 2, class_weights=torch.tensor([1.0, 2.0]))
    x, targets = problem(3, 2, 4, dtype=torch.float32)
    with pytest.raises(ConfigError, match="take it or class weights, not both"):
        head.loss(x, targets, 0.1)


@every_size
def test_where_all_targets_are_left_out_the_loss_is_0(features, classes):
    head, (x, targets) = make(features, classes), problem(features, classes, 5)
    loss = head.loss(x, targets.fill_(-100))
    assert (loss.total.item(), loss.count, loss.mean.item()) == (0, 0, 0)
    assert all((gradient == 0).all() for gradient in gradients(loss.total, head, x))


@every_size
def test_nothing_to_predict_has_no_loss(features, classes):
    head, (x, targets) = make(features, classes), problem(features, classes, 0)
    loss = head.loss(x, targets)
    assert (loss.total.item(), loss.count) == (0, 0)


@every_size
@pytest.mark.parametrize("shape", [(4,), (2, 3), ()])
def test_log_probs_are_normalised_and_those_of_the_loss(features, classes, shape):
    head, (x, targets) = make(features, classes), problem(features, classes, *shape)
    log_probs = head.log_probs(x)
    assert log_probs.shape == (*shape, classes)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(shape, dtype=torch.float64))
    chosen = log_probs.gather(-1, targets[..., None]).sum()
    torch.testing.assert_close(head.loss(x, targets).total, -chosen)


@every_size
def test_large_logits_stay_finite(features, classes):
    head, (x, targets) = make(features, classes), problem(features, classes, 6)
    loss = head.loss(1e6 * x, targets)
    assert loss.total.isfinite()
    assert head.log_probs(1e6 * x).exp().sum(-1).isfinite().all()
    torch.testing.assert_close(loss.total, by_torch(head, 1e6 * x, targets))


def test_a_tied_weight_is_the_one_that_was_given():
    weight = nn.Parameter(torch.randn(7, 4))
    head = Categorical(4, 7, weight)
    assert head.weight is weight
    x, targets = problem(4, 7, 5, dtype=torch.float32)
    head.loss(x, targets).total.backward()
    assert weight.grad is not None
    assert (weight.grad != 0).any()


def test_an_own_weight_begins_so_that_logits_of_unit_features_have_unit_variance():
    head = Categorical(64, 2000)
    assert (head.weight @ torch.ones(64)).std().item() == pytest.approx(1, abs=0.1)
    assert not head.bias.any()


@every_size
@pytest.mark.parametrize(
    "weigh", [torch.rand, lambda classes: torch.arange(classes) % 2 * 1.0], ids=["all", "some"]
)
def test_classes_are_weighted_in_training_as_torch_does_and_the_total_stays_plain(features, classes, weigh):
    head, (x, targets) = make(features, classes), problem(features, classes, 30, 10)
    head.class_weights = weigh(classes).double()
    targets[0, :2], targets[1] = torch.tensor([0, 1]), -100
    plain, loss = make_unweighted(head).loss(x, targets), head.loss(x, targets)
    assert loss.count == plain.count == 290
    torch.testing.assert_close(loss.total, plain.total, rtol=1e-12, atol=1e-10)
    logits = F.linear(x, head.weight, head.bias).flatten(0, 1)
    expected = nn.CrossEntropyLoss(weight=head.class_weights)(logits, targets.flatten())
    found = loss.mean + loss.penalty
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradients(found, head, x), gradients(expected, head, x), rtol=1e-10, atol=1e-12
    )
    assert head.eval().loss(x, targets).penalty == 0
    torch.testing.assert_close(head.loss(x, targets).total, plain.total, rtol=1e-12, atol=1e-10)


def make_unweighted(head):
    other = Categorical(head.features, head.classes, head.weight)
    other.bias = head.bias
    return other


@pytest.mark.parametrize("target", [-100, 1])
def test_targets_without_weight_teach_nothing(target):
    head = Categorical(4, 3, class_weights=torch.tensor([1.0, 0.0, 2.0])).double()
    x, targets = problem(4, 3, 5)
    loss = head.loss(x, targets.fill_(target))
    torch.testing.assert_close(loss.mean + loss.penalty, torch.zeros((), dtype=torch.float64))
    assert all((gradient.abs() < 1e-12).all() for gradient in gradients(loss.mean + loss.penalty, head, x))


def test_class_weights_move_with_the_head_and_are_no_part_of_its_state_dict():
    head = Categorical(4, 3, class_weights=torch.ones(3))
    assert head.double().class_weights.dtype == torch.float64
    assert set(head.state_dict()) == {"weight", "bias"}
    Categorical(4, 3).load_state_dict(head.state_dict())


def test_class_weights_that_do_not_fit():
    for bad in (torch.ones(2), torch.ones(3, 1), torch.ones(3, dtype=torch.int64)):
        with pytest.raises(ConfigError, match="class_weights must be 3 floating point numbers"):
            Categorical(4, 3, class_weights=bad)
    for value in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="class_weights must be finite and 0 or more"):
            Categorical(4, 3, class_weights=torch.tensor([1.0, value, 1.0]))


@given(total=st.floats(0, 100), count=st.integers(1, 50))
@settings(max_examples=20, deadline=None)
def test_the_mean_of_a_loss_is_its_total_by_its_count(total, count):
    assert Loss(torch.tensor(total, dtype=torch.float64), count).mean.item() == total / count
