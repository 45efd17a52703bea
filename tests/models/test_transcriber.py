"""The transcriber: padding, pieces, gradients, masks in training, and a toy."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from throughtime.errors import ConfigError, ShapeError
from throughtime.models.transcriber import Transcriber

LENGTHS = torch.tensor([21, 0, 8, 1])


def make(**options):
    return Transcriber(6, 5, **{"hidden": 8, "layers": 2, "dropout": 0.0} | options).eval()


def batch(**values):
    real = torch.arange(21) < LENGTHS[:, None]
    frames = torch.randn(4, 21, 6).masked_fill(~real[..., None], torch.nan)
    return SimpleNamespace(frames=frames, lengths=LENGTHS, **values)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("subsampling", [1, 2, 3])
def test_padding_changes_no_answer(bidirectional, subsampling):
    model, data = make(bidirectional=bidirectional, subsampling=subsampling), batch()
    log_probs, lengths = model.log_probs(data)
    assert lengths.tolist() == [-(-n // subsampling) for n in LENGTHS.tolist()]
    vectors = model.vectors(data)
    for row, (length, steps) in enumerate(zip(LENGTHS.tolist(), lengths.tolist(), strict=True)):
        alone = SimpleNamespace(frames=data.frames[row : row + 1, :length], lengths=LENGTHS[row : row + 1])
        expected, _ = model.log_probs(alone)
        torch.testing.assert_close(log_probs[row : row + 1, :steps], expected)
        torch.testing.assert_close(vectors[row], model.vectors(alone)[0])
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(log_probs.shape[:2]))


@given(
    st.lists(st.integers(0, 6), max_size=8), st.sampled_from(["lstm", "gru", "min_gru"]), st.integers(1, 3)
)
def test_pieces_of_a_sound_give_what_the_whole_gives(sizes, cell, subsampling):
    model = make(bidirectional=False, cell=cell, subsampling=subsampling)
    frames = torch.randn(2, sum(sizes), 6)
    whole, _ = model.log_probs(SimpleNamespace(frames=frames, lengths=torch.full((2,), sum(sizes))))
    state, found = model.begin(2), [torch.zeros(2, 0, 5)]
    for piece in frames.split(sizes, 1) if sizes else []:
        log_probs, state = model.advance(piece, state)
        found.append(log_probs)
    torch.testing.assert_close(torch.cat(found, 1), whole, atol=1e-5, rtol=0)


def test_a_model_in_both_directions_cannot_listen():
    with pytest.raises(ConfigError, match="train with --no-bidirectional"):
        make().begin(1)
    with pytest.raises(ConfigError, match="must be even, got 7"):
        make(hidden=7)


def test_the_unknown_class_is_trained_and_never_put_out():
    model, data = make(unknown=1, bidirectional=False), batch(**targets())
    assert (model.log_probs(data)[0][..., 1] == -torch.inf).all()
    log_probs, _ = model.advance(torch.randn(1, 4, 6), model.begin(1))
    assert (log_probs[..., 1] == -torch.inf).all() and log_probs[..., 0].isfinite().all()
    assert model.loss(data).total.isfinite()


def targets():
    return {
        "targets": torch.tensor([[1, 2, 2], [0, 0, 0], [4, 3, 0], [0, 0, 0]]),
        "target_lengths": torch.tensor([3, 0, 2, 0]),
    }


def test_each_parameter_has_a_finite_gradient():
    model, data = make().train(), batch(**targets())
    loss = model.loss(data)
    assert loss.count == 5
    loss.mean.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name


def test_what_does_not_fit_is_refused():
    data = batch(**targets() | {"target_lengths": torch.tensor([3, 0, 2, 2])})
    with pytest.raises(ShapeError, match="row 3 has 1 steps, and its 2 targets need 3"):
        make().loss(data)


def test_frames_are_hidden_in_training_alone():
    model, data = make(time_masks=2, band_masks=2, band_width=6), batch(**targets())
    assert model.loss(data).total == model.loss(data).total
    model.train()
    assert model.loss(data).total != model.loss(data).total
    torch.manual_seed(3)
    one = model.loss(data).total
    torch.manual_seed(3)
    assert model.loss(data).total == one
