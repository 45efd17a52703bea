"""Clips as sequences: what a frame says depends on its clip alone, and every parameter learns."""

from types import SimpleNamespace

import pytest
import torch

from throughtime.errors import ConfigError
from throughtime.heads.crf import CRF
from throughtime.heads.per_step import PerStep
from throughtime.models.clips import ClipEncoder, FrameEncoder
from throughtime.models.frame_tagger import FrameTagger
from throughtime.nn.convolution import Convolution, PictureGrid

SIZE = 16


def make_encoder(**options):
    torch.manual_seed(0)
    frames = FrameEncoder(PictureGrid(Convolution((8, 8)), 6), SIZE, 10)
    return ClipEncoder(frames, hidden=12, **options).eval()


def make_clips(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths), 3, SIZE, SIZE)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return clips, torch.tensor(lengths)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_clip_does_not_depend_on_its_batch_or_on_what_stands_in_padding(bidirectional):
    encoder = make_encoder(bidirectional=bidirectional)
    clips, lengths = make_clips(5, 2, 0, 3)
    together, _, times = encoder(clips, lengths)
    assert times.shape == (4, 5, 1) and times[3, :, 0].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert together.shape == (4, 5, 12 + 10 + 6)
    for k, length in enumerate(lengths.tolist()):
        if length:
            alone, _, _ = encoder(clips[k : k + 1, :length], torch.tensor([length]))
            assert torch.allclose(alone[0], together[k, :length], atol=1e-6)
        assert not together[k, length:].any()
    clips[1, 2:] = 255
    assert torch.equal(encoder(clips, lengths)[0], together)


def test_only_a_stream_does_not_know_what_comes():
    clips, lengths = make_clips(6)
    other = clips.clone()
    other[:, 4:] = 0
    for bidirectional in (False, True):
        encoder = make_encoder(bidirectional=bidirectional)
        one, two = (encoder(each, lengths)[0][:, :4] for each in (clips, other))
        assert torch.allclose(one, two, atol=1e-6) != bidirectional


def test_a_frame_is_read_beside_what_changed():
    """The plain loop reads x_t, and its difference to x_{t-1}, zeros at the first frame."""
    encoder = make_encoder(bidirectional=False)
    clips, lengths = make_clips(4)
    x = torch.stack([encoder.frames(clips[:, t]) for t in range(4)], 1)
    before = torch.cat([x[:, :1], x[:, :-1]], 1)
    y, _ = encoder.recurrence(torch.cat([x, x - before], -1))
    assert torch.allclose(encoder(clips, lengths)[0], torch.cat([y, x], -1), atol=1e-6)


def test_frames_of_a_clip_are_mirrored_together():
    """In training, too, nothing changes between frames that are alike."""
    encoder = make_encoder().train()
    for norm in encoder.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.eval()
    clips = make_clips(1, 1, 1, 1, 1, 1, 1, 1)[0].expand(-1, 6, -1, -1, -1).contiguous()
    x = encoder.forward(clips, torch.full((8,), 6))[0][..., 12:]
    assert torch.equal(x[:, 1:], x[:, :-1])
    plain = encoder.eval()(clips, torch.full((8,), 6))[0][..., 12:]
    mirrored = (x != plain).any(-1).any(-1)
    assert mirrored.any() and not mirrored.all()


def test_what_is_seen_is_where_things_are_and_what_they_are():
    """The second part of a frame's features is the largest value of each feature of the places."""
    encoder = make_encoder().frames
    frames = make_clips(3)[0][0]
    places, _ = encoder.grid(frames)
    assert encoder(frames).shape == (3, encoder.features) == (3, 16)
    assert torch.equal(encoder(frames)[:, 10:], places.max(1).values)
    assert torch.allclose(encoder(frames)[:, :10], encoder.join(places.flatten(1)).relu())


def test_an_odd_number_of_units_has_no_two_directions():
    frames = FrameEncoder(PictureGrid(Convolution((8,)), 6), SIZE, 10)
    with pytest.raises(ConfigError, match="hidden is shared by two directions and must be even, got 7"):
        ClipEncoder(frames, hidden=7)


@pytest.mark.parametrize("head", [PerStep, CRF])
def test_every_parameter_of_the_tagger_receives_a_gradient(head):
    model = FrameTagger(make_encoder(), 3, head=head)
    clips, lengths = make_clips(5, 3)
    targets = torch.tensor([[0, 1, 2, 1, 0], [2, 2, 1, -100, -100]])
    loss = model.loss(SimpleNamespace(frames=clips, lengths=lengths, targets=targets))
    assert loss.count == 8
    loss.total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_labels_and_vectors_stop_where_the_clip_does():
    model = FrameTagger(make_encoder(), 3, head=PerStep)
    clips, lengths = make_clips(5, 3)
    batch = SimpleNamespace(frames=clips, lengths=lengths)
    labels = model.decode(batch)
    assert (labels >= 0).sum(1).tolist() == [5, 3] and (labels[1, 3:] == -100).all()
    assert torch.allclose(model.vectors(batch)[1], model.features(batch)[1, :3].mean(0), atol=1e-6)
