"""Composing: how fields are spelt, and how a header is made of what is asked for and what is drawn."""

import pytest

from throughtime.errors import ConfigError, RunError
from throughtime.tasks.composition import Composer, _spellings


class Model:
    """Stands for a language model: writes the lines of a tune in turn, and likes long lines."""

    documents = "tunes"

    def __init__(self, *tunes):
        self.tunes = list(tunes)

    def stream(self, prompt, length, **options):
        tune = self.tunes[0]
        rest = tune.splitlines(keepends=True)[prompt.count("\n") :]
        if not rest or rest[0][1:2] != ":":
            self.tunes = self.tunes[1:] or self.tunes
        return iter("".join(rest))

    def score(self, text):
        return type("Score", (), {"log_prob": float(len(text))})


GOOD = "X:1\nT:One\nM:C\nL:1/8\nK:G\nGABc dBGB|\n"
BAD = "X:1\nT:Two\nM:C\nL:1/8\nK:G\n(3GA|\n"


def test_fields_stand_where_the_model_has_them():
    made = Composer(Model(GOOD), {"M": "4/4", "T": "Mine"}).tune(7)
    assert made.abc == "X:7\nT: Mine\nM: 4/4\nL:1/8\nK:G\nGABc dBGB|\n" and made.bars_right


def test_a_field_that_the_model_leaves_out_comes_before_the_key():
    made = Composer(Model("X:1\nK:G\nG|\n"), {"T": "Mine", "K": "Em"})._header("X:1\n")
    assert made == "X:1\nT: Mine\nK: E minor\n"


def test_what_does_not_parse_is_drawn_again():
    composer = Composer(Model(BAD, BAD, GOOD), {})
    made = composer.tune(1)
    assert made.abc == GOOD and made.fault is None
    assert composer.counts() == {"drawn": 3, "parsed": 1, "parsed_share": 1 / 3, "bars_right_share": 1 / 3}
    made = Composer(Model(BAD, GOOD), {}).tune(1, tries=1)
    assert made.fault is not None and not made.bars_right
    assert (
        made.to_json()["reason"] == "line 6, column 5: the bar ends within a tuplet, which wants 1 more notes"
    )


def test_spellings():
    assert _spellings("M", "4/4") == ["4/4", "C"] and _spellings("M", "6/8") == ["6/8"]
    assert {"D", "DMajor", "D Major", "D major", "Dmaj"} <= set(_spellings("K", "D"))
    assert {"Em", "E minor", "Emin", "E Minor"} <= set(_spellings("K", "Em")) and "EM" not in _spellings(
        "K", "Em"
    )
    assert "A Dorian" in _spellings("K", "ADor") and _spellings("K", "D clef=bass") == ["D clef=bass"]
    for name, value in (("K", "H"), ("M", "1/0"), ("L", "x"), ("T", "two\nlines")):
        with pytest.raises(ConfigError):
            _spellings(name, value)


def test_only_a_model_of_tunes_composes():
    model = Model(GOOD)
    model.documents = None
    with pytest.raises(RunError, match="this model was not trained on tunes"):
        Composer(model, {})
