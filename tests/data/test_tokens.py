"""Tokenisers: what comes back from what went in, what is unknown, and what a description holds."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from throughtime.data.tokens import (
    BOUNDARY,
    BYTES,
    RESERVED,
    TOKENISERS,
    UNKNOWN,
    BytePairs,
    Characters,
    Words,
    fit_tokeniser,
    tokeniser_from_json,
)
from throughtime.errors import ConfigError, DataError, RunError

quickly = settings(max_examples=100, deadline=None)
#: Any text of whole code points: what UTF-8 can hold.
texts = st.text(st.characters(exclude_categories=["Cs"]))
SAMPLE = "the cat sat on the mat\nthe déjà-vu of the 猫 and the 😀, again and again\n" * 3
every_kind = pytest.mark.parametrize("kind", TOKENISERS)


@pytest.fixture(scope="module")
def fitted():
    """A tokeniser of each kind, fitted to the sample."""
    return {kind: fit_tokeniser(kind, [SAMPLE]) for kind in TOKENISERS}


@pytest.fixture(scope="module")
def byte_pairs(fitted):
    return fitted["bpe"]


@given(texts)
@quickly
def test_music_spells_every_text(text):
    music = fit_tokeniser("abc", [text, "a"])
    assert music.decode(music.encode(text)) == text


def test_music_takes_notes_bars_and_fields_whole():
    text = "M:6/8\nK:D\n|:^f2A,/ (3Bcd z4|1 c'>d :|2 [Ac]2|]\n"
    music = fit_tokeniser("abc", [text * 2])
    tokens = list(music.pieces(music.encode(text)))
    assert "".join(tokens) == text
    for token in ("M:", "K:", "|:", "^f2", "A,/", "(3", "z4", "c'", ":|", "|]"):
        assert token in tokens
    assert list(music.pieces(music.encode("^f2g8"))) == ["^f2", "\ufffd", "8"]
    assert list(music.pieces(music.encode("A4"))) == ["A", "4"]  # not seen as a whole: spelt


# What all kinds have in common.


@every_kind
def test_the_text_comes_back(fitted, kind):
    assert fitted[kind].decode(fitted[kind].encode(SAMPLE)) == SAMPLE


@every_kind
def test_tokens_are_numbered_from_the_reserved_ones_on(fitted, kind):
    tokeniser = fitted[kind]
    ids = tokeniser.encode(SAMPLE)
    assert ids.dtype == np.int64
    assert ids.ndim == 1
    assert ids.min() >= RESERVED
    assert ids.max() < tokeniser.size
    assert len(tokeniser.texts) == tokeniser.size - RESERVED
    assert len(set(tokeniser.encode(SAMPLE))) <= len(tokeniser.texts)


@every_kind
def test_no_text_is_no_tokens(fitted, kind):
    assert fitted[kind].encode("").tolist() == []
    assert fitted[kind].decode([]) == ""


@every_kind
def test_the_boundary_has_no_text_and_the_unknown_token_a_mark(fitted, kind):
    tokeniser = fitted[kind]
    assert list(tokeniser.pieces([BOUNDARY])) == [""]
    assert list(tokeniser.pieces([UNKNOWN])) == ["<unk>" if kind == "word" else "\ufffd"]
    ids = tokeniser.encode("the").tolist()
    assert tokeniser.decode([BOUNDARY, *ids, BOUNDARY]) == "the"


@every_kind
@quickly
@given(data=st.data())
def test_pieces_are_one_for_each_token_and_make_up_the_text(fitted, kind, data):
    tokeniser = fitted[kind]
    ids = data.draw(st.lists(st.integers(0, tokeniser.size - 1)))
    pieces = list(tokeniser.pieces(ids))
    assert len(pieces) == len(ids)
    assert "".join(pieces) == tokeniser.decode(ids)
    assert list(tokeniser.pieces(np.array(ids, dtype=np.int64))) == pieces


@every_kind
def test_pieces_come_as_their_tokens_do(fitted, kind):
    """No piece waits for a token that is not yet there."""
    tokeniser = fitted[kind]
    ids = tokeniser.encode("the cat").tolist()
    taken = []

    def one_by_one():
        for i in ids:
            taken.append(i)
            yield i

    for number, _ in enumerate(tokeniser.pieces(one_by_one()), start=1):
        assert len(taken) == number


@every_kind
@quickly
@given(text=texts)
def test_any_text_can_be_encoded(fitted, kind, text):
    ids = fitted[kind].encode(text)
    assert ((ids >= UNKNOWN) & (ids < fitted[kind].size)).all()
    assert (ids != BOUNDARY).all()


@every_kind
@quickly
@given(text=texts)
def test_a_description_in_json_gives_the_same_tokeniser(fitted, kind, text):
    tokeniser = fitted[kind]
    again = tokeniser_from_json(json.loads(json.dumps(tokeniser.to_json())))
    assert type(again) is type(tokeniser)
    assert (again.size, again.texts, again.to_json()) == (
        tokeniser.size,
        tokeniser.texts,
        tokeniser.to_json(),
    )
    assert again.encode(text).tolist() == tokeniser.encode(text).tolist()


@every_kind
def test_fitting_does_not_depend_on_the_blocks(kind):
    in_lines = fit_tokeniser(kind, SAMPLE.splitlines(keepends=True))
    assert in_lines.to_json() == fit_tokeniser(kind, [SAMPLE]).to_json()


@pytest.mark.parametrize(("kind", "size"), [("char", 7), ("word", 5), ("bpe", 261), ("bpe", 263)])
def test_a_vocabulary_has_at_most_the_size_that_is_asked_for(kind, size):
    assert fit_tokeniser(kind, [SAMPLE], size).size == size


@pytest.mark.parametrize("kind", ["char", "word"])
def test_a_large_vocabulary_is_that_of_the_text(fitted, kind):
    assert fit_tokeniser(kind, [SAMPLE], 10_000).to_json() == fitted[kind].to_json()


@every_kind
@pytest.mark.parametrize("size", [0, 1, 2])
def test_a_vocabulary_without_room_for_a_token(kind, size):
    with pytest.raises(ConfigError, match=f"a vocabulary of {size} leaves no room: give more than 2"):
        fit_tokeniser(kind, [SAMPLE], size)


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        [],
        {},
        {"kind": "sentence"},
        {"kind": ["char"]},
        {"kind": "char"},
        {"kind": "char", "characters": 5},
        {"kind": "char", "characters": ["ab"]},
        {"kind": "word"},
        {"kind": "word", "words": 5},
        {"kind": "word", "words": [["a"]]},
        {"kind": "bpe"},
        {"kind": "bpe", "model": None},
        {"kind": "bpe", "model": {}},
        {"kind": "bpe", "model": {"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}}}},
        {
            "kind": "bpe",
            "model": {"version": "1.0", "model": {"type": "BPE", "vocab": {" ": 0}, "merges": []}},
        },
    ],
    ids=str,
)
def test_a_damaged_description(damaged):
    with pytest.raises(RunError, match=r"^the description of the tokeniser is damaged: "):
        tokeniser_from_json(damaged)


# Characters.


@quickly
@given(alphabet=st.sets(st.characters(exclude_categories=[]), min_size=1), data=st.data())
def test_any_text_of_known_characters_comes_back(alphabet, data):
    tokeniser = Characters.fit(["".join(alphabet)])
    text = data.draw(st.text(st.sampled_from(sorted(alphabet))))
    ids = tokeniser.encode(text).tolist()
    assert len(ids) == len(text)
    assert UNKNOWN not in ids
    assert tokeniser.decode(ids) == text
    assert list(tokeniser.pieces(ids)) == list(text)


@quickly
@given(text=texts)
@example(text="\U0010ffff")
def test_a_character_that_was_not_seen_is_unknown(text):
    tokeniser = Characters.fit(["abcé"])
    ids = tokeniser.encode(text)
    assert [i == UNKNOWN for i in ids] == [character not in "abcé" for character in text]


def test_the_neighbours_of_known_characters_are_unknown():
    assert Characters.fit(["bd"]).encode("abcde").tolist() == [1, 2, 1, 3, 1]


def test_characters_are_in_the_order_of_unicode():
    assert Characters.fit(["cab", "€b"]).characters == ["a", "b", "c", "€"]


@quickly
@given(text=st.text("abcdé", min_size=1), room=st.integers(1, 5))
def test_the_most_frequent_characters_are_kept(text, room):
    kept = set(Characters.fit(list(text), room + RESERVED).characters)
    counts = Counter(text)
    assert len(kept) == min(room, len(counts))
    least = min(counts[character] for character in kept)
    assert all(counts[character] <= least for character in set(text) - kept)


# Words.

tokenised = st.lists(
    st.lists(st.sampled_from(["the", "cat", ",", "n't", "<unk>", "déjà"])).map(" ".join)
).map("\n".join)


@quickly
@given(text=tokenised)
def test_a_text_that_is_tokenised_comes_back(text):
    tokeniser = Words.fit(["the cat , n't déjà\n" * 2])
    ids = tokeniser.encode(text).tolist()
    assert tokeniser.decode(ids) == text
    assert ids.count(UNKNOWN) == text.count("<unk>")


def test_words_stand_between_white_space_and_line_ends_are_words():
    tokeniser = Words(["a", "b,", "\n"])
    assert tokeniser.encode("a  b,\t a\n\n  b,\u00a0a \n").tolist() == [2, 3, 2, 4, 4, 3, 2, 4]
    assert tokeniser.decode([2, 3, 2, 4, 4, 3, 2, 4]) == "a b, a\n\nb, a\n"


def test_words_that_occur_once_are_unknown():
    tokeniser = Words.fit(["one two two", " three\n", "three"])
    assert tokeniser.words == ["\n", "three", "two"]
    assert tokeniser.encode("one two three four").tolist() == [1, 4, 3, 1]
    assert tokeniser.decode([1, 4, 3, 1]) == "<unk> two three <unk>"


def test_a_line_end_that_occurs_once_is_kept():
    assert "\n" in Words.fit(["a a\nb b"]).words
    assert "\n" not in Words.fit(["a a b b"]).words


@quickly
@given(words=st.lists(st.sampled_from(["a", "b", "c", "d", "\n"]), min_size=1), room=st.integers(1, 4))
def test_the_most_frequent_words_are_kept(words, room):
    kept = Words.fit([" ".join(words)], room + RESERVED).words
    counts = Counter(words)
    counts["\n"] += 1
    often = {word for word, number in counts.items() if number > 1}
    assert set(kept) <= often
    assert len(kept) == min(room, len(often))
    assert all(counts[word] <= counts[kept[-1]] for word in often - set(kept))


def test_the_marks_of_the_reserved_tokens_are_words_of_the_text():
    """A corpus writes <unk> where it means the unknown token; <document> is a word as any other."""
    text = "<unk> <document> a <unk> <document> a\n"
    tokeniser = Words.fit([text])
    assert set(tokeniser.words) == {"<document>", "a", "\n"}
    ids = tokeniser.encode(text).tolist()
    assert [i for i in ids if i < RESERVED] == [UNKNOWN, UNKNOWN]
    assert BOUNDARY not in ids
    assert tokeniser.decode(ids) == text


def test_a_boundary_between_words_leaves_their_space_alone():
    tokeniser = Words(["a", "\n"])
    assert list(tokeniser.pieces([BOUNDARY, 2, 2, 3, BOUNDARY, 2])) == ["", "a", " a", "\n", "", "a"]
    assert list(tokeniser.pieces([2, BOUNDARY, 2])) == ["a", "", " a"]


def test_a_text_in_which_no_word_occurs_twice():
    with pytest.raises(DataError, match="no word that occurs twice: train on characters instead"):
        fit_tokeniser("word", ["each word once"])


# Byte pairs.


@quickly
@given(text=texts)
@example(text="ends with \ufffd")
@example(text="\ufffd")
@example(text="a\ufffdb \ufffd\ufffd")
@example(text="\0\r\n\t  \u2028 x")
@example(text="👩‍👩‍👧 e\u0301")
def test_any_text_comes_back_from_byte_pairs(byte_pairs, text):
    ids = byte_pairs.encode(text).tolist()
    assert UNKNOWN not in ids
    assert byte_pairs.decode(ids) == text


@quickly
@given(ids=st.lists(st.integers(RESERVED, 257)))
@example(ids=[171, 96])  # ED A1 could begin a surrogate: decoders wait for its third byte
def test_pieces_of_any_bytes_are_their_text(ids):
    """The first 256 tokens are the bytes; what ends in the middle of a character shows up to there."""
    tokeniser = BytePairs.fit([""], 258)
    letters = json.loads(json.dumps(tokeniser.to_json()))["model"]["model"]["vocab"]
    byte_of = {i + RESERVED: BYTES[letter] for letter, i in letters.items()}
    text = bytes(byte_of[i] for i in ids).decode(errors="replace")
    shown = tokeniser.decode(ids)
    rest = text.removeprefix(shown)
    assert shown + rest == text and rest in ("", "\ufffd", "\ufffd\ufffd")


def test_a_character_of_several_tokens_comes_with_the_last_of_them():
    tokeniser = BytePairs.fit([""], 258)
    assert list(tokeniser.pieces(tokeniser.encode("a€é"))) == ["a", "", "", "€", "", "é"]
    assert tokeniser.texts.count("\ufffd") == 128


def test_the_letters_of_the_bytes_are_those_of_the_library():
    assert set(BYTES) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(BYTES.values()) == list(range(256))


def test_frequent_pairs_are_merged(byte_pairs):
    assert len(byte_pairs.encode("the the")) == 2
    assert "the" in byte_pairs.texts
    assert " the" in byte_pairs.texts


def test_byte_pairs_need_room_for_all_bytes():
    with pytest.raises(ConfigError) as caught:
        fit_tokeniser("bpe", [SAMPLE], 257)
    message = str(caught.value)
    assert "257 byte-pair tokens are too few" in message
    assert "a vocabulary of 258 or more" in message
    assert fit_tokeniser("bpe", [SAMPLE], 258).size == 258
