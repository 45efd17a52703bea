"""The view graph: depths of known recurrences, and figures in which nothing lies on anything else."""

from itertools import combinations, product
from random import Random

import pytest
import torch
from matplotlib.patches import Ellipse, FancyBboxPatch

from throughtime.cells.cell import cell
from throughtime.cells.expression import sigmoid, tanh
from throughtime.cells.library import find_cell
from throughtime.errors import ConfigError
from throughtime.heads.crf import CRF
from throughtime.insight.cell_graph import draw_cell
from throughtime.insight.depth import NONLINEAR, feed_forward_depth, recurrent_depth, step_depths
from throughtime.insight.figures import style
from throughtime.insight.graph import Options, look
from throughtime.insight.view import Subject
from throughtime.models.classifier import make_classifier
from throughtime.models.language_model import LanguageModel
from throughtime.models.seq2seq import Seq2Seq
from throughtime.models.tagger import Tagger
from throughtime.nn.recurrent import Recurrent


@cell(state="a b")
def in_turns(x, s, w):
    """b is three layers on a, a is what b was: three layers every two steps."""
    first = tanh(w.p(x, s.a))
    return s.b + 0 * w.q(x), tanh(w.r(tanh(w.o(first))))


@cell(state="h d")
def late(x, s, w):
    """What is read comes out a step later, two layers on."""
    return tanh(w.h(s.d, s.h)), tanh(w.d(x))


@cell(state="h")
def straight(x, s, w):
    """Linear, whatever stands between."""
    return w.a(x, s.h) * sigmoid(s.h)


@pytest.mark.parametrize(
    ("name", "through", "across"),
    [
        ("rnn", 1, 1), ("lstm", 1, 1), ("gru", 1, 1), ("gru_reset_before", 2, 2),
        ("deep_transition_rnn", 2, 2), ("recurrent_highway", 3, 3), ("min_gru", 0, 1),
        ("indrnn", 0, 1), ("lru", 0, 0),
        (in_turns, 1.5, 1.5), (late, 1, 1), (straight, 0, 0),
    ],
)  # fmt: skip
def test_depths_of_known_cells(name, through, across):
    one = find_cell(name) if isinstance(name, str) else name
    assert recurrent_depth([one]) == through
    assert feed_forward_depth(Recurrent(one, 3, 3)) == across


def test_stacks_add_up_at_one_step_and_not_through_time():
    cells = ["lstm", "deep_transition_rnn", "gru"]
    layer = Recurrent(cells, 4, 4, bidirectional=True)
    assert (recurrent_depth(layer.cells), feed_forward_depth(layer)) == (2, 4)
    linear = ["lru", "lru"]
    assert feed_forward_depth(Recurrent(linear, 4, 4, connection="residual")) == 0
    assert feed_forward_depth(Recurrent(linear, 4, 4, connection="highway")) == 1


def layers_on_path(path):
    """Maps that a nonlinearity follows, counted along one path."""
    count, waiting = 0, False
    for node in path:
        if node.op == "map":
            waiting = True
        elif node.op in NONLINEAR and waiting:
            count, waiting = count + 1, False
    return count


def paths(start, stop):
    if stop is start:
        return [[start]]
    return [[*path, stop] for arg in stop.args for path in paths(start, arg)]


@pytest.mark.parametrize("seed", range(8))
def test_depths_are_those_of_all_paths(random_cell, seed):
    graph = random_cell(Random(seed)).graph
    found = step_depths(graph)
    sources = {node.name or "x": node for node in graph.nodes if node.op in {"x", "state"}}
    for (name, source), (state, out) in product(
        sources.items(), zip(graph.states, graph.outputs, strict=True)
    ):
        every = [layers_on_path(path) for path in paths(source, out)]
        assert found[name][state] == max(every, default=float("-inf"))


def boxes(figure):
    figure.draw_without_rendering()
    return [
        patch.get_window_extent()
        for patch in figure.axes[0].patches
        if isinstance(patch, FancyBboxPatch | Ellipse)
    ]


def models():
    yield LanguageModel(9, 0, 1, cell=late, hidden=8, layers=4)
    yield LanguageModel(9, 0, 1, cell="lstm", hidden=8, softmax="adaptive")
    for pooling in ("last", "mean"):
        yield make_classifier(
            "recurrent", 3, words=9, hidden=8, layers=4, bidirectional=True, cell="gru", pooling=pooling
        )
    yield make_classifier("recurrent", 3, words=9, hidden=8)
    yield Seq2Seq(9, 9, 0, hidden=8, layers=4)
    yield Seq2Seq(9, 9, 0, hidden=8, bidirectional=False, attention="none")
    yield Tagger(9, 9, 4, head=CRF, hidden=8)


@pytest.mark.parametrize("model", list(models()), ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("steps", [2, 4])
def test_no_box_of_a_model_lies_on_another_or_over_the_edge(model, steps):
    shown = look(Subject(model, None), Options(unrolled=steps))
    with style():
        figure = shown.figures["graph"]()
        found = boxes(figure)
    assert len(found) > 3 * steps
    assert not any(a.overlaps(b) for a, b in combinations(found, 2))
    assert all(figure.bbox.x0 <= b.x0 and b.x1 <= figure.bbox.x1 and b.y1 <= figure.bbox.y1 for b in found)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"rolled", f"unrolled over {steps} steps"} <= set(texts)
    assert not any(text.get_parse_math() for text in figure.axes[0].texts if text.get_text())


@pytest.mark.parametrize("name", ["lstm", "slstm", "batch_norm_lstm", "recurrent_highway", "random", "turns"])
def test_no_box_of_a_cell_lies_on_another(name, random_cell):
    own = {"random": random_cell(Random(3)), "turns": in_turns}
    with style():
        figure = draw_cell(own[name] if name in own else find_cell(name))
        found = boxes(figure)
    assert not any(a.overlaps(b) for a, b in combinations(found, 2))
    assert all(b.x0 >= 0 and b.x1 <= figure.bbox.x1 for b in found)


def test_the_table_and_the_lines_tell_the_depths():
    shown = look(Subject(Seq2Seq(9, 9, 0, hidden=8, cell="deep_transition_rnn"), None), Options())
    assert [row["recurrence"] for row in shown.rows] == ["encoder", "decoder"]
    assert [row["recurrent_depth"] for row in shown.rows] == [2, 2]
    assert shown.rows[1]["weights"] == 8 * 8 * 3 + 2 * 8
    assert shown.lines[0].startswith("encoder, 1 x deep_transition_rnn in two directions: recurrent depth 2 ")
    assert set(shown.figures) == {"graph", "graph-deep_transition_rnn"}


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        (Recurrent("rnn", 2, 2), Options(unrolled=1), r"--unrolled must lie in 2\.\.9, got 1"),
        (Recurrent("rnn", 2, 2), Options(unrolled=10), r"--unrolled must lie in 2\.\.9, got 10"),
        (
            LanguageModel(9, 0, 1, cell="rnn", hidden=2, layers=9),
            Options(),
            "more layers than there is room for",
        ),
        (torch.nn.Linear(2, 2), Options(), "no recurrence"),
    ],
)
def test_what_cannot_be_drawn_is_refused(model, options, says):
    with pytest.raises(ConfigError, match=says):
        look(Subject(model, None), options)
