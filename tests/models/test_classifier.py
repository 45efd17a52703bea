"""The classifiers: what each keeps of a sequence, and what it must not depend on."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from throughtime.errors import CellError, ConfigError
from throughtime.heads import Categorical, MultiLabel
from throughtime.models.classifier import Classifier, make_classifier
from throughtime.models.encoders import FeedForward, RecurrentEncoder, Window
from throughtime.nn import Recurrent

WORDS, CLASSES, COLUMNS, LONGEST = 12, 3, 4, 7
OF_TOKENS = {
    "bag-of-words": {},
    "fixed-window": {"window": 3},
    "big-window": {"window": LONGEST},
    "recurrent": {"layers": 2, "bidirectional": True, "pooling": "attention"},
    "transformer": {"layers": 2, "heads": 2},
}
every_model = pytest.mark.parametrize("model", OF_TOKENS)
every_head = pytest.mark.parametrize("head", [Categorical, MultiLabel])


@dataclass(frozen=True)
class Batch:
    tokens: Tensor
    lengths: Tensor
    targets: Tensor | None = None


@dataclass(frozen=True)
class Rows:
    features: Tensor
    targets: Tensor | None = None


def make(model, dtype=torch.float64, **options):
    """A model in evaluation whose parameters are all nonzero, but for the vectors of no word."""
    options = {"words": WORDS, "embedding": 6, "hidden": 5, **OF_TOKENS[model], **options}
    made = make_classifier(model, CLASSES, **options).to(dtype).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
        made.embedding.weight[0] = 0
    return made


def batch_of(lengths, steps=LONGEST):
    tokens = torch.randint(2, WORDS, (len(lengths), steps))
    lengths = torch.tensor(lengths, dtype=torch.int64)
    tokens[torch.arange(steps) >= lengths[:, None]] = 0
    return Batch(tokens, lengths, torch.arange(len(lengths)) % CLASSES)


def said(model, *sequences):
    """The log-probabilities of sequences, each of which is a list of tokens."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    tokens = nn.utils.rnn.pad_sequence([torch.tensor(s, dtype=torch.int64) for s in sequences], True)
    return model.log_probs(Batch(tokens, lengths)).detach()


def equal(one, other, tolerance=1e-10):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def gradients(model, batch):
    model.zero_grad()
    model.loss(batch).total.backward()
    return [parameter.grad for parameter in model.parameters()]


# What the answer must not depend on.


@every_model
@every_head
def test_a_sequence_is_the_same_alone_and_in_a_batch(model, head):
    made, batch = make(model, head=head), batch_of([3, LONGEST, 0, 1, 5])
    together = made.log_probs(batch)
    assert together.shape == (5, CLASSES)
    for row, length in enumerate(batch.lengths.tolist()):
        equal(made.log_probs(batch_of_row(batch, row, length)), together[row : row + 1])
    order = torch.tensor([4, 2, 0, 3, 1])
    equal(made.log_probs(Batch(batch.tokens[order], batch.lengths[order])), together[order])


def batch_of_row(batch, row, length):
    return Batch(batch.tokens[row : row + 1, :length], batch.lengths[row : row + 1])


@every_model
def test_what_stands_in_padding_reaches_no_value_and_no_gradient(model):
    made, batch = make(model), batch_of([3, 6, 0, 1])
    garbage = batch.tokens.clone()
    padding = torch.arange(LONGEST) >= batch.lengths[:, None]
    garbage[padding] = torch.tensor([-5, 3, 10**9, 1])[torch.arange(padding.sum()) % 4]
    other = Batch(garbage, batch.lengths, batch.targets)
    equal(made.vectors(other), made.vectors(batch), tolerance=0)
    equal(gradients(made, other), gradients(made, batch), tolerance=0)
    longer = Batch(torch.nn.functional.pad(garbage, (0, 9), value=5), batch.lengths)
    equal(made.vectors(longer), made.vectors(batch))


@every_model
def test_a_vector_of_padding_that_is_not_finite_is_not_read(model):
    made, batch = make(model), batch_of([3, 6, 0, 1])
    expected = made.vectors(batch)
    with torch.no_grad():
        made.embedding.weight[0] = torch.nan
    equal(made.vectors(batch), expected, tolerance=0)


@every_model
@pytest.mark.parametrize("steps", [0, 4])
def test_an_empty_sequence_has_an_answer_that_is_the_same_whatever_the_words_mean(model, steps):
    made, batch = make(model), batch_of([0, 0], steps)
    before = made.log_probs(batch)
    assert before.isfinite().all()
    with torch.no_grad():
        made.embedding.weight.normal_()
    equal(made.log_probs(batch), before, tolerance=0)
    loss = made.loss(batch)
    loss.total.backward()
    assert loss.total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())


