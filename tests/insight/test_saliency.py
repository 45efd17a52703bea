"""The view saliency: linear models have known attributions, others those of an integral by hand."""

import sys
from dataclasses import dataclass

import pytest
import torch

from throughtime.cells.cell import cell
from throughtime.data.batches import ExampleBatch
from throughtime.data.streams import Chunk
from throughtime.errors import ConfigError
from throughtime.heads.categorical import Loss
from throughtime.heads.crf import CRF
from throughtime.heads.per_step import PerStep
from throughtime.insight.figures import style
from throughtime.insight.saliency import Options, look
from throughtime.insight.view import Subject
from throughtime.models.classifier import make_classifier
from throughtime.models.language_model import LanguageModel
from throughtime.models.seq2seq import Seq2Seq
from throughtime.models.tagger import Tagger
from throughtime.nn.recurrent import Recurrent
from throughtime.tasks.classifier import ColumnBatch, SequenceBatch
from throughtime.tasks.seq2seq import PairBatch
from throughtime.tasks.tagger import SentenceBatch


@cell(state="h")
def halving(x, s, w):
    """A state that halves."""
    return 0.5 * s.h + w.a(x, bias=False)


@dataclass(frozen=True, kw_only=True)
class Steps(ExampleBatch):
    values: torch.Tensor
    lengths: torch.Tensor


class LastSum(torch.nn.Module):
    """f = Σ_i h_Ti: linear in everything that is read."""

    def __init__(self):
        super().__init__()
        self.recurrence = Recurrent(halving, 2, 3)

    def loss(self, batch, state=None):
        y, _ = self.recurrence(batch.values, lengths=batch.lengths)
        return Loss(-y[torch.arange(len(y)), batch.lengths - 1].sum(), len(y))


def drawn(high, *shape, seed=0, low=2):
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def text(steps=8):
    tokens = drawn(9, 2, steps + 1)
    return Chunk(tokens[:, :-1], tokens[:, 1:], 0)


def language_model(**options):
    return LanguageModel(9, 0, 1, hidden=6, **options).eval()


def test_a_linear_model_has_the_terms_of_its_sum():
    model = LastSum()
    values = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(1))
    batch = Steps(values=values, lengths=torch.tensor([3, 5]))
    shown = look(Subject(model, batch, [["a", "b", "c"], []]), Options(points=3))
    weight = model.recurrence.weight_ih_l0.detach().sum(0)
    wanted = [0.5 ** (2 - t) * (values[0, t] @ weight).item() for t in range(3)]
    assert shown.details["attributions"] == pytest.approx(wanted, abs=1e-6)
    assert shown.details["gap"] == pytest.approx(0, abs=1e-6) and shown.details["baseline"] == 0
    assert {row["input"] for row in shown.rows} == {"a", "b", "c"}
    sizes = [abs(row["attribution"]) for row in shown.rows]
    assert sizes == sorted(sizes, reverse=True)
    assert len(look(Subject(model, batch), Options(row=1, points=3)).rows) == 5


def test_the_integral_is_that_of_many_small_steps():
    model, batch = language_model(cell="lstm"), text()
    shown = look(Subject(model, batch), Options(points=64))
    x = model.embedding(batch.inputs[:1]).detach()
    total, count = torch.zeros_like(x), 400
    for k in range(count):
        point = (x * (k + 0.5) / count).requires_grad_()
        y, _ = model.recurrence(point)
        f = model.head.log_probs(y[:, -1])[0, batch.targets[0, -1]]
        total += torch.autograd.grad(f, point)[0] / count
    wanted = (total * x).sum(-1)[0].tolist()
    assert shown.details["attributions"] == pytest.approx(wanted, abs=1e-5)
    assert shown.details["gap"] == pytest.approx(0, abs=1e-4) and "complete" in shown.lines[2]
    assert shown.details["answer_step"] == 7
    with torch.no_grad():
        f = model.head.log_probs(model.recurrence(x)[0][:, -1])[0, batch.targets[0, -1]]
    assert shown.details["f"] == pytest.approx(f.item(), abs=1e-5)


def test_an_answer_rests_on_nothing_that_comes_after_it():
    shown = look(Subject(language_model(), text()), Options(row=1, step=2, points=8))
    values = shown.details["attributions"]
    assert all(values[:3]) and not any(values[3:])
    last = look(Subject(language_model(), text()), Options(step=-2, points=8))
    assert last.details["answer_step"] == 6


