"""The equations of a cell as text and as LaTeX."""

import re

import pytest
import torch
from matplotlib.mathtext import MathTextParser
from torch.nn import functional as F

from throughtime.cells.expression import exp, layer_norm, log, maximum, relu, sigmoid, softplus, tanh
from throughtime.cells.formula import as_latex, as_text
from throughtime.cells.library import CELLS
from throughtime.cells.lstm import lstm
from throughtime.cells.trace import trace
from throughtime.kernels import reference


def graph_of(equations, states="h"):
    return trace("mine", tuple(states.split()), equations)


def nested(x, s, w):
    """Every operator, and brackets wherever they can be needed."""
    a = w.a(x, s.h) - (w.b(x) - (s.h + w.v))
    b = (a - s.h) * (w.v / (a * a + 2)) / (sigmoid(a) / (1 + exp(-a)))
    c = -(s.h - a) * -(s.h * b) - (-maximum(a, softplus(b)))
    d = relu(w.d(tanh(c) * s.h, bias=False)) * w.e(c)
    return layer_norm(d - (c + b)) + log(1 + d * d) - 0.5


GRAPHS = {name: cell.graph for name, cell in CELLS.items()} | {"nested": graph_of(nested)}
every_graph = pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)


def test_the_lines_of_the_lstm():
    assert as_text(lstm.graph) == [
        "i_t = σ(W_{xi} x_t + W_{hi} h_{t-1} + b_i)",
        "f_t = σ(W_{xf} x_t + W_{hf} h_{t-1} + b_f)",
        "g_t = tanh(W_{xg} x_t + W_{hg} h_{t-1} + b_g)",
        "o_t = σ(W_{xo} x_t + W_{ho} h_{t-1} + b_o)",
        "c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t",
        "h_t = o_t ⊙ tanh(c_t)",
    ]


def test_the_lines_of_the_gru_that_resets_before_the_product():
    assert as_text(CELLS["gru_reset_before"].graph)[2:] == [
        "n_t = tanh(W_{xn} x_t + W_{hn} (r_t ⊙ h_{t-1}) + b_n)",
        "h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}",
    ]


def test_the_latex_of_the_lstm():
    lines = as_latex(lstm.graph).split("\n")
    assert (lines[0], lines[-1]) == (r"\begin{aligned}", r"\end{aligned}")
    assert lines[1] == r"i_{t} &= \sigma\left(W_{xi} x_{t} + W_{hi} h_{t-1} + b_{i}\right) \\"
    assert lines[5] == r"c_{t} &= f_{t} \odot c_{t-1} + i_{t} \odot g_{t} \\"
    assert lines[6] == r"h_{t} &= o_{t} \odot \tanh\left(c_{t}\right)"


def test_latex_writes_words_upright_fractions_as_fractions_and_subscripts_of_vectors():
    latex = as_latex(graph_of(lambda x, s, w: relu(w.a(x)) * w.gain_h / (1 + w.p_i)))
    assert r"\operatorname{relu}" in latex
    assert r"\mathrm{gain}_{\mathrm{h}}" in latex
    assert r"p_{\mathrm{i}}" in latex
    assert r"\frac{" in latex


def test_a_gate_that_bears_the_name_of_a_state_gets_a_tilde():
    graph = graph_of(lambda x, s, w: 0.5 * s.h + tanh(w.h(x, s.h)))
    assert as_text(graph) == ["h~_t = tanh(W_{xh} x_t + W_{hh} h_{t-1} + b_h)", "h_t = 0.5 ⊙ h_{t-1} + h~_t"]
    assert r"\tilde{h}_t &= \tanh" in as_latex(graph)


@pytest.mark.parametrize(
    ("equations", "right"),
    [
        (lambda x, s, w: tanh(w.a(x) * s.h), "tanh((W_{xa} x_t + b_a) ⊙ h_{t-1})"),
        (lambda x, s, w: w.p - (w.q - s.h), "p - (q - h_{t-1})"),
        (lambda x, s, w: w.p - w.q - s.h, "p - q - h_{t-1}"),
        (lambda x, s, w: w.p + (w.q + s.h), "p + q + h_{t-1}"),
        (lambda x, s, w: -w.p * s.h, "(-p) ⊙ h_{t-1}"),
        (lambda x, s, w: w.p - -s.h, "p - (-h_{t-1})"),
        (lambda x, s, w: -(w.p + s.h), "-(p + h_{t-1})"),
        (lambda x, s, w: w.p / (w.q * s.h), "p / (q ⊙ h_{t-1})"),
        (lambda x, s, w: 1 / (w.q / s.h), "1 / (q / h_{t-1})"),
    ],
)
def test_brackets_stand_where_they_are_needed_and_nowhere_else(equations, right):
    assert as_text(graph_of(equations))[-1] == f"h_t = {right}"


