"""The adaptive softmax against torch's, against its definition, and as a distribution."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from throughtime.errors import ConfigError
from throughtime.heads.adaptive import Adaptive, default_cutoffs

FEATURES, CLASSES = 8, 30
every_cut = pytest.mark.parametrize("cutoffs", [[], [1], [29], [5], [5, 12], [1, 2, 29]], ids=str)


def make(cutoffs, features=FEATURES, classes=CLASSES):
    head = Adaptive(features, classes, cutoffs=cutoffs).double()
    with torch.no_grad():
        for parameter in (head.bias, head.cluster_weight, head.cluster_bias):
            parameter.normal_()
    return head


def problem(*shape, classes=CLASSES):
    x = torch.randn(*shape, FEATURES, dtype=torch.float64, requires_grad=True)
    return x, torch.randint(classes, shape)


def by_definition(head, x):
    """Every class by itself: a product of two probabilities, or one."""
    scores = x @ head.weight.T + head.bias
    clusters = x @ head.cluster_weight.T + head.cluster_bias
    bounds = [*head.cutoffs, head.classes]
    short = bounds[0]
    below = scores[:, :short].exp().sum(1) + clusters.exp().sum(1)
    probs = [scores[:, k].exp() / below for k in range(short)]
    for j, (start, stop) in enumerate(itertools.pairwise(bounds)):
        own = scores[:, start:stop].exp()
        probs += list((clusters[:, j].exp() / below)[:, None].mul(own / own.sum(1, keepdim=True)).T)
    return torch.stack(probs, 1)


@every_cut
def test_the_log_probability_of_targets_alone(cutoffs):
    head = make(cutoffs)
    x, targets = problem(40)
    alone = head.log_probs_of(x, targets)
    torch.testing.assert_close(alone, head.log_probs(x).gather(1, targets[:, None])[:, 0])
    assert alone.sum().item() == pytest.approx(-head.loss(x, targets).total.item())
    assert head.log_probs_of(x[:0], targets[:0]).shape == (0,)


def gradients(total, head, x):
    return torch.autograd.grad(total, [x, *head.parameters()])


def as_torch_has_it(head):
    """torch's head, which has no bias in its clusters, with the same weights at full width."""
    theirs = nn.AdaptiveLogSoftmaxWithLoss(
        head.features, head.classes, head.cutoffs, div_value=1.0, head_bias=True
    ).double()
    short = head.cutoffs[0]
    with torch.no_grad():
        theirs.head.weight.copy_(torch.cat([head.weight[:short], head.cluster_weight]))
        theirs.head.bias.copy_(torch.cat([head.bias[:short], head.cluster_bias]))
        for (down, out), weight in zip(theirs.tail, head.weight.split(head.sizes)[1:], strict=True):
            down.weight.copy_(torch.eye(head.features))
            out.weight.copy_(weight)
    return theirs


@pytest.mark.parametrize("cutoffs", [[1], [29], [5, 12], [1, 2, 29]], ids=str)
def test_it_is_torchs_adaptive_softmax_with_projections_of_full_width(cutoffs):
    head, (x, targets) = make(cutoffs), problem(50)
    with torch.no_grad():
        head.bias[cutoffs[0] :] = 0
    theirs = as_torch_has_it(head)
    found, expected = head.loss(x, targets).total, -theirs(x, targets).output.sum()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(head.log_probs(x), theirs.log_prob(x))
    torch.testing.assert_close(*(torch.autograd.grad(total, x) for total in (found, expected)))


@every_cut
def test_the_probabilities_are_those_of_the_definition(cutoffs):
    head, (x, _) = make(cutoffs), problem(20)
    torch.testing.assert_close(head.log_probs(x).exp(), by_definition(head, x))


@every_cut
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)], ids=str)
def test_the_probabilities_sum_to_one(cutoffs, shape):
    head, (x, _) = make(cutoffs), problem(*shape)
    log_probs = head.log_probs(x)
    assert log_probs.shape == (*shape, CLASSES)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(shape, dtype=torch.float64))


@every_cut
@pytest.mark.parametrize("shape", [(1,), (60,), (2, 5), (2, 3, 4)], ids=str)
def test_the_loss_and_its_gradients_are_those_of_the_definition(cutoffs, shape):
    head, (x, targets) = make(cutoffs), problem(*shape)
    loss = head.loss(x, targets)
    chosen = by_definition(head, x.reshape(-1, FEATURES)).gather(1, targets.reshape(-1, 1))
    expected = -chosen.log().sum()
    assert loss.count == targets.numel()
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(gradients(loss.total, head, x), gradients(expected, head, x))


@every_cut
def test_each_class_alone_has_its_log_probability_as_its_loss(cutoffs):
    head, (x, _) = make(cutoffs), problem(1)
    losses = torch.stack([head.loss(x, torch.tensor([k])).total for k in range(CLASSES)])
    torch.testing.assert_close(losses, -head.log_probs(x)[0])


