"""Attention against loops over single queries, and padding that must not be read."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.errors import ConfigError, ShapeError
from throughtime.nn.memory_attention import Attention, Memory, coverage_loss

BATCH, QUERIES, STEPS, FEATURES = 4, 3, 5, 4
LENGTHS = torch.tensor([3, STEPS, 0, 1])
KINDS = ("additive", "dot", "general")
every_kind = pytest.mark.parametrize("kind", KINDS)


def normal(*shape):
    return torch.randn(shape, dtype=torch.float64)


def make(kind, query_size=None, hidden=None, coverage=False):
    """An attention in float64 whose weights are all drawn."""
    query_size = query_size or (FEATURES if kind == "dot" else 3)
    hidden = (hidden or 6) if kind == "additive" else None
    layer = Attention(kind, query_size, FEATURES, hidden, coverage).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter))
    return layer


def problem(layer):
    return normal(BATCH, QUERIES, layer.query_size), normal(BATCH, STEPS, FEATURES)


def score(layer, query, value, looked_at=0.0):
    if layer.kind == "dot":
        return query @ value
    if layer.kind == "general":
        return query @ (layer.weight_memory @ value)
    hidden = layer.weight_query @ query + layer.weight_memory @ value
    if layer.weight_coverage is not None:
        hidden = hidden + layer.weight_coverage * looked_at
    return layer.v @ hidden.tanh()


def by_hand(layer, query, values, looked_at=None):
    """The context of one query over the real steps of one row, and its weights over all steps."""
    weights = torch.zeros(STEPS, dtype=torch.float64)
    if not len(values):
        return torch.zeros(FEATURES, dtype=torch.float64), weights
    looked_at = weights if looked_at is None else looked_at
    powers = torch.stack([score(layer, query, v, c).exp() for v, c in zip(values, looked_at, strict=False)])
    shares = powers / powers.sum()
    context = sum(a * value for a, value in zip(shares, values, strict=True))
    return context, torch.cat([shares, weights[len(values) :]])


def all_by_hand(layer, queries, values, lengths):
    found = [
        [by_hand(layer, query, row[:n]) for query in row_queries]
        for row_queries, row, n in zip(queries, values, lengths.tolist(), strict=True)
    ]
    return tuple(torch.stack([torch.stack([pair[k] for pair in row]) for row in found]) for k in (0, 1))


def gradients(layer, queries, values, run):
    """Of a weighted sum of contexts and weights, by both inputs and each parameter."""
    queries, values = queries.clone().requires_grad_(), values.clone().requires_grad_()
    generator = torch.Generator().manual_seed(7)
    total = sum(
        (part * torch.randn(part.shape, dtype=torch.float64, generator=generator)).sum()
        for part in run(layer, queries, values)
    )
    return torch.autograd.grad(total, [queries, values, *layer.parameters()])


def attend(layer, queries, values, lengths=LENGTHS):
    return layer(queries, layer.prepare(values, lengths))


# Known answers.


@every_kind
@given(lengths=st.lists(st.integers(0, STEPS), min_size=1, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_each_query_is_answered_as_by_hand(kind, lengths, seed):
    torch.manual_seed(seed)
    layer, lengths = make(kind), torch.tensor(lengths)
    queries = normal(len(lengths), QUERIES, layer.query_size)
    values = normal(len(lengths), STEPS, FEATURES)
    found = attend(layer, queries, values, lengths)
    torch.testing.assert_close(found, all_by_hand(layer, queries, values, lengths))


@every_kind
@pytest.mark.parametrize("piece", [1, 10**9], ids=["in pieces", "all at once"])
def test_gradients_are_those_by_hand(kind, piece, monkeypatch):
    monkeypatch.setattr("throughtime.nn.memory_attention.PIECE", piece)
    layer = make(kind)
    queries, values = problem(layer)
    found = gradients(layer, queries, values, attend)
    expected = gradients(layer, queries, values, lambda *given: all_by_hand(*given, LENGTHS))
    torch.testing.assert_close(found, expected)
    assert all(gradient.abs().sum() > 0 for gradient in found)


def test_pieces_give_what_all_at_once_gives(monkeypatch):
    layer = make("additive")
    queries, values = problem(layer)
    whole = attend(layer, queries, values)
    monkeypatch.setattr(
        "throughtime.nn.memory_attention.PIECE", 2 * BATCH * STEPS * layer.hidden
    )  # two queries, then one
    torch.testing.assert_close(attend(layer, queries, values), whole)


def test_the_additive_score_keeps_no_more_for_the_backward_pass_than_a_piece(monkeypatch):
    layer, steps = make("additive", hidden=40), 20
    queries, values = normal(2, steps, layer.query_size), normal(2, STEPS, FEATURES)
    largest = 2 * steps * STEPS * layer.hidden
    for piece, fits in ((largest, False), (2 * STEPS * layer.hidden, True)):
        kept = {}

        def keep(tensor, kept=kept):
            kept[tensor.data_ptr()] = tensor  # the keys, which all pieces share, count once
            return tensor

        monkeypatch.setattr("throughtime.nn.memory_attention.PIECE", piece)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            attend(layer, queries, values, None)
        assert (sum(tensor.numel() for tensor in kept.values()) < largest / 2) == fits


@every_kind
def test_no_lengths_are_full_lengths(kind):
    layer = make(kind)
    queries, values = problem(layer)
    full = attend(layer, queries, values, torch.full((BATCH,), STEPS))
    torch.testing.assert_close(attend(layer, queries, values, None), full, rtol=0, atol=0)


@every_kind
def test_a_step_is_one_query_of_all(kind):
    layer = make(kind)
    queries, values = problem(layer)
    memory = layer.prepare(values, LENGTHS)
    contexts, weights = layer(queries, memory)
    for t in range(QUERIES):
        torch.testing.assert_close(layer.step(queries[:, t], memory), (contexts[:, t], weights[:, t]))


def test_coverage_enters_the_score():
    layer = make("additive", coverage=True)
    queries, values = problem(layer)
    memory, coverage = layer.prepare(values, LENGTHS), normal(BATCH, STEPS).abs()
    found = layer.step(queries[:, 0], memory, coverage)
    expected = [
        by_hand(layer, query, row[:n], seen)
        for query, row, n, seen in zip(queries[:, 0], values, LENGTHS.tolist(), coverage, strict=True)
    ]
    torch.testing.assert_close(found, tuple(torch.stack(part) for part in zip(*expected, strict=True)))


def test_coverage_has_the_gradients_by_hand():
    layer, coverage = make("additive", coverage=True), normal(BATCH, STEPS).abs()
    queries, values = problem(layer)

    def run(layer, queries, values):
        return layer.step(queries[:, 0], layer.prepare(values, LENGTHS), coverage)

    def plainly(layer, queries, values):
        rows = zip(queries[:, 0], values, LENGTHS.tolist(), coverage, strict=True)
        found = [by_hand(layer, query, row[:n], seen) for query, row, n, seen in rows]
        return [torch.stack(part) for part in zip(*found, strict=True)]

    found = gradients(layer, queries, values, run)
    torch.testing.assert_close(found, gradients(layer, queries, values, plainly))
    assert all(gradient.abs().sum() > 0 for gradient in found)


def test_coverage_begins_without_a_voice():
    torch.manual_seed(1)
    plain = Attention("additive", 3, FEATURES)
    torch.manual_seed(1)
    covered = Attention("additive", 3, FEATURES, coverage=True)
    query, values = torch.randn(BATCH, 3), torch.randn(BATCH, STEPS, FEATURES)
    found = covered.step(query, covered.prepare(values), torch.rand(BATCH, STEPS))
    torch.testing.assert_close(found, plain.step(query, plain.prepare(values)))


def test_the_coverage_loss_is_what_is_looked_at_again():
    weights = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    coverage = torch.tensor([[0.2, 1.0, 0.8], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(coverage_loss(weights, coverage), torch.tensor([0.7, 0.0]))


# Padding and batches.


@every_kind
@pytest.mark.parametrize("rubbish", [torch.nan, torch.inf, -torch.inf])
def test_padding_is_not_read(kind, rubbish):
    layer = make(kind)
    queries, values = problem(layer)
    padding = (torch.arange(STEPS) >= LENGTHS[:, None])[..., None]
    clean, dirty = values.masked_fill(padding, 0), values.masked_fill(padding, rubbish)
    torch.testing.assert_close(attend(layer, queries, dirty), attend(layer, queries, clean), rtol=0, atol=0)
    found = gradients(layer, queries, dirty, attend)
    torch.testing.assert_close(found, gradients(layer, queries, clean, attend), rtol=0, atol=0)
    assert not found[1][padding.expand_as(values)].any()


@every_kind
def test_a_row_alone_is_answered_as_in_a_batch(kind):
    layer = make(kind)
    queries, values = problem(layer)
    contexts, weights = attend(layer, queries, values)
    for row, n in enumerate(LENGTHS.tolist()):
        context, alone = attend(layer, queries[row, None], values[row, None, :n], None)
        torch.testing.assert_close(context[0], contexts[row])
        torch.testing.assert_close(alone[0], weights[row, :, :n])
        assert not weights[row, :, n:].any()


@every_kind
def test_weights_are_shares_also_of_large_scores(kind):
    layer = make(kind)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(1e5)
    queries, values = problem(layer)
    _, weights = attend(layer, 1e3 * queries, values)
    torch.testing.assert_close(weights.sum(-1), (LENGTHS > 0).double()[:, None].expand(-1, QUERIES))


@every_kind
@pytest.mark.parametrize(("batch", "queries", "steps"), [(0, 2, 3), (2, 0, 3), (2, 3, 0), (0, 0, 0)])
def test_nothing_to_look_at_gives_zeros(kind, batch, queries, steps):
    layer = make(kind)
    context, weights = attend(
        layer,
        normal(batch, queries, layer.query_size),
        normal(batch, steps, FEATURES),
        torch.zeros(batch).long(),
    )
    assert (context.shape, weights.shape) == ((batch, queries, FEATURES), (batch, queries, steps))
    assert not context.any()


@every_kind
def test_rows_of_a_memory_can_be_taken(kind):
    layer = make(kind)
    queries, values = problem(layer)
    rows = torch.tensor([1, 1, 3, 0, 2])
    taken = layer.prepare(values, LENGTHS).select(rows)
    contexts, weights = attend(layer, queries, values)
    torch.testing.assert_close(layer(queries[rows], taken), (contexts[rows], weights[rows]))


def test_the_keys_are_made_once():
    layer = make("general")
    values = normal(BATCH, STEPS, FEATURES)
    memory = layer.prepare(values)
    torch.testing.assert_close(memory.keys, values @ layer.weight_memory.T)
    other = Memory(memory.values, normal(BATCH, STEPS, layer.query_size), memory.padding)
    query = normal(BATCH, layer.query_size)
    expected = (query[:, None] @ other.keys.transpose(1, 2)).softmax(-1)[:, 0]
    torch.testing.assert_close(layer.step(query, other)[1], expected)


# What it is made of, and what it refuses.


def test_hidden_is_the_size_of_a_query_unless_said():
    assert Attention("additive", 3, 5).v.shape == (3,)
    layer = Attention("additive", 3, 5, 7)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {
        "weight_query": (7, 3),
        "weight_memory": (7, 5),
        "v": (7,),
    }
    assert "additive, 3, 5, hidden=7" in repr(layer)
    assert Attention("additive", 3, 5, coverage=True).extra_repr().endswith("coverage=True")


def test_a_generator_draws_the_weights():
    one, other = (
        Attention("additive", 3, 5, generator=torch.Generator().manual_seed(3)).state_dict() for _ in range(2)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_it_can_be_copied():
    layer = make("additive", coverage=True)
    assert copy.deepcopy(layer).state_dict().keys() == layer.state_dict().keys()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("location", 3, 3), 'there is no attention "location"'),
        (("dot", 3, 4), "needs query_size = memory_size, got 3 and 4"),
        (("general", 3, 4, 5), "leave hidden out"),
        (("general", 3, 4, None, True), 'the attention is "general"'),
        (("additive", 0, 4), "query_size must be 1 or more, got 0"),
        (("additive", 3, 4, 0), "hidden must be 1 or more, got 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        Attention(*given)


def test_shapes_that_do_not_fit_are_refused():
    layer, covered = make("additive"), make("additive", coverage=True)
    queries, values = problem(layer)
    memory = layer.prepare(values)
    with pytest.raises(ShapeError, match=r"the memory must have shape \[batch, time, 4\]"):
        layer.prepare(values[..., :2])
    with pytest.raises(ShapeError, match=r"queries must have shape \[batch, time, 3\]"):
        layer(queries[..., :2], memory)
    with pytest.raises(ShapeError, match=r"queries must have shape \[batch, 3\]"):
        layer.step(queries, memory)
    with pytest.raises(ShapeError, match="the memory's batch of 4"):
        layer(queries[:1], memory)
    with pytest.raises(ShapeError, match="coverage is given"):
        layer.step(queries[:, 0], memory, normal(BATCH, STEPS))
    with pytest.raises(ShapeError, match="coverage must be given"):
        covered.step(queries[:, 0], covered.prepare(values))
    with pytest.raises(ShapeError, match=r"coverage must have shape \[4, 5\], got \[4, 1\]"):
        covered.step(queries[:, 0], covered.prepare(values), normal(BATCH, 1))
    with pytest.raises(ConfigError, match="one query after another"):
        covered(queries, covered.prepare(values))
