"""The predictor of balls: its loss is the distance, its own predictions are fed back."""

from types import SimpleNamespace

import pytest
import torch

from throughtime.models.ball_predictor import BallPredictor
from throughtime.models.clips import FrameEncoder
from throughtime.nn.convolution import Convolution, PictureGrid


def make_model(balls=1):
    torch.manual_seed(0)
    model = BallPredictor(FrameEncoder(PictureGrid(Convolution((8,)), 6), 8, 10), balls, hidden=12).eval()
    torch.nn.init.normal_(model.move.weight, std=0.1)
    return model


def make_batch(balls=1, seen=4, steps=3):
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (2, seen, 3, 8, 8), dtype=torch.uint8, generator=generator)
    positions = torch.rand(2, seen + steps, 2 * balls, generator=generator)
    return SimpleNamespace(frames=frames, positions=positions)


@pytest.mark.parametrize("balls", [1, 2])
def test_predictions_are_those_of_the_plain_loop(balls):
    model, batch = make_model(balls), make_batch(balls)
    x = torch.stack([model.encoder(batch.frames[:, t]) for t in range(4)], 1)
    looks = model.look(x.mean(1)).tanh()
    places = [*model.see(x).unbind(1)]
    state, before = None, places[0]
    for t in range(7 - 1):
        if t == len(places):
            places.append(after)
        h, state = model.recurrence(torch.cat([places[t], places[t] - before, looks], -1)[:, None], state)
        before, after = places[t], places[t] + model.move(h[:, 0])
    expected = torch.stack([*places[4:], after], 1)
    assert torch.allclose(model.predict(batch.frames, 3), expected, atol=1e-5)


def test_the_loss_is_the_distance_of_what_is_seen_and_predicted():
    model, batch = make_model(), make_batch()
    with torch.no_grad():
        loss = model.loss(batch)
        x = model.encoder(batch.frames.flatten(0, 1)).unflatten(0, (2, 4))
        seen = torch.linalg.norm(model.see(x) - batch.positions[:, :4], dim=-1)
        last = torch.linalg.norm(model.predict(batch.frames, 3) - batch.positions[:, 4:], dim=-1)
        one_step = model._read(batch.frames, 1)[1][:, :3] - batch.positions[:, 1:4]
    expected = seen.sum() + last.sum() + torch.linalg.norm(one_step, dim=-1).sum()
    assert loss.count == 2 * (4 + 6)
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-3)


def test_every_parameter_receives_a_gradient():
    model = make_model()
    model.loss(make_batch()).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
