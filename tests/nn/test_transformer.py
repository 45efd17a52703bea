"""Encoder and decoder against torch's layers; steps against whole sequences; padding that is not read."""

import copy
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from throughtime.errors import ConfigError, ShapeError
from throughtime.nn.multi_head import MultiHeadAttention, angles, rotate
from throughtime.nn.state import select_rows
from throughtime.nn.transformer import TransformerDecoder, TransformerEncoder, positions

BATCH, STEPS, SOURCE, FEATURES, HEADS, LAYERS, HIDDEN = 4, 6, 5, 8, 2, 2, 12
LENGTHS, MEMORY_LENGTHS = torch.tensor([3, STEPS, 0, 1]), torch.tensor([SOURCE, 2, 4, 0])
both_kinds = pytest.mark.parametrize("kind", ["encoder", "decoder"])


def normal(*shape):
    return torch.randn(shape, dtype=torch.float64)


def drawn(module):
    """In float64, in evaluation, with all its weights drawn, norms and biases too."""
    with torch.no_grad():
        for parameter in module.double().eval().parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return module


def encoder():
    return drawn(TransformerEncoder(FEATURES, LAYERS, HEADS, HIDDEN))


def decoder():
    return drawn(TransformerDecoder(FEATURES, LAYERS, HEADS, HIDDEN))


def torchs(ours, dropout=0.0):
    """Torch's own stack with the weights of ours."""
    options = {"dim_feedforward": HIDDEN, "dropout": dropout, "batch_first": True, "norm_first": True}
    if isinstance(ours, TransformerEncoder):
        layer = nn.TransformerEncoderLayer(FEATURES, HEADS, **options)
        theirs = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(FEATURES), enable_nested_tensor=False)
    else:
        layer = nn.TransformerDecoderLayer(FEATURES, HEADS, **options)
        theirs = nn.TransformerDecoder(layer, LAYERS, nn.LayerNorm(FEATURES))
    theirs = theirs.double().eval()
    theirs.load_state_dict(ours.state_dict())
    return theirs


def hidden_future(steps=STEPS):
    return torch.ones(steps, steps, dtype=torch.bool).triu(1)


def padding(steps, lengths):
    return torch.arange(steps) >= lengths[:, None]


def placed(x):
    return x * math.sqrt(FEATURES) + positions(x.shape[1], FEATURES)


def make(kind):
    return decoder() if kind == "decoder" else encoder()


def inputs_of(module, steps=STEPS):
    """x, and a memory for a decoder."""
    if isinstance(module, TransformerDecoder):
        return [normal(BATCH, steps, FEATURES), normal(BATCH, SOURCE, FEATURES)]
    return [normal(BATCH, steps, FEATURES)]


def run(module, x, memory=None, lengths=None, memory_lengths=None):
    if isinstance(module, TransformerDecoder):
        return module(x, memory, memory_lengths, lengths)
    return module(x, lengths)


