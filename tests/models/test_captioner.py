"""The captioners against their equations row by row, however they are read, and a toy that each learns."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from throughtime.errors import ConfigError
from throughtime.models.captioner import Captioner, PictureEncoder
from throughtime.nn.convolution import Convolution, PictureGrid

CLASSES, BOUNDARY = 7, 1
KINDS = ["attention", "initial-state", "conditioned"]
every_kind = pytest.mark.parametrize("kind", KINDS)


@dataclass(frozen=True)
class Batch:
    """Sources and captions of them."""

    source: Tensor
    source_lengths: Tensor
    rows: Tensor
    inputs: Tensor
    targets: Tensor
    target_lengths: Tensor


class Given(nn.Module):
    """An encoder that finds its memory [P, S, F] ready made, as a clip's frames of different number are."""

    def __init__(self, features=4):
        super().__init__()
        self.features, self.dimensions = features, 2

    def forward(self, source, lengths):
        return source, lengths, places(source).expand(len(source), -1, -1)


def places(source):
    """Somewhere for each step of a memory."""
    return torch.arange(2 * source.shape[-2], dtype=source.dtype).view(-1, 2).sin()


def pad(rows, value):
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def batch_of(source, lengths, captions):
    """A batch from the memory of each source and (source, caption) pairs."""
    return Batch(
        source,
        torch.tensor(lengths),
        torch.tensor([row for row, _ in captions]),
        pad([[BOUNDARY, *caption] for _, caption in captions], 0),
        pad([[*caption, BOUNDARY] for _, caption in captions], -100),
        torch.tensor([len(caption) + 1 for _, caption in captions]),
    )


LENGTHS = [5, 2, 3]
CAPTIONS = [(0, [2, 3]), (2, [4, 5, 6, 2]), (0, []), (1, [6]), (2, [3, 3])]


def memory():
    torch.manual_seed(5)
    source = torch.randn(3, 5, 4, dtype=torch.float64)
    for row, length in enumerate(LENGTHS):
        source[row, length:] = torch.nan  # what is padding is not read
    return source


