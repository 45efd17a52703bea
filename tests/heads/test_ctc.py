"""CTC: its loss against the sum over every alignment, its gradients, and rows that cannot be."""

import itertools

import pytest
import torch

from throughtime.decode.ctc import collapse
from throughtime.errors import ConfigError, ShapeError
from throughtime.heads.ctc import CTC, shortest


def enumerated(log_probs, target):
    """log p(target) as the sum over all alignments."""
    steps, classes = log_probs.shape
    found = [
        sum(log_probs[t, k] for t, k in enumerate(path))
        for path in itertools.product(range(classes), repeat=steps)
        if collapse(path)[0] == target
    ]
    return torch.logsumexp(torch.stack(found), 0)


def test_the_loss_is_the_sum_over_all_alignments():
    head = CTC(5, 3).double()
    x = torch.randn(3, 6, 5, dtype=torch.float64)
    targets, lengths, counts = torch.tensor([[1, 1, 2], [2, 9, 9], [0, 0, 0]]), [6, 4, 2], [3, 1, 0]
    loss = head.loss(x, targets, torch.tensor(lengths), torch.tensor(counts))
    log_probs = head.log_probs(x)
    expected = sum(
        -enumerated(log_probs[row, : lengths[row]], targets[row, : counts[row]].tolist()) for row in range(3)
    )
    torch.testing.assert_close(loss.total, expected)
    assert loss.count == 4


def test_gradients_are_those_of_the_sum_and_none_comes_from_padding():
    head = CTC(4, 3).double()
    x = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
    lengths, targets = torch.tensor([4, 2]), torch.tensor([[1, 2], [2, 0]])
    found = torch.autograd.grad(head.loss(x, targets, lengths, torch.tensor([2, 1])).total, x)[0]
    total = -enumerated(head.log_probs(x)[0], [1, 2]) - enumerated(head.log_probs(x)[1, :2], [2])
    torch.testing.assert_close(found, torch.autograd.grad(total, x)[0])
    assert found[1, 2:].abs().max() == 0
    head.loss(x, targets, lengths, torch.tensor([2, 1])).total.backward()
    assert all(p.grad.abs().sum() > 0 for p in head.parameters())


def test_what_does_not_fit_is_named():
    head, x = CTC(4, 3), torch.randn(2, 3, 4)
    with pytest.raises(ShapeError, match="row 1 has 3 steps, and its 3 targets need 4"):
        head.loss(x, torch.tensor([[1, 2, 1], [1, 1, 2]]), torch.tensor([3, 3]), torch.tensor([3, 3]))
    assert [shortest(each) for each in ([], [1], [1, 1], [1, 2, 1], [2, 2, 2])] == [0, 1, 3, 3, 5]
    with pytest.raises(ConfigError, match="a class beside the blank"):
        CTC(4, 1)