def test_without_clusters_it_is_the_plain_softmax():
    head, (x, targets) = make([]), problem(20)
    expected = F.cross_entropy(F.linear(x, head.weight, head.bias), targets, reduction="sum")
    torch.testing.assert_close(head.loss(x, targets).total, expected)


@every_cut
def test_targets_of_minus_100_are_left_out_whatever_their_features(cutoffs):
    head, (x, targets) = make(cutoffs), problem(4, 15)
    left_out = torch.rand(targets.shape) < 0.4
    left_out[1] = True
    marked = targets.masked_fill(left_out, -100)
    padded = x.detach().masked_fill(left_out[..., None], torch.nan).requires_grad_()
    loss = head.loss(padded, marked)
    kept = x.detach()[~left_out].requires_grad_()
    expected = head.loss(kept, targets[~left_out])
    assert loss.count == expected.count == (~left_out).sum()
    torch.testing.assert_close(loss.total, expected.total)
    (inputs, *weights), (own, *others) = (
        gradients(loss.total, head, padded),
        gradients(expected.total, head, kept),
    )
    torch.testing.assert_close(weights, others)
    torch.testing.assert_close(inputs[~left_out], own)
    assert (inputs[left_out] == 0).all()


@every_cut
@pytest.mark.parametrize("count", [0, 5])
def test_where_there_is_nothing_to_predict_the_loss_is_0(cutoffs, count):
    head, (x, targets) = make(cutoffs), problem(count)
    loss = head.loss(x, targets.fill_(-100))
    assert (loss.total.item(), loss.count, loss.mean.item()) == (0, 0, 0)
    assert all((gradient == 0).all() for gradient in gradients(loss.total, head, x))


@every_cut
def test_targets_that_are_no_classes_are_refused(cutoffs):
    head, (x, targets) = make(cutoffs), problem(3)
    for wrong in (CLASSES, -1):
        targets[1] = wrong
        with pytest.raises(IndexError):
            head.loss(x, targets)


@every_cut
def test_large_logits_stay_finite(cutoffs):
    head, (x, targets) = make(cutoffs), problem(6)
    assert head.loss(1e6 * x, targets).total.isfinite()
    assert head.log_probs(1e6 * x).exp().sum(-1).isfinite().all()


@every_cut
def test_at_first_a_feature_of_zero_makes_all_classes_equally_likely(cutoffs):
    probs = Adaptive(FEATURES, CLASSES, cutoffs=cutoffs).log_probs(torch.zeros(FEATURES)).exp()
    torch.testing.assert_close(probs, torch.full((CLASSES,), 1 / CLASSES))


def test_a_tied_weight_is_the_one_that_was_given_and_all_of_it_learns():
    weight = nn.Parameter(torch.randn(CLASSES, FEATURES))
    head = Adaptive(FEATURES, CLASSES, weight, [5, 12])
    assert head.weight is weight
    head.loss(torch.randn(3, FEATURES), torch.tensor([2, 8, 29])).total.backward()
    for parameter in head.parameters():
        assert parameter.grad is not None
        assert (parameter.grad != 0).any(-1).all()


def test_a_cluster_without_targets_is_not_touched():
    head = Adaptive(FEATURES, CLASSES, cutoffs=[5, 12])
    head.loss(torch.randn(3, FEATURES), torch.tensor([2, 8, 8])).total.backward()
    assert (head.weight.grad[12:] == 0).all()
    assert (head.weight.grad[:12] != 0).any(-1).all()


def test_an_own_weight_begins_so_that_logits_of_unit_features_have_unit_variance():
    head = Adaptive(64, 2000)
    assert (head.weight @ torch.ones(64)).std().item() == pytest.approx(1, abs=0.1)


@given(classes=st.integers(1, 300_000))
@settings(max_examples=100, deadline=None)
def test_the_cutoffs_that_are_not_given_fit_any_number_of_classes(classes):
    bounds = [0, *default_cutoffs(classes), classes]
    assert bounds == sorted(set(bounds))
    assert len(bounds) == 5 or classes < 64


def test_words_have_few_logits_for_each_prediction():
    """Under Zipf's law; the plain softmax has 33,279."""
    head = Adaptive(1, 33_279)
    assert head.cutoffs == [519, 4159, 13311]
    counts = (1 / torch.arange(1.0, 33_280)).split(head.sizes)
    shares = [float(part.sum() / sum(c.sum() for c in counts)) for part in counts]
    assert head.sizes[0] + 3 + sum(p * n for p, n in zip(shares[1:], head.sizes[1:], strict=True)) < 5000


@pytest.mark.parametrize("cutoffs", [[0], [30], [31], [5, 5], [12, 5], [-1, 5]], ids=str)
def test_cutoffs_that_do_not_rise_within_the_classes_are_refused(cutoffs):
    with pytest.raises(ConfigError, match=r"must rise within 1\.\.29, got"):
        Adaptive(FEATURES, CLASSES, cutoffs=cutoffs)
