"""The tagger: what it computes, what it may not depend on, and toys that need context and spelling."""

from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch import Tensor

from throughtime.errors import CellError, ConfigError
from throughtime.heads.crf import CRF
from throughtime.heads.per_step import PerStep
from throughtime.models.tagger import UNKNOWN, Tagger

WORDS, CHARACTERS, TAGS = 12, 7, 4
#: The largest rate there is: as good as 1.
ALWAYS = 1 - 2**-16
every_head = pytest.mark.parametrize("head", [PerStep, CRF])
every_cell = pytest.mark.parametrize("cell", ["lstm", "gru", "min_gru"])
both_encoders = pytest.mark.parametrize("encoder", ["recurrent", "none"])


@dataclass(frozen=True)
class Batch:
    """Sentences as the tagger reads them."""

    words: Tensor
    lengths: Tensor
    spellings: Tensor
    spelling_lengths: Tensor
    spelling_of: Tensor
    targets: Tensor


def spelt(word):
    """Some characters for each word, of one to four."""
    return [1 + (1 + word * k) % (CHARACTERS - 1) for k in range(1, 2 + word % 4)]


def padded(rows, value=0, steps=0):
    found = torch.full((len(rows), max([steps, *map(len, rows)])), value)
    for k, row in enumerate(rows):
        found[k, : len(row)] = torch.as_tensor(row)
    return found


def batch_of(sentences, targets=None, spelling=spelt):
    """Sentences given by the numbers of their words; without targets a tag is its word modulo TAGS."""
    targets = [[word % TAGS for word in sentence] for sentence in sentences] if targets is None else targets
    words = list(dict.fromkeys(word for sentence in sentences for word in sentence))
    spellings = [spelling(word) for word in words]
    return Batch(
        padded(sentences),
        torch.tensor([len(sentence) for sentence in sentences], dtype=torch.int64),
        padded(spellings),
        torch.tensor([len(spelling) for spelling in spellings], dtype=torch.int64),
        padded([[words.index(word) for word in sentence] for sentence in sentences]),
        padded(targets, -100),
    )


SENTENCES = [[3, 4, 5, 3, 11], [6], [], [1, 7, 8, 9]]


def make(head=PerStep, **options):
    """A tagger in float64, in evaluation, all of whose weights are drawn."""
    options = {"hidden": 6, "embedding": 5, "character_embedding": 3, "character_hidden": 2, **options}
    model = Tagger(WORDS, CHARACTERS, TAGS, head=head, **options).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def equal(one, other, tolerance=1e-10):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def answers(model, batch):
    """All that a tagger says of a batch."""
    return {
        "loss": model.loss(batch).total,
        "tags": model.decode(batch),
        "marginals": model.head.marginals(model.features(batch), batch.lengths),
        "vectors": model.vectors(batch),
    }


def gradients(model, batch):
    return torch.autograd.grad(model.loss(batch).total, list(model.parameters()))


# What it computes.


@every_cell
def test_features_are_the_equations_word_by_word(cell):
    model, batch = make(cell=cell), batch_of(SENTENCES)
    features = model.features(batch)
    for row, sentence in enumerate(SENTENCES):
        if not sentence:
            continue
        read = []
        for word in sentence:
            characters = model.speller.embedding(torch.tensor(spelt(word)))
            forwards, _ = model.speller.forwards(characters[None])
            backwards, _ = model.speller.backwards(characters.flip(0)[None])
            read.append(torch.cat([model.embedding.weight[word], forwards[0, -1], backwards[0, -1]]))
        alone, _ = model.recurrence(torch.stack(read)[None])
        equal(features[row, : len(sentence)], alone[0])
        assert not features[row, len(sentence) :].any()


def test_without_characters_only_the_words_are_read():
    model, batch = make(character_encoder="none"), batch_of(SENTENCES)
    assert model.speller is None
    y, _ = model.recurrence(model.embedding(batch.words), lengths=batch.lengths)
    equal(model.features(batch), y)
    empty = torch.zeros(0, 0, dtype=torch.int64)
    equal(answers(model, replace(batch, spellings=empty, spelling_of=empty)), answers(model, batch))


