"""Spelling: distances beside a plain count of slips, corrections beside the formula for every word."""

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from toys import toy_config

import throughtime
from throughtime.errors import ConfigError
from throughtime.tasks.language_model import LanguageModelConfig, LanguageModelTask, ModelConfig, TextConfig
from throughtime.tasks.spelling import SLIP, SLIPS, WORD, Corrector, Lexicon

VERSE = "see the cat drink milk .\nsee the bat fly home .\nwe pet a cat .\nthey fear a bat ,\n"


def slips(a, b):
    """Optimal string alignment, as its recurrence is written."""

    @functools.cache
    def d(i, j):
        if i == 0 or j == 0:
            return i + j
        found = min(d(i - 1, j) + 1, d(i, j - 1) + 1, d(i - 1, j - 1) + (a[i - 1] != b[j - 1]))
        if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
            found = min(found, d(i - 2, j - 2) + 1)
        return found

    return d(len(a), len(b))


WORDS = st.text("abcß𝒳", max_size=6)


@given(words=st.sets(WORDS, max_size=12), word=WORDS, most=st.integers(0, 3))
def test_near_words_are_all_those_of_few_slips(words, word, most):
    assert Lexicon(words).near(word, most) == {
        other: slips(word, other) for other in words if slips(word, other) <= most
    }


def test_two_letters_in_the_wrong_order_are_one_slip():
    assert Lexicon(["the", "then", "tehn"]).near("teh", 2) == {"the": 1, "tehn": 1, "then": 2}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It's 2nd x1 a_b, don’t—Füße!", ["It's", "don’t", "Füße"]),
        ("well-known ''tis 'quoted'", ["well", "known", "tis", "quoted"]),
        ("12 _ 3.4", []),
    ],
)
def test_what_a_word_is(text, found):
    assert WORD.findall(text) == found


def language_model(folder, text, tokens="word", std=0.5):
    (folder / "text.txt").write_text(text)
    config = LanguageModelConfig(
        data=TextConfig(paths=(folder / "text.txt",), tokens=tokens), model=ModelConfig(hidden=8)
    )
    task = LanguageModelTask(config, LanguageModelTask.learn(config, LanguageModelTask.read(config).train))
    torch.manual_seed(0)
    for parameter in task.model.parameters():  # at first, every word is as likely to begin a text
        torch.nn.init.normal_(parameter, std=std)
    task.model.eval()
    return task


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    lexicon = "cat bat hat mat cart that at chat Cat sat London can't on , ."
    return language_model(tmp_path_factory.mktemp("untrained"), f"{lexicon}\n" * 3)


@pytest.mark.parametrize(
    ("before", "word", "after"),
    [
        ("", "xat", ""),
        ("cat on ", "xat", ""),
        ("", "caat", ", on hat"),
        ("sat on, ", "Xat", " ."),
        ("sat on, ", "TAHT", " cat, hat"),
        ("on ", "london", "."),
    ],
)
def test_a_correction_is_the_best_by_its_formula_over_all_words(untrained, before, word, after):
    def score(v):
        spaced = " ".join(f"{before} {v} {after}".replace(",", " , ").replace(".", " . ").split())
        distance = min(slips(v, word), slips(v, word.lower()))
        return untrained.score(spaced).log_prob - SLIP * distance if distance <= SLIPS else None

    words = [v for v in untrained.tokeniser.texts if WORD.fullmatch(v) and score(v) is not None]
    best = sorted(words, key=score, reverse=True)
    assert len(best) > 1 or word == "london"
    [answer] = Corrector(untrained).answer([before + word + after])
    assert answer["changes"][0]["candidates"] == best[:5]
    right = answer["changes"][0]["correction"]
    assert answer["output"] == before + right + after and right.lower() == best[0].lower()
    assert right.isupper() == (word == "TAHT") and right[0].isupper() == (
        word != word.lower() or best[0] == "London"
    )


def test_the_words_after_are_read(untrained):
    """Of no more than three, and none that is unknown."""
    corrector = Corrector(untrained)
    few, more, unknown = (
        corrector.answer([f"xat {after}"])[0]["changes"][0]["candidates"]
        for after in ("on hat sat", "on hat sat chat on", "on zzzzzzz hat sat")
    )
    assert few == more == unknown


@given(
    st.lists(st.sampled_from(["cat", "CAT", "Hat", "London", "can't", "7", "x2", "--", "zzzzzzzz", "?", "_"]))
)
def test_what_is_known_or_like_no_word_is_left_as_it_is(untrained, pieces):
    text = "  ".join(pieces) + "\t"
    [answer] = Corrector(untrained).answer([text])
    assert answer["output"] == answer["input"] == text
    assert [change["word"] for change in answer["changes"]] == ["zzzzzzzz"] * pieces.count("zzzzzzzz")
    assert all(
        change["correction"] == "zzzzzzzz" and not change["candidates"] for change in answer["changes"]
    )


def test_a_capital_is_no_slip(tmp_path):
    """Or "Teh" would be as far from "the" as from "he"."""
    task = language_model(tmp_path, "the he\n" * 3, std=0)  # every word is as likely
    assert Corrector(task).answer(["Teh"])[0]["changes"][0]["candidates"] == ["the", "he"]


def test_a_model_without_words_leaves_everything_as_it_is(tmp_path):
    corrector = Corrector(language_model(tmp_path, "1 2 3\n" * 9))
    assert corrector.answer(["teh 1", ""]) == [
        {
            "input": "teh 1",
            "output": "teh 1",
            "changes": [{"word": "teh", "correction": "teh", "candidates": []}],
        },
        {"input": "", "output": "", "changes": []},
    ]


@pytest.mark.parametrize("tokens", ["char", "bpe"])
def test_a_model_of_other_tokens_is_refused(tmp_path, tokens):
    task = language_model(tmp_path, "the cat\n" * 9, tokens)
    with pytest.raises(ConfigError, match=f"predicts {tokens} tokens: correction needs --tokens word"):
        Corrector(task)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verse")
    task, config = toy_config("language-model", folder, max_epochs=20)
    (folder / "data.txt").write_text(VERSE * 30)
    config = config.model_copy(update={"data": config.data.model_copy(update={"tokens": "word"})})
    task.train(config, folder / "run", Console(quiet=True))
    return throughtime.load(folder / "run")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("see the xat drink milk .", "see the cat drink milk ."),  # by the words after it
        ("see the xat fly home .", "see the bat fly home ."),
        ("we pet a xat .", "we pet a cat ."),  # by those before it
        ("they faer a XAT , we pte a Xat .", "they fear a BAT , we pet a Cat ."),
    ],
)
def test_context_decides(trained, wrong, right):
    [answer] = Corrector(trained).answer([wrong])
    assert answer["output"] == right
