"""The encoder-decoder against its equations row by row, however it is read, and toys that it must learn."""

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from throughtime.errors import ConfigError
from throughtime.models.seq2seq import Seq2Seq

SOURCE, TARGET, BOUNDARY = 9, 8, 2
FORMS = {
    "none": {"attention": "none"},
    "dot": {"attention": "dot"},
    "general": {"attention": "general"},
    "additive": {"attention": "additive"},
    "general, fed": {"attention": "general", "input_feeding": True},
    "additive, fed": {"attention": "additive", "input_feeding": True},
    "covered": {"attention": "additive", "coverage": True},
    "covered, fed": {"attention": "additive", "coverage": True, "input_feeding": True},
}
every_form = pytest.mark.parametrize("form", FORMS)
ATTENTIVE = [form for form in FORMS if form != "none"]


@dataclass(frozen=True)
class Batch:
    """Pairs of a source and a target."""

    source: Tensor
    source_lengths: Tensor
    inputs: Tensor
    targets: Tensor
    target_lengths: Tensor


def pad(rows, value):
    width = max(map(len, rows), default=0)
    return torch.tensor([row + [value] * (width - len(row)) for row in rows]).long().view(len(rows), width)


def batch_of(pairs):
    """A batch from lists of tokens on both sides, the targets without their boundaries."""
    sources, targets = [s for s, _ in pairs], [t for _, t in pairs]
    return Batch(
        pad(sources, 0),
        torch.tensor([len(s) for s in sources]).long(),
        pad([[BOUNDARY, *t] for t in targets], 0),
        pad([[*t, BOUNDARY] for t in targets], -100),
        torch.tensor([len(t) + 1 for t in targets]).long(),
    )


PAIRS = [
    ([1, 2, 3], [5, 6]),
    ([4], [7, 1, 3, 3]),
    ([], [1]),
    ([8, 8, 0, 5, 2], []),
    ([6, 7, 1, 1], [4, 0, 2]),
]


def make(form="general", **options):
    """A model in float64 that has drawn all its weights, ready for evaluation."""
    options = {"hidden": 6, "layers": 2, **FORMS[form], **options}
    model = Seq2Seq(SOURCE, TARGET, BOUNDARY, **options).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def equal(one, other, tolerance=1e-10):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


# The equations, for one pair.


def lstm(layer, suffix, x, h, c):
    weights = layer.get_parameter(f"weight_ih{suffix}"), layer.get_parameter(f"weight_hh{suffix}")
    i, f, g, o = (weights[0] @ x + weights[1] @ h + layer.get_parameter(f"bias{suffix}")).chunk(4)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def encoded(model, tokens):
    """What the encoder says of each token, and the states it ends in, layer by layer."""
    encoder, ends = model.encoder, []
    xs = [model.source_embedding.weight[token] for token in tokens]
    for layer in range(encoder.layers):
        ways = []
        for turned in range(encoder.directions):
            h = c = torch.zeros(encoder.hidden_sizes[0], dtype=torch.float64)
            said = []
            for x in xs[::-1] if turned else xs:
                h, c = lstm(encoder, f"_l{layer}" + "_reverse" * turned, x, h, c)
                said.append(h)
            ways.append((said[::-1] if turned else said, h, c))
        xs = [torch.cat(parts) for parts in zip(*(said for said, _, _ in ways), strict=True)]
        ends.append(tuple(torch.cat([way[k] for way in ways]) for k in (1, 2)))
    return xs, ends


def attended(attention, query, memory, coverage):
    if not memory:
        return torch.zeros_like(query), torch.zeros(0, dtype=torch.float64)
    scores = []
    for m, seen in zip(memory, coverage, strict=True):
        if attention.kind == "additive":
            hidden = attention.weight_query @ query + attention.weight_memory @ m
            if attention.weight_coverage is not None:
                hidden = hidden + attention.weight_coverage * seen
            scores.append(attention.v @ hidden.tanh())
        else:
            scores.append(query @ (m if attention.kind == "dot" else attention.weight_memory @ m))
    shares = torch.stack(scores).softmax(0)
    return sum(a * m for a, m in zip(shares, memory, strict=True)), shares