@every_head
def test_the_head_reads_the_features(head):
    model, batch = make(head), batch_of(SENTENCES)
    features = model.features(batch)
    loss = model.loss(batch)
    equal(loss.total, model.head.loss(features, batch.targets, batch.lengths).total)
    assert (loss.count, loss.state) == (10, ())
    equal(model.decode(batch), model.head.decode(features, batch.lengths))


def test_the_head_is_made_for_the_features_and_the_tags():
    asked = []

    def head(features, tags):
        asked.append((features, tags))
        return PerStep(features, tags)

    make(head, hidden=10)
    assert asked == [(10, TAGS)]


def test_a_vector_of_a_sentence_is_the_mean_of_its_features():
    model, batch = make(), batch_of(SENTENCES)
    features = model.features(batch)
    expected = [features[row, : len(s)].mean(0) if s else torch.zeros(6) for row, s in enumerate(SENTENCES)]
    equal(model.vectors(batch), torch.stack([vector.double() for vector in expected]))


def test_an_answer_needs_no_gradient_and_only_the_loss_gives_one():
    found = answers(make(), batch_of(SENTENCES))
    assert {name for name, value in found.items() if value.requires_grad} == {"loss"}


# What it may not depend on.


@every_head
@both_encoders
def test_nothing_depends_on_what_stands_in_padding(head, encoder):
    model, batch = make(head, character_encoder=encoder), batch_of(SENTENCES)
    padding = torch.arange(8) >= batch.lengths[:, None]
    ends = torch.arange(6) >= batch.spelling_lengths[:, None]

    def filled(values, mask, garbage):
        wide = torch.full(mask.shape, garbage)
        wide[~mask] = values[~mask[:, : values.shape[1]]]
        return wide

    truth, true_gradients = answers(model, batch), gradients(model, batch)
    for garbage in (0, -7, 10**9):
        other = Batch(
            filled(batch.words, padding, garbage),
            batch.lengths,
            filled(batch.spellings, ends, garbage),
            batch.spelling_lengths,
            filled(batch.spelling_of, padding, garbage),
            filled(batch.targets, padding, -100),
        )
        found = answers(model, other)
        assert (found["tags"][padding] == -100).all()
        assert not found["marginals"][padding].any()
        equal(found.pop("tags")[:, :5], truth["tags"])
        equal(found.pop("marginals")[:, :5], truth["marginals"])
        equal(found, {name: truth[name] for name in found})
        equal(gradients(model, other), true_gradients)


@every_head
@every_cell
def test_a_sentence_is_the_same_alone_and_beside_others(head, cell):
    model = make(head, cell=cell, layers=2)
    whole = answers(model, batch_of(SENTENCES))
    total = 0.0
    for row, sentence in enumerate(SENTENCES):
        alone = answers(model, batch_of([sentence]))
        n = len(sentence)
        total = total + alone["loss"]
        for name in ("tags", "marginals"):
            equal(whole[name][row, :n], alone[name][0, :n])
        equal(whole["vectors"][row], alone["vectors"][0])
    equal(whole["loss"], total)


def test_the_order_of_the_spellings_does_not_matter():
    model, batch = make(), batch_of(SENTENCES)
    order = torch.randperm(len(batch.spellings))
    moved = replace(
        batch,
        spellings=batch.spellings[order],
        spelling_lengths=batch.spelling_lengths[order],
        spelling_of=order.argsort()[batch.spelling_of],
    )
    assert not torch.equal(moved.spelling_of, batch.spelling_of)
    equal(answers(model, moved), answers(model, batch))
    once_each = torch.arange(batch.words.numel()).view_as(batch.words)  # as if no word occurred twice
    every = batch.spelling_of.flatten()
    apart = replace(
        batch,
        spellings=batch.spellings[every],
        spelling_lengths=batch.spelling_lengths[every],
        spelling_of=once_each,
    )
    equal(answers(model, apart), answers(model, batch))
    equal(gradients(model, apart), gradients(model, batch))


