"""Vocabularies of words and the spellings of a batch."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.data.spellings import LONGEST_WORD, Vocabulary, spell
from throughtime.data.tokens import RESERVED, UNKNOWN, Characters
from throughtime.errors import DataError, RunError

quickly = settings(max_examples=100, deadline=None)
words = st.text(max_size=LONGEST_WORD)
sentences = st.lists(st.lists(words, max_size=6), max_size=5)

SENTENCES = [["The", "cat", "the", "dog"], ["the", "dog", "sat"], []]


def test_words_are_numbered_by_falling_frequency_and_then_by_the_alphabet():
    vocabulary = Vocabulary.fit(SENTENCES)
    assert vocabulary.words == ["dog", "the", "The", "cat", "sat"]
    assert vocabulary.counts == [2, 2, 1, 1, 1]
    assert vocabulary.size == 7
    assert vocabulary.encode(["the", "The", "THE", "dog", "mat"]).tolist() == [3, 4, UNKNOWN, 2, UNKNOWN]


def test_lower_case_makes_words_one_that_differ_in_case_only():
    vocabulary = Vocabulary.fit(SENTENCES, lower=True)
    assert vocabulary.words == ["the", "dog", "cat", "sat"]
    assert vocabulary.counts == [3, 2, 1, 1]
    assert vocabulary.encode(["the", "The", "THE", "mat"]).tolist() == [2, 2, 2, UNKNOWN]


def test_singletons_are_the_words_that_were_seen_once():
    vocabulary = Vocabulary.fit(SENTENCES)
    assert vocabulary.singletons == 4
    assert Vocabulary(["a", "b", "c"], [3, 1, 0]).singletons == 3
    assert Vocabulary(["a"], [2]).singletons == Vocabulary(["a"], [2]).size == 3
    assert Vocabulary([], []).singletons == Vocabulary([], []).size == RESERVED


@quickly
@given(sentences, st.booleans())
def test_a_vocabulary_knows_what_it_was_fitted_to(found, lower):
    vocabulary = Vocabulary.fit(found, lower)
    told = Counter(word.lower() if lower else word for sentence in found for word in sentence)
    assert dict(zip(vocabulary.words, vocabulary.counts, strict=True)) == told
    assert all(count == 1 for count in vocabulary.counts[vocabulary.singletons - RESERVED :])
    assert all(count > 1 for count in vocabulary.counts[: vocabulary.singletons - RESERVED])
    for sentence in found:
        ids = vocabulary.encode(sentence)
        assert ids.dtype == np.int64
        read = [vocabulary.words[i - RESERVED] for i in ids.tolist()]
        assert read == [word.lower() if lower else word for word in sentence]


@quickly
@given(sentences, st.booleans())
def test_a_vocabulary_comes_back_from_json(found, lower):
    vocabulary = Vocabulary.fit(found, lower)
    again = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert (again.words, again.counts, again.lower) == (vocabulary.words, vocabulary.counts, lower)
    for sentence in found:
        assert again.encode(sentence).tolist() == vocabulary.encode(sentence).tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a", "b", "a"], [2, 1, 1]), '"a" stands in a vocabulary twice'),
        ((["a", "B"], [2, 1], True), '"B" is not in lower case'),
        ((["a", "b"], [2]), "a count for each word"),
        ((["a", "b"], [1, 2]), "falling counts"),
    ],
)
def test_impossible_vocabularies(arguments, message):
    with pytest.raises(DataError, match=message):
        Vocabulary(*arguments)


@pytest.mark.parametrize(
    "data", [{}, {"words": ["a"], "counts": [1]}, {"words": ["a"], "counts": 3, "lower": False}, ["words"]]
)
def test_a_damaged_description(data):
    with pytest.raises(RunError, match="the description of the vocabulary is damaged"):
        Vocabulary.from_json(data)


# Spellings.

CHARACTERS = Characters("abcdehost")


def read(row, length):
    return CHARACTERS.decode(row[:length].tolist())


def test_each_different_word_is_spelt_once():
    spellings, lengths, spelling_of = spell([["the", "cat"], ["the", "Cat", "the"], []], CHARACTERS)
    assert [read(*word) for word in zip(spellings, lengths, strict=True)] == ["the", "cat", "\ufffdat"]
    assert spelling_of.tolist() == [[0, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert spellings.dtype == lengths.dtype == spelling_of.dtype == np.int64


@quickly
@given(sentences)
def test_every_word_of_every_sentence_is_spelt(found):
    characters = Characters.fit(word for sentence in found for word in sentence)
    spellings, lengths, spelling_of = spell(found, characters)
    different = {word for sentence in found for word in sentence}
    assert spellings.shape == (len(different), max(map(len, different), default=0))
    assert spelling_of.shape == (len(found), max(map(len, found), default=0))
    for sentence, rows in zip(found, spelling_of, strict=True):
        for word, row in zip(sentence, rows[: len(sentence)], strict=True):
            assert spellings[row, : lengths[row]].tolist() == characters.encode(word).tolist()
        assert not rows[len(sentence) :].any()
    assert not spellings[np.arange(spellings.shape[1]) >= lengths[:, None]].any()


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("a" * 20 + "b" * 20, "a" * 20 + "b" * 20),
        ("a" * 20 + "c" + "b" * 20, "a" * 20 + "b" * 20),
        ("a" * 19 + "c" * 900 + "t" + "b" * 19, "a" * 19 + "c" + "t" + "b" * 19),
    ],
)
def test_a_very_long_word_is_cut_in_its_middle(word, kept):
    spellings, lengths, _ = spell([["the", word]], CHARACTERS)
    assert [read(*each) for each in zip(spellings, lengths, strict=True)] == ["the", kept]
    assert spellings.shape == (2, LONGEST_WORD)


def test_long_words_that_differ_in_the_middle_are_two():
    long = ["a" * 30 + letter + "b" * 30 for letter in "cd"]
    spellings, _, spelling_of = spell([long], CHARACTERS)
    assert spelling_of.tolist() == [[0, 1]]
    assert spellings[0].tolist() == spellings[1].tolist()


def test_nothing_to_spell():
    for found, shape in (([], (0, 0)), ([[]], (1, 0)), ([[], []], (2, 0))):
        spellings, lengths, spelling_of = spell(found, CHARACTERS)
        assert (spellings.shape, lengths.shape, spelling_of.shape) == ((0, 0), (0,), shape)