def make(kind="attention", encoder=None, **options):
    options = {"hidden": 6, "layers": 2, "dropout": 0.0} | options
    model = Captioner(encoder or Given(), CLASSES, BOUNDARY, model=kind, **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.eval()


def lstm(layer, suffix, x, h, c):
    weights = layer.get_parameter(f"weight_ih{suffix}"), layer.get_parameter(f"weight_hh{suffix}")
    i, f, g, o = (weights[0] @ x + weights[1] @ h + layer.get_parameter(f"bias{suffix}")).chunk(4)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def by_hand(model, source, inputs):
    """The log-probabilities after each input of one caption, and where each looks."""
    kind, layers, units = model.model, model.decoder.layers, model.hidden
    whole = None if kind == "attention" else model.picture(SUMMARY(source))
    zeros = torch.zeros(units, dtype=torch.float64)
    said, looks = [], []
    states = [(zeros, zeros)] * layers
    if kind == "conditioned":
        states = [(zeros, part) for part in whole.chunk(layers)]

    def advance(x):
        for layer, (h, other) in enumerate(states):
            if kind == "conditioned":
                own = {
                    n: model.decoder.get_parameter(f"{n}_l{layer}")
                    for n in ("weight_ih", "weight_hh", "bias")
                }
                recurrent = own["weight_hh"][:units] @ h + own["weight_hh"][units:] @ other
                x = (own["weight_ih"] @ x + recurrent + own["bias"]).tanh()
                states[layer] = (x, other)
            else:
                states[layer] = lstm(model.decoder, f"_l{layer}", x, h, other)
                x = states[layer][0]
        return x

    looked = zeros[: 2 * (kind == "attention")]
    if kind == "initial-state":
        advance(whole)
    for token in inputs:
        h = advance(torch.cat([model.embedding.weight[token], looked]))
        if kind == "attention":
            shares = torch.stack([h @ model.attention.weight_memory @ m for m in source]).softmax(0)
            gate = (model.gate.weight[0] @ h + model.gate.bias[0]).sigmoid()
            context = gate * sum(a * m for a, m in zip(shares, source, strict=True))
            looked = sum(a * x for a, x in zip(shares, places(source), strict=True))
            h = (model.join.weight @ torch.cat([context, h])).tanh()
            looks.append(shares)
        said.append((model.head.weight @ h + model.head.bias).log_softmax(0))
    return said, looks


def SUMMARY(source):
    return source.amax(0)


@every_kind
def test_the_loss_is_that_of_the_equations(kind):
    model, source = make(kind), memory()
    loss = model.loss(batch_of(source, LENGTHS, CAPTIONS))
    total = 0.0
    for row, caption in CAPTIONS:
        said, _ = by_hand(model, source[row, : LENGTHS[row]], [BOUNDARY, *caption])
        total -= sum(p[token] for p, token in zip(said, [*caption, BOUNDARY], strict=True))
    torch.testing.assert_close(loss.total, total)
    assert loss.count == sum(len(caption) + 1 for _, caption in CAPTIONS)
    assert loss.penalty == 0


@every_kind
def test_steps_say_what_the_whole_says(kind):
    model, source = make(kind), memory()
    state = model.select(model.begin(source, torch.tensor(LENGTHS)), torch.tensor([2, 0, 1]))
    order = [2, 0, 1]
    tokens, inputs = torch.full((3,), BOUNDARY), [[], [], []]
    for token in (3, 0, 6):
        said, state = model.step(tokens, state)
        for row in range(3):
            inputs[row].append(int(tokens[row]))
            source_row = source[order[row], : LENGTHS[order[row]]]
            torch.testing.assert_close(said[row], by_hand(model, source_row, inputs[row])[0][-1])
        tokens = torch.tensor([token, token, (token + 1) % CLASSES])


def test_attention_is_where_each_word_looked():
    model, source = make(), memory()
    weights = model.attention_weights(batch_of(source, LENGTHS, CAPTIONS))
    for k, (row, caption) in enumerate(CAPTIONS):
        _, looks = by_hand(model, source[row, : LENGTHS[row]], [BOUNDARY, *caption])
        torch.testing.assert_close(weights[k, : len(looks), : LENGTHS[row]], torch.stack(looks))
        assert (weights[k, len(looks) :] == 0).all() and (weights[k, :, LENGTHS[row] :] == 0).all()
    for kind in KINDS[1:]:
        with pytest.raises(ConfigError, match=rf'"{kind}" has no attention to look at: train "attention"'):
            make(kind).attention_weights(batch_of(source, LENGTHS, CAPTIONS))


def test_the_doubly_stochastic_penalty_is_that_of_the_paper():
    model, source = make(doubly_stochastic=0.3), memory()
    batch = batch_of(source, LENGTHS, CAPTIONS)
    expected = 0.0
    for row, caption in CAPTIONS:
        _, looks = by_hand(model, source[row, : LENGTHS[row]], [BOUNDARY, *caption])
        seen = torch.stack(looks).sum(0)
        expected += 0.3 * (1 - seen).square().sum()
    assert model.loss(batch).penalty == 0  # in training alone
    loss = model.train().loss(batch)
    torch.testing.assert_close(loss.penalty, expected / loss.count)


@every_kind
def test_every_parameter_has_a_gradient(kind):
    encoder = PictureEncoder(PictureGrid(Convolution([8, 8]), 4))
    model = make(kind, encoder)
    pixels = torch.randint(0, 256, (3, 3, 12, 12), dtype=torch.uint8)
    model.loss(batch_of(pixels, [1] * 3, CAPTIONS)).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@every_kind
def test_a_vector_is_what_the_encoder_says_of_the_source(kind):
    model, source = make(kind), memory()
    found = model.vectors(batch_of(source, LENGTHS, CAPTIONS))
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(found[row], SUMMARY(source[row, :length]))


@pytest.mark.parametrize("cell", ["gru", "rnn", "peephole_lstm", "min_gru"])
def test_any_cell_decodes(cell):
    model, source = make("initial-state", cell=cell), memory()
    whole = model.loss(batch_of(source, LENGTHS, CAPTIONS[:1])).total
    state = model.select(model.begin(source, torch.tensor(LENGTHS)), torch.tensor([0]))
    total = 0.0
    for token, target in ((BOUNDARY, 2), (2, 3), (3, BOUNDARY)):
        said, state = model.step(torch.tensor([token]), state)
        total -= said[0, target]
    torch.testing.assert_close(whole, total)


@every_kind
def test_a_toy_is_learnt(kind):
    """Which of four places is lit, and how strongly, is said in two words."""
    torch.manual_seed(1)
    model = Captioner(Given(5), CLASSES, BOUNDARY, model=kind, hidden=24, dropout=0.0)
    cases = [(place, strength) for place in range(4) for strength in range(2)]
    source = torch.zeros(8, 4, 5)
    for row, (place, strength) in enumerate(cases):
        source[row, place, place] = 1
        source[row, place, 4] = strength
    captions = [(row, [2 + place] + [6] * strength) for row, (place, strength) in enumerate(cases)]
    batch = batch_of(source, [4] * 8, captions)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model.loss(batch).mean
        loss.backward()
        optimizer.step()
    assert loss < 0.02


def test_what_does_not_fit_is_refused():
    with pytest.raises(
        ConfigError, match='no captioner "poet": there are attention, initial-state, conditioned'
    ):
        make("poet")
    with pytest.raises(ConfigError, match="tied weights need embedding = hidden, got 3 and 6"):
        make(embedding=3)
    with pytest.raises(ConfigError, match="boundary must be a token, 0 to 6, got 7"):
        Captioner(Given(), CLASSES, 7)
    assert make(embedding=3, tied=False).loss(batch_of(memory(), LENGTHS, CAPTIONS)).total > 0
