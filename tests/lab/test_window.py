"""Sentences of every distance, and windows, which can only guess where the noun has left them."""

import pytest
import torch

from throughtime.cells.cell import cell
from throughtime.cells.expression import tanh
from throughtime.cells.library import CELLS
from throughtime.lab import window


@cell(state="h")
def latch(x, s, w):
    """The sum of what was read: nothing is forgotten."""
    return s.h + tanh(w.h(x))


def test_sentences():
    generator = torch.Generator().manual_seed(0)
    distances = torch.arange(4).repeat(500)
    batch = window.sentences(distances, generator)
    assert batch.tokens.shape == (2000, 4)
    assert torch.equal(batch.lengths, distances + 1)
    nouns = batch.tokens[:, 0]
    assert torch.equal((nouns >= 22).long(), batch.targets)
    assert (nouns.min(), nouns.max()) == (2, 41)
    assert batch.targets.float().mean() == pytest.approx(0.5, abs=0.05)
    for row, distance in zip(batch.tokens, distances, strict=True):
        assert (row[1 : distance + 1] >= 42).all()
        assert (row[1 : distance + 1] < window.WORDS).all()
        assert (row[distance + 1 :] == 0).all()


def test_words_between_tell_nothing():
    batch = window.sentences(torch.full((20_000,), 1), torch.Generator().manual_seed(1))
    for word in range(42, window.WORDS):
        plural = batch.targets[batch.tokens[:, 1] == word].float()
        assert plural.mean() == pytest.approx(0.5, abs=0.1)


def test_a_window_guesses_where_the_noun_has_left_it(monkeypatch):
    monkeypatch.setattr(window, "STEPS", 100)
    monkeypatch.setattr(window, "TESTED", (0, 2, 3, 9))
    right = window.learn(3, 0)
    assert min(right[0], right[2]) > 0.9
    assert right[3] == pytest.approx(0.5, abs=0.06)
    assert right[9] == pytest.approx(0.5, abs=0.06)


def test_claims_follow_the_numbers():
    knows, guesses = dict.fromkeys(window.TESTED, 1.0), dict.fromkeys(window.TESTED, 0.5)
    windows = {
        f"{size}": {distance: 1.0 if distance < size else 0.5 for distance in window.TESTED}
        for size in window.WINDOWS
    }
    assert window._window(windows).held == "yes"
    assert window._window({"5": knows, "10": knows}).held == "no"
    assert window._recurrence({"a": knows, "b": guesses}).held == "in part"
    assert window._recurrence({"b": guesses}).held == "no"
    assert window._beyond({"a": knows}).held == "yes"
    assert window._beyond({"a": knows | {100: 0.5}}).held == "in part"
    assert window._beyond({"a": guesses}).held == "no"


def test_a_cell_of_a_user(monkeypatch):
    monkeypatch.setattr(window, "STEPS", 20)
    monkeypatch.setattr(window, "TESTED", (0, 5, 10, 30, 100))
    monkeypatch.setattr(window, "HELD_OUT", 50)
    finding = window.run(0, [latch])
    assert {row["model"] for row in finding.rows} == {"window of 5", "window of 10", "latch"}
    assert len(finding.rows) == 3 * len(window.TESTED)
    finding.draw()
    assert window.run(0, [latch]).rows == finding.rows


@pytest.mark.slow
def test_what_held():
    finding = window.run(0, [CELLS["rnn"], CELLS["lstm"]])
    assert [claim.held for claim in finding.claims] == ["yes", "yes", "yes"]
