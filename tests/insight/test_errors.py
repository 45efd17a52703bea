"""The view errors: losses are those of the models, told one by one."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from throughtime.cells.cell import cell
from throughtime.cells.expression import tanh
from throughtime.data.batches import ExampleBatch
from throughtime.errors import ConfigError
from throughtime.heads.categorical import Loss
from throughtime.heads.crf import CRF
from throughtime.heads.multi_label import MultiLabel
from throughtime.heads.per_step import PerStep
from throughtime.insight.errors import Options, look
from throughtime.insight.figures import style
from throughtime.insight.pages import needs_spaces, page, token
from throughtime.insight.predictions import PIECE, predictions
from throughtime.insight.view import Subject
from throughtime.models.classifier import make_classifier
from throughtime.models.language_model import LanguageModel
from throughtime.models.seq2seq import Seq2Seq
from throughtime.models.tagger import Tagger
from throughtime.models.transformer import TransformerSeq2Seq
from throughtime.tasks.captioner import CaptionBatch
from throughtime.tasks.classifier import SequenceBatch
from throughtime.tasks.tagger import SentenceBatch

CHARACTERS = ["", "�", "a", "B", " ", "\n", "<", "7"]


@cell(state="h")
def plain(x, s, w):
    """A vanilla recurrence."""
    return tanh(w.a(x, s.h))


def drawn(high, *shape, seed=0, low=0):
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def text_subject(steps=30, names=CHARACTERS, **options):
    model = LanguageModel(len(names), 0, 1, cell=plain, hidden=6, **options).eval()
    tokens = drawn(len(names), 2, steps + 1, low=2)
    batch = SimpleNamespace(inputs=tokens[:, :-1], targets=tokens[:, 1:])
    rows = [[[names[k] for k in row] for row in each.tolist()] for each in (batch.inputs, batch.targets)]
    return Subject(model, batch, *rows, classes=names)


def pairs(lengths=(5, 3)):
    source, lengths = drawn(9, len(lengths), max(lengths), low=2), torch.tensor(lengths)
    padding = torch.arange(source.shape[1]) >= lengths[:, None]
    targets = drawn(9, *source.shape, seed=1, low=2).masked_fill(padding, -100)
    inputs = torch.cat([torch.zeros(len(lengths), 1, dtype=torch.long), targets[:, :-1]], 1)
    return SimpleNamespace(
        source=source, source_lengths=lengths, inputs=inputs, targets=targets, target_lengths=lengths
    )


def sentences():
    words = drawn(7, 2, 4, low=2)
    return SentenceBatch(
        words=words, lengths=torch.tensor([4, 2]), spellings=drawn(6, 3, 2, low=2),
        spelling_lengths=torch.tensor([2, 1, 2]), spelling_of=drawn(3, 2, 4),
        targets=drawn(5, 2, 4).masked_fill(torch.tensor([[False] * 4, [False, False, True, True]]), -100),
    )  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"softmax": "adaptive", "cutoffs": [3]}])
def test_each_character_has_the_cross_entropy_of_its_logits(options):
    subject = text_subject(PIECE + 7, **options)
    model, batch = subject.model, subject.batch
    found = predictions(model, batch, 2)
    with torch.no_grad():
        features, _ = model.features(batch.inputs, model.begin(2))
        log_probs = model.head.log_probs(features)
        nats = F.nll_loss(log_probs.flatten(0, 1), batch.targets.flatten(), reduction="none")
        total = model.loss(batch).total.item()
    assert [each.nats for each in found] == pytest.approx(nats.tolist(), abs=1e-5)
    assert sum(each.nats for each in found) == pytest.approx(total, rel=1e-5)
    assert [(each.row, each.step) for each in found] == [(r, t) for r in range(2) for t in range(PIECE + 7)]
    assert [each.guesses[0][0] for each in found] == log_probs.argmax(-1).flatten().tolist()


def test_the_worst_are_told_with_what_stood_before_them_and_what_was_expected():
    subject = text_subject()
    shown = look(subject, Options(worst=4))
    losses = sorted((each.nats for each in predictions(subject.model, subject.batch, 1)), reverse=True)
    assert [row["loss"] for row in shown.rows] == losses[:4]
    row = shown.rows[0]
    before = "".join(subject.inputs[row["row"]][1 : row["step"] + 1]).replace("\n", "⏎")
    assert row["context"] == before[-40:] and row["guesses"].count("%") == 3
    kinds = {kind["part"]: kind for kind in shown.details["kinds"]}
    assert kinds.keys() == {"small letter", "capital letter", "space", "line break", "punctuation", "digit"}
    assert sum(kind["count"] for kind in kinds.values()) == 60
    assert sum(kind["share"] for kind in kinds.values()) == pytest.approx(1)
    digits = [
        each.nats for each in predictions(subject.model, subject.batch, 1) if CHARACTERS[each.wanted] == "7"
    ]
    assert kinds["digit"]["loss"] == pytest.approx(sum(digits) / len(digits))
    assert [each["part"] for each in shown.details["positions"]] == [
        "1",
        "2 to 3",
        "4 to 7",
        "8 to 15",
        "16 to 31",
    ]
    assert [each["count"] for each in shown.details["positions"]] == [2, 4, 8, 16, 30]


def test_words_and_what_is_unknown_are_told_apart():
    names = ["", "�", *(f" word{chr(97 + k % 26)}" for k in range(100)), *(f" {k}" for k in range(50))]
    kinds = {kind["part"] for kind in look(text_subject(60, names), Options()).details["kinds"]}
    assert {"word", "other token"} <= kinds <= {"word", "other token", "unknown", "end"}


def test_a_models_own_answers_are_refused():
    with pytest.raises(ConfigError, match="the model's own answer, which is never wrong: give --file"):
        look(replace(text_subject(), answered=True), Options())


def test_the_page_shows_markup_as_text():
    subject = text_subject()
    text = look(subject, Options()).pages["errors"]
    assert "<script" not in text and "http" not in text
    assert text.count("&lt;</span>") == sum(row.count("<") for row in subject.outputs)
    assert page("a < b", ["x & y"], [("<h>", token("<script>", 1.5, '"tip" <b>'))]).count("<script>") == 0
    assert 'title="&quot;tip&quot; &lt;b&gt;"' in token("x", -0.5, '"tip" <b>')
    assert "0, 114, 178, 0.42" in token("x", -0.5, "") and "213, 94, 0, 0.85" in token("x", 7.0, "")
    assert (
        needs_spaces([["two", "words"]]) and not needs_spaces([["a", "b"]]) and not needs_spaces([[" the"]])
    )


@pytest.mark.parametrize("kind", [Seq2Seq, TransformerSeq2Seq])
def test_tokens_of_encoder_decoders_cost_what_the_loss_says(kind):
    torch.manual_seed(0)
    model = (
        Seq2Seq(9, 9, 0, hidden=8) if kind is Seq2Seq else kind(9, 9, 0, features=8, layers=1, heads=2)
    ).eval()
    batch = pairs()
    found = predictions(model, batch, 3)
    assert len(found) == 8
    assert sum(each.nats for each in found) == pytest.approx(model.loss(batch).total.item(), rel=1e-5)
    names = [["q"] * 5, ["r"] * 3]
    shown = look(Subject(model, batch, names, names), Options())
    assert " → " in shown.rows[0]["context"] and shown.rows[0]["wanted"].startswith("#")


@pytest.mark.parametrize("head", [PerStep, CRF])
def test_words_of_taggers_have_their_marginals(head):
    model, batch = Tagger(7, 6, 5, head=head, hidden=6).eval(), sentences()
    found = predictions(model, batch, 2)
    assert [(each.row, each.step) for each in found] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
    if head is PerStep:
        assert sum(each.nats for each in found) == pytest.approx(model.loss(batch).total.item(), rel=1e-5)
    marginals = model.head.marginals(model.features(batch), batch.lengths)
    assert found[4].nats == pytest.approx(-marginals[1, 0, batch.targets[1, 0]].log().item(), rel=1e-4)
    words = [["one", "two", "three", "four"], ["five", "six"]]
    shown = look(Subject(model, batch, words, classes=list("VWXYZ")), Options(worst=6))
    assert "one [two] three four" in {row["context"] for row in shown.rows}
    assert "#" not in str(shown.rows)


def test_classes_and_rows_of_numbers():
    batch = SimpleNamespace(features=torch.randn(6, 3), targets=torch.tensor([0, 1, 2, 0, 1, 7]))
    model = make_classifier("feed-forward", 3, columns=3).eval()
    found = predictions(model, batch, 3)
    wanted = F.cross_entropy(
        model.head.log_probs(model.vectors(batch))[:5], batch.targets[:5], reduction="none"
    )
    assert [each.nats for each in found] == pytest.approx(wanted.tolist(), rel=1e-5)  # class 7 is unknown
    shown = look(Subject(model, batch, classes=["x", "y", "z"]), Options())
    assert not shown.pages and shown.details["positions"] == []


@dataclass(frozen=True, kw_only=True)
class Numbers(ExampleBatch):
    values: Tensor
    targets: Tensor


class Squares(torch.nn.Module):
    def loss(self, batch, state=None):
        return Loss((batch.values - batch.targets).square().sum(), batch.values.numel())


def test_other_models_are_told_row_by_row():
    batch = Numbers(
        values=torch.tensor([[1.0, 2.0], [0.0, 0.0]]), targets=torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    )
    shown = look(Subject(Squares(), batch, [["u", "v"], ["w", "x"]], [["p"], ["q"]]), Options())
    assert [(row["row"], row["loss"], row["wanted"]) for row in shown.rows] == [(0, 2.0, "p"), (1, 0.5, "q")]
    assert shown.lines == ["The loss is 1.250 on the mean over 2 rows, 2.000 in the worst."]
    labels = make_classifier("bag-of-words", 2, words=5, head=MultiLabel).eval()
    several = SequenceBatch(
        tokens=drawn(5, 3, 4),
        lengths=torch.tensor([4, 2, 1]),
        targets=torch.tensor([[1.0, 0], [0, 1], [1, 1]]),
    )
    found = predictions(labels, several, 1)
    assert sum(each.nats for each in found) / 3 == pytest.approx(labels.loss(several).mean.item(), rel=1e-5)


def test_rows_of_batches_stand_alone():
    words = sentences().split()
    assert [len(each.words) for each in words] == [1, 1] and all(len(each.spellings) == 3 for each in words)
    model = Tagger(7, 6, 5, head=PerStep, hidden=6).eval()
    total = model.loss(sentences()).total.item()
    assert sum(model.loss(each).total.item() for each in words) == pytest.approx(total, rel=1e-5)
    captions = CaptionBatch(
        source=torch.arange(2).view(2, 1), source_lengths=torch.tensor([1, 1]), rows=torch.tensor([1, 0, 1]),
        inputs=drawn(5, 3, 2), targets=drawn(5, 3, 2), target_lengths=torch.tensor([2, 2, 2]),
    ).split()  # fmt: skip
    assert [each.source.item() for each in captions] == [1, 0, 1]
    assert [each.rows.tolist() for each in captions] == [[0]] * 3


def test_figures_can_be_drawn():
    for subject in (
        text_subject(),
        Subject(Squares(), Numbers(values=torch.ones(9), targets=torch.zeros(9))),
    ):
        with style():
            assert look(subject, Options()).figures["errors"]().axes


def test_what_cannot_be_told_is_refused():
    with pytest.raises(ConfigError, match="--worst must be 1 or more, got 0"):
        look(text_subject(), Options(worst=0))
    with pytest.raises(ConfigError, match="has no rows to take apart"):
        look(Subject(Squares(), SimpleNamespace()), Options())
    empty = text_subject()
    empty.batch.targets = torch.full_like(empty.batch.targets, -100)
    with pytest.raises(ConfigError, match="nothing is wanted"):
        look(empty, Options())