def by_hand(model, source, inputs):
    """The log-probabilities after each input of one pair, and where each looks."""
    memory, states = encoded(model, source)
    feed = torch.zeros(model.hidden, dtype=torch.float64)
    coverage = torch.zeros(len(memory), dtype=torch.float64)
    said, looks = [], []
    for token in inputs:
        x = model.target_embedding.weight[token]
        x = torch.cat([x, feed]) if model.input_feeding else x
        for layer, (h, c) in enumerate(states):
            states[layer] = lstm(model.decoder, f"_l{layer}", x, h, c)
            x = states[layer][0]
        if model.attention is not None:
            context, shares = attended(model.attention, x, memory, coverage)
            x = (model.join.weight @ torch.cat([context, x])).tanh()
            coverage = coverage + shares
            looks.append(shares)
        feed = x
        said.append((model.head.weight @ x + model.head.bias).log_softmax(0))
    return said, looks


def nats_by_hand(model, pairs):
    total = 0.0
    for source, target in pairs:
        said, _ = by_hand(model, source, [BOUNDARY, *target])
        total = total - sum(row[token] for row, token in zip(said, [*target, BOUNDARY], strict=True))
    return total


def gradients(model, total):
    for parameter in model.parameters():
        parameter.grad = None
    total.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@every_form
@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_loss_and_all_gradients_are_those_by_hand(form, bidirectional):
    model = make(form, bidirectional=bidirectional)
    loss, expected = model.loss(batch_of(PAIRS)), nats_by_hand(model, PAIRS)
    equal(loss.total, expected)
    assert loss.count == sum(len(target) + 1 for _, target in PAIRS)
    assert (loss.state, loss.penalty) == ((), 0.0)
    found = gradients(model, loss.total)
    equal(found, gradients(model, expected))
    assert all(gradient.any() for gradient in found.values())


@pytest.mark.parametrize("options", [{"shared": True}, {"tied": False}, {"tied": False, "embedding": 5}])
@pytest.mark.parametrize("form", ["general", "additive, fed"])
def test_the_loss_and_all_gradients_are_those_by_hand_however_weights_are_shared(form, options):
    model = make(form, **options) if "shared" not in options else shared_model(form)
    pairs = [([min(token, TARGET - 1) for token in source], target) for source, target in PAIRS]
    loss, expected = model.loss(batch_of(pairs)), nats_by_hand(model, pairs)
    equal(loss.total, expected)
    equal(gradients(model, loss.total), gradients(model, expected))


def shared_model(form, **options):
    return Seq2Seq(TARGET, TARGET, BOUNDARY, hidden=6, shared=True, **FORMS[form], **options).double().eval()


def test_what_is_shared_is_one():
    model = shared_model("general")
    assert model.source_embedding.weight is model.target_embedding.weight is model.head.weight
    apart = make(tied=False)
    assert apart.source_embedding.weight is not apart.target_embedding.weight
    assert apart.target_embedding.weight is not apart.head.weight


@pytest.mark.parametrize("form", ATTENTIVE)
def test_the_weights_of_attention_are_those_by_hand(form):
    model, batch = make(form), batch_of(PAIRS)
    expected = torch.zeros(*batch.inputs.shape, batch.source.shape[1], dtype=torch.float64)
    for row, (source, target) in enumerate(PAIRS):
        for t, shares in enumerate(by_hand(model, source, [BOUNDARY, *target])[1]):
            expected[row, t, : len(source)] = shares
    found = model.attention_weights(batch)
    equal(found, expected)
    assert not found.requires_grad


# One pair, however it is read.