def gradients(y, inputs, module):
    """The gradients of some sum of y by all that it is made of."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    parameters = [parameter for _, parameter in sorted(module.named_parameters())]
    return torch.autograd.grad((y * weights).sum(), [*inputs, *parameters])


def equal(one, other, tolerance=1e-10):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


# Known answers.


@pytest.mark.parametrize("with_lengths", [False, True])
def test_the_encoder_is_torchs(with_lengths):
    ours = encoder()
    theirs = torchs(ours)
    lengths = torch.tensor([3, STEPS, 2, 1]) if with_lengths else None
    real = torch.ones(BATCH, STEPS, dtype=torch.bool) if lengths is None else ~padding(STEPS, lengths)
    one = normal(BATCH, STEPS, FEATURES).requires_grad_()
    other = one.detach().clone().requires_grad_()
    y = ours(one, lengths)
    expected = theirs(placed(other), None, None if lengths is None else ~real)
    expected = expected.masked_fill(~real[..., None], 0)
    equal(y, expected)
    equal(gradients(y, [one], ours), gradients(expected, [other], theirs))


def test_the_decoder_is_torchs():
    ours = decoder()
    theirs = torchs(ours)
    lengths, memory_lengths = torch.tensor([3, STEPS, 2, 1]), torch.tensor([SOURCE, 2, 4, 1])
    inputs = [value.requires_grad_() for value in inputs_of(ours)]
    others = [value.detach().clone().requires_grad_() for value in inputs]
    y = ours(*inputs, memory_lengths, lengths)
    expected = theirs(
        placed(others[0]),
        others[1],
        tgt_mask=hidden_future(),
        memory_key_padding_mask=padding(SOURCE, memory_lengths),
    ).masked_fill(padding(STEPS, lengths)[..., None], 0)
    equal(y, expected)
    equal(gradients(y, inputs, ours), gradients(expected, others, theirs))


@both_kinds
def test_dropout_is_where_torch_has_it(kind):
    """The same random numbers, drawn in the same order, drop the same; ours drops of the input before."""
    ours = make(kind)
    theirs = torchs(ours, dropout=0.3).train()
    for module in ours.train().modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.3
        if isinstance(module, MultiHeadAttention):
            module.dropout = 0.3
    x, *memory = (value[:1] for value in inputs_of(ours))  # of more rows torch draws in another order
    torch.manual_seed(5)
    y = run(ours, x, *memory)
    torch.manual_seed(5)
    z = nn.functional.dropout(placed(x), 0.3)
    masks = {"encoder": {}, "decoder": {"tgt_mask": hidden_future()}}
    equal(y, theirs(z, *memory, **masks[kind]))
    assert not torch.equal(run(ours, x, *memory), y)
    equal(run(ours.eval(), x, *memory), theirs.eval()(placed(x), *memory, **masks[kind]))


@pytest.mark.parametrize("features", [1, 6, 7])
def test_positions_are_those_of_the_paper(features):
    table = positions(50, features)
    for t in (0, 1, 49):
        for k in range(features):
            angle = t / 10000 ** (2 * (k // 2) / features)
            expected = math.cos(angle) if k % 2 else math.sin(angle)
            assert table[t, k].item() == pytest.approx(expected, abs=1e-12)
    assert torch.equal(positions(3, features, start=47), table[47:])


def test_rotation_is_by_complex_numbers():
    """Pair (i, i + d/2) as a number a + bi, times exp(i t 10000^(-2i/d)); of fewer steps, the last ones."""
    x = normal(2, 3, 5, 8)
    a = angles(7, 8)
    turned = torch.complex(*x.chunk(2, -1)) * torch.polar(torch.ones_like(a), a)[2:]
    equal(rotate(x, (a.cos(), a.sin())), torch.cat([turned.real, turned.imag], -1))


def test_products_of_rotated_vectors_depend_on_distance_alone():
    q, k = normal(8).expand(1, 1, 20, 8), normal(8).expand(1, 1, 20, 8)
    a = angles(20, 8)
    products = (rotate(q, (a.cos(), a.sin())) @ rotate(k, (a.cos(), a.sin())).mT)[0, 0]
    for distance in range(-19, 20):
        diagonal = products.diagonal(distance)
        equal(diagonal, diagonal[:1].expand_as(diagonal))
    assert len({round(value, 6) for value in products[0].tolist()}) == 20


def test_weights_of_attention_are_torchs():
    ours = decoder()
    last = torchs(ours).layers[-1]
    x, memory = inputs_of(ours)
    lengths, memory_lengths = torch.tensor([3, STEPS, 2, 1]), torch.tensor([SOURCE, 2, 4, 1])
    asked = {}
    ours.layers[-1].norm2.register_forward_hook(lambda module, args, y: asked.update(y=y))
    weights = ours.attention(x, memory, memory_lengths, lengths)
    _, expected = last.multihead_attn(
        asked["y"], memory, memory, key_padding_mask=padding(SOURCE, memory_lengths)
    )
    equal(weights, expected.masked_fill(padding(STEPS, lengths)[..., None], 0))
    asked_before = asked["y"]
    ours(x, memory, memory_lengths, lengths)  # the layers below are run the same way
    equal(asked["y"], asked_before)


def test_nothing_is_looked_at_in_no_memory():
    module = decoder()
    x, memory = inputs_of(module)
    weights = module.attention(x, memory, MEMORY_LENGTHS, LENGTHS)
    some = (~padding(STEPS, LENGTHS) & (MEMORY_LENGTHS > 0)[:, None]).double()
    equal(weights.sum(-1), some)
    assert not weights.masked_select(padding(SOURCE, MEMORY_LENGTHS)[:, None]).any()


def test_weights_leave_out_what_is_hidden_however_bad_the_rest():
    queries, keys, mask = (
        torch.full((1, 1, 1, 4), 1e3),
        torch.full((1, 1, 3, 4), -1e3),
        torch.ones(1, 1, 1, 3),
    )
    weights = MultiHeadAttention(4, 1, 0.0).weights(
        queries, keys, mask.index_fill(-1, torch.tensor(0), 0).bool()
    )
    assert weights.flatten().tolist() == [0, 0.5, 0.5]


# Step by step.


@settings(max_examples=15, deadline=None)
@given(steps=st.integers(1, 7), lengths=st.lists(st.integers(0, SOURCE), min_size=1, max_size=4))
def test_the_decoder_step_by_step(steps, lengths):
    module, lengths = decoder(), torch.tensor(lengths)
    x, memory = normal(len(lengths), steps, FEATURES), normal(len(lengths), SOURCE, FEATURES)
    memory = memory.masked_fill(padding(SOURCE, lengths)[..., None], torch.nan)
    cache, ys = module.begin(memory, lengths), []
    for x_t in x.unbind(1):
        y, cache = module.step(x_t, cache)
        ys.append(y)
    equal(torch.stack(ys, 1), module(x, memory, lengths))


def test_selected_rows_go_on_as_they_would_have():
    module = decoder()
    x, memory = inputs_of(module)
    rows = torch.tensor([2, 0, 0])
    cache = module.begin(memory)
    for x_t in x[:, :3].unbind(1):
        _, cache = module.step(x_t, cache)
    y, after = module.step(x[rows, 3], select_rows(cache, rows))
    whole = module(x, memory)
    equal(y, whole[rows, 3])
    y, _ = module.step(x[rows, 4], after)
    equal(y, whole[rows, 4])
    y, _ = module.step(x[:, 3], cache)  # what was selected from is as it was
    equal(y, whole[:, 3])


def test_a_decoder_differs_with_its_memory():
    module = decoder()
    x, memory = inputs_of(module)
    assert (module(x, memory) - module(x, memory + 1)).abs().amin((1, 2)).gt(0).all()


def test_no_step_of_a_decoder_sees_a_later_one():
    module = decoder()
    x, memory = inputs_of(module)
    x.requires_grad_()
    y = module(x, memory)
    for t in range(STEPS):
        (gradient,) = torch.autograd.grad(y[:, t].sum(-1).sin().sum(), x, retain_graph=True)
        assert (gradient.abs().sum((0, 2)) > 0).tolist() == [s <= t for s in range(STEPS)]


def test_an_encoder_sees_all_steps():
    module, x = encoder(), normal(BATCH, STEPS, FEATURES).requires_grad_()
    (gradient,) = torch.autograd.grad(module(x)[:, 2].sum(-1).sin().sum(), x)
    assert (gradient.abs().sum(-1) > 0).all()


# Padding, rows, and nothing at all.


@both_kinds
@pytest.mark.parametrize("filler", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_padding_reaches_no_value_and_no_gradient(kind, filler):
    module = make(kind)
    inputs = inputs_of(module)
    gaps = [padding(STEPS, LENGTHS), padding(SOURCE, MEMORY_LENGTHS)]
    results = []
    for content in (0.0, filler):
        filled = [
            value.masked_fill(gap[..., None], content).requires_grad_()
            for value, gap in zip(inputs, gaps, strict=False)
        ]
        y = run(module, *filled, lengths=LENGTHS, memory_lengths=MEMORY_LENGTHS)
        assert not y[gaps[0]].any()
        found = gradients(y, filled, module)
        for gradient, gap in zip(found, gaps[: len(inputs)], strict=False):
            assert not gradient[gap].any()
        results.append([y, *found])
    assert all(value.isfinite().all() for value in results[1])
    equal(results[1], results[0], tolerance=0)


@both_kinds
def test_a_row_does_not_depend_on_its_batch(kind):
    module = make(kind)
    x, *memory = inputs_of(module)
    whole = run(module, x, *memory, lengths=LENGTHS, memory_lengths=MEMORY_LENGTHS)
    for row, (length, source) in enumerate(zip(LENGTHS.tolist(), MEMORY_LENGTHS.tolist(), strict=True)):
        alone = run(module, x[row : row + 1, :length], *(m[row : row + 1, :source] for m in memory))
        equal(alone[0], whole[row, :length])
        assert length == 0 or whole[row, :length].any()


@both_kinds
@pytest.mark.parametrize("lengths", [None, [0, 0, 0, 0]])
def test_rows_without_steps_give_zeros_and_no_nan_on_the_way(kind, lengths):
    module = make(kind)
    inputs = inputs_of(module, steps=0 if lengths is None else STEPS)
    inputs = [torch.full_like(value, torch.nan, requires_grad=True) for value in inputs]
    nothing = torch.zeros(BATCH, dtype=torch.long)
    with torch.autograd.set_detect_anomaly(True):
        y = run(module, *inputs, lengths=nothing, memory_lengths=nothing)
        found = gradients(y, inputs, module)
    assert not y.any()
    assert not any(gradient.any() for gradient in found)


@both_kinds
def test_no_rows(kind):
    module = make(kind)
    x, *memory = (value[:0] for value in inputs_of(module))
    assert run(module, x, *memory).shape == (0, STEPS, FEATURES)


# Weights.


@both_kinds
def test_each_parameter_gets_a_gradient(kind):
    module = make(kind)
    found = gradients(run(module, *inputs_of(module)), [], module)
    for (name, _), gradient in zip(sorted(module.named_parameters()), found, strict=True):
        assert gradient.isfinite().all(), name
        # A shift of all keys alike changes no softmax: of b_k there is nothing to learn.
        queries, keys, values = gradient.chunk(3) if "in_proj" in name else [gradient] * 3
        assert queries.any(), name
        assert values.any(), name
        assert "in_proj_bias" in name or keys.any(), name


def test_weights_begin_as_glorot_says():
    module = TransformerDecoder(64, 2)
    for name, parameter in module.named_parameters():
        if parameter.dim() == 2:
            bound = math.sqrt(6 / sum(parameter.shape))
            assert 0.98 * bound < parameter.abs().max() <= bound, name
        else:
            assert (parameter == (1 if "norm" in name and name.endswith("weight") else 0)).all(), name
    layers = module.state_dict()
    assert not torch.equal(layers["layers.0.linear1.weight"], layers["layers.1.linear1.weight"])


def test_hidden_is_four_times_the_features():
    assert TransformerEncoder(8, 1).layers[0].linear1.weight.shape == (32, 8)


def test_a_copy_says_the_same():
    module = decoder()
    inputs = inputs_of(module)
    equal(copy.deepcopy(module)(*inputs), module(*inputs), tolerance=0)


# What is refused.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 10, "heads": 4}, "features must divide among the heads, got 10 and 4 heads"),
        ({"layers": 0}, "layers must be 1 or more, got 0"),
        ({"heads": 0}, "heads must be 1 or more, got 0"),
        ({"hidden": 0}, "hidden must be 1 or more, got 0"),
        ({"dropout": 1.0}, "dropout must lie in [0, 1), got 1.0"),
    ],
)
@pytest.mark.parametrize("kind", [TransformerEncoder, TransformerDecoder])
def test_impossible_options(kind, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        kind(**{"features": 8, "layers": 1, **options})


@both_kinds
@pytest.mark.parametrize("shape", [(BATCH, FEATURES), (BATCH, STEPS, FEATURES + 2)])
def test_x_must_fit(kind, shape):
    module = make(kind)
    _, *memory = inputs_of(module)
    with pytest.raises(ShapeError, match=r"x must have shape \[batch, time, 8\], got "):
        run(module, torch.zeros(shape, dtype=torch.float64), *memory)


def test_the_memory_must_fit():
    module = decoder()
    x, memory = inputs_of(module)
    with pytest.raises(ShapeError, match=r"memory must have shape \[batch, time, 8\], got "):
        module(x, memory[..., :4])
    for call in (module, module.attention):
        with pytest.raises(ShapeError, match="memory must have as many rows as x, 4, got 3"):
            call(x, memory[:3])


@both_kinds
def test_lengths_must_fit(kind):
    module = make(kind)
    with pytest.raises(ShapeError, match=r"lengths must lie in 0\.\.6"):
        run(module, *inputs_of(module), lengths=LENGTHS + 1)
