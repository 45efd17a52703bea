"""Subsampling: against torch's convolution, padded and in pieces."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from throughtime.errors import ConfigError
from throughtime.nn.subsampling import Subsampling


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("steps", [0, 1, 2, 7])
def test_it_is_a_strided_convolution_that_looks_back(stride, steps):
    layer = Subsampling(4, 6, stride)
    x = torch.randn(2, steps, 4)
    y, _ = layer(x)
    assert y.shape[1] == layer.lengths(torch.tensor(steps)).item() == -(-steps // stride)
    if steps:
        kernel = layer.project.weight.view(6, layer.width, 4).transpose(1, 2)
        padded = F.pad(x.transpose(1, 2), (layer.width - 1, 0))
        expected = F.conv1d(padded, kernel, layer.project.bias, stride).relu().transpose(1, 2)
        torch.testing.assert_close(y, expected)


@given(st.integers(1, 4), st.lists(st.integers(0, 7), max_size=6))
def test_pieces_give_the_whole(stride, sizes):
    layer, x = Subsampling(3, 5, stride), torch.randn(2, sum(sizes), 3)
    before, found = None, [torch.zeros(2, 0, 5)]
    for piece in x.split(sizes, 1) if sizes else []:
        y, before = layer(piece, before)
        found.append(y)
    torch.testing.assert_close(torch.cat(found, 1), layer(x)[0])


def test_each_weight_has_a_gradient_and_sizes_are_checked():
    layer = Subsampling(4, 6, 2)
    layer(torch.randn(2, 9, 4))[0].sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())
    with pytest.raises(ConfigError, match="stride must be 1 or more"):
        Subsampling(4, 6, 0)