def one_by_one(model, batch):
    """The negative log-probabilities of all targets, from `begin` and `step` alone."""
    state, total = model.begin(batch.source, batch.source_lengths), 0.0
    for inputs, targets in zip(batch.inputs.T, batch.targets.T, strict=True):
        log_probs, state = model.step(inputs, state)
        equal(log_probs.exp().sum(-1), torch.ones(len(inputs), dtype=torch.float64))
        real = targets != -100
        total = total - log_probs[real].gather(-1, targets[real][:, None]).sum()
    return total


@every_form
def test_step_by_step_is_the_loss_in_one_go(form):
    model, batch = make(form), batch_of(PAIRS)
    loss, steps = model.loss(batch).total, one_by_one(model, batch)
    equal(loss, steps)
    equal(gradients(model, loss), gradients(model, steps))


@pytest.mark.parametrize(
    "cell", ["gru", "slstm", "batch_norm_lstm", "image_rnn", "lru", "min_gru", "recurrent_highway"]
)
@pytest.mark.parametrize("bidirectional", [True, False])
def test_other_cells_read_step_by_step_what_they_read_in_one_go(cell, bidirectional):
    model, batch = make(cell=cell, bidirectional=bidirectional), batch_of(PAIRS)
    equal(model.loss(batch).total, one_by_one(model, batch))


def test_the_decoder_counts_its_own_steps():
    """Batch norm has statistics for each step: those of the decoder begin with its first."""
    model, batch = make(cell="batch_norm_lstm").train(), batch_of(PAIRS)
    state = model.begin(batch.source, batch.source_lengths)
    assert all(h.any() and c.any() and not t.any() for h, c, t in state.recurrent)
    model.loss(batch)
    seen = model.decoder.mean_i_l0.any(1)
    assert seen.tolist() == [t < batch.inputs.shape[1] - 1 for t in range(len(seen))]  # the last has one row


def test_rows_that_have_ended_are_no_part_of_the_statistics_of_a_step():
    """With coverage, which has no voice here, a step at a time is read and otherwise all at once."""
    options = {"cell": "batch_norm_lstm", "dropout": 0.0, "layers": 1}
    plain, covered, batch = make("additive", **options), make("covered", **options), batch_of(PAIRS)
    with torch.no_grad():
        covered.attention.weight_coverage.zero_()
    plain.load_state_dict(covered.state_dict(), strict=False)
    one, other = (model.train().loss(batch).total for model in (plain, covered))
    equal(one, other)
    equal(dict(plain.named_buffers()), dict(covered.named_buffers()))
    one, other = gradients(plain, one), gradients(covered, other)
    assert other.pop("attention.weight_coverage").any()
    equal(one, other)


def test_feeding_what_is_not_read_changes_nothing():
    """The step-wise form with weights of zero for what is fed is the form that runs at once."""
    plain, fed = make("additive", layers=1), make("additive, fed", layers=1)
    values = plain.state_dict()
    name = "decoder.weight_ih_l0"
    values[name] = torch.cat([values[name], torch.zeros(24, 6)], 1)
    fed.load_state_dict(values)
    one, other = (model.loss(batch_of(PAIRS)).total for model in (plain, fed))
    equal(one, other)
    one, other = gradients(plain, one), gradients(fed, other)
    assert other[name][:, 6:].any()
    other[name] = other[name][:, :6]
    equal(one, other)


@every_form
@given(
    pairs=st.lists(
        st.tuples(
            st.lists(st.integers(0, SOURCE - 1), max_size=5), st.lists(st.integers(0, TARGET - 1), max_size=4)
        ),
        min_size=1,
        max_size=5,
    ),
    seed=st.integers(0, 99),
)
@settings(max_examples=10, deadline=None)
def test_a_batch_is_the_sum_of_its_pairs(form, pairs, seed):
    torch.manual_seed(seed)
    model = make(form, layers=1)
    together = model.loss(batch_of(pairs)).total
    equal(together, sum(model.loss(batch_of([pair])).total for pair in pairs))


