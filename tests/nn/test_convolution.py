"""Grids of pictures: each from its own pixels alone, with its place."""

import pytest
import torch

from throughtime.errors import ConfigError, ShapeError
from throughtime.nn.convolution import Convolution, PictureGrid


def pictures(count=3, size=24):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


def test_each_layer_halves_the_picture():
    assert Convolution([4, 8])(torch.randn(2, 3, 24, 16)).shape == (2, 8, 6, 4)
    assert Convolution([5])(torch.randn(1, 3, 9, 9)).shape == (1, 5, 5, 5)


def test_a_feature_sees_so_many_pixels_about_its_place():
    """Place 8 stands for the pixels 32 to 35, and is made of five more on each side."""
    network = Convolution([4, 4]).eval()
    x = torch.zeros(64, 3, 64, 64)
    for k in range(64):
        x[k, :, :, k] = torch.nan  # which reaches whatever reads it
    assert network(x)[:, :, 8, 8].isnan().all(1).nonzero()[:, 0].tolist() == list(range(27, 41))
    assert network(x.mT)[:, :, 8, 8].isnan().all(1).nonzero()[:, 0].tolist() == list(range(27, 41))


def test_the_grid_of_a_picture_does_not_depend_on_the_batch():
    grid, source = PictureGrid(Convolution([8, 16]), 12).double(), pictures()
    grid(pictures(8))  # in training, of which the norms keep statistics
    grid.eval()
    together, places = grid(source)
    assert together.shape == (3, 36, 12) and places.shape == (36, 2)
    for row in range(3):
        alone, _ = grid(source[row : row + 1])
        torch.testing.assert_close(alone[0], together[row])


def test_a_place_knows_where_it_is():
    """With the features of the network left out, what is made of a place is told by x and y, row by row."""
    grid = PictureGrid(Convolution([4]), 2)
    with torch.no_grad():
        grid.project.weight.zero_()
        grid.project.weight[0, -2] = grid.project.weight[1, -1] = 1
        grid.project.bias.fill_(1)
    found, places = grid.eval()(pictures(1, 8))
    torch.testing.assert_close(found[0] - 1, places)
    x, y = places.T
    torch.testing.assert_close(x.view(4, 4)[2], torch.tensor([-0.75, -0.25, 0.25, 0.75]))
    torch.testing.assert_close(y.view(4, 4)[:, 1], torch.tensor([-0.75, -0.25, 0.25, 0.75]))


def test_a_mirrored_picture_has_its_features_where_they_were():
    """A network that tells what is two pixels to the right tells, mirrored, what is two to the left."""

    class Beside(torch.nn.Module):
        channels = 3

        def forward(self, x):
            return x.roll(-2, -1)

    torch.manual_seed(0)
    grid, source = PictureGrid(Beside(), 5), pictures(1, 8).expand(40, -1, -1, -1)
    with torch.no_grad():
        grid.project.weight.copy_(torch.eye(5))
        grid.project.bias.fill_(4.0)
    found = grid(source)[0].unflatten(1, (8, 8))[..., :3] - 4
    plain = grid.eval()(source[:1])[0].unflatten(1, (8, 8))[..., :3] - 4
    right = (found == plain).all((1, 2, 3))
    left = torch.isclose(found, plain.roll(4, 2)).all((1, 2, 3))
    assert (right ^ left).all() and 10 < right.sum() < 30


def test_pixels_are_scaled_by_mean_and_deviation():
    class Through(torch.nn.Module):
        channels = 3

        def forward(self, x):
            return x

    grid = PictureGrid(Through(), 5, mean=(0.1, 0.2, 0.3), deviation=(0.5, 1.0, 2.0))
    with torch.no_grad():
        grid.project.weight.copy_(torch.eye(5))
        grid.project.bias.fill_(4.0)
    found, _ = grid(torch.full((1, 3, 2, 2), 51, dtype=torch.uint8))
    torch.testing.assert_close(found[0, 0, :3] - 4, torch.tensor([0.2, 0.0, -0.05]))


def test_every_parameter_has_a_gradient():
    grid = PictureGrid(Convolution([8, 16]), 12)
    (grid(pictures())[0] * torch.randn(12)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in grid.parameters())


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="channels must name one number or more"):
        Convolution([])
    with pytest.raises(ConfigError, match="channels must be 1 or more, got 0"):
        Convolution([4, 0])
    grid = PictureGrid(Convolution([4]), 4)
    for wrong in (torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8).byte(), torch.zeros(3, 8, 8).byte()):
        with pytest.raises(ShapeError, match="pixels must be uint8 of shape"):
            grid(wrong)
