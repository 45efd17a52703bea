"""The likeliest words, against the enumeration of every spelling."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.decode.completion import LONGEST, complete_words, typed_part

WORD = re.compile(r"[\w'’-]+")
LETTERS = ["", "a", "b", "é", " ", "."]
#: Pieces as byte pairs have them: several letters, spaces before and after, half a character.
PIECES = [
    "",
    "a",
    "b",
    "ab",
    " ",
    "  ",
    " a",
    "ba.",
    " b!",
    ".",
    "-b",
    "'",
    " ab ",
    " a b",
    "a\ufffd",
    "\ufffd",
]
some_pieces = st.lists(st.sampled_from(PIECES), max_size=5, unique=True).map(lambda pieces: ["", *pieces])
quickly = settings(max_examples=100, deadline=None)
all_of = {"count": 10_000, "beams": 10_000}


class Toy:
    """A random model whose next token depends on the last two; after `depth` tokens no letter comes."""

    def __init__(self, pieces, seed, depth=3):
        generator = torch.Generator().manual_seed(seed)
        self.pieces, self.depth = pieces, depth
        size = len(pieces)
        self.scores = 2 * torch.randn(size, size, size, generator=generator, dtype=torch.float64)
        self.letters = torch.tensor([bool(WORD.match(piece)) for piece in pieces])
        self.state = torch.tensor([0]), torch.tensor([0])
        self.log_probs, self.state = self.step(torch.tensor([0]), self.state)

    def step(self, tokens, state):
        before, age = state
        scores = self.scores[before, tokens]
        over = (age >= self.depth)[:, None] & self.letters
        return scores.masked_fill(over, -math.inf).log_softmax(-1), (tokens, age + 1)

    @staticmethod
    def select(state, rows):
        return tuple(value[rows] for value in state)

    def complete(self, typed="", **options):
        first = self.log_probs[0]
        return complete_words(self.step, self.select, first, self.state, self.pieces, typed=typed, **options)

    def enumerate(self, typed=""):
        """The probability of every word given what was typed, over each sequence of pieces that ends it."""
        words, covered = {}, [0.0 if typed else 1.0]

        def spell(text, log_prob, log_probs, state):
            for token, piece in enumerate(self.pieces):
                new = log_prob + log_probs[token].item()
                if new == -math.inf or "\ufffd" in piece:
                    continue
                in_word = text.lstrip(" ") if len(text) >= len(typed) else ""
                if in_word and not WORD.match(piece):
                    words[in_word] = words.get(in_word, 0.0) + math.exp(new)
                    continue
                written = text + piece
                if not piece or not (written.startswith(typed) or typed.startswith(written)):
                    continue
                if len(text) < len(typed) <= len(written):
                    covered[0] += math.exp(new)
                found = WORD.match(written.lstrip(" "))
                head = found.group() if found else ""
                if typed.startswith(written) or head == written.lstrip(" ") != "":
                    after, state_after = self.step(torch.tensor([token]), state)
                    spell(written, new, after[0], state_after)
                elif head:
                    words[head] = words.get(head, 0.0) + math.exp(new)

        spell("", 0.0, self.log_probs[0], self.state)
        return {word: p / covered[0] for word, p in words.items()}


# Against enumeration.


@quickly
@given(
    pieces=some_pieces,
    typed=st.sampled_from(["", " ", "a", " a", "ab", " ab"]),
    seed=st.integers(0, 1000),
)
def test_with_beams_enough_the_probabilities_are_exact(pieces, typed, seed):
    toy = Toy(pieces, seed)
    assert dict(toy.complete(typed, **all_of)) == pytest.approx(toy.enumerate(typed), rel=1e-5)


@quickly
@given(
    pieces=some_pieces,
    seed=st.integers(0, 1000),
    count=st.integers(1, 6),
    beams=st.integers(1, 6),
)
def test_probabilities_are_never_too_high(pieces, seed, count, beams):
    toy = Toy(pieces, seed)
    exact = toy.enumerate()
    for word, probability in toy.complete(count=count, beams=beams):
        assert 0 < probability <= exact[word] * (1 + 1e-5)


@quickly
@given(typed=st.sampled_from(["", "b", " "]), seed=st.integers(0, 1000), count=st.integers(1, 8))
def test_where_each_word_has_one_spelling_the_likeliest_are_found(typed, seed, count):
    toy = Toy(LETTERS, seed)
    exact = sorted(toy.enumerate(typed).items(), key=lambda item: -item[1])[:count]
    found = toy.complete(typed, count=count, beams=10_000)
    assert [word for word, _ in found] == [word for word, _ in exact]
    assert [p for _, p in found] == pytest.approx([p for _, p in exact], rel=1e-5)


def test_a_few_beams_find_the_best_of_a_model_that_is_sure():
    toy = Toy(LETTERS, 5)
    toy.scores *= 4
    toy.log_probs, toy.state = toy.step(torch.tensor([0]), (torch.tensor([0]), torch.tensor([0])))
    (best,) = toy.complete(count=1, beams=4)
    exact = toy.enumerate()
    assert best[0] == max(exact, key=exact.__getitem__)
    assert best[1] == pytest.approx(exact[best[0]], rel=1e-5)


def test_the_probabilities_of_all_words_and_of_none_sum_to_1():
    toy = Toy(LETTERS, 2)
    none = sum(toy.log_probs[0].exp()[k].item() for k, piece in enumerate(LETTERS) if not piece.strip(" ."))
    assert sum(p for _, p in toy.complete(**all_of)) == pytest.approx(1 - none, rel=1e-5)


# By hand.


def told(pieces, *steps):
    """A model that has one distribution for each step, given by the probabilities of pieces."""
    rows = [torch.tensor([step.get(piece, 0.0) for piece in pieces]).log() for step in steps]

    def step(tokens, number):
        return rows[min(number, len(rows) - 1)].expand(len(tokens), -1), number + 1

    def complete(typed="", **options):
        return complete_words(step, lambda state, rows: state, rows[0], 1, pieces, typed=typed, **options)

    return complete


def test_words_end_at_what_no_word_holds():
    pieces = ["", "ca", "t", " ", ".", " dog", "t, "]
    complete = told(
        pieces,
        {"ca": 0.5, " dog": 0.3, ".": 0.2},
        {"t": 0.5, "t, ": 0.25, " ": 0.25},
        {"": 0.25, " ": 0.25, ".": 0.25, " dog": 0.25},
    )
    assert complete() == [
        ("cat", pytest.approx(0.5 * (0.5 + 0.25))),
        ("dogt", pytest.approx(0.3 * (0.5 + 0.25))),
        ("ca", pytest.approx(0.5 * 0.25)),
        ("dog", pytest.approx(0.3 * 0.25)),
    ]


def test_what_was_typed_may_be_the_beginning_of_a_piece():
    """After "the l" a model of byte pairs has not read " l": its pieces are " log" and " lo"."""
    pieces = ["", " log", " lo", "st", " mat", " ", "l", "."]
    complete = told(
        pieces,
        {" log": 0.3, " lo": 0.2, " mat": 0.4, " ": 0.1},
        {"st": 0.25, "l": 0.25, ".": 0.5},
        {".": 1.0},
    )
    covered = 0.3 + 0.2 + 0.1 * 0.25
    words = dict(complete(" l", count=20))
    assert words["log"] == pytest.approx(0.3 * 0.5 / covered)
    assert words["lost"] == pytest.approx(0.2 * 0.25 / covered)
    assert words["l"] == pytest.approx(0.1 * 0.25 * 1.0 / covered)
    assert not any(word.startswith("m") for word in words)
    assert sum(words.values()) == pytest.approx(1.0)


def test_a_word_may_come_after_spaces():
    complete = told(["", "cat", " cat", " "], {"cat": 0.2, " cat": 0.3, " ": 0.5}, {" ": 1.0})
    assert complete() == [("cat", pytest.approx(0.5))]
    assert complete(" ") == [("cat", pytest.approx(0.3 / 0.8))]


def test_half_a_character_neither_ends_a_word_nor_is_in_one():
    """The bytes of é may be tokens of their own: after caf they are no sign that the word is over."""
    pieces = ["caf", "\ufffd", "e", " ", "e\ufffd"]
    complete = told(pieces, {"caf": 1.0}, {"\ufffd": 0.5, "e": 0.2, " ": 0.2, "e\ufffd": 0.1}, {" ": 1.0})
    assert sorted(complete()) == [("caf", pytest.approx(0.2)), ("cafe", pytest.approx(0.2))]


def test_what_is_impossible_is_no_word():
    complete = told(["", "a", "b", " ", "."], {"a": 0.5, "b": 0.5}, {" ": 1.0})
    assert complete(count=50) == [("a", pytest.approx(0.5)), ("b", pytest.approx(0.5))]


def test_where_no_word_can_come_there_is_none():
    assert told(["", "a", "."], {"": 0.5, ".": 0.5})() == []


def test_a_word_without_an_end_is_given_up():
    steps = []
    sure = torch.tensor([[0.0, -math.inf]])

    def step(tokens, state):
        steps.append(tokens)
        return sure, state

    assert complete_words(step, lambda state, rows: state, sure[0], None, ["a", " "]) == []
    assert len(steps) == LONGEST


def test_the_search_ends_when_nothing_can_become_better():
    steps = []
    log_probs = torch.tensor([0.1, 0.9]).log()

    def step(tokens, state):
        steps.append(tokens)
        return log_probs.expand(len(tokens), -1), state

    found = complete_words(step, lambda state, rows: state, log_probs, None, ["a", " "], count=1)
    assert found == [("a", pytest.approx(0.09))]
    assert len(steps) == 1


def test_at_most_count_words():
    toy = Toy(LETTERS, 0)
    some = toy.complete(count=3)
    assert len(some) == 3
    assert some == sorted(some, key=lambda item: -item[1])


# What was typed of the next word.


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("", ""),
        ("the ca", " ca"),
        ("the cat ", " "),
        ("the cat  ", " "),
        ("the cat.", ""),
        ("line\n", ""),
        ("don't", "don't"),
        ("a don’t", " don’t"),
        ("a well-kn", " well-kn"),
        ("Käse", "Käse"),
        ("the 猫", " 猫"),
        ("(paren", "paren"),
    ],
)
def test_what_was_typed_is_the_end_that_the_next_word_begins_with(text, typed):
    assert typed_part(text) == typed


@quickly
@given(text=st.text("ab é-'.\n"))
def test_what_was_typed_is_the_end_of_the_text(text):
    typed = typed_part(text)
    assert text.endswith(typed)
    assert not typed.strip() or WORD.fullmatch(typed.lstrip(" "))