@every_head
@both_encoders
@pytest.mark.parametrize("sentences", [[[]], [[], []]])
def test_no_words_at_all(head, encoder, sentences):
    model, batch = make(head, character_encoder=encoder), batch_of(sentences)
    assert batch.spellings.shape == (0, 0)
    for steps in (0, 3):
        wide = replace(
            batch,
            words=padded(sentences, steps=steps),
            spelling_of=padded(sentences, steps=steps),
            targets=padded(sentences, -100, steps=steps),
        )
        loss = model.loss(wide)
        assert (loss.total.item(), loss.count) == (0.0, 0)
        assert model.decode(wide).tolist() == [[-100] * steps] * len(sentences)
        equal(model.vectors(wide), torch.zeros(len(sentences), 6).double())


def test_a_word_without_characters_is_spelt_by_zeros():
    model = make()
    batch = batch_of([[3, 4, 3]], spelling=lambda word: [] if word == 3 else [2, 5])
    spelt_out = model.speller(batch.spellings, batch.spelling_lengths)
    assert not spelt_out[0].any()
    assert spelt_out[1].all()
    assert model.loss(batch).total.isfinite()


# Training.


@every_head
@every_cell
def test_each_parameter_gets_a_gradient(head, cell):
    model = make(head, cell=cell, layers=2).train()
    model.loss(batch_of([*SENTENCES, [2, 3, 10]])).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_only_what_occurs_gets_a_gradient():
    model = make()
    words, characters = (
        {word for s in SENTENCES for word in s},
        {c for s in SENTENCES for w in s for c in spelt(w)},
    )
    model.loss(batch_of(SENTENCES)).total.backward()
    for weight, used in ((model.embedding.weight, words), (model.speller.embedding.weight, characters)):
        assert {k for k, row in enumerate(weight.grad) if row.any()} == used


def test_pretrained_vectors_are_read():
    model, batch = make(), batch_of(SENTENCES)
    before = answers(model, batch)["loss"]
    with torch.no_grad():
        model.embedding.weight[3] += 1.0
    assert answers(model, batch)["loss"] != before


def test_words_are_dropped_in_training_from_the_rare_ones_on():
    model = make(dropout=0.0, word_dropout=ALWAYS, rare=7)
    batch = batch_of(SENTENCES)
    plain = model.features(batch)
    model.train()
    dropped = replace(batch, words=batch.words.masked_fill(batch.words >= 7, UNKNOWN))
    assert not torch.equal(dropped.words, batch.words)
    found = model.features(batch)
    equal(found, model.eval().features(dropped))  # the spelling stays that of the word
    assert not torch.equal(found, plain)
    equal(model.features(batch), plain)


def test_word_dropout_is_a_probability_and_spares_padding_and_the_unknown():
    model = make(word_dropout=0.3, rare=2).train()
    words = torch.arange(WORDS).expand(4000, WORDS)
    shares = (model._drop_words(words) != words).double().mean(0)
    assert not shares[:2].any()
    assert ((shares[2:] - 0.3).abs() < 0.05).all()
    assert set(model._drop_words(words).unique().tolist()) == set(range(WORDS))
    model.word_dropout = 0.0
    assert torch.equal(model._drop_words(words), words)


def test_the_unknown_word_is_learned_by_word_dropout_alone():
    batch = batch_of([[2, 3, 4], [5, 6]])
    for rate, learned in ((0.0, False), (ALWAYS, True)):
        model = make(word_dropout=rate).train()
        model.loss(batch).total.backward()
        assert bool(model.embedding.weight.grad[UNKNOWN].any()) == learned


def test_dropout_is_on_what_is_read_and_on_the_features_in_training_only():
    model, batch = make(dropout=0.5, layers=2), batch_of(SENTENCES)
    equal(model.features(batch), model.features(batch), tolerance=0)
    rates = {name: getattr(model.recurrence, name) for name in ("input_dropout", "dropout", "output_dropout")}
    assert set(rates.values()) == {0.5}
    features = model.train().features(batch)[0]
    assert 0 < (features == 0).sum() < features.numel()


def test_variational_dropout_drops_the_same_features_of_all_words():
    model = make(dropout=0.5, variational=True).train()
    features = model.features(batch_of([list(range(2, WORDS))]))[0]
    gone = features == 0
    assert torch.equal(gone, gone[:1].expand_as(gone))


