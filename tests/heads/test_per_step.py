"""The softmax of each step: the categorical head on the real steps, and the methods of the CRF."""

import inspect

import pytest
import torch

from throughtime.errors import ShapeError
from throughtime.heads.crf import CRF
from throughtime.heads.per_step import PerStep

LENGTHS = torch.tensor([4, 0, 2])


def make():
    return PerStep(5, 3).double()


def problem():
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    real = torch.arange(4) < LENGTHS[:, None]
    return x, torch.randint(3, (3, 4)).masked_fill(~real, -100), real


def test_its_methods_are_those_of_the_crf():
    for name in ("loss", "decode", "marginals"):
        assert inspect.signature(getattr(PerStep, name)) == inspect.signature(getattr(CRF, name))


def test_the_loss_is_that_of_the_real_steps():
    head, (x, targets, real) = make(), problem()
    targets[0, 1] = -100
    loss, expected = head.loss(x, targets, LENGTHS), head.categorical.loss(x[real], targets[real])
    torch.testing.assert_close(loss.total, expected.total)
    assert loss.count == 5


def test_it_predicts_the_softmax_of_each_step():
    head, (x, _, real) = make(), problem()
    p, path = head.marginals(x, LENGTHS), head.decode(x, LENGTHS)
    expected = (x @ head.categorical.weight.T + head.categorical.bias).softmax(-1)
    torch.testing.assert_close(p, expected.detach() * real[..., None])
    assert torch.equal(path, expected.argmax(-1).masked_fill(~real, -100))
    assert not p.requires_grad


def test_nothing_in_padding_is_read():
    head, (x, targets, real) = make(), problem()
    dirty = x.masked_fill(~real[..., None], torch.nan).requires_grad_()
    clean, found = head.loss(x, targets, LENGTHS), head.loss(dirty, targets.masked_fill(~real, 77), LENGTHS)
    assert (clean.total, clean.count) == (found.total, found.count)
    found.total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())
    assert (dirty.grad[~real] == 0).all()
    assert torch.equal(head.decode(x, LENGTHS), head.decode(dirty, LENGTHS))
    assert torch.equal(head.marginals(x, LENGTHS), head.marginals(dirty, LENGTHS))


def test_nothing_to_tag():
    head, x = make(), torch.zeros(2, 0, 5, dtype=torch.float64)
    lengths = torch.zeros(2).long()
    loss = head.loss(x, torch.zeros(2, 0).long(), lengths)
    assert (loss.total.item(), loss.count) == (0, 0)
    assert head.decode(x, lengths).shape == (2, 0)
    assert head.marginals(x, lengths).shape == (2, 0, 3)


def test_lengths_that_do_not_fit_are_refused():
    head, (x, targets, _) = make(), problem()
    with pytest.raises(ShapeError, match=r"lengths must lie in 0\.\.4"):
        head.loss(x, targets, LENGTHS + 1)
