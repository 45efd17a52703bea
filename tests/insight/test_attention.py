"""The view attention: measures of known weights, and whose weights they are."""

import io
import math

import pytest
import torch

from throughtime.data.streams import Chunk
from throughtime.errors import ConfigError
from throughtime.insight.attention import Look, Options, _measure, look
from throughtime.insight.figures import style
from throughtime.insight.view import Subject
from throughtime.models.captioner import Captioner, PictureEncoder
from throughtime.models.classifier import make_classifier
from throughtime.models.language_model import LanguageModel
from throughtime.models.seq2seq import Seq2Seq
from throughtime.models.transformer import TransformerSeq2Seq
from throughtime.nn.convolution import Convolution, PictureGrid
from throughtime.tasks.captioner import CaptionBatch
from throughtime.tasks.classifier import SequenceBatch
from throughtime.tasks.seq2seq import PairBatch


def drawn(high, *shape, seed=0, low=2):
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def pairs():
    targets = drawn(9, 2, 3, seed=1).masked_fill(torch.arange(3) >= torch.tensor([3, 2])[:, None], -100)
    return PairBatch(
        source=drawn(9, 2, 5), source_lengths=torch.tensor([3, 5]), inputs=drawn(9, 2, 3, seed=2),
        targets=targets, target_lengths=torch.tensor([3, 2]),
    )  # fmt: skip


INPUTS, OUTPUTS = [list("abc"), list("defgh")], [list("xyz"), list("uv")]


def measured(*weights):
    weights = torch.stack([torch.tensor(each) for each in weights])
    return _measure(Look("", weights, lambda row: None, lambda row: None))


def test_measures_of_known_weights():
    backwards = measured([[0, 0, 1.0], [0, 1, 0], [1, 0, 0]])
    assert backwards == {
        "attention": "", "entropy": 0, "spread": 0, "peak": 1, "forward": 0, "order": pytest.approx(-1),
    }  # fmt: skip
    even = measured([[0.25] * 4] * 2)
    assert even["entropy"] == pytest.approx(math.log(4)) and even["spread"] == pytest.approx(1)
    assert (even["peak"], even["forward"], even["order"]) == (0.25, 1, "")
    mixed = measured([[1.0, 0, 0], [0, 0.5, 0.5], [0, 0, 0]])  # padding looks at nothing
    assert mixed["entropy"] == pytest.approx(math.log(2) / 2) and mixed["order"] == pytest.approx(1)


@pytest.mark.parametrize(
    "options", [{}, {"input_feeding": True}, {"attention": "additive", "coverage": True}]
)
def test_weights_are_those_of_the_model(options):
    model = Seq2Seq(9, 9, 0, hidden=6, **options).eval()
    shown = look(Subject(model, pairs(), INPUTS, OUTPUTS), Options(row=1))
    wanted = model.attention_weights(pairs())[1, :2]
    assert torch.allclose(torch.tensor(shown.details["weights"]["attention"]), wanted, atol=1e-6)
    first = look(Subject(model, pairs(), INPUTS, OUTPUTS), Options()).details["weights"]["attention"]
    assert torch.tensor(first).shape == (3, 3) and torch.tensor(first).sum(1).tolist() == pytest.approx(
        [1] * 3
    )
    with style():
        panel = shown.figures["attention"]().axes[0]
    assert [label.get_text() for label in panel.get_xticklabels()] == INPUTS[1]
    assert [label.get_text() for label in panel.get_yticklabels()] == OUTPUTS[1]


def test_a_transformer_has_heads_of_three_kinds():
    model = TransformerSeq2Seq(9, 9, 0, features=8, layers=2, heads=2).eval()
    subject = Subject(model, pairs(), INPUTS, OUTPUTS)
    shown = look(subject, Options())
    assert len(shown.rows) == 12
    assert set(shown.figures) == {"attention", "attention-encoder", "attention-decoder"}
    with style():
        panels = {name: draw().axes for name, draw in shown.figures.items()}
    ticks = {name: [t.get_text() for t in p[0].get_xticklabels()] for name, p in panels.items()}
    assert ticks == {
        "attention": INPUTS[0], "attention-encoder": INPUTS[0], "attention-decoder": ["⊢", "x", "y"],
    }  # fmt: skip
    mean = torch.tensor(
        [shown.details["weights"][f"decoder.layers.1.multihead_attn head {k}"] for k in range(2)]
    ).mean(0)
    assert torch.allclose(mean, model.attention_weights(pairs())[0, :, :3], atol=1e-6)
    only = look(subject, Options(only="encoder.layers.1"))
    assert set(only.figures) == {"attention-encoder"} and len(only.details["weights"]) == 2


def test_a_language_model_looks_back():
    model = LanguageModel(9, 0, 1, model="transformer", hidden=8, heads=2, layers=1, context=4).eval()
    tokens = drawn(9, 1, 11)
    for steps in (4, 10):  # more than its context comes in pieces, of which the first is shown
        batch = Chunk(tokens[:, :steps], tokens[:, 1 : steps + 1], 0)
        shown = look(Subject(model, batch, [["q"] * steps]), Options())
        weights = torch.tensor(shown.details["weights"]["recurrence.layers.0.self_attn head 0"])
        assert torch.equal(weights[:4], weights[:4].tril())
        with style():
            assert shown.figures["attention"]().axes


def test_a_pooling_looks_once():
    model = make_classifier("recurrent", 2, words=9, hidden=4, pooling="attention").eval()
    batch = SequenceBatch(tokens=drawn(9, 2, 4), lengths=torch.tensor([4, 2]), targets=torch.tensor([0, 1]))
    shown = look(Subject(model, batch, [list("abcd"), list("ef")]), Options(row=1))
    [weights] = shown.details["weights"].values()
    assert torch.tensor(weights).shape == (1, 2) and sum(weights[0]) == pytest.approx(1)
    assert shown.rows[0]["order"] == shown.rows[0]["forward"] == ""


def test_a_captioner_looks_at_its_picture():
    grid = PictureGrid(Convolution((4, 4, 4)), 4)
    model = Captioner(PictureEncoder(grid), 9, 0, hidden=6).eval()
    batch = CaptionBatch(
        source=drawn(256, 1, 3, 32, 32, low=0).to(torch.uint8), source_lengths=torch.tensor([1]),
        rows=torch.tensor([0, 0]), inputs=drawn(9, 2, 3), targets=drawn(9, 2, 3),
        target_lengths=torch.tensor([3, 3]),
    )  # fmt: skip
    shown = look(Subject(model, batch, (), [["$a", "dog", "<end>"]] * 2), Options(row=1))
    with style():
        figure = shown.figures["attention"]()
    figure.savefig(io.BytesIO())
    assert [axes.get_title() for axes in figure.axes if axes.images] == ["", "$a", "dog", "<end>"]


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        (Seq2Seq(9, 9, 0, hidden=6, attention="none"), Options(), "this Seq2Seq has no attention"),
        (Seq2Seq(9, 9, 0, hidden=6), Options(row=2), "there is no row 2: the batch has 2"),
        (Seq2Seq(9, 9, 0, hidden=6), Options(only="head"), 'no attention has "head" in its name: there are'),
    ],
)
def test_what_is_not_there_is_refused(model, options, says):
    with pytest.raises(ConfigError, match=says):
        look(Subject(model.eval(), pairs(), INPUTS, OUTPUTS), options)
