"""Authors are told by likelihood, and a text is cut into whole passages."""

import math
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throughtime.errors import ConfigError, DataError
from throughtime.tasks.authorship import Authors, passages
from throughtime.tasks.language_model import Score


class Unigrams:
    """A language model that can be reckoned by hand."""

    def __init__(self, text, kind="char"):
        self.tokeniser = SimpleNamespace(kind=kind, texts=sorted(set(text)))
        self.shares = {c: n / len(text) for c, n in Counter(text).items()}

    def score(self, text):
        return Score(list(text), [math.log(self.shares.get(c, 1e-3)) for c in text], len(text))


def test_the_author_is_whose_model_finds_the_text_the_likeliest():
    authors = Authors({"even": Unigrams("ab"), "odd": Unigrams("abbb"), "other": Unigrams("xy")})
    answers = authors.answer(["abab", "bbbb", "yx", "a"])
    assert [answer["author"] for answer in answers] == ["even", "odd", "other", "even"]
    assert answers[0]["text"] == "abab"
    half, odd = 1.0, -(math.log2(1 / 4) + math.log2(3 / 4)) / 2
    assert answers[0]["bits_per_character"] == pytest.approx(
        {"even": half, "odd": odd, "other": -math.log2(1e-3)}
    )


def test_too_few_authors_and_empty_texts_are_refused():
    for models in ({}, {"one": Unigrams("a")}):
        with pytest.raises(ConfigError, match=f"{len(models)}; give the runs of two or more"):
            Authors(models)
    with pytest.raises(DataError, match="nothing to go by"):
        Authors({"a": Unigrams("a"), "b": Unigrams("b")}).answer([" \n"])


def test_models_that_know_different_words_are_said_to_be_unfair(caplog):
    for kind, other in (("char", "abc"), ("word", "ba")):
        Authors({"a": Unigrams("ab", kind), "b": Unigrams(other, kind)})
    assert not caplog.records
    Authors({"a": Unigrams("ab", "word"), "b": Unigrams("abc", "word")})
    assert "the models know different words" in caplog.text


def test_the_words_behind_the_last_passage_are_counted(tmp_path, caplog):
    path = tmp_path / "text.txt"
    path.write_text("a b c d e\n")
    assert list(passages(path, 3)) == ["a b c"]
    assert f"the last 2 words of {path} are no whole passage and are left out" in caplog.text


@given(text=st.text("ab \n\t", min_size=1), words=st.integers(1, 4))
def test_passages_are_all_whole_ones_in_order(tmp_path_factory, text, words):
    path = tmp_path_factory.mktemp("passages") / "text.txt"
    path.write_text(text)
    assert list(passages(path, None)) == [text]
    found = list(passages(path, words))
    all_words = text.split()
    whole = len(all_words) // words
    assert [p.split() for p in found] == [all_words[words * k : words * (k + 1)] for k in range(whole)]
    assert all(passage in text and passage == passage.strip() for passage in found)
