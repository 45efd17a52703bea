"""The windowed Transformer against the same layers with a mask written out; pieces, documents, windows."""

import itertools
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.errors import ConfigError, ShapeError
from throughtime.nn.multi_head import angles
from throughtime.nn.state import detach, map_state, select_rows
from throughtime.nn.window_transformer import WindowTransformer

FEATURES, HEADS, LAYERS, BATCH = 8, 2, 2, 3


def normal(*shape):
    return torch.randn(shape, dtype=torch.float64)


def make(context=4, layers=LAYERS, **options):
    """In float64, in evaluation, with all its weights drawn."""
    module = WindowTransformer(FEATURES, layers, HEADS, 12, context=context, **options).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return module


def equal(one, other, tolerance=1e-10):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def sees(t, s, reset, context):
    """Whether step t of a row sees step s."""
    return s <= t < s + context and not any(reset[s + 1 : t + 1])


def written_out(module, x, reset):
    """All steps at once, none carried, each pair of steps asked about on its own."""
    steps = range(x.shape[1])
    mask = torch.tensor(
        [[[sees(t, s, row, module.context) for s in steps] for t in steps] for row in reset.tolist()]
    )
    a = angles(x.shape[1], FEATURES // HEADS, start=100)  # where positions begin does not matter
    z = x * FEATURES**0.5
    for layer in module.layers:
        z, _ = layer(z, mask=mask[:, None], turns=(a.cos(), a.sin()))
    return module.norm(z)


def in_pieces(module, x, reset, cuts):
    state, ys = None, []
    bounds = [0, *sorted(cuts), x.shape[1]]
    for start, stop in itertools.pairwise(bounds):
        y, state = module(x[:, start:stop], state, reset=reset[:, start:stop])
        ys.append(y)
    return torch.cat(ys, 1), state


@settings(max_examples=40, deadline=None)
@given(
    context=st.integers(1, 6),
    steps=st.integers(1, 12),
    cuts=st.lists(st.integers(0, 12), max_size=4),
    share=st.sampled_from([0.0, 0.2, 0.5]),
    seed=st.integers(0, 99),
)
def test_in_any_pieces_it_is_the_mask_written_out(context, steps, cuts, share, seed):
    torch.manual_seed(seed)
    module = make(context)
    x, reset = normal(BATCH, steps, FEATURES), torch.rand(BATCH, steps) < share
    y, state = in_pieces(module, x, reset, [min(cut, steps) for cut in cuts])
    equal(y, written_out(module, x, reset))
    more, marks = normal(BATCH, 3, FEATURES), torch.rand(BATCH, 3) < share
    both = torch.cat([x, more], 1), torch.cat([reset, marks], 1)
    equal(module(more, state, reset=marks)[0], written_out(module, *both)[:, steps:])


@settings(max_examples=30, deadline=None)
@given(
    context=st.integers(1, 6),
    lengths=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_rows_of_any_lengths_are_each_as_if_alone(context, lengths, seed):
    """Two padded pieces and then a whole one, against each row without its padding, NaN, resets and all."""
    torch.manual_seed(seed)
    module, rows = make(context), len(lengths)
    xs = [normal(rows, 9, FEATURES), normal(rows, 9, FEATURES), normal(rows, 2, FEATURES)]
    resets = [torch.rand(x.shape[:2]) < 0.2 for x in xs]
    ends = [*torch.tensor(lengths).T, torch.full((rows,), 2)]
    state, ys = None, []
    for x, reset, end in zip(xs, resets, ends, strict=True):
        padding = torch.arange(x.shape[1]) >= end[:, None]
        y, state = module(x.masked_fill(padding[..., None], torch.nan), state, end, reset)
        assert not y[padding].any()
        ys.append(y)
    for row in range(rows):
        x, reset, y = (
            torch.cat([each[row, : end[row]] for each, end in zip(those, ends, strict=True)])[None]
            for those in (xs, resets, ys)
        )
        equal(y, module(x, reset=reset)[0])


def test_padding_reaches_no_gradient():
    module, lengths = make(), torch.tensor([3, 0, 9])
    padding, x, found = torch.arange(9) >= lengths[:, None], normal(BATCH, 9, FEATURES), []
    for filler in (0.0, torch.nan):
        filled = x.masked_fill(padding[..., None], filler).requires_grad_()
        y, state = module(filled, None, lengths)
        more, _ = module(x[:, :2], state)
        found.append(torch.autograd.grad(y.sin().sum() + more.sin().sum(), [filled, *module.parameters()]))
        assert not found[-1][0][padding].any()
    equal(found[1], found[0], tolerance=0)


def test_gradients_are_those_of_the_mask_written_out():
    module = make()
    x, reset, weights = normal(BATCH, 9, FEATURES).requires_grad_(), torch.rand(BATCH, 9) < 0.2, normal(9, 8)
    found = [
        torch.autograd.grad((y * weights).sum(), [x, *module.parameters()])
        for y in (in_pieces(module, x, reset, [2, 5])[0], written_out(module, x, reset))
    ]
    equal(*found)
    assert all(gradient.any() for gradient in found[0])


@pytest.mark.parametrize("context", [1, 2, 5])
def test_each_layer_sees_the_context_and_no_more(context):
    module, x = make(context, layers=1), normal(1, 9, FEATURES).requires_grad_()
    y, _ = module(x)
    for t in range(9):
        (gradient,) = torch.autograd.grad(y[0, t].sin().sum(), x, retain_graph=True)
        seen = [t - context < s <= t for s in range(9)]
        assert (gradient[0].abs().sum(-1) > 0).tolist() == seen


def test_the_state_holds_what_is_still_seen():
    module, state = make(context=4), None
    reset = torch.zeros(BATCH, 1, dtype=torch.bool)
    reset[1] = True
    held = []
    for step in range(6):
        _, state = module(normal(BATCH, 1, FEATURES), state, reset=reset if step == 4 else None)
        held.append([state[0][0].shape[2], *state[-1][0].tolist()])
    assert held == [[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3], [3, 3, 3, 3], [3, 3, 1, 3], [3, 3, 2, 3]]
    assert [[tuple(value.shape) for value in values] for values in state] == [
        *[[(BATCH, HEADS, 3, FEATURES // HEADS)] * 2] * LAYERS,
        [(BATCH,)],
    ]


def test_a_carried_state_without_gradient_says_the_same():
    module, x = make(), normal(BATCH, 8, FEATURES)
    _, state = module(x[:, :5])
    y, _ = module(x[:, 5:], detach(state))
    equal(y, module(x)[0][:, 5:])


def test_rows_are_apart():
    module, x = make(), normal(BATCH, 8, FEATURES)
    reset = torch.rand(BATCH, 8) < 0.2
    whole, _ = module(x, reset=reset)
    _, state = module(x[:, :5], reset=reset[:, :5])
    rows = torch.tensor([2, 0, 0])
    y, _ = module(x[rows, 5:], select_rows(state, rows), reset=reset[rows, 5:])
    equal(y, whole[rows, 5:])
    equal(module(x[1:2], reset=reset[1:2])[0], whole[1:2])


def test_no_steps_leave_the_state():
    module = make()
    _, state = module(normal(BATCH, 5, FEATURES))
    y, after = module(normal(BATCH, 0, FEATURES), state)
    assert y.shape == (BATCH, 0, FEATURES)
    assert after is state


def test_no_rows():
    y, state = make()(normal(0, 5, FEATURES))
    assert y.shape == (0, 5, FEATURES)
    assert state[0][0].shape[0] == 0


def test_masks_do_not_grow_with_the_steps():
    module, shapes = make(context=8), []
    module.layers[0].register_forward_pre_hook(lambda _, args: shapes.append(args[2].shape[2:]))
    _, state = module(normal(1, 50, FEATURES))
    module(normal(1, 50, FEATURES), state)
    assert max(queries * keys for queries, keys in shapes) <= 8 * 15
    assert len(shapes) == 2 * 7


def test_dropout_is_on_the_input_too():
    module, x = make(layers=1, dropout=0.5), normal(1, 1, FEATURES)
    seen = []
    module.layers[0].norm1.register_forward_hook(lambda _, args, y: seen.append(args[0]))
    module.train()(x)
    kept = seen[0] / (x * FEATURES**0.5)
    assert set(kept.flatten().round(decimals=6).tolist()) == {0.0, 2.0}
    equal(module.eval()(x)[0], module(x)[0], tolerance=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 0}, "context must be 1 or more, got 0"),
        ({"features": 12, "heads": 4}, "a head must have an even number, got 12 features in 4 heads"),
        ({"features": 10, "heads": 4}, "features must divide among the heads, got 10 and 4 heads"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        WindowTransformer(**{"features": 8, "layers": 1, **options})


def test_what_does_not_fit_is_refused():
    module, x = make(), normal(BATCH, 5, FEATURES)
    with pytest.raises(ShapeError, match=r"x must have shape \[batch, time, 8\], got \[3, 5, 6\]"):
        module(x[..., :6])
    for reset in (torch.zeros(BATCH, 4, dtype=torch.bool), torch.zeros(BATCH, 5)):
        with pytest.raises(ShapeError, match=r"reset must be booleans of shape \[3, 5\], got torch\."):
            module(x, reset=reset)
    _, state = module(x)
    for wrong in (map_state(lambda value: value[:2], state), state[:-1], make(layers=1).begin(BATCH)):
        with pytest.raises(ShapeError, match=r"state must be what begin\(3\) or a call on 3 rows returned"):
            module(x, wrong)
