"""The readout against torch's own layers, and the loop against a problem with a known answer."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from throughtime.cells.elman import rnn
from throughtime.lab.training import Readout, one_thread, seeded, train


@pytest.mark.parametrize("last", [True, False])
def test_the_readout_is_an_elman_network(last):
    model = Readout(rnn, 3, 5, 2, torch.Generator().manual_seed(0), last=last)
    reference = nn.RNN(3, 5, batch_first=True)
    parameters = dict(model.recurrent.named_parameters())
    reference.weight_ih_l0.data = parameters["weight_ih_l0"].data
    reference.weight_hh_l0.data = parameters["weight_hh_l0"].data
    reference.bias_ih_l0.data = parameters["bias_l0"].data
    reference.bias_hh_l0.data.zero_()
    tokens = torch.tensor([[0, 2, 1, 1], [2, 2, 0, 1]])
    h, _ = reference(F.one_hot(tokens, 3).float())
    expected = model.output(h[:, -1] if last else h)
    torch.testing.assert_close(model(tokens), expected)
    torch.testing.assert_close(model(F.one_hot(tokens, 3).float()), expected)


def test_the_loop_finds_the_line_and_leaves_evaluation():
    generator = torch.Generator().manual_seed(0)
    line = nn.Linear(1, 1)
    losses = train(
        line,
        lambda: torch.randn(16, 1, generator=generator),
        lambda x: F.mse_loss(line(x), 3 * x - 1),
        400,
        0.1,
        clip=10.0,
    )
    assert len(losses) == 400
    assert losses[-1] < 1e-6 < losses[0]
    assert line.weight.item() == pytest.approx(3, abs=1e-3)
    assert line.bias.item() == pytest.approx(-1, abs=1e-3)
    assert not line.training


def test_a_gradient_that_is_not_finite_changes_nothing():
    line = nn.Linear(1, 1)
    before = line.weight.clone()
    train(line, lambda: torch.ones(1, 1), lambda x: line(x).sum() * torch.inf, 3)
    assert torch.equal(line.weight, before)


def test_threads_and_the_global_generator_are_as_before():
    threads = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == threads
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    with seeded(0):
        first = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with seeded(0):
        assert torch.equal(torch.rand(2), first)
