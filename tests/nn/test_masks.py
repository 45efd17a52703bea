"""Where rows end, and a softmax without what is masked."""

import torch

from throughtime.nn.masks import masked_softmax, padding_mask, real_steps


def test_real_steps_are_those_below_the_length():
    y = torch.zeros(3, 2, 1)
    assert real_steps(y, torch.tensor([0, 1, 2])).tolist() == [[False, False], [True, False], [True, True]]
    assert real_steps(y, None).tolist() == [[True, True]] * 3


def test_padding_begins_at_the_length():
    assert padding_mask(torch.tensor([0, 1, 2]), 2).tolist() == [[True, True], [False, True], [False, False]]
    assert padding_mask(torch.tensor([0, 0]), 0).shape == (2, 0)


def test_the_softmax_is_that_of_what_is_not_masked():
    scores = torch.randn(3, 2, 4, dtype=torch.float64)
    scores[0, 0, 3] = torch.nan
    mask = torch.tensor([[False, True, False, True]])
    found = masked_softmax(scores, mask)
    torch.testing.assert_close(found[..., [0, 2]], scores[..., [0, 2]].softmax(-1))
    assert not found[..., [1, 3]].any()


def test_where_all_is_masked_there_are_zeros_and_no_gradient():
    scores = torch.tensor([1e300, -1e300], dtype=torch.float64, requires_grad=True)
    found = masked_softmax(scores, torch.tensor([True, True]))
    found.sum().backward()
    assert found.tolist() == scores.grad.tolist() == [0, 0]
