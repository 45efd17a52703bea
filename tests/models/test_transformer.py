"""Transformer models: one text, however it is read; padding that must not be; toys that they must learn."""

import copy
import itertools
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from throughtime.errors import ConfigError
from throughtime.models.language_model import LanguageModel
from throughtime.models.transformer import TransformerSeq2Seq
from throughtime.nn.state import map_state, select_rows

CLASSES, BOUNDARY, UNKNOWN = 9, 0, 1
quickly = settings(max_examples=25, deadline=None)
either = pytest.mark.parametrize("tied", [True, False])


def equal(one, other, tolerance=1e-10):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def drawn(model):
    """In float64, in evaluation, with all its weights drawn."""
    with torch.no_grad():
        for parameter in model.double().eval().parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def train(model, draw, steps):
    """Adam with a learning rate that rises and falls: the usual way, which no seed has failed."""
    optimizer = torch.optim.Adam(model.parameters())
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * min(1, 10 * (step + 1) / steps, 2 * (steps - step) / steps)
        optimizer.zero_grad()
        model.loss(draw()).mean.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def check_gradients(model):
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


# From sequence to sequence.


@dataclass(frozen=True)
class Pairs:
    source: Tensor
    source_lengths: Tensor
    inputs: Tensor
    targets: Tensor
    target_lengths: Tensor

    def rows(self, rows, source=None, target=None):
        return Pairs(
            self.source[rows, :source],
            self.source_lengths[rows],
            self.inputs[rows, :target],
            self.targets[rows, :target],
            self.target_lengths[rows],
        )


def pairs_of(sources, targets, padding=0):
    """Sources and targets, lists of tokens, as a batch; the boundary begins and ends each target."""
    read, said = [[BOUNDARY, *t] for t in targets], [[*t, BOUNDARY] for t in targets]

    def padded(rows, filler):
        width = max(map(len, rows))
        return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows]).reshape(-1, width)

    def lengths(rows):
        return torch.tensor([len(row) for row in rows])

    return Pairs(
        padded(sources, padding).long(),
        lengths(sources),
        padded(read, padding),
        padded(said, -100),
        lengths(read),
    )


SOURCES, TARGETS = [[3, 4, 5], [2], [], [8, 8, 1, 2, 7]], [[5, 6], [], [2, 2, 3], [7, 3, 4]]


def seq2seq(**options):
    options = {"features": 8, "layers": 2, "heads": 2, **options}
    return drawn(TransformerSeq2Seq(CLASSES, CLASSES, BOUNDARY, **options))


def nats_by_steps(model, batch):
    """The negative log-probability of each target, 0 in padding, from `step` alone."""
    state, nats = model.begin(batch.source, batch.source_lengths), []
    for inputs, targets in zip(batch.inputs.T, batch.targets.T, strict=True):
        log_probs, state = model.step(inputs, state)
        equal(log_probs.exp().sum(-1), torch.ones(len(inputs), dtype=torch.float64))
        nats.append(-log_probs.gather(-1, targets.clamp(min=0)[:, None])[:, 0].masked_fill(targets < 0, 0))
    return torch.stack(nats, 1)


@either
@pytest.mark.parametrize("shared", [True, False])
def test_step_by_step_is_the_loss_in_one_go(tied, shared):
    model, batch = seq2seq(tied=tied, shared=shared), pairs_of(SOURCES, TARGETS)
    loss = model.loss(batch)
    assert loss.count == sum(len(target) + 1 for target in TARGETS)
    equal(loss.total, nats_by_steps(model, batch).sum())
    assert loss.state == ()
    assert loss.penalty == 0


def test_a_pair_is_the_same_alone_and_in_a_batch():
    model, batch = seq2seq(), pairs_of(SOURCES, TARGETS)
    vectors, looks = model.vectors(batch), model.attention_weights(batch)
    nats = nats_by_steps(model, batch)
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        alone = batch.rows([row], len(source), len(target) + 1)
        equal(model.loss(alone).total, nats[row].sum())
        equal(model.vectors(alone), vectors[row : row + 1])
        equal(model.attention_weights(alone)[0], looks[row, : len(target) + 1, : len(source)])


