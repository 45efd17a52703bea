"""The recorder: gates, states, gradients through time and attention of whole models."""

import copy

import pytest
import torch

from throughtime.cells.cell import cell
from throughtime.cells.expression import LAYER_NORM_EPSILON, sigmoid, tanh
from throughtime.cells.library import CELLS
from throughtime.errors import ConfigError, ShapeError
from throughtime.insight.recorder import Recorder
from throughtime.kernels.reference import OPERATORS
from throughtime.models.classifier import make_classifier
from throughtime.nn.memory_attention import Attention
from throughtime.nn.recurrent import Recurrent
from throughtime.nn.transformer import TransformerEncoder

BATCH, STEPS, INPUTS, HIDDEN = 3, 6, 4, 5


@cell(state="h", bias={"z": -1.0})
def minimal_gated(x, s, w):
    """Minimal gated unit (Zhou et al. 2016)."""
    z = sigmoid(w.z(x, s.h))
    return (1 - z) * s.h + z * tanh(w.n(x, z * s.h))


def drawn(layer):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(noise, alpha=0.3)
    return layer


def value_of(node, t, values, layer, x):
    """A node of a cell's graph by torch's own operators."""
    graph, weights = layer.cells[0].graph, dict(layer.named_parameters()) | dict(layer.named_buffers())
    match node.op:
        case "constant":
            return x.new_tensor(node.number)
        case "vector":
            return weights[f"{node.name}_l0"]
        case "table":
            use, _, name = node.name.partition(" ")
            return (
                weights[f"mean_{name}_l0"][t]
                if use == "mean"
                else (weights[f"variance_{name}_l0"][t] + LAYER_NORM_EPSILON).rsqrt()
            )
        case "map":
            total = x.new_zeros(len(x), HIDDEN)
            for arg in node.args:
                matrix, blocks, key = (
                    ("weight_ih_l0", graph.input_blocks, node.name)
                    if arg.op == "x"
                    else ("weight_hh_l0", graph.recurrent_blocks, (node.name, arg))
                )
                rows = weights[matrix].unflatten(0, (len(blocks), HIDDEN))[blocks.index(key)]
                total = total + (x if arg.op == "x" else values[arg].expand(len(x), HIDDEN)) @ rows.T
            if node.bias:
                bias = weights["bias_l0"].unflatten(0, (-1, HIDDEN))
                total = total + bias[graph.bias_blocks.index(node.name)]
            return total
    return OPERATORS[node.op](*(values[arg] for arg in node.args))


def by_autograd(layer, x, readout):
    """dL/ds_t of every state, by a loop in which every new state stands where torch keeps its gradient."""
    graph = layer.cells[0].graph
    before = {name: x.new_zeros(len(x), HIDDEN) for name in graph.states}
    states, loss = [], x.new_zeros(())
    for t in range(x.shape[1]):
        values = {}
        for node in graph.nodes:
            if node.op == "state":
                values[node] = before[node.name]
            elif node.op != "x":
                values[node] = value_of(node, t, values, layer, x[:, t])
                if node in graph.outputs and values[node].requires_grad:
                    values[node].retain_grad()
        new = {name: values[output] for name, output in zip(graph.states, graph.outputs, strict=True)}
        for name, output in zip(graph.states, graph.outputs, strict=True):
            if output.op == "state":
                new[name] = new[name] * 1.0
                if new[name].requires_grad:
                    new[name].retain_grad()
        before = {name: value.expand(len(x), HIDDEN) for name, value in new.items()}
        states.append(new)
        loss = loss + (before[graph.states[0]] @ readout[t]).square().sum()
    if loss.requires_grad:
        loss.backward()
    return states


def test_gradients_per_step_are_those_of_autograd(any_cell):
    layer = drawn(Recurrent(any_cell, INPUTS, HIDDEN).double()).eval()
    x = torch.randn(BATCH, STEPS, INPUTS, dtype=torch.float64)
    readout = torch.randn(STEPS, HIDDEN, 2, dtype=torch.float64)
    expected = by_autograd(layer, x, readout)
    with Recorder(layer, "gradients") as seen:
        y, _ = layer(x)
        if y.requires_grad:
            (y[:, :, None] @ readout).square().sum().backward()
    graph = any_cell.graph
    assert {key.partition("gradient ")[2] for key in seen} <= set(graph.driven)
    for name in graph.driven:
        gradients = [values[name].grad for values in expected]
        if len(set(graph.outputs)) < len(graph.outputs) or any(g is None for g in gradients):
            continue  # one value for two states, or one that the loss does not see
        found = seen[f"0.gradient {name}"]
        torch.testing.assert_close(
            found, torch.stack([g.expand_as(found[:, 0]) for g in gradients], 1), rtol=1e-10, atol=1e-10
        )