def test_the_options_of_the_recurrence_reach_it():
    given = {
        "variational": True,
        "recurrent_dropout": 0.1,
        "weight_dropout": 0.2,
        "zoneout": 0.3,
        "connection": "residual",
        "layers": 2,
    }
    model = make(cell="gru", **given)
    assert {name: getattr(model.recurrence, name) for name in given} == given
    assert model.speller.forwards.cells[0].name == model.speller.backwards.cells[0].name == "gru"
    assert model.recurrence.output_size == 6


def test_sizes_and_beginnings():
    model = Tagger(5000, 90, 3, head=PerStep)
    assert model.recurrence.input_size == 150
    assert model.recurrence.output_size == 256
    for weight, bound in ((model.embedding.weight, 0.03**0.5), (model.speller.embedding.weight, 0.12**0.5)):
        assert 0.99 * bound < weight.abs().max() <= bound
        assert weight.mean().abs() < 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 5}, "must be even, got 5"),
        ({"hidden": 0}, "must be even, got 0"),
        ({"embedding": 0}, "embedding must be 1 or more, got 0"),
        ({"character_embedding": 0}, "character_embedding must be 1 or more, got 0"),
        ({"character_hidden": 0}, "character_hidden must be 1 or more, got 0"),
        (
            {"character_encoder": "convolution"},
            'no character encoder "convolution": there are recurrent, none',
        ),
        ({"word_dropout": 1.0}, r"word_dropout must lie in \[0, 1\), got 1.0"),
        ({"word_dropout": -0.1}, "got -0.1"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)
    with pytest.raises(CellError, match='there is no cell "none"'):
        make(cell="none")


# Learning.


def train(model, batches, steps):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    model.float().train()
    for step in range(steps):
        loss = model.loss(batches[step % len(batches)]).mean
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    model.eval()


def share_right(model, batch):
    right = model.decode(batch) == batch.targets
    return right[batch.targets != -100].float().mean()


@every_head
def test_a_tagging_that_needs_context_before_and_after_is_learned(head):
    """The tag of a word says which words its neighbours are; its own says nothing of it."""

    def drawn(count):
        sentences = [torch.randint(2, 4, (int(n),)).tolist() for n in torch.randint(1, 7, (count,))]
        tags = [
            [2 * (k > 0 and s[k - 1] == 2) + (k + 1 < len(s) and s[k + 1] == 2) for k in range(len(s))]
            for s in sentences
        ]
        return batch_of(sentences, tags)

    model = make(head, hidden=16, dropout=0.0)
    train(model, [drawn(32) for _ in range(10)], 70)
    assert share_right(model, drawn(100)) > 0.98


@every_head
def test_unseen_words_are_tagged_by_their_last_character(head):
    """Each word is new: all that tells its tag is how its spelling ends, and 0.4 could be guessed."""
    unseen = 0

    def drawn(count):
        nonlocal unseen
        spellings, sentences = {}, []
        for length in torch.randint(1, 7, (count,)).tolist():
            names = range(unseen, unseen + length)
            unseen += length
            spellings |= {n: torch.randint(2, CHARACTERS, (1 + n % 6,)).tolist() for n in names}
            sentences.append(list(names))
        tags = [[spellings[n][-1] % TAGS for n in sentence] for sentence in sentences]
        batch = batch_of(sentences, tags, spellings.__getitem__)
        return replace(batch, words=torch.full_like(batch.words, UNKNOWN))

    model = make(head, hidden=16, dropout=0.0, character_embedding=8, character_hidden=8)
    train(model, [drawn(32) for _ in range(10)], 70)
    assert share_right(model, drawn(100)) > 0.98


def test_legal_tags_are_a_matter_of_the_head():
    legal = torch.ones(TAGS + 1, TAGS + 1, dtype=torch.bool)
    legal[:, 2] = False
    model = make(partial(CRF, legal=legal))
    assert 2 not in model.decode(batch_of([[2, 3, 4, 5, 6, 7]] * 5))