@pytest.mark.parametrize("filler", [1, -1, -100, CLASSES + 5])
def test_padding_is_not_read(filler):
    model, batch = seq2seq(), pairs_of(SOURCES, TARGETS)
    targets = batch.targets.clone()
    if filler == 1:  # even a token where there is no target
        targets[targets == -100] = filler
    other = Pairs(**vars(pairs_of(SOURCES, TARGETS, filler)) | {"targets": targets})
    results = []
    for each in (batch, other):
        model.zero_grad()
        model.loss(each).total.backward()
        results.append(
            [
                model.loss(each).total,
                model.vectors(each),
                model.attention_weights(each),
                nats_by_steps(
                    model, Pairs(**vars(each) | {"inputs": batch.inputs, "targets": batch.targets})
                ),
                *(parameter.grad.clone() for parameter in model.parameters()),
            ]
        )
    equal(*results, tolerance=0)


def test_attention_weights_sum_to_one_over_the_source():
    model, batch = seq2seq(), pairs_of(SOURCES, TARGETS)
    looks = model.attention_weights(batch)
    assert not looks.requires_grad
    assert looks.shape == (4, 4, 5)
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        sums = looks[row].sum(-1)
        equal(sums, torch.tensor([float(bool(source) and t <= len(target)) for t in range(4)]).double())
        assert not looks[row, :, len(source) :].any()


def test_vectors_are_means_of_what_the_encoder_says():
    model, batch = seq2seq(), pairs_of(SOURCES, TARGETS)
    vectors = model.vectors(batch)
    for row, source in enumerate(SOURCES):
        said = model.encoder(model.source_embedding(torch.tensor([source]).long()))
        equal(vectors[row], said[0].mean(0) if source else torch.zeros(8).double())


def test_selected_rows_go_on_as_they_would_have():
    model, batch = seq2seq(), pairs_of(SOURCES, TARGETS)
    _, state = model.step(batch.inputs[:, 0], model.begin(batch.source, batch.source_lengths))
    rows = torch.tensor([3, 0, 0])
    some, _ = model.step(batch.inputs[rows, 1], model.select(state, rows))
    equal(some, model.step(batch.inputs[:, 1], state)[0][rows])


def test_smoothing_is_a_penalty_of_training():
    model, batch = seq2seq(label_smoothing=0.3, dropout=0.0), pairs_of(SOURCES, TARGETS)
    plain = model.loss(batch)
    assert plain.penalty == 0
    loss = model.train().loss(batch)
    equal(loss.total, plain.total)
    state, smoothed = model.begin(batch.source, batch.source_lengths), 0.0
    for inputs, targets in zip(batch.inputs.T, batch.targets.T, strict=True):
        log_probs, state = model.step(inputs, state)
        smoothed += torch.nn.functional.cross_entropy(
            log_probs, targets, reduction="sum", label_smoothing=0.3
        )
    equal(loss.mean + loss.penalty, smoothed / loss.count)


@either
@pytest.mark.parametrize("shared", [True, False])
def test_each_parameter_of_a_seq2seq_gets_a_gradient(tied, shared):
    model = TransformerSeq2Seq(CLASSES, CLASSES, BOUNDARY, features=8, layers=2, tied=tied, shared=shared)
    model.loss(pairs_of(SOURCES, TARGETS)).total.backward()
    check_gradients(model)
    assert (model.head.weight is model.target_embedding.weight) == tied
    assert (model.source_embedding is model.target_embedding) == shared


def test_sides_of_different_sizes():
    model = TransformerSeq2Seq(4, CLASSES, BOUNDARY, features=8, layers=1)
    assert model.source_embedding.weight.shape == (4, 8)
    batch = pairs_of([[1, 2, 3]], [[8]])
    assert model.loss(batch).total.isfinite()
    assert model.step(batch.inputs[:, 0], model.begin(batch.source, batch.source_lengths))[0].shape == (1, 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"classes_source": 4, "shared": True},
            "a shared embedding needs as many classes on both sides, got 4",
        ),
        ({"boundary": 9}, "boundary must be a token of the target, 0 to 8, got 9"),
        ({"label_smoothing": 1.0}, r"label_smoothing must lie in \[0, 1\), got 1.0"),
        ({"classes_target": 0}, "classes_target must be 1 or more, got 0"),
        ({"features": 0}, "features must be 1 or more, got 0"),
        ({"dropout": -0.1}, r"dropout must lie in \[0, 1\), got -0.1"),
    ],
)
def test_impossible_options_of_a_seq2seq(options, message):
    with pytest.raises(ConfigError, match=message):
        TransformerSeq2Seq(**{"classes_source": 9, "classes_target": 9, "boundary": 0, **options})