@pytest.mark.parametrize(("backend", "name"), [("llvm", "lstm"), ("torch", "lstm"), ("scan", "min_lstm")])
def test_gradients_on_every_backend_are_the_same(backend, name):
    x = torch.randn(BATCH, STEPS, INPUTS, dtype=torch.float64)
    lengths = torch.tensor([6, 0, 3])
    found = []
    for each in ("reference", backend):
        torch.manual_seed(0)
        layer = drawn(Recurrent(name, INPUTS, HIDDEN, layers=2, bidirectional=True, backend=each).double())
        with Recorder(layer, "gradients") as seen:
            y, state = layer(x, lengths=lengths)
            (y.square().sum() + state[-1][-1].sum()).backward()
        found.append(dict(seen))
    assert len(found[0]) == 4 * len(CELLS[name].states)
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, rtol=1e-10, atol=1e-10)


def classifier(**options):
    torch.manual_seed(0)
    return make_classifier("recurrent", 3, words=9, embedding=4, hidden=5, **options).eval()


class Tokens:
    def __init__(self, tokens, lengths):
        self.tokens, self.lengths = tokens, lengths


TOKENS = Tokens(torch.randint(2, 9, (2, 7)), torch.tensor([7, 4]))


def test_a_model_is_recorded_by_names_groups_layers_and_steps():
    model = classifier(layers=2, bidirectional=True, cell="gru", pooling="attention")
    with Recorder(model, "z", "states", "attention", layers=[1], steps=slice(-3, None)) as seen:
        model.log_probs(TOKENS)
    place = "encoder.recurrence.1"
    assert list(seen) == [
        f"{place}.h",
        f"{place}.z",
        f"{place}.reverse.h",
        f"{place}.reverse.z",
        "encoder.pooling.attention.attention",
    ]
    assert all(value.shape == (2, 3, 5) for key, value in seen.items() if not key.endswith("attention"))
    assert (seen[f"{place}.z"][1, -3:] == 0).all()  # padding
    assert seen.real(f"{place}.z").tolist() == [[True] * 3, [False] * 3]


def test_the_default_is_gates_and_states():
    model = classifier(cell="lstm")
    with Recorder(model) as seen:
        model.log_probs(TOKENS)
    assert [key.rpartition(".")[2] for key in seen] == ["h", "c", "i", "f", "g", "o"]


def test_a_cell_of_ones_own_is_recorded():
    layer = Recurrent(minimal_gated, INPUTS, HIDDEN)
    with Recorder(layer, "z", "maps", "gradient h") as seen:
        layer(torch.randn(1, 3, INPUTS))[0].sum().backward()
    assert list(seen) == ["0.z", "0.a_z", "0.a_n", "0.gradient h"]
    torch.testing.assert_close(seen["0.a_z"].sigmoid(), seen["0.z"])


def test_steps_of_a_stream_stand_one_after_another():
    layer = drawn(Recurrent("lstm", INPUTS, HIDDEN).double())
    x = torch.randn(2, 4, INPUTS, dtype=torch.float64)
    with Recorder(layer, "f", "gradient h") as whole:
        layer(x)[0].square().sum().backward()
    with Recorder(layer, "f", "gradient h") as stream:
        state, loss = None, 0.0
        for t in range(4):
            y, state = layer.step(x[:, t], state)
            loss = loss + y.square().sum()
        loss.backward()
    assert len(stream.calls("0.f")) == 4
    for key in whole:
        torch.testing.assert_close(stream[key], whole[key])


def test_calls_that_do_not_fit_are_taken_one_by_one():
    layer = Recurrent("rnn", INPUTS, HIDDEN)
    with Recorder(layer, "h") as seen:
        layer(torch.randn(2, 3, INPUTS))
        layer(torch.randn(1, 3, INPUTS))
    with pytest.raises(ShapeError, match=r"calls behind 0.h differ"):
        seen["0.h"]
    assert [len(value) for value in seen.calls("0.h")] == [2, 1]


def test_attention_is_recorded_where_it_is_a_step_and_where_it_is_all_at_once():
    layer = Attention("additive", 3, 4)
    memory = layer.prepare(torch.randn(2, 5, 4))
    queries = torch.randn(2, 3, 3)
    with Recorder(layer, "attention") as seen:
        _, weights = layer(queries, memory)
        for t in range(3):
            layer.step(queries[:, t], memory)
    assert [value.shape for value in seen.calls("attention")] == [(2, 3, 5), *[(2, 1, 5)] * 3]
    torch.testing.assert_close(seen["attention"], torch.cat([weights, weights], 1).detach())


def test_heads_of_a_transformer_are_recorded():
    torch.manual_seed(0)
    model = TransformerEncoder(8, 2, 2).eval()
    x, lengths = torch.randn(2, 5, 8), torch.tensor([5, 3])
    plain = model(x, lengths)
    with Recorder(model, "attention") as seen:
        torch.testing.assert_close(model(x, lengths), plain, rtol=0, atol=0)
    assert len(seen) == 2
    for weights in seen.values():
        assert weights.shape == (2, 2, 5, 5)
        torch.testing.assert_close(weights[1].sum(-1)[:, :3], torch.ones(2, 3))
        assert (weights[1, ..., 3:] == 0).all()


