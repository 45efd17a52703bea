"""The recurrent language model: one text, however it is read, and a toy that it must learn."""

import copy
import itertools
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from throughtime.cells.library import CELLS
from throughtime.errors import CellError, ConfigError
from throughtime.models.language_model import LanguageModel
from throughtime.nn.dropout import drop_steps
from throughtime.nn.state import map_state

CLASSES, BOUNDARY, UNKNOWN = 9, 0, 1
every_cell = pytest.mark.parametrize("cell", CELLS)
quickly = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 1000)


@dataclass(frozen=True)
class Batch:
    """Tokens and those after them."""

    inputs: Tensor
    targets: Tensor


def batch_of(tokens: Tensor) -> Batch:
    return Batch(tokens[:, :-1], tokens[:, 1:])


def make(cell="lstm", **options):
    """A model in float64 that has drawn all its weights."""
    options = {"hidden": 6, "layers": 2, **options}
    model = LanguageModel(CLASSES, BOUNDARY, UNKNOWN, cell=cell, **options).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def tokens_of(rows=3, steps=11, lowest=0):
    return torch.randint(lowest, CLASSES, (rows, steps))


def equal(one, other, tolerance=1e-10):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def flat(state):
    return [value for values in state for value in values]


def some_state(model, rows=3):
    return map_state(torch.randn_like, model.begin(rows))


def one_by_one(model, batch, state):
    """The negative log-probability of each target, from `step` alone."""
    nats = []
    for inputs, targets in zip(batch.inputs.T, batch.targets.T, strict=True):
        log_probs, state = model.step(inputs, state)
        equal(log_probs.exp().sum(-1), torch.ones(len(inputs), dtype=torch.float64))
        nats.append(-log_probs.gather(-1, targets[:, None])[:, 0])
    return torch.stack(nats, 1), state


# One text, however it is read.


@every_cell
def test_step_by_step_is_the_loss_in_one_go(cell):
    model = make(cell)
    batch, state = batch_of(tokens_of()), some_state(model)
    loss = model.loss(batch, state)
    nats, after = one_by_one(model, batch, state)
    assert loss.count == batch.targets.numel()
    equal(loss.total, nats.sum())
    equal(loss.mean, nats.mean())
    equal(flat(loss.state), flat(after))


@every_cell
def test_log_probs_of_a_text_are_those_of_its_steps(cell):
    model = make(cell)
    tokens = tokens_of(1, 40)
    state = some_state(model, 1)
    log_probs, after = model.log_probs_of(tokens[0, :-1], tokens[0, 1:], state)
    nats, expected_after = one_by_one(model, batch_of(tokens), state)
    equal(log_probs, -nats[0].detach())
    equal(flat(after), [value.detach() for value in flat(expected_after)])
    equal(-log_probs.sum(), model.loss(batch_of(tokens), state).total.detach())
    assert not log_probs.requires_grad


def test_log_probs_of_a_text_longer_than_the_head_takes_at_once():
    model = make("gru", layers=1)
    tokens = tokens_of(1, 600)
    log_probs, _ = model.log_probs_of(tokens[0, :-1], tokens[0, 1:], model.begin(1))
    assert len(log_probs) == 599
    equal(-log_probs.sum(), model.loss(batch_of(tokens)).total.detach())


def test_no_text_has_no_log_probs_and_leaves_the_state():
    model = make()
    state, nothing = some_state(model, 1), torch.zeros(0, dtype=torch.int64)
    log_probs, after = model.log_probs_of(nothing, nothing, state)
    assert log_probs.shape == (0,)
    equal(flat(after), flat(state), tolerance=0)


@every_cell
def test_in_pieces_is_at_once(cell):
    model = make(cell)
    batch, state = batch_of(tokens_of(3, 13)), some_state(model)
    whole = model.loss(batch, state)
    total = 0.0
    for start, stop in itertools.pairwise([0, 1, 5, 12]):
        loss = model.loss(Batch(batch.inputs[:, start:stop], batch.targets[:, start:stop]), state)
        total, state = total + loss.total, loss.state
    equal(total, whole.total)
    equal(flat(state), flat(whole.state))


@every_cell
def test_a_row_is_the_same_alone_and_in_a_batch(cell):
    model = make(cell)
    batch, state = batch_of(tokens_of()), some_state(model)
    whole = model.loss(batch, state)
    alone = [
        model.loss(
            Batch(batch.inputs[at], batch.targets[at]), map_state(lambda value, at=at: value[at], state)
        )
        for at in (slice(0, 1), slice(1, 2), slice(2, 3))
    ]
    equal(sum(loss.total for loss in alone), whole.total)
    for row, loss in enumerate(alone):
        equal(flat(loss.state), [value[row : row + 1] for value in flat(whole.state)])