@every_form
def test_a_pair_alone_is_answered_as_in_a_batch(form):
    model, batch = make(form), batch_of(PAIRS)
    vectors = model.vectors(batch)
    looks = None if form == "none" else model.attention_weights(batch)
    state = model.begin(batch.source, batch.source_lengths)
    log_probs, state = model.step(batch.inputs[:, 0], state)
    log_probs, _ = model.step(batch.inputs[:, 0], state)
    for row, pair in enumerate(PAIRS):
        alone = batch_of([pair])
        equal(model.vectors(alone)[0], vectors[row])
        if looks is not None:
            steps, width = len(pair[1]) + 1, len(pair[0])
            equal(model.attention_weights(alone)[0], looks[row, :steps, :width])
        _, after = model.step(alone.inputs[:, 0], model.begin(alone.source, alone.source_lengths))
        equal(model.step(alone.inputs[:, 0], after)[0][0], log_probs[row])


@every_form
@pytest.mark.parametrize("rubbish", [10**6, -7, BOUNDARY])
def test_padding_is_not_read(form, rubbish):
    model, batch = make(form), batch_of(PAIRS)

    def fill(tokens, lengths):
        tokens = torch.cat([tokens, torch.zeros(len(tokens), 2).long()], 1)
        return tokens.masked_fill(torch.arange(tokens.shape[1]) >= lengths[:, None], rubbish)

    left_out = torch.full((len(PAIRS), 2), -100)
    dirty = replace(
        batch,
        source=fill(batch.source, batch.source_lengths),
        inputs=fill(batch.inputs, batch.target_lengths),
        targets=torch.cat([batch.targets, left_out], 1),
    )
    one, other = model.loss(batch), model.loss(dirty)
    equal(one.total, other.total)
    assert one.count == other.count
    equal(gradients(model, one.total), gradients(model, other.total))
    vectors = [model.vectors(each) for each in (batch, dirty)]
    equal(*vectors)
    if form != "none":
        steps, width = batch.inputs.shape[1], batch.source.shape[1]
        looks = model.attention_weights(dirty)
        equal(looks[:, :steps, :width], model.attention_weights(batch))
        assert not looks[:, steps:].any()
        assert not looks[..., width:].any()


@every_form
def test_targets_that_are_left_out_within_a_row_cost_nothing(form):
    model, batch = make(form), batch_of(PAIRS)
    targets = batch.targets.clone()
    targets[1, 2] = -100
    loss = model.loss(replace(batch, targets=targets))
    said, _ = by_hand(model, PAIRS[1][0], [BOUNDARY, *PAIRS[1][1]])
    equal(loss.total, model.loss(batch).total + said[2][batch.targets[1, 2]])
    assert loss.count == model.loss(batch).count - 1


@every_form
def test_the_softmax_is_made_for_real_targets_alone(form, monkeypatch):
    model, batch, rows = make(form), batch_of(PAIRS), []
    loss = model.head.loss
    monkeypatch.setattr(model.head, "loss", lambda x, *more: rows.append(len(x)) or loss(x, *more))
    model.loss(batch)
    assert rows == [int(batch.target_lengths.sum())]


@every_form
def test_rows_of_a_state_can_be_taken(form):
    model, batch = make(form), batch_of(PAIRS)
    _, state = model.step(batch.inputs[:, 0], model.begin(batch.source, batch.source_lengths))
    rows = torch.tensor([1, 1, 4, 0, 2, 3, 3])
    tokens = torch.tensor([3, 4, 5, 6, 7, 0, 1])
    found, state_of_taken = model.step(tokens, model.select(state, rows))
    for row, token, log_probs in zip(rows.tolist(), tokens, found, strict=True):
        source = PAIRS[row][0]
        equal(log_probs, by_hand(model, source, [BOUNDARY, int(token)])[0][1])
    again, _ = model.step(tokens, model.select(state_of_taken, torch.arange(len(rows))))
    equal(again, model.step(tokens, state_of_taken)[0])


def test_a_vector_is_the_mean_of_what_the_encoder_says():
    model, batch = make(), batch_of(PAIRS)
    vectors = model.vectors(batch)
    for (source, _), vector in zip(PAIRS, vectors, strict=True):
        said, _ = encoded(model, source)
        equal(vector, sum(said) / len(said) if said else torch.zeros(6, dtype=torch.float64))


