import pytest
import torch
from torch import nn
from toy import toy_model, toy_streams

from throughtime.models import language_model
from throughtime.train.guard import diagnose


@pytest.fixture
def case():
    model = toy_model(dropout=0.0)
    return model, toy_streams().batch(3), model.begin(4)


def test_a_bad_weight_is_named(case):
    model, chunk, state = case
    with torch.no_grad():
        model.recurrence.weight_hh_l0[3, 4] = torch.inf
    assert diagnose(model, chunk, state) == "Inf in the weight recurrence.weight_hh_l0"


def test_a_bad_carried_state_is_named_with_its_row(case):
    model, chunk, state = case
    state[0][1][2, 5] = torch.nan
    assert diagnose(model, chunk, state) == "NaN in the state carried into layer 0, row 2"


def test_a_bad_output_is_named_with_row_and_time_step(case):
    model, chunk, state = case

    def poison(module, args, output):
        y = output.clone()
        y[1, 3] = torch.nan
        y[2, 4] = torch.nan
        return y

    model.recurrence.layer[0].register_forward_hook(poison)
    assert diagnose(model, chunk, state) == "NaN in the output of recurrence.layer.0, row 1, time step 3"


class BadGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone()
        gradient[0, 2] = torch.inf
        return gradient


def test_a_bad_gradient_is_named_with_layer_row_and_time_step(case):
    model, chunk, state = case
    model.recurrence.register_forward_hook(lambda m, a, output: (BadGradient.apply(output[0]), output[1]))
    found = diagnose(model, chunk, state)
    assert found == "Inf in the gradient of the output of recurrence.layer.0, row 0, time step 2"


def test_a_bad_loss_is_named(case):
    model, chunk, state = case
    with torch.no_grad():
        model.head.bias.fill_(-3e38)
        model.head.bias[2] = 3e38
    assert diagnose(model, chunk, state) == "Inf in the loss"


@pytest.mark.parametrize("name", ["activation_penalty", "temporal_activation_penalty"])
def test_a_bad_penalty_is_named(case, name):
    model, chunk, state = case
    setattr(model, name, torch.nan)
    assert diagnose(model, chunk, state) == "NaN in the penalty"


def test_a_bad_gradient_of_a_penalty_is_named_with_layer_row_and_time_step(case, monkeypatch):
    model, chunk, state = case
    model.activation_penalty = 1.0
    monkeypatch.setattr(language_model, "activation_penalty", lambda y: BadGradient.apply(y).square().mean())
    found = diagnose(model, chunk, state)
    assert found == "Inf in the gradient of the output of recurrence.layer.0, row 0, time step 2"


def test_hooks_are_gone_afterwards(case):
    model, chunk, state = case
    diagnose(model, chunk, state)
    assert not any(module._forward_hooks for module in model.modules() if isinstance(module, nn.Module))
