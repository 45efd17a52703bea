"""Traits of a text, character by character, against what a reader would say."""

import pytest

from throughtime.insight.traits import TRAITS, of_tokens


def told(name, text):
    return "".join(str(int(value)) for value in TRAITS[name](text))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("position in the line", "ab\ncde", "120123"),
        ("position in the word", "ab cd.", "120120"),
        ("position in the sentence", "a b. c", "123012"),
        ("line after an empty one", "A:\nb\n\nC:\nd", "1100011100"),
        ("lines since an empty one", "a\nb\n\nc", "011200"[:6]),
        ("indentation", "  a\n b\nc", "12201100"),
        ("in quotes", 'a "b" c', "0011000"),
        ("in quotes", 'a "b\n\nc', "0011100"[:7]),
        ("in quotes", "“b” c", "11000"),
        ("open brackets", "a(b[c])d)", "011221000"),
        ("word in capitals", "AB Cd EFG", "010000011"),
        ("capital", "aBc", "010"),
        ("digit", "a1", "01"),
        ("vowel", "aby", "100"),
        ("space", "a b\n", "0100"),
        ("line end", "a\n", "01"),
        ("end of a sentence", "a!?.", "0111"),
        ("comma, semicolon or colon", "a,;:", "0111"),
        ("letter", "a1é", "101"),
    ],
)
def test_of_characters(name, text, expected):
    assert told(name, text) == expected


def test_every_trait_is_tested_and_has_a_value_for_each_character():
    for name, trait in TRAITS.items():
        assert len(trait("")) == 0, name
        assert len(trait("Ab (c)\n")) == 7, name


def test_tokens_have_what_holds_at_their_last_character():
    found = of_tokens(["The", " king", "\n", " is"])
    assert found["position in the line"].tolist() == [3, 8, 0, 3]
    assert found["digit"].tolist() == [0, 0, 0, 0]


def test_before_the_first_character_nothing_holds():
    assert of_tokens(["", *"Hello world"])["capital"].tolist() == [0, 1] + [0] * 10


def test_words_have_spaces_between_them():
    found = of_tokens(["The", "KING", "is"])
    assert found["position in the line"].tolist() == [3, 8, 11]
    assert found["word in capitals"].tolist() == [0, 1, 0]


def test_nothing_is_said_of_nothing():
    assert all(len(trait) == 0 for trait in of_tokens([]).values())