def test_gradients_belong_to_their_calls():
    layer = Recurrent("lstm", INPUTS, HIDDEN)
    with Recorder(layer, "x", "gradient h") as seen:
        for k in range(2):
            y, _ = layer(torch.full((1, 3, INPUTS), float(k)))
            (10.0**k * y[:, -1].sum()).backward()
    assert [value.mean().item() for value in seen.calls("0.x")] == [0.0, 1.0]
    last = [value[0, -1] for value in seen.calls("0.gradient h")]
    torch.testing.assert_close(last[1], 10 * last[0])
    torch.testing.assert_close(last[0], torch.ones(HIDDEN))


def test_backward_passes_of_one_call_are_summed():
    layer = Recurrent("gru", INPUTS, HIDDEN)
    with Recorder(layer, "gradient h") as seen:
        loss = layer(torch.randn(1, 3, INPUTS))[0].sum()
        loss.backward(retain_graph=True)
        once = seen["0.gradient h"]
        loss.backward()
    torch.testing.assert_close(seen["0.gradient h"], 2 * once)
    assert seen.real("0.gradient h").tolist() == [[True] * 3]


@pytest.mark.parametrize("backend", ["llvm", "torch", "reference"])
def test_a_frozen_recurrence_has_gradients_too(backend):
    layer = Recurrent("lstm", INPUTS, HIDDEN, backend=backend).requires_grad_(False)
    head = torch.nn.Linear(HIDDEN, 1)
    with Recorder(layer, "gradient h") as seen:
        head(layer(torch.randn(2, 3, INPUTS))[0]).sum().backward()
    assert seen["0.gradient h"].abs().sum() > 0


def test_signs_of_zero_are_kept():
    @cell(state="h")
    def negative(x, s, w):
        """Its outputs are -0 where x is 0."""
        return -w.a(x, bias=False)

    layer = Recurrent(negative, INPUTS, HIDDEN)
    x = torch.zeros(1, 3, INPUTS)
    plain = layer(x)[0]
    with Recorder(layer, "gradient h"):
        looked = layer(x)[0]
    assert torch.equal(plain.view(torch.int32), looked.view(torch.int32))


def test_what_was_compiled_is_refused():
    layer = torch.compile(Recurrent("rnn", INPUTS, HIDDEN), backend="eager")
    with pytest.raises(ConfigError, match=r"went through torch\.compile"):
        Recorder(layer, "h")


def test_a_copy_is_not_looked_at():
    layer = Recurrent("rnn", INPUTS, HIDDEN)
    with Recorder(layer, "h"):
        other = copy.deepcopy(layer)
    assert not other._hooks


def test_names_are_those_of_the_chosen_layers():
    layer = Recurrent(["lstm", "gru"], INPUTS, HIDDEN)
    with pytest.raises(ConfigError, match='nothing in these layers of this model is called "f"'):
        Recorder(layer, "f", layers=[1])


def test_values_are_exact_under_autocast():
    layer = Recurrent("lstm", INPUTS, HIDDEN)
    with torch.autocast("cpu", torch.bfloat16), Recorder(layer, "f", "a_f") as seen, torch.no_grad():
        layer(torch.randn(2, 3, INPUTS))
    torch.testing.assert_close(seen["0.a_f"].sigmoid(), seen["0.f"])


def test_nothing_stays_after_the_end_or_an_exception():
    layer = Recurrent("lstm", INPUTS, HIDDEN)
    x = torch.randn(1, 3, INPUTS)
    with pytest.raises(RuntimeError, match="midway"), Recorder(layer, "f", "gradients") as seen:
        loss = layer(x)[0].sum()
        raise RuntimeError("midway")
    loss.backward()
    layer(x)
    assert not layer._hooks
    assert list(seen) == ["0.f"]
    assert len(seen.calls("0.f")) == 1


def test_it_may_be_used_again():
    layer, recorder = Recurrent("lstm", INPUTS, HIDDEN), None
    recorder = Recorder(layer, "f")
    for length in (3, 2):
        with recorder as seen:
            layer(torch.randn(1, length, INPUTS))
        assert seen["0.f"].shape == (1, length, HIDDEN)


def test_what_was_recorded_is_a_copy():
    layer = Recurrent("lstm", INPUTS, HIDDEN)
    with Recorder(layer, "f", steps=slice(0, 1)) as seen:
        layer(torch.randn(2, 50, INPUTS))
    assert seen["0.f"].untyped_storage().nbytes() == 2 * HIDDEN * 4


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("forget",), {}, 'nothing in this model is called "forget": there are h, c, i, f, g, o, a_i'),
        (("attention",), {}, "called .attention."),
        (("f",), {"layers": [2]}, "there is no layer 2: there are 1, numbered from 0"),
    ],
)
def test_wrong_names_are_refused(names, options, message):
    with pytest.raises(ConfigError, match=message):
        Recorder(Recurrent("lstm", INPUTS, HIDDEN), *names, **options)
