"""The grammar and its test, entropies against closed forms, and what is drawn from a model that is known."""

import math

import pytest
import torch

from throughtime.lab import temperature
from throughtime.lab.temperature import BOUNDARY, CHARACTERS, FIRST, STOP


class Spells:
    """After any token "a" with 3/4, the full stop with 1/4, however the sentence went on."""

    probs = torch.zeros(FIRST + len(CHARACTERS))
    probs[FIRST + CHARACTERS.index("a")], probs[STOP] = 0.75, 0.25

    def begin(self, batch):
        return None

    def step(self, tokens, state):
        return self.probs.log().expand(len(tokens), -1), state


def test_the_grammar_has_what_it_makes_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    made = {temperature.sentence(generator) for _ in range(1000)}
    assert len(made) > 500
    assert all(map(temperature.is_grammatical, made))
    assert max(map(len, made)) < temperature.LONGEST
    assert set("".join(made)) <= set(CHARACTERS)
    assert temperature.is_grammatical("the old cat sees two dogs.")
    for wrong in (
        "the old cat see two dogs.",
        "two cat see the dog.",
        "the cat sees a dogs.",
        "the cat sees the dog",
        "the  cat sees the dog.",
        "the cat sees the dog..",
    ):
        assert not temperature.is_grammatical(wrong)


def test_words_are_chosen_as_zipf_says():
    generator = torch.Generator().manual_seed(1)
    verbs = [temperature.sentence(generator) for _ in range(2000)]
    counts = [sum(f" {stem}" in text.split(" ", 1)[1] for text in verbs) for stem in ("see", "like", "meet")]
    total = sum(1 / k for k in range(1, 6))
    for count, rank in zip(counts, (1, 2, 5), strict=True):
        assert count / 2000 == pytest.approx(1 / rank / total, abs=0.04)


def test_tokens_are_the_characters_after_a_boundary():
    batch = temperature.draw_sentences(20, torch.Generator().manual_seed(0))
    assert (batch.inputs[:, 0] == BOUNDARY).all()
    for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        text = [k for k in targets if k >= 0]
        assert temperature.is_grammatical("".join(map(temperature._character, text)))
        assert inputs[1 : len(text)] == text[:-1]


def test_entropy_of_two_classes_and_its_slope_by_hand():
    logits = torch.tensor([[0.7, 0.0], [5.0, 5.0]], dtype=torch.float64)
    for each in (0.5, 1.0, 3.0):
        p = 1 / (1 + math.exp(-0.7 / each))
        entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
        expected = torch.tensor([entropy, math.log(2)], dtype=torch.float64)
        torch.testing.assert_close(temperature.entropies(logits, each), expected)
        variance = torch.tensor([0.7**2 * p * (1 - p), 0.0], dtype=torch.float64)
        torch.testing.assert_close(temperature.slope(logits, each), variance / each**3)


@pytest.mark.parametrize("each", [0.5, 1.0, 2.0])
def test_what_is_drawn_from_a_known_model(each):
    sample = temperature.write(Spells(), each, 4000, torch.Generator().manual_seed(0))
    odds = 3 ** (1 / each)
    stop = 1 / (1 + odds)
    assert set("".join(sample.texts)) == {"a", "."}
    assert sample.characters.double().mean() == pytest.approx(1 / stop, rel=0.05)  # geometric
    for text, characters in zip(sample.texts, sample.characters.tolist(), strict=True):
        assert len(text) == characters
        assert text.count(".") == (characters < temperature.LONGEST or text[-1] == ".")
    bits = -stop * math.log2(stop) - (1 - stop) * math.log2(1 - stop)
    torch.testing.assert_close(sample.entropy, bits * sample.characters.double(), rtol=1e-5, atol=1e-5)
    first = sample.texts.index(".")
    assert float(sample.surprise[first]) == pytest.approx(-math.log2(stop), rel=1e-5)
    assert temperature._model_itself(sample).held == "yes"


def test_claims_follow_the_numbers():
    sample = temperature.write(Spells(), 1.0, 500, torch.Generator().manual_seed(0))
    assert temperature._model_itself(sample._replace(entropy=2 * sample.entropy)).held == "no"
    assert temperature._greedy(["a."] * 5, ["a."] * 5).held == "yes"
    assert temperature._greedy(["a."] * 5, ["a.", "b.", "c.", "d.", "e."]).held == "no"
    good = temperature.measure(sample._replace(texts=["the cat sees a dog."] * 500))
    assert good[1:] == (1.0, 1 / 500, 1 / 500)


def test_a_whole_run_of_a_few_steps(monkeypatch):
    monkeypatch.setattr(temperature, "STEPS", 2)
    monkeypatch.setattr(temperature, "WRITTEN", 30)
    finding = temperature.run(0)
    assert finding.claims[0].held == "yes"  # whatever the model is
    assert [row["temperature"] for row in finding.rows] == list(temperature.TEMPERATURES)
    finding.draw()
    assert temperature.run(0).rows == finding.rows


@pytest.mark.slow
def test_what_held():
    finding = temperature.run(0)
    assert [claim.held for claim in finding.claims] == ["yes"] * 4
    both = {row["temperature"]: row["both"] for row in finding.rows}
    assert both[0.6] > 0.7 > both[0.2]