def pairs():
    source, targets = drawn(9, 2, 4), drawn(9, 2, 3, seed=1)
    lengths = torch.tensor([4, 2])
    return PairBatch(
        source=source, source_lengths=lengths, inputs=drawn(9, 2, 3, seed=2),
        targets=targets.masked_fill(torch.arange(3) >= torch.tensor([3, 1])[:, None], -100),
        target_lengths=torch.tensor([3, 1]),
    )  # fmt: skip


def sentences():
    return SentenceBatch(
        words=drawn(7, 2, 4), lengths=torch.tensor([4, 2]), spellings=drawn(6, 3, 2),
        spelling_lengths=torch.tensor([2, 1, 2]), spelling_of=drawn(3, 2, 4, low=0),
        targets=drawn(5, 2, 4, low=0),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model", "batch", "steps"),
    [
        (Seq2Seq(9, 9, 0, hidden=6), pairs(), 4),
        (Tagger(7, 6, 5, head=CRF, hidden=6), sentences(), 4),
        (language_model(model="big-window", context=8), text(), 8),
        (
            make_classifier("bag-of-words", 3, words=9),
            SequenceBatch(tokens=drawn(9, 2, 4), lengths=torch.tensor([3, 4]), targets=torch.tensor([0, 2])),
            3,
        ),
        (
            make_classifier("feed-forward", 3, columns=5),
            ColumnBatch(features=torch.ones(2, 5), targets=torch.tensor([0, 2])),
            5,
        ),
    ],
    ids=lambda each: type(each).__name__,
)
def test_every_model_is_complete(model, batch, steps):
    shown = look(Subject(model.eval(), batch), Options(points=64))
    assert len(shown.rows) == steps
    assert sum(shown.details["attributions"]) == pytest.approx(
        shown.details["f"] - shown.details["baseline"], abs=0.02
    )
    model.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_gap_is_told():
    """A norm makes the same of any vector but 0, so that f leaps there, where no gradient is taken."""
    shown = look(Subject(language_model(model="transformer", heads=1), text()), Options(points=8))
    gap = shown.details["f"] - shown.details["baseline"] - sum(shown.details["attributions"])
    assert shown.details["gap"] == pytest.approx(gap, abs=1e-4) and abs(gap) > 0.1
    assert "take more --points" in shown.lines[2]


def test_single_steps_of_other_models():
    one = look(Subject(Seq2Seq(9, 9, 0, hidden=6).eval(), pairs()), Options(step=1, points=8))
    assert one.details["answer_step"] == 1
    tagged = look(
        Subject(Tagger(7, 6, 5, head=PerStep, hidden=6).eval(), sentences()), Options(step=0, points=8)
    )
    assert tagged.details["answer_step"] == 0


def test_the_page_and_the_figure():
    names = [["<b>", "a", " ", "\n", "c", "d", "e", "f"]] * 2
    shown = look(Subject(language_model(), text(), names, names), Options(points=4))
    assert "&lt;b&gt;</span>" in shown.pages["saliency"] and "<b>" not in shown.pages["saliency"]
    with style():
        [panel] = shown.figures["saliency"]().axes
    assert [label.get_text() for label in panel.get_xticklabels()][:4] == ["<b>", "a", "␣", "⏎"]
    assert len(panel.patches) == 8 and "nats" in panel.get_ylabel()


@pytest.mark.parametrize(
    ("model", "batch", "options", "says"),
    [
        (language_model(), text(), Options(row=2), "there is no row 2: the batch has 2, numbered from 0"),
        (language_model(), text(), Options(step=8), "there is no answer at step 8: there are 8"),
        (language_model(), text(), Options(points=1), "--points must be 2 or more, got 1"),
        (Tagger(7, 6, 5, head=CRF, hidden=6), sentences(), Options(step=0), "one loss for all steps"),
        (torch.nn.Linear(2, 2), text(), Options(), "Linear reads with none of"),
    ],
)
def test_what_is_not_there_is_refused(model, batch, options, says):
    with pytest.raises(ConfigError, match=says):
        look(Subject(model, batch), options)


def test_it_says_how_to_get_captum(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ConfigError, match=r"pip install 'throughtime\[saliency\]'"):
        look(Subject(language_model(), text()), Options(points=4))