def test_reversing_is_learned():
    """Digits come out in the other order: each output must look at another place."""
    generator = torch.Generator().manual_seed(0)

    def draw(count):
        lengths = torch.randint(1, 5, (count,), generator=generator).tolist()
        rows = [torch.randint(1, 7, (n,), generator=generator).tolist() for n in lengths]
        return pairs_of(rows, [row[::-1] for row in rows]), rows

    model = TransformerSeq2Seq(7, 7, BOUNDARY, features=32, layers=2, dropout=0.0, shared=True)
    train(model, lambda: draw(32)[0], steps=200)
    model.eval()
    batch, rows = draw(100)
    state, tokens, said = model.begin(batch.source, batch.source_lengths), batch.inputs[:, 0], []
    with torch.no_grad():
        for _ in range(6):
            log_probs, state = model.step(tokens, state)
            tokens = log_probs.argmax(-1)
            said.append(tokens)
    said = torch.stack(said, 1).tolist()
    right = sum(one[: len(row) + 1] == [*row[::-1], BOUNDARY] for one, row in zip(said, rows, strict=True))
    assert right >= 90


# The language model.


@dataclass(frozen=True)
class Batch:
    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Texts:
    tokens: Tensor
    lengths: Tensor


def batch_of(tokens):
    return Batch(tokens[:, :-1], tokens[:, 1:])


def tokens_of(rows=3, steps=11, lowest=0):
    return torch.randint(lowest, CLASSES, (rows, steps))


def language_model(context=5, **options):
    options = {"hidden": 8, "layers": 2, "heads": 2, **options}
    return drawn(LanguageModel(CLASSES, BOUNDARY, UNKNOWN, model="transformer", context=context, **options))


def one_by_one(model, batch, state):
    nats = []
    for inputs, targets in zip(batch.inputs.T, batch.targets.T, strict=True):
        log_probs, state = model.step(inputs, state)
        equal(log_probs.exp().sum(-1), torch.ones(len(inputs), dtype=torch.float64))
        nats.append(-log_probs.gather(-1, targets[:, None])[:, 0])
    return torch.stack(nats, 1), state


@pytest.mark.parametrize("context", [1, 5, 30])
def test_a_text_however_it_is_read(context):
    model = language_model(context)
    tokens = tokens_of(3, 20)
    batch = batch_of(tokens)
    whole = model.loss(batch)
    nats, state = one_by_one(model, batch, model.begin(3))
    assert whole.count == batch.targets.numel()
    equal(whole.total, nats.sum())
    equal(whole.state, state)
    total, state = 0.0, None
    for start, stop in itertools.pairwise([0, 1, 8, 19]):
        loss = model.loss(Batch(batch.inputs[:, start:stop], batch.targets[:, start:stop]), state)
        total, state = total + loss.total, loss.state
    equal(total, whole.total)
    equal(state, whole.state)
    for row in range(3):
        log_probs, after = model.log_probs_of(batch.inputs[row], batch.targets[row], model.begin(1))
        equal(-log_probs, nats[row].detach())
        equal(after, map_state(lambda value, row=row: value[row : row + 1].detach(), state))


@quickly
@given(lengths=st.lists(st.integers(0, 5), min_size=2, max_size=4), seed=st.integers(0, 99))
def test_documents_in_one_row_are_each_as_if_alone(lengths, seed):
    torch.manual_seed(seed)
    model = language_model()
    documents = [
        torch.cat([torch.tensor([BOUNDARY]), torch.randint(1, CLASSES, (length,))]) for length in lengths
    ]
    _, before = model.features(tokens_of(1, 7), model.begin(1))
    together, _ = model.features(torch.cat(documents)[None], before)
    alone = [model.features(document[None], model.begin(1))[0] for document in documents]
    equal(together, torch.cat(alone, 1))