@every_form
@pytest.mark.parametrize("pairs", [[], [([], [])]], ids=["no pairs", "an empty pair"])
def test_almost_nothing_can_be_read(form, pairs):
    model = make(form)
    loss = model.loss(batch_of(pairs))
    assert loss.count == len(pairs)
    equal(loss.total, torch.as_tensor(nats_by_hand(model, pairs), dtype=torch.float64))


# Training.


@pytest.mark.parametrize("form", ["none", "general", "covered, fed"])
def test_smoothed_targets_are_those_of_torch_and_the_total_stays_plain(form):
    model, batch = make(form, dropout=0.0, label_smoothing=0.2), batch_of(PAIRS)
    evaluated = model.loss(batch)
    trained = model.train().loss(batch)
    model.label_smoothing = 0.0
    other = model.loss(batch).penalty  # of coverage
    log_probs = [
        by_hand(model, source, [BOUNDARY, *target])[0] for source, target in PAIRS
    ]  # logits up to a constant, which no cross-entropy sees
    logits = torch.stack([row for rows in log_probs for row in rows])
    targets = torch.tensor([token for _, target in PAIRS for token in [*target, BOUNDARY]])
    equal(trained.total, evaluated.total)
    assert evaluated.penalty == 0.0
    smooth = F.cross_entropy(logits, targets, label_smoothing=0.2)
    equal(trained.mean + trained.penalty, smooth + other)
    model.label_smoothing = 0.2
    loss = model.loss(batch)
    equal(gradients(model, loss.mean + loss.penalty - other), gradients(model, smooth))


@pytest.mark.parametrize("form", ["covered", "covered, fed"])
def test_training_pays_for_looking_again(form):
    model, batch = make(form, dropout=0.0), batch_of(PAIRS)
    assert model.loss(batch).penalty == 0.0
    looks = model.attention_weights(batch)
    before = looks.cumsum(1) - looks
    loss = model.train().loss(batch)
    equal(loss.penalty, torch.minimum(looks, before).sum() / loss.count)
    assert loss.penalty > 0
    model.zero_grad()
    loss.penalty.backward()
    assert model.attention.v.grad.any()


def always(model, token):
    """Let the model say one token after everything."""
    with torch.no_grad():
        model.head.bias.zero_()
        model.head.bias[token] = 1e4
    return model


@pytest.mark.parametrize("form", ["none", "general", "additive, fed", "covered"])
def test_sampled_inputs_are_what_the_model_says(form):
    model, batch = always(make(form, dropout=0.0), 4), batch_of(PAIRS)
    said = batch.inputs.clone()
    said[:, 1:] = 4
    expected = model.train().loss(replace(batch, inputs=said))
    model.scheduled_sampling = 1.0
    found = model.loss(batch)
    equal(found.total, expected.total)
    equal(gradients(model, found.total), gradients(model, expected.total))
    taught = model.eval().loss(batch).total
    model.scheduled_sampling = 0.0
    equal(taught, model.loss(batch).total)
    assert (taught - found.total).abs() > 1e-3


def test_inputs_are_sampled_at_their_rate():
    model = always(make(dropout=0.0, scheduled_sampling=0.3), 4)
    batch = batch_of([([1, 2, 3], [5])] * 2000)
    said = batch.inputs.clone()
    said[:, 1] = 4
    true, drawn = (model.attention_weights(replace(batch, inputs=i))[0, 1] for i in (batch.inputs, said))
    looks = model.train().attention_weights(batch)[:, 1]
    taken = (looks - drawn).abs().amax(1) < 1e-9
    assert taken.double().mean().item() == pytest.approx(0.3, abs=0.05)
    equal(looks[~taken], true.expand(int((~taken).sum()), -1))