def test_a_matrix_is_named_by_what_it_multiplies():
    def deep_and_peeping(x, s, w):
        a = tanh(w.a(x, s.h))
        c = s.c + sigmoid(w.b(a))
        return tanh(w.o(s.h, c, a)), c

    assert as_text(graph_of(deep_and_peeping, "h c"))[1:] == [
        "b_t = σ(W_{ab} a_t + b_b)",
        "c_t = c_{t-1} + b_t",
        "h_t = tanh(W_{ho} h_{t-1} + W_{co} c_t + W_{ao} a_t + b_o)",
    ]


def test_a_value_that_is_used_twice_gets_a_line():
    def shares(x, s, w):
        total = sigmoid(w.a(x)) + s.h
        return total * total

    assert as_text(graph_of(shares))[1:] == ["u1_t = a_t + h_{t-1}", "h_t = u1_t ⊙ u1_t"]


@every_graph
def test_each_state_and_each_gate_has_one_line(graph):
    lefts = [line.partition(" = ")[0] for line in as_text(graph)]
    assert len(set(lefts)) == len(lefts)
    assert {f"{name}_t" for name in graph.states} <= set(lefts)
    gates = {f"{name}~_t" if name in graph.states else f"{name}_t" for name in graph.gates}
    assert gates <= set(lefts)


@every_graph
def test_each_product_has_a_matrix_of_its_own_name(graph):
    matrices = re.findall(r"W_\{\w+\}", " ".join(as_text(graph)))
    assert len(set(matrices)) == len(matrices) == len(graph.input_blocks) + len(graph.recurrent_blocks)


@every_graph
def test_the_latex_is_well_formed_mathematics(graph):
    lines = as_latex(graph).splitlines()[1:-1]
    assert len(lines) == len(as_text(graph))
    parser = MathTextParser("path")
    for line in lines:
        assert line.count("&") == 1
        parser.parse(f"${line.replace('&', '').removesuffix(chr(92) * 2)}$")


def evaluated(graph, weights, x, state):
    """The new states by the text of the equations, read as Python: one row, `@` for a product."""
    names = dict(weights) | {
        "sigma": torch.sigmoid,
        "max": lambda a, b: torch.maximum(a, torch.as_tensor(b, dtype=a.dtype)),
        "BN": lambda a: (a - 0.5) * 2,
        "LN": lambda a: F.layer_norm(a, a.shape, eps=1e-5),
        **{name: getattr(torch, name) for name in ("tanh", "relu", "exp", "log")},
        "softplus": F.softplus,
        "now_x": x,
        **{f"{name}__before": value for name, value in zip(graph.states, state, strict=True)},
    }
    size = len(state[0])
    for name, block in zip(graph.input_blocks, weights["weight_ih"].split(size), strict=True):
        names[f"W_x{name}"] = block
    sources = {gate: name for name, gate in graph.gates.items()}
    sources |= dict(zip(graph.outputs, graph.states, strict=True))
    recurrent = weights["weight_hh"].split(size) if graph.recurrent_blocks else ()
    for (name, operand), block in zip(graph.recurrent_blocks, recurrent, strict=True):
        source = operand.name or sources.get(operand, graph.states[0])
        names[f"W_{source}{name}"] = block
    if graph.bias_blocks:
        for name, block in zip(graph.bias_blocks, weights["bias"].split(size), strict=True):
            names[f"b_{name}"] = block
    for line in as_text(graph):
        line = re.sub(r"W_\{(\w+)\}", r"W_\1 @", line)
        line = re.sub(r"b_\{(\w+)\}", r"b_\1", line)
        line = re.sub(r"(\w+)_\{t-1\}", r"\1__before", line)
        line = re.sub(r"(\w+)~_t\b", r"now_\1_candidate", line)
        line = re.sub(r"(\w+)_t\b", r"now_\1", line)
        exec(line.replace("⊙", "*").replace("σ", "sigma"), {}, scope := dict(names))
        names = scope
    return tuple(names[f"now_{name}"] for name in graph.states)


@every_graph
def test_the_text_says_what_the_cell_computes(graph):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    weights = {name: draw(*shape) for name, shape in graph.weight_shapes(3, 4).items()}
    x, state = draw(3), tuple(draw(4) for _ in graph.states)
    fill = {"mean": 0.5, "scale": 2.0, "step": 0}  # statistics that the text does not show
    given = {name: torch.full((1, 4), fill[name.split()[0]]) for name in graph.given}
    if given:
        given["step"] = torch.zeros(1, 1, dtype=torch.int64)
    _, expected = reference.run(
        graph, weights, x[None, None], tuple(value[None] for value in state), None, None, given
    )
    for written, computed in zip(evaluated(graph, weights, x, state), expected, strict=True):
        torch.testing.assert_close(written, computed[0], rtol=1e-10, atol=1e-10)