@pytest.mark.parametrize("model", ["bag-of-words", "recurrent", "transformer"])
def test_an_empty_sequence_is_answered_by_the_bias_of_the_head(model):
    made = make(model)
    equal(said(made, [])[0], made.head.bias.detach().log_softmax(0))
    assert not made.vectors(batch_of([0, 0])).any()


@every_model
def test_no_sequences_have_no_answers(model):
    assert make(model).log_probs(batch_of([])).shape == (0, CLASSES)


# What it is made of.


@every_model
@every_head
def test_each_parameter_gets_a_gradient(model, head):
    torch.manual_seed(1)
    made = make_classifier(model, CLASSES, words=WORDS, embedding=8, hidden=8, head=head, **OF_TOKENS[model])
    batch = batch_of([LONGEST, 5, 6, 0, 3, LONGEST])
    targets = batch.targets if head is Categorical else torch.rand(6, CLASSES).round()
    made.loss(Batch(batch.tokens, batch.lengths, targets)).total.backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


@every_model
def test_the_loss_is_that_of_the_head_over_the_vectors(model):
    made, batch = make(model), batch_of([3, LONGEST, 0, 1, 5])
    loss = made.loss(batch)
    chosen = made.log_probs(batch).gather(1, batch.targets[:, None])
    assert (loss.count, loss.state, loss.penalty) == (5, (), 0.0)
    equal(loss.total, -chosen.sum())
    equal(made.head.log_probs(made.vectors(batch)), made.log_probs(batch))
    assert made.vectors(batch).shape == (5, made.head.features)


@every_model
def test_dropout_is_for_training(model):
    made, batch = make(model, dropout=0.5), batch_of([LONGEST] * 4)
    equal(made.vectors(batch), made.vectors(batch), tolerance=0)
    made.train()
    assert not torch.equal(made.vectors(batch), made.vectors(batch))
    assert (made.vectors(batch) == 0).any()


@every_model
def test_the_vectors_of_no_word_begin_as_zeros_and_that_of_padding_stays(model):
    made = make_classifier(model, CLASSES, words=WORDS, embedding=8, **OF_TOKENS[model])
    assert not made.embedding.weight[:2].any()
    assert made.embedding.weight[2:].all()
    assert made.embedding.weight.detach()[2:].square().sum(1).mean().item() == pytest.approx(1, abs=0.6)
    made.loss(Batch(torch.tensor([[1, 0, 2]]), torch.tensor([3]), torch.tensor([0]))).total.backward()
    moved = made.embedding.weight.grad.any(1).tolist()
    assert moved == [False, True, True] + [False] * (WORDS - 3)


@every_model
def test_the_head_is_made_from_its_sizes(model):
    weights = torch.rand(CLASSES)
    made = make(model, head=partial(Categorical, class_weights=weights))
    equal(made.head.class_weights, weights.double(), tolerance=0)


def test_several_labels_at_once():
    made, batch = make("recurrent", head=MultiLabel), batch_of([3, 2])
    targets = torch.tensor([[1.0, 0, 1], [0, 0, 0]], dtype=torch.float64)
    loss = made.loss(Batch(batch.tokens, batch.lengths, targets))
    p = made.log_probs(batch).exp()
    assert loss.count == 6
    equal(loss.total, -(targets * p.log() + (1 - targets) * (1 - p).log()).sum())


def test_a_bag_of_words_is_a_mean():
    made, batch = make("bag-of-words"), batch_of([3, 1])
    expected = torch.stack([made.embedding(batch.tokens[0, :3]).mean(0), made.embedding(batch.tokens[1, 0])])
    equal(made.vectors(batch), expected)


@pytest.mark.parametrize("length", [0, 1, 3, 6])
def test_a_window_is_a_matrix_for_each_place_from_the_end(length):
    window, size = Window(4, 3, 5).double(), 3
    x = torch.randn(1, 6, 4, dtype=torch.float64)
    expected = window.linear.bias
    for place in range(size):
        step = length - size + place
        if step >= 0:
            expected = expected + window.linear.weight[:, 4 * place : 4 * place + 4] @ x[0, step]
    x[:, length:] = torch.nan
    equal(window(x, torch.tensor([length]))[0], expected.relu())


def test_a_window_costs_no_more_places_than_a_batch_has():
    window, x, lengths = Window(4, 100, 5).double(), torch.randn(3, 6, 4).double(), torch.tensor([6, 2, 0])
    with FlopCounterMode(display=False) as counter:
        found = window(x, lengths)
    assert counter.get_total_flops() == 2 * 3 * (6 * 4) * 5
    for row, n, vector in zip(x, lengths.tolist(), found, strict=True):
        equal(
            vector, (window.linear.weight[:, (100 - n) * 4 :] @ row[:n].flatten() + window.linear.bias).relu()
        )


