"""The view memory: linear recurrences, windows and bags forget by known laws."""

from types import SimpleNamespace

import pytest
import torch

from throughtime.cells.cell import cell
from throughtime.errors import ConfigError
from throughtime.insight.figures import style
from throughtime.insight.memory import Options, look
from throughtime.insight.reading import read
from throughtime.insight.view import Subject
from throughtime.models.classifier import make_classifier
from throughtime.models.language_model import LanguageModel
from throughtime.models.seq2seq import Seq2Seq

CLASSES, STEPS = 11, 40


@cell(state="h")
def halving(x, s, w):
    """A state that halves."""
    return 0.5 * s.h + w.a(x)


def text(rows=1, steps=STEPS, boundary=False):
    tokens = torch.randint(1, CLASSES, (rows, steps + 1), generator=torch.Generator().manual_seed(3))
    tokens[:, 0] = 0 if boundary else 1
    return SimpleNamespace(inputs=tokens[:, :-1], targets=tokens[:, 1:])


def model(**options):
    return LanguageModel(CLASSES, 0, CLASSES - 1, hidden=8, **options).eval()


def curve(subject, name="change", **options):
    return look(subject, Options(**options)).details["curves"][name]["mean"]


def test_a_halving_state_forgets_by_half_at_each_step():
    subject = Subject(model(cell=halving), text())
    shown = look(subject, Options(places=7, draws=3))
    means = shown.details["curves"]["change"]["mean"][: STEPS // 2]
    assert means == pytest.approx([means[0] * 0.5**k for k in range(STEPS // 2)], rel=2e-3, abs=1e-6)
    assert shown.details["reach"]["change"] == {"0.1": 4, "0.01": 7}  # 1/16 < 0.1, 1/128 < 0.01
    assert "10% of that for good after 4 steps" in shown.lines[0]


def test_every_number_is_that_of_rows_run_one_by_one():
    subject = Subject(model(cell="lstm"), text(steps=6))
    network, batch = subject.model, subject.batch
    shown = look(subject, Options(places=1, draws=1, seed=5))
    embedded = network.embedding(batch.inputs).masked_fill((batch.inputs == CLASSES - 1)[..., None], 0.0)
    with torch.no_grad():
        y, _ = network.recurrence(embedded)
        candidates = []
        for other in embedded[0]:
            changed = embedded.clone()
            changed[0, 0] = other
            after, _ = network.recurrence(changed)
            p, q = (network.head.log_probs(each[0]) for each in (y, after))
            kl = torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1)
            candidates.append(((after - y)[0].norm(dim=-1) / y[0].norm(dim=-1).mean(), kl))
    found = [torch.tensor(shown.details["curves"][name]["mean"]).float() for name in ("change", "kl")]
    assert any(
        all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, each, strict=True)) for each in candidates
    )
    assert [row["distance"] for row in shown.rows] == [0, 1, 2, 3, 5]


def test_a_window_ends_and_a_bag_forgets_nothing_but_by_its_size():
    window = curve(Subject(model(model="fixed-window", window=3), text()))
    assert min(window[:3]) > 0 and max(window[3:]) == 0
    bag = curve(Subject(model(model="bag-of-words"), text()))
    assert min(bag) > 0 and bag[1] < bag[0] and bag[10] > bag[0] / 20


def test_a_transformer_sees_its_window_and_no_more():
    seen = curve(Subject(model(model="transformer", heads=2, context=4, layers=2), text()))
    assert min(seen[:7]) > 0 and max(seen[7:]) < 1e-5


def test_nothing_passes_the_end_of_a_document():
    batch = text(boundary=True)
    batch.inputs[:, 10] = 0
    shown = look(Subject(model(cell="lstm"), batch), Options())
    assert max(row["distance"] for row in shown.rows) <= 29
    assert min(shown.details["curves"]["change"]["low"][:5]) > 0


def test_encoders_of_other_models_and_rows_of_different_lengths():
    tokens = torch.randint(2, CLASSES, (3, 9), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([9, 4, 1])
    batch = SimpleNamespace(tokens=tokens, lengths=lengths, targets=torch.tensor([0, 1, 0]))
    classifier = make_classifier("recurrent", 2, words=CLASSES, hidden=5, cell="gru", bidirectional=True)
    shown = look(Subject(classifier.eval(), batch), Options())
    assert len(shown.lines) == 1 and "kl" not in shown.rows[0] and shown.rows[-1]["distance"] <= 8
    pairs = SimpleNamespace(
        source=tokens, source_lengths=lengths, inputs=tokens, targets=tokens, target_lengths=lengths
    )
    pairs.targets = tokens.masked_fill(torch.arange(9) >= lengths[:, None], -100)
    translator = Seq2Seq(CLASSES, CLASSES, 0, hidden=6).eval()
    assert read(translator, pairs).path == "encoder"
    assert look(Subject(translator, pairs), Options()).rows


def test_it_is_the_same_again_and_can_be_drawn():
    subject = Subject(model(cell="gru"), text())
    one, two = (look(subject, Options(seed=seed)) for seed in (0, 0))
    assert one.rows == two.rows
    assert one.rows != look(subject, Options(seed=1)).rows
    with style():
        panels = one.figures["memory"]().axes
    assert [panel.get_xlabel() for panel in panels] == ["distance k to the replaced input (steps)"] * 2


@pytest.mark.parametrize(
    ("subject", "options", "says"),
    [
        (Subject(model(), text()), Options(places=0), "--places must be 1 or more, got 0"),
        (Subject(model(), text()), Options(draws=0), "--draws must be 1 or more, got 0"),
        (Subject(model(), text(steps=1)), Options(), "reads one step alone"),
        (Subject(torch.nn.Linear(2, 2), None), Options(), "Linear reads with none of Recurrent"),
    ],
)
def test_what_cannot_be_measured_is_refused(subject, options, says):
    with pytest.raises(ConfigError, match=says):
        look(subject, options)


def test_a_bag_of_a_whole_row_has_no_memory():
    batch = SimpleNamespace(
        tokens=torch.ones(2, 3, dtype=torch.long), lengths=torch.tensor([3, 3]), targets=torch.tensor([0, 1])
    )
    bag = make_classifier("bag-of-words", 2, words=CLASSES, embedding=4)
    with pytest.raises(ConfigError, match="makes one vector of a whole row"):
        look(Subject(bag, batch), Options())
    same = make_classifier("recurrent", 2, words=CLASSES, embedding=4, hidden=4)
    with pytest.raises(ConfigError, match="all steps read the same"):
        look(Subject(same.eval(), batch), Options())