def test_the_context_of_each_layer_is_all_that_a_prediction_sees():
    model = language_model(context=3, layers=1)
    tokens = tokens_of(1, 10, lowest=2)
    changed = tokens.clone()
    changed[0, 4] = 2 + (changed[0, 4] - 1) % (CLASSES - 2)
    one, other = (model.features(t, model.begin(1))[0][0] for t in (tokens, changed))
    moved = (one - other).abs().sum(-1) > 0
    assert moved.tolist() == [4 <= t < 7 for t in range(10)]


@pytest.mark.parametrize("token", [BOUNDARY, UNKNOWN])
def test_marks_are_read_as_the_zero_vector(token):
    model = language_model(tied=False)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.embedding.weight[token] += 1.0
    tokens = tokens_of(4, 20)
    assert (tokens == token).any()
    one, changed = (m.features(tokens, m.begin(4))[0] for m in (model, other))
    equal(changed, one, tolerance=0)


def test_vectors_of_texts_are_means_of_their_features():
    model, lengths = language_model(), torch.tensor([4, 0, 9])
    tokens = tokens_of(3, 9, lowest=1)
    vectors = model.vectors(Texts(tokens, lengths))
    for row, length in enumerate(lengths.tolist()):
        features, _ = model.features(tokens[row : row + 1, :length], model.begin(1))
        equal(vectors[row], features[0].mean(0) if length else torch.zeros(8).double())


def test_rows_of_a_state_go_on_apart():
    model, tokens = language_model(), tokens_of(3, 9)
    _, state = model.features(tokens[:, :8], model.begin(3))
    rows = torch.tensor([2, 0, 2])
    some, _ = model.step(tokens[rows, 8], select_rows(state, rows))
    equal(some, model.step(tokens[:, 8], state)[0][rows])


@either
def test_each_parameter_of_a_language_model_gets_a_gradient(tied):
    model = LanguageModel(
        CLASSES, BOUNDARY, UNKNOWN, model="transformer", hidden=8, layers=2, context=6, tied=tied
    )
    model.loss(batch_of(tokens_of(4, 20))).total.backward()
    check_gradients(model)
    assert (model.head.weight is model.embedding.weight) == tied


def test_dropout_is_of_training_and_on_the_output_too():
    model, batch = language_model(dropout=0.5), batch_of(tokens_of())
    equal(model.loss(batch).total, model.loss(batch).total, tolerance=0)
    for module in model.train().modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "in_proj_weight"):
            module.dropout = 0.0
    features, _ = model.features(batch.inputs, model.begin(3))
    seen = []
    model.head.loss = lambda f, t, loss=model.head.loss: (seen.append(f), loss(f, t))[1]
    loss = model.loss(batch)
    assert set((seen[0] / features).flatten().round(decimals=6).tolist()) == {0.0, 2.0}
    assert loss.penalty == 0


def test_a_transformer_does_not_look_at_variational():
    model = language_model(dropout=0.5, variational=True).train()
    kept = model._drop(torch.ones(1, 50, 8)).bool()
    assert kept.any(1).all() and not kept.all(1).any()


def test_impossible_options_of_a_language_model():
    with pytest.raises(ConfigError, match="context must be 1 or more, got 0"):
        language_model(context=0)
    with pytest.raises(ConfigError, match="must be 1 or more, got 0"):
        language_model(hidden=0)


def test_copying_is_learned_and_done_from_the_state():
    """Each token is that of three before. What is learned in one go is said in chunks of two tokens."""
    generator = torch.Generator().manual_seed(0)
    model = LanguageModel(8, BOUNDARY, UNKNOWN, model="transformer", hidden=32, layers=2, context=6)

    def draw(rows):
        batch = batch_of(torch.randint(2, 8, (rows, 3), generator=generator).repeat(1, 6))
        return Batch(batch.inputs, batch.targets.index_fill(1, torch.tensor([0, 1]), -100))

    train(model, lambda: draw(32), steps=120)
    batch, state, total = draw(200), None, 0.0
    with torch.no_grad():
        for inputs, targets in zip(batch.inputs.split(2, 1), batch.targets.split(2, 1), strict=True):
            loss = model.loss(Batch(inputs, targets), state)
            total, state = total + loss.total, loss.state
    assert total / (batch.targets != -100).sum() < 0.1
