"""Terms: words of any text, and k-mers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throughtime.data.terms import Terms, split_text
from throughtime.errors import ConfigError, DataError, RunError


def test_words_and_signs():
    assert split_text("Well, it's a state-of-the-art film!", "word") == [
        "Well",
        ",",
        "it's",
        "a",
        "state-of-the-art",
        "film",
        "!",
    ]
    assert split_text("wo n't", "word") == ["wo", "n't"]
    assert split_text(" \n", "word") == []


def test_kmers_overlap():
    assert split_text("ACGTA", "kmer", 3) == ["ACG", "CGT", "GTA"]
    assert split_text("AC", "kmer", 3) == ["AC"] and split_text("", "kmer", 3) == []
    with pytest.raises(ConfigError, match="1 or more"):
        split_text("ACGT", "kmer", 0)


def test_rare_terms_are_unknown_and_the_most_frequent_come_first():
    terms = Terms.fit(["the cat the", "The dog"], "word", lower=True, min_count=2)
    assert terms.texts == ["the"] and terms.size == 3
    assert terms.encode("THE zebra the").tolist() == [2, 1, 2]
    assert Terms.fit(["a b b c c c"], "word", most=4).texts == ["c", "b"]


def test_texts_without_such_terms_are_refused():
    with pytest.raises(DataError, match="occurs 2 times"):
        Terms.fit(["each word once"], "word", min_count=2)


@given(texts=st.lists(st.text("ab ,.'-É", min_size=1), min_size=1), lower=st.booleans())
def test_a_description_comes_back_as_it_was(texts, lower):
    try:
        terms = Terms.fit(texts, "word", lower=lower)
    except DataError:
        return
    again = Terms.from_json(terms.to_json())
    assert all((again.encode(text) == terms.encode(text)).all() for text in texts)
    assert again.to_json() == terms.to_json()


def test_a_damaged_description_is_named():
    with pytest.raises(RunError, match="damaged"):
        Terms.from_json({"kind": "terms"})