@pytest.mark.parametrize("merge", ["concat", "sum"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_recurrence_is_read_at_its_last_step(merge, bidirectional):
    recurrence = Recurrent("gru", 4, 3, bidirectional=bidirectional, merge=merge).double()
    encoder, x = RecurrentEncoder(recurrence), torch.randn(2, 5, 4, dtype=torch.float64)
    lengths = torch.tensor([5, 2])
    y, state = recurrence(x, lengths=lengths)
    last = torch.stack([y[0, 4], y[1, 1]])
    final = torch.cat([values[0] for values in state], -1)
    equal(encoder(x, lengths), final if merge == "concat" else last)


def test_the_options_of_the_recurrence_reach_it():
    given = {
        "variational": True,
        "recurrent_dropout": 0.1,
        "weight_dropout": 0.2,
        "zoneout": 0.3,
        "connection": "residual",
        "learned_state": True,
        "bidirectional": True,
        "layers": 2,
    }
    made = make("recurrent", cell="gru", dropout=0.4, **given).encoder
    assert {name: getattr(made.recurrence, name) for name in given} == given
    assert (made.recurrence.input_dropout, made.recurrence.dropout) == (0.4, 0.4)
    assert made.recurrence.output_dropout == 0
    assert [cell.name for cell in made.recurrence.cells] == ["gru", "gru"]
    assert (made.pooling.kind, made.pooling.bidirectional) == ("attention", True)


def test_the_options_of_the_transformer_reach_it():
    transformer = make("transformer", layers=3, heads=3, dropout=0.2).encoder.transformer
    assert (transformer.features, transformer.heads, len(transformer.layers)) == (6, 3, 3)
    assert transformer.dropout.p == 0.2


# Rows of numbers.


def test_a_feed_forward_network_is_its_equations():
    made = make_classifier("feed-forward", CLASSES, columns=COLUMNS, hidden=6, layers=2, dropout=0.5).double()
    rows = Rows(torch.randn(5, COLUMNS, dtype=torch.float64), torch.randint(CLASSES, (5,)))
    assert not torch.equal(made.vectors(rows), made.vectors(rows))
    made.eval()
    first, second = (part for part in made.encoder if isinstance(part, nn.Linear))
    h = ((rows.features @ first.weight.T + first.bias).relu() @ second.weight.T + second.bias).relu()
    equal(made.vectors(rows), h)
    equal(made.loss(rows).total, -made.log_probs(rows).gather(1, rows.targets[:, None]).sum())
    assert made.embedding is None


def test_dropout_of_a_feed_forward_network_is_between_its_layers_and_once_at_the_end():
    rates = [part.p for part in FeedForward(3, 4, 3, 0.25) if isinstance(part, nn.Dropout)]
    assert rates == [0.25, 0.25]
    made = make_classifier("feed-forward", 2, columns=3, layers=2, dropout=0.125)
    assert [part.p for part in made.modules() if isinstance(part, nn.Dropout)] == [0.125, 0.125]
    made = make_classifier("feed-forward", 2, columns=3, hidden=4000, dropout=0.5)
    with torch.no_grad():
        made.encoder[0].weight.zero_()
        made.encoder[0].bias.fill_(1)
    assert (made.vectors(Rows(torch.ones(1, 3))) == 0).float().mean() == pytest.approx(0.5, abs=0.05)


# The four design criteria: what some models cannot do.


def test_a_bag_of_words_cannot_tell_two_orders_apart_and_the_others_can():
    one, other = [2, 3, 4, 5, 6], [6, 2, 4, 3, 5]
    for model in OF_TOKENS:
        a, b = said(make(model), one, other)
        assert ((a - b).abs().max() < 1e-12) == (model == "bag-of-words"), model


def test_a_fixed_window_does_not_see_what_stands_before_it_and_the_others_do():
    one, other = [2, 3, 4, 5, 6], [7, 3, 4, 5, 6]
    for model in OF_TOKENS:
        a, b = said(make(model), one, other)
        assert torch.equal(a, b) == (model == "fixed-window"), model


@pytest.mark.parametrize("model", ["fixed-window", "big-window"])
def test_windows_share_no_weights_between_places(model):
    """What is learned of words at the last place has no part in how the places before it are read."""
    made = make(model, window=3)
    gradients(made, Batch(torch.tensor([[2], [3]]), torch.tensor([1, 1]), torch.tensor([0, 1])))
    places = made.encoder.linear.weight.grad.unflatten(1, (3, -1)).abs().amax((0, 2))
    assert (places > 0).tolist() == [False, False, True]


# Learning. All sequences of a task are seen, so that what is tested does not hang on a draw.


def train(model, batch, steps=100):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(batch).mean.backward()
        optimizer.step()
    return float((model.eval().log_probs(batch).argmax(1) == batch.targets).double().mean())


def sequences_of(rule, steps=4):
    """All sequences of `steps` of the words 2 and 3, and all shorter ones; classes by a rule."""
    rows = [
        [2 + (number >> step & 1) for step in range(length)]
        for length in range(1, steps + 1)
        for number in range(2**length)
    ]
    tokens = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True)
    targets = torch.tensor([int(rule(row)) for row in rows])
    return Batch(tokens, torch.tensor([len(row) for row in rows]), targets)


def toy(model, **options):
    options = {"window": 4, "heads": 2, "embedding": 16, "hidden": 16, **options}
    return make_classifier(model, 2, words=4, **options)


@every_model
def test_each_model_learns_which_words_there_are(model):
    batch = sequences_of(lambda row: row.count(3) > row.count(2))
    assert train(toy(model), batch) == 1


def test_order_is_learned_by_all_but_the_bag_of_words():
    """Which of two words comes first: one of each, so that counting says nothing."""
    batch = Batch(torch.tensor([[2, 3], [3, 2]]), torch.tensor([2, 2]), torch.tensor([0, 1]))
    assert {model: train(toy(model), batch) for model in OF_TOKENS} == {
        model: 0.5 if model == "bag-of-words" else 1.0 for model in OF_TOKENS
    }


def test_the_first_word_is_learned_by_all_that_see_it():
    batch = sequences_of(lambda row: row[0] == 3)
    for model in ("recurrent", "transformer", "big-window"):
        assert train(toy(model), batch) == 1, model
    assert train(toy("fixed-window", window=2), batch) < 1


@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
def test_a_recurrence_with_any_pooling_learns_the_first_word(pooling):
    assert train(toy("recurrent", pooling=pooling), sequences_of(lambda row: row[0] == 3)) == 1


def test_a_feed_forward_network_learns_exclusive_or():
    rows = Rows(torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]), torch.tensor([0, 1, 1, 0]))
    assert train(make_classifier("feed-forward", 2, columns=2, hidden=32), rows) == 1