def test_the_state_begins_with_zeros():
    model, batch = make(), batch_of(tokens_of())
    assert not any(value.any() for value in flat(model.begin(3)))
    equal(model.loss(batch).total, model.loss(batch, model.begin(3)).total, tolerance=0)


def test_the_past_is_all_that_a_prediction_sees():
    model = make()
    tokens = tokens_of(1, 10, lowest=2)
    changed = tokens.clone()
    changed[0, 6] = 2 + (changed[0, 6] - 1) % (CLASSES - 2)
    assert changed[0, 6] != tokens[0, 6]
    one, other = (model.head.log_probs(model.features(t, model.begin(1))[0])[0] for t in (tokens, changed))
    moved = (one - other).abs().sum(-1) > 0
    assert moved.tolist() == [False] * 6 + [True] * 4


def test_targets_of_minus_100_are_left_out():
    model, batch = make(), batch_of(tokens_of())
    targets = batch.targets.clone()
    targets[0, 4:] = targets[2] = -100
    loss = model.loss(Batch(batch.inputs, targets))
    nats, _ = one_by_one(model, batch, model.begin(3))
    assert loss.count == 4 + 10
    equal(loss.total, nats[targets != -100].sum())


# Boundaries.


@every_cell
@quickly
@given(lengths=st.lists(st.integers(0, 5), min_size=2, max_size=4), seed=seeds)
def test_documents_in_one_row_are_each_as_if_alone(cell, lengths, seed):
    torch.manual_seed(seed)
    model = make(cell)
    documents = [
        torch.cat([torch.tensor([BOUNDARY]), torch.randint(1, CLASSES, (length,))]) for length in lengths
    ]
    together, _ = model.features(torch.cat(documents)[None], some_state(model, 1))
    alone = [model.features(document[None], model.begin(1))[0] for document in documents]
    equal(together, torch.cat(alone, 1))


@pytest.mark.parametrize("token", [BOUNDARY, UNKNOWN])
def test_marks_are_read_as_the_zero_vector(token):
    model = make(tied=False)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.embedding.weight[token] += 1.0
    tokens = tokens_of(4, 20)
    assert (tokens == token).any()
    one, changed = (m.features(tokens, m.begin(4))[0] for m in (model, other))
    equal(changed, one, tolerance=0)
    with torch.no_grad():
        other.embedding.weight[2] += 1.0
    assert not torch.equal(other.features(tokens, other.begin(4))[0], one)


def test_an_unknown_token_resets_nothing():
    model = make("rnn", layers=1)
    tokens = torch.tensor([[3, UNKNOWN], [4, UNKNOWN]])
    features, _ = model.features(tokens, model.begin(2))
    assert not torch.equal(features[0, 1], features[1, 1])


# Weights.


@every_cell
@pytest.mark.parametrize("tied", [True, False])
def test_each_parameter_gets_a_gradient(cell, tied):
    model = LanguageModel(CLASSES, BOUNDARY, UNKNOWN, cell=cell, hidden=6, layers=2, tied=tied)
    model.loss(batch_of(tokens_of(4, 20))).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


def test_a_tied_model_has_one_matrix():
    model = LanguageModel(CLASSES, BOUNDARY, UNKNOWN, hidden=6)
    assert model.head.weight is model.embedding.weight
    names = [name for name, _ in model.named_parameters()]
    assert "embedding.weight" in names
    assert "head.weight" not in names
    copied = copy.deepcopy(model)
    assert copied.head.weight is copied.embedding.weight
    assert copied.head.weight is not model.head.weight


def test_an_untied_model_has_two():
    model = LanguageModel(CLASSES, BOUNDARY, UNKNOWN, hidden=6, embedding=4, tied=False)
    assert model.embedding.weight.shape == (CLASSES, 4)
    assert model.head.weight.shape == (CLASSES, 6)
    assert model.loss(batch_of(tokens_of())).total.isfinite()
    same = LanguageModel(CLASSES, BOUNDARY, UNKNOWN, hidden=6, tied=False)
    assert same.head.weight is not same.embedding.weight


def test_tied_weights_need_sizes_that_are_the_same():
    with pytest.raises(ConfigError) as caught:
        LanguageModel(CLASSES, BOUNDARY, UNKNOWN, hidden=6, embedding=4)
    assert "tied weights need embedding = hidden, got 4 and 6" in str(caught.value)
    assert "set tied to false" in str(caught.value)
    LanguageModel(CLASSES, BOUNDARY, UNKNOWN, hidden=6, embedding=6)


def test_impossible_options():
    with pytest.raises(CellError, match='there is no cell "none"'):
        LanguageModel(CLASSES, BOUNDARY, UNKNOWN, cell="none")
    with pytest.raises(ConfigError, match="layers must be 1 or more"):
        LanguageModel(CLASSES, BOUNDARY, UNKNOWN, layers=0)
    with pytest.raises(ConfigError, match='no model "transformers": there are recurrent, transformer'):
        LanguageModel(CLASSES, BOUNDARY, UNKNOWN, model="transformers")
    with pytest.raises(ConfigError, match='no softmax "Adaptive": there are full, adaptive'):
        LanguageModel(CLASSES, BOUNDARY, UNKNOWN, softmax="Adaptive")


