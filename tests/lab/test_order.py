"""Sentences and their pairs, a bag of words that has to be right about one half, and cells that are not."""

from collections import Counter

import pytest
import torch

from throughtime.cells.cell import cell
from throughtime.cells.expression import tanh
from throughtime.cells.library import CELLS
from throughtime.lab import order
from throughtime.models.classifier import make_classifier


@cell(state="h")
def mine(x, s, w):
    """A leaky vanilla RNN."""
    return 0.5 * s.h + 0.5 * tanh(w.h(x, s.h))


@pytest.fixture(scope="module")
def halves():
    return order.split(torch.Generator().manual_seed(0))


def words(sentences, row):
    return [order.WORDS[k] for k in sentences.tokens[row, : sentences.lengths[row]]]


def test_sentences():
    assert order.sentence("dog", "man", "bit", True, False) == "the dog bit the man"
    assert order.sentence("dog", "man", "bit", False, False) == "the man bit the dog"
    assert order.sentence("dog", "man", "bit", True, True) == "the man was bitten by the dog"
    assert order.sentence("dog", "man", "bit", False, True) == "the dog was bitten by the man"
    assert len(set(order.WORDS)) == len(order.WORDS)


def test_the_two_of_a_pair_have_the_same_words_and_different_answers(halves):
    for sentences in halves:
        assert (sentences.targets.view(-1, 2).sum(1) == 1).all()
        for row in range(0, len(sentences.targets), 2):
            one, other = words(sentences, row), words(sentences, row + 1)
            assert Counter(one) == Counter(other)
            assert one != other


def test_neither_place_nor_voice_tells_the_answer(halves):
    taught, _ = halves
    animal_first = torch.tensor([words(taught, k)[1] in order.ANIMALS for k in range(len(taught.targets))])
    passive = taught.lengths == 7
    for known in (animal_first, passive):
        assert taught.targets[known].float().mean() == 0.5
    assert torch.equal(animal_first ^ passive, taught.targets.bool())  # only both together do


def test_what_is_tested_was_not_taught(halves):
    events = [
        {frozenset(set(words(half, k)) - {"the", "was", "by"}) for k in range(len(half.targets))}
        for half in halves
    ]
    assert not events[0] & events[1]
    assert sum(len(half.targets) for half in halves) == 4 * 8 * 8 * 6


def test_a_score_by_hand(halves):
    _, tested = halves
    sure = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]])

    class Always:
        def log_probs(self, batch):
            return sure[torch.where(batch.lengths == 5, batch.targets, 1 - batch.targets)]

    assert order.score(Always(), tested) == (1.0, 0.0, 1.0)


def test_a_bag_of_words_is_right_about_one_of_each_pair_before_training_too(halves):
    _, tested = halves
    torch.manual_seed(0)
    bag = make_classifier("bag-of-words", 2, words=len(order.WORDS), embedding=16)
    torch.nn.init.normal_(bag.head.weight, std=3.0)
    score = order.score(bag, tested)
    assert score[:2] == (0.5, 0.5)
    assert score.difference < 1e-5


def test_a_cell_of_a_user(monkeypatch):
    monkeypatch.setattr(order, "STEPS", 150)
    finding = order.run(0, [mine])
    assert [row["model"] for row in finding.rows] == ["bag of words", "mine"]
    assert finding.rows[0]["right"] == 0.5
    assert finding.rows[1]["right"] > 0.9
    assert finding.claims[0].held == "yes"
    finding.draw()
    assert order.run(0, [mine]).rows == finding.rows


@pytest.mark.slow
def test_what_held():
    finding = order.run(0, [CELLS["lstm"], CELLS["gru"]])
    assert [claim.held for claim in finding.claims] == ["yes", "yes"]