def test_several_labels_are_learned():
    """Whether each of two words is there."""
    batch = sequences_of(lambda row: False)
    there = torch.stack([(batch.tokens == word).any(1) for word in (2, 3)], 1)
    model = toy("recurrent", head=MultiLabel, pooling="max")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        model.loss(Batch(batch.tokens, batch.lengths, there)).mean.backward()
        optimizer.step()
    assert torch.equal(model.log_probs(batch).exp() > 0.5, there)


# The door.


def test_what_cannot_be_made():
    with pytest.raises(ConfigError, match='there is no model "cnn": there are bag-of-words, fixed-window'):
        make_classifier("cnn", 2, words=9)
    for model in OF_TOKENS:
        with pytest.raises(ConfigError, match=f'model "{model}" needs words'):
            make_classifier(model, 2, columns=3, window=3)
    with pytest.raises(ConfigError, match='model "feed-forward" needs columns'):
        make_classifier("feed-forward", 2, words=3)
    with pytest.raises(ConfigError, match='model "big-window" needs window'):
        make_classifier("big-window", 2, words=9)
    with pytest.raises(ConfigError, match="window must be 1 or more, got 0"):
        make_classifier("fixed-window", 2, words=9, window=0)
    with pytest.raises(ConfigError, match="layers must be 1 or more"):
        make_classifier("feed-forward", 2, columns=3, layers=0)
    with pytest.raises(ConfigError, match="classes must be 1 or more"):
        make_classifier("recurrent", 0, words=3)
    with pytest.raises(CellError, match='there is no cell "none"'):
        make_classifier("recurrent", 2, words=9, cell="none")
    with pytest.raises(ConfigError, match='there is no pooling "first"'):
        make_classifier("recurrent", 2, words=9, pooling="first")


def test_a_fixed_window_sees_five_tokens():
    assert make("fixed-window", window=None).encoder.size == 5


@every_model
def test_a_state_dict_carries_all_there_is(model):
    made, other, batch = make(model), make(model), batch_of([3, 5, 0])
    assert made.loss(batch).total != other.loss(batch).total
    other.load_state_dict(made.state_dict())
    equal(other.loss(batch).total, made.loss(batch).total, tolerance=0)


def test_a_classifier_of_other_parts():
    """Any module that reads vectors and lengths may be the encoder."""

    class First(nn.Module):
        def forward(self, x, lengths):
            return x[:, 0]

    made = Classifier(First(), Categorical(3, 2), nn.Embedding(4, 3))
    assert made.log_probs(Batch(torch.tensor([[2, 3]]), torch.tensor([2]))).shape == (1, 2)