def test_a_state_dict_carries_all_there_is():
    model, other, batch = make(), make(), batch_of(tokens_of())
    assert model.loss(batch).total != other.loss(batch).total
    other.load_state_dict(model.state_dict())
    equal(other.loss(batch).total, model.loss(batch).total, tolerance=0)


def test_the_same_seed_makes_the_same_model():
    def made():
        torch.manual_seed(5)
        return LanguageModel(CLASSES, BOUNDARY, UNKNOWN, hidden=6, layers=2).state_dict()

    equal(made(), made(), tolerance=0)


# Dropout.


def test_dropout_is_for_training():
    model, tokens = make(dropout=0.5), tokens_of()
    one, other = (model.features(tokens, model.begin(3))[0] for _ in range(2))
    equal(one, other, tolerance=0)
    model.train()
    one, other = (model.features(tokens, model.begin(3))[0] for _ in range(2))
    assert not torch.equal(one, other)


def test_dropout_is_on_the_embedding_between_layers_and_on_the_output():
    model, tokens = make("gru", dropout=0.5).train(), tokens_of(2, 6, lowest=2)
    torch.manual_seed(1)
    total = model.loss(batch_of(tokens)).total
    torch.manual_seed(1)
    x = drop_steps(model.embedding(tokens[:, :-1].T), 0.5, variational=False).transpose(0, 1)
    model.recurrence.input_dropout = 0.0
    y, _ = model.recurrence(x, model.begin(2))
    y = drop_steps(y.transpose(0, 1), 0.5, variational=False).transpose(0, 1)
    equal(total, model.head.loss(y, tokens[:, 1:]).total)
    assert model.recurrence.dropout == 0.5


def test_penalties_are_added_in_training_and_are_no_part_of_the_loss():
    model, tokens = make("gru", activation_penalty=2.0, temporal_activation_penalty=3.0), tokens_of(2, 6)
    assert model.loss(batch_of(tokens)).penalty == 0
    plain = model.loss(batch_of(tokens)).total
    loss = model.train().loss(batch_of(tokens))
    y, _ = model.features(tokens[:, :-1], model.begin(2))
    equal(loss.total, plain)
    equal(loss.penalty, 2 * y.square().mean() + 3 * y.diff(dim=1).square().mean())


def test_the_options_of_the_recurrence_reach_it():
    given = {
        "variational": True,
        "recurrent_dropout": 0.1,
        "weight_dropout": 0.2,
        "zoneout": 0.3,
        "connection": "residual",
        "learned_state": True,
    }
    model = make("gru", **given)
    assert {name: getattr(model.recurrence, name) for name in given} == given


# Learning.


@every_cell
def test_a_toy_text_is_learned(cell):
    """After each letter come two others in turn: only the letter before it tells which."""
    a, b, c = 2, 3, 4
    text = torch.tensor([a, b, a, c, b, c]).repeat(5)
    tokens = torch.stack([text.roll(-start) for start in range(6)])  # for batch norm rows must differ
    model = LanguageModel(5, BOUNDARY, UNKNOWN, cell=cell, hidden=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        loss = model.loss(batch_of(tokens)).mean
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    _, state = model.features(tokens[:, :6], model.begin(6))
    assert model.loss(batch_of(tokens[:, 6:]), state).mean < 0.05


def test_with_an_adaptive_softmax_step_loss_and_scores_agree():
    model = make(softmax="adaptive")
    tokens = tokens_of(2, 8, lowest=2)
    state, total = model.begin(2), 0.0
    for before, after in itertools.pairwise(tokens.unbind(1)):
        log_probs, state = model.step(before, state)
        equal(log_probs.exp().sum(-1), torch.ones(2).double())
        total = total - log_probs.gather(-1, after[:, None]).sum()
    equal(model.loss(batch_of(tokens)).total, total)
    scored, _ = model.log_probs_of(tokens[0, :-1], tokens[0, 1:], model.begin(1))
    assert scored.shape == (7,) and type(model.head).__name__ == "Adaptive"


def test_the_vector_of_a_text_is_the_mean_of_its_real_steps():
    model = make()
    tokens = tokens_of(3, 7, lowest=2)

    @dataclass
    class Texts:
        tokens: Tensor
        lengths: Tensor

    vectors = model.vectors(Texts(tokens, torch.tensor([7, 3, 0])))
    for row, length in enumerate([7, 3]):
        features, _ = model.features(tokens[row : row + 1, :length], model.begin(1))
        equal(vectors[row], features[0].mean(0))
    equal(vectors[2], torch.zeros(6).double())