@pytest.mark.parametrize(("form", "rows"), [("none", [15]), ("general", [15]), ("additive, fed", [5] * 5)])
def test_embeddings_and_what_the_softmax_reads_are_dropped_in_training_alone(form, rows, monkeypatch):
    seen = []

    def drop(x, rate, variational):
        seen.append((tuple(x.shape), rate, variational))
        return 0 * x

    monkeypatch.setattr("throughtime.models.seq2seq.drop_steps", drop)
    model, batch = make(form, dropout=0.4), batch_of(PAIRS)
    model.loss(batch)
    assert not seen
    loss = model.train().loss(batch)
    assert seen == [(shape, 0.4, False) for shape in [(5, 5, 6)] * 2 + [(1, count, 6) for count in rows]]
    assert model.encoder.dropout == model.decoder.dropout == 0.4
    equal(loss.mean, F.cross_entropy(model.head.bias.expand(loss.count, -1), flat_targets(batch)))


def flat_targets(batch):
    return batch.targets[batch.targets != -100]


# What does not fit.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"attention": "location"},
            'there is no attention "location": there are none, additive, dot, general',
        ),
        ({"attention": "none", "input_feeding": True}, 'input_feeding needs attention, and it is "none"'),
        ({"attention": "none", "coverage": True}, 'coverage needs attention, and it is "none"'),
        ({"coverage": True}, 'the attention is "general": take "additive"'),
        ({"hidden": 7}, "hidden / 2 units in each direction, got hidden=7"),
        ({"hidden": 0}, "hidden must be 1 or more, got 0"),
        ({"shared": True}, "as many classes on both sides, got 9 and 8"),
        ({"embedding": 5}, "tied weights need embedding = hidden, got 5 and 256"),
        ({"boundary": 8}, "boundary must be a token of the target, 0 to 7, got 8"),
        ({"boundary": -1}, "got -1"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"label_smoothing": -0.1}, r"label_smoothing must lie in \[0, 1\), got -0.1"),
        ({"scheduled_sampling": 1.5}, r"scheduled_sampling must lie in \[0, 1\], got 1.5"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Seq2Seq(SOURCE, TARGET, **{"boundary": BOUNDARY, **options})


def test_without_attention_there_are_no_weights_to_look_at():
    with pytest.raises(ConfigError, match='attention "none" has no weights'):
        make("none").attention_weights(batch_of(PAIRS))


# Learning.

END, DIGITS = 0, 10


def to_reverse(rows):
    """Strings of one to five digits, 1 to 10, and their reverses, which end with 0."""
    lengths = torch.randint(1, 6, (rows,))
    source = torch.randint(1, DIGITS + 1, (rows, 5))
    step = torch.arange(6)
    targets = source.gather(1, (lengths[:, None] - 1 - step[:5]).clamp(min=0))
    inputs = torch.cat([torch.zeros(rows, 1).long(), targets], 1)
    targets = torch.cat([targets, torch.zeros(rows, 1).long()], 1)
    targets = targets.masked_fill(step == lengths[:, None], END).masked_fill(step > lengths[:, None], -100)
    return Batch(source, lengths, inputs, targets, lengths + 1)


@torch.no_grad()
def greedily(model, batch):
    """The likeliest token again and again, as many as there are targets."""
    state, token, said = model.begin(batch.source, batch.source_lengths), torch.zeros(len(batch.source)), []
    token = token.long()
    for _ in range(batch.targets.shape[1]):
        log_probs, state = model.step(token, state)
        token = log_probs.argmax(-1)
        said.append(token)
    return torch.stack(said, 1)


@pytest.mark.parametrize("form", ["general", "additive, fed"])
def test_digits_are_learned_to_be_reversed(form):
    model = Seq2Seq(DIGITS + 1, DIGITS + 1, END, hidden=32, shared=True, dropout=0.0, **FORMS[form])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(160):
        loss = model.loss(to_reverse(128)).mean
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    batch = to_reverse(500)
    said = greedily(model.eval(), batch)
    right = ((said == batch.targets) | (batch.targets == -100)).all(1)
    assert right.double().mean() > 0.95
