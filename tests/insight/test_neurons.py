"""Units that track something: found where one was put, and not where there is none."""

import pytest
import torch
from subjects import linear, subject_of

from throughtime.errors import ConfigError
from throughtime.insight.neurons import Options, Reading, correlation, look, track
from throughtime.insight.traits import of_tokens
from throughtime.insight.view import Subject

TEXT = 'KING:\nIt is so (or so) said.\n\nFOOL:\nNot I, "said he" aloud!\n\n' * 12


def planted(units):
    """A reading in which units of a noisy state follow traits of the text."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(len(TEXT), 20, generator=generator, dtype=torch.float64)
    traits = of_tokens(list(TEXT))
    for unit, (trait, sign) in units.items():
        states[:, unit] = sign * torch.from_numpy(traits[trait]).double() + 0.1 * states[:, unit]
    return Reading(list(TEXT), {"recurrence.0.c": states}, [len(TEXT)])


def test_units_are_found_where_they_were_put():
    found = {
        unit.trait: unit
        for unit in track(planted({3: ("in quotes", 1.0), 7: ("position in the line", -1.0)}))
    }
    assert (found["in quotes"].unit, found["position in the line"].unit) == (3, 7)
    assert found["in quotes"].held > 0.9
    assert found["position in the line"].held < -0.9


def test_what_nothing_follows_has_a_small_correlation_in_the_other_half():
    found = {unit.trait: unit for unit in track(planted({3: ("in quotes", 1.0)}))}
    assert abs(found["position in the sentence"].held) < 0.3


def test_correlation_is_pearsons():
    generator = torch.Generator().manual_seed(0)
    trait = torch.randn(50, generator=generator, dtype=torch.float64)
    states = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    states[:, 2] = 1.0
    expected = torch.corrcoef(torch.cat([trait[:, None], states[:, :2]], 1).T)[0, 1:]
    torch.testing.assert_close(correlation(trait, states), torch.cat([expected, torch.zeros(1)]).double())


class Letters(torch.nn.Module):
    """A stand-in for a language model: each token is read as whether it is a capital."""

    def __init__(self):
        super().__init__()
        self.inner = subject_of(linear).model
        layer = self.inner.recurrence
        with torch.no_grad():
            layer.weight_ih_l0.zero_()[1, 0] = 1.0
            layer.weight_hh_l0.zero_()

    def loss(self, batch, state=None):
        return self.inner.loss(batch, state)


def capitals(text=TEXT, rows=2):
    model = Letters()
    length = len(text) // rows
    tokens = [list(text[row * length : (row + 1) * length]) for row in range(rows)]
    x = torch.zeros(rows, length, 2, dtype=torch.float64)
    for row, letters in enumerate(tokens):
        x[row, :, 0] = torch.tensor([float(letter.isupper()) for letter in letters])
    batch = type(subject_of(linear).batch)(x, torch.zeros(rows, length, dtype=torch.long))
    return Subject(model, batch, tokens)


def test_the_view_finds_the_unit_of_a_model():
    view = look(capitals(), Options())
    best = view.rows[0]
    assert (best["trait"], best["unit"], best["state"]) == ("capital", 1, "inner.recurrence.0.h")
    assert best["held"] == pytest.approx(1.0)
    assert 'Unit 1 of inner.recurrence.0.h follows "capital": r = 1.00' in view.lines[0]
    assert "capital: unit 1 of inner.recurrence.0.h, r = 1.00" in view.pages["neurons"]
    title = view.figures["neurons"]().axes[0].get_title()
    assert title == 'unit 1 of inner.recurrence.0.h follows "capital", r = 1.00 (orange: high)'


def test_a_trait_may_be_asked_for():
    assert "word in capitals" in look(capitals(), Options(trait="word in capitals")).lines[0]


@pytest.mark.parametrize(
    ("subject", "options", "message"),
    [
        (lambda: capitals(), Options(trait="colour"), 'there is no trait "colour": there are position in'),
        (lambda: capitals(), Options(trait="digit"), 'too few tokens of this text tell "digit"'),
        (lambda: capitals("abc def", 1), Options(), "no trait tells 20 of the 7 tokens"),
        (lambda: subject_of(linear, names=False), Options(), "what this model reads has no names"),
    ],
)
def test_what_cannot_be_found_is_refused(subject, options, message):
    with pytest.raises(ConfigError, match=message):
        look(subject(), options)
