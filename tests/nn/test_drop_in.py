"""The drop-ins for torch's LSTM, GRU and RNN: torch's own layers are the oracle, errors included."""

import copy
import io
import itertools
import pickle

import pytest
import torch
from torch.nn.utils import parametrizations, rnn

import throughtime.nn as nn
from throughtime.errors import ConfigError
from throughtime.nn import drop_in

STEPS, BATCH, INPUTS, HIDDEN = 5, 3, 4, 5
KINDS = {
    "LSTM": ("LSTM", {}),
    "GRU": ("GRU", {}),
    "RNN": ("RNN", {}),
    "RNN (relu)": ("RNN", {"nonlinearity": "relu"}),
}
FORMS = ("batched", "unbatched", "sorted", "unsorted")
every_kind = pytest.mark.parametrize("kind", KINDS)
every_form = pytest.mark.parametrize("form", FORMS)
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}


def pair(kind, *arguments, dtype=torch.float64, **options):
    """torch's layer, and ours with its weights."""
    name, more = KINDS[kind]
    arguments = arguments or (INPUTS, HIDDEN)
    theirs = getattr(torch.nn, name)(*arguments, **more, **options, dtype=dtype)
    ours = getattr(nn, name)(*arguments, **more, **options, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def draw_input(layer, form):
    """A leaf and a function that makes the layer's input of it."""
    dtype = layer.weight_ih_l0.dtype
    if form == "unbatched":
        return torch.randn(STEPS, INPUTS, dtype=dtype, requires_grad=True), lambda x: x
    shape = (BATCH, STEPS) if layer.batch_first else (STEPS, BATCH)
    leaf = torch.randn(*shape, INPUTS, dtype=dtype, requires_grad=True)
    if form == "batched":
        return leaf, lambda x: x
    lengths = [5, 3, 1] if form == "sorted" else [2, 4, 1]
    options = {"batch_first": layer.batch_first, "enforce_sorted": form == "sorted"}
    return leaf, lambda x: rnn.pack_padded_sequence(x, torch.tensor(lengths), **options)


def draw_state(layer, form):
    """The initial states as leaves, in a list."""
    rows = layer.num_layers * (1 + layer.bidirectional)
    shape = (rows,) if form == "unbatched" else (rows, BATCH)
    sizes = [layer.proj_size or HIDDEN] + [HIDDEN] * (layer.mode == "LSTM")
    return [torch.randn(*shape, s, dtype=layer.weight_ih_l0.dtype, requires_grad=True) for s in sizes]


def as_hx(state):
    return tuple(state) if len(state) > 1 else state[0]


def tensors(answer):
    """Every tensor of what a layer returns."""
    y, after = answer
    packed = [t for t in y if t is not None] if isinstance(y, rnn.PackedSequence) else [y]
    return [*packed, *(after if isinstance(after, tuple) else (after,))]


def loss_of(answer):
    parts = [t for t in tensors(answer) if t.is_floating_point()]
    return sum((torch.linspace(-1, 1, t.numel(), dtype=t.dtype).view_as(t) * t).sum() for t in parts)


def equal(ours, theirs, tolerance=1e-10):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance, check_stride=True)


def trained(layer, leaf, make, state):
    """What the layer returns, and the gradients of x, the states and each parameter."""
    answer = layer(make(leaf), as_hx(state)) if state else layer(make(leaf))
    leaves = [leaf, *state, *layer.parameters()]
    return answer, torch.autograd.grad(loss_of(answer), leaves)


def compare(theirs, ours, form, with_state, tolerance=1e-10):
    leaf, make = draw_input(theirs, form)
    state = draw_state(theirs, form) if with_state else []
    seed = torch.get_rng_state()
    expected, wanted = trained(theirs, leaf, make, state)
    torch.set_rng_state(seed)
    answer, found = trained(ours, leaf, make, state)
    assert type(answer[0]) is type(expected[0])
    assert type(answer[1]) is type(expected[1])
    equal(tensors(answer), tensors(expected), tolerance)
    torch.testing.assert_close(found, wanted, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.fixture
def unrolled(monkeypatch):
    """A list that grows by one with each recurrence that our kernels run."""
    calls = []

    def counted(*arguments, **options):
        calls.append(arguments[0].name)
        return drop_in_unroll(*arguments, **options)

    drop_in_unroll = drop_in.unroll
    monkeypatch.setattr(drop_in, "unroll", counted)
    return calls


# What they compute.


@every_form
@every_kind
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_outputs_states_and_gradients_are_those_of_torch(kind, form, layers, bidirectional, dtype, unrolled):
    for bias, batch_first, with_state in itertools.product([True, False], repeat=3):
        theirs, ours = pair(
            kind,
            dtype=dtype,
            num_layers=layers,
            bidirectional=bidirectional,
            bias=bias,
            batch_first=batch_first,
        )
        unrolled.clear()
        compare(theirs, ours, form, with_state, TOLERANCE[dtype])
        assert len(unrolled) == layers * (1 + bidirectional)


@every_form
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_lstm_with_projection_is_torchs(form, layers, bidirectional, unrolled):
    for bias, with_state in itertools.product([True, False], repeat=2):
        theirs, ours = pair("LSTM", num_layers=layers, bidirectional=bidirectional, bias=bias, proj_size=2)
        compare(theirs, ours, form, with_state, tolerance=0)
    assert unrolled == []


@every_form
@every_kind
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_dropout_draws_the_random_numbers_of_torch(kind, form, dtype, unrolled):
    for bidirectional, batch_first in itertools.product([True, False], repeat=2):
        options = {"bidirectional": bidirectional, "batch_first": batch_first}
        theirs, ours = pair(kind, INPUTS, HIDDEN, 3, dtype=dtype, dropout=0.4, **options)
        compare(theirs, ours, form, True, TOLERANCE[dtype])
        compare(theirs.eval(), ours.eval(), form, True, TOLERANCE[dtype])
    assert len(unrolled) == 2 * 3 * (2 + 2 + 1 + 1)


def test_dropout_is_drawn_anew_in_training_alone():
    _, layer = pair("LSTM", INPUTS, HIDDEN, 2, dropout=0.5)
    x = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])


@every_kind
def test_everything_can_be_dropped(kind):
    theirs, ours = pair(kind, INPUTS, HIDDEN, 2, dropout=1.0)
    compare(theirs, ours, "batched", False)


def test_without_gradients_and_with_frozen_weights():
    theirs, ours = pair("GRU", INPUTS, HIDDEN, 2)
    x = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64)
    with torch.no_grad():
        equal(tensors(ours(x)), tensors(theirs(x)))
        assert not ours(x)[0].requires_grad
    for layer in (theirs, ours):
        layer.requires_grad_(False)
        layer.bias_hh_l1.requires_grad_()
    wanted, found = (torch.autograd.grad(loss_of(layer(x)), layer.bias_hh_l1) for layer in (theirs, ours))
    equal(found, wanted)


def test_a_list_of_states_is_taken_as_torch_takes_it():
    theirs, ours = pair("LSTM")
    x = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64)
    hx = draw_state(theirs, "batched")
    equal(tensors(ours(x, hx)), tensors(theirs(x, hx)))


# What they are.


@every_kind
def test_they_are_layers_of_torch(kind):
    theirs, ours = pair(kind, INPUTS, HIDDEN, 2, bidirectional=True, bias=False, batch_first=True)
    assert isinstance(ours, type(theirs))
    assert isinstance(ours, torch.nn.RNNBase)
    assert repr(ours) == repr(theirs)
    assert [(n, p.shape) for n, p in ours.named_parameters()] == [
        (n, p.shape) for n, p in theirs.named_parameters()
    ]
    assert ours.flatten_parameters() is None


@every_kind
def test_the_same_seed_gives_the_weights_of_torch(kind):
    name, options = KINDS[kind]
    made = []
    for module in (torch.nn, nn):
        torch.manual_seed(3)
        made.append(getattr(module, name)(INPUTS, HIDDEN, 2, **options))
    equal(list(made[1].parameters()), list(made[0].parameters()), tolerance=0)


@every_kind
def test_a_state_dict_goes_both_ways(kind):
    theirs, ours = pair(kind, INPUTS, HIDDEN, 2)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.mul_(2)
    theirs.load_state_dict(ours.state_dict())
    compare(theirs, ours, "batched", True)


def saved(layer):
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@every_kind
@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer)), saved],
    ids=["deepcopy", "pickle", "torch.save"],
)
def test_a_copy_is_the_same_and_its_own(kind, copied, unrolled):
    theirs, ours = pair(kind, INPUTS, HIDDEN, 2)
    other = copied(ours)
    assert type(other) is type(ours)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.zero_()
    compare(theirs, other, "batched", True)
    assert len(unrolled) == 2


def test_weights_that_are_replaced_are_used():
    theirs, ours = pair("LSTM")
    x = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64)
    others = {name: torch.randn_like(value) for name, value in theirs.named_parameters()}
    wanted, found = (torch.func.functional_call(layer, others, (x,)) for layer in (theirs, ours))
    equal(tensors(found), tensors(wanted))
    for layer in (theirs, ours):
        parametrizations.weight_norm(layer, "weight_hh_l0")
        with torch.no_grad():
            layer.parametrizations.weight_hh_l0.original0.mul_(3)
    equal(tensors(ours(x)), tensors(theirs(x)))
    assert ours.explain().backend == "llvm"


def test_a_layer_is_made_and_moved_in_any_type():
    layer = nn.LSTM(INPUTS, HIDDEN, device="cpu", dtype=torch.float64)
    assert layer.weight_hh_l0.dtype == torch.float64
    theirs, ours = pair("GRU", dtype=torch.float32)
    compare(theirs.double(), ours.double(), "batched", True)
    compare(theirs.to(torch.float32), ours.to(torch.float32), "batched", True, 2e-5)
    assert nn.RNN(INPUTS, HIDDEN, device="meta").explain().backend == "torch"


# Where torch's own code runs.


@every_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_torchs(kind, dtype, unrolled):
    theirs, ours = (layer.to(dtype) for layer in pair(kind, INPUTS, HIDDEN, 2))
    assert f"and x is {dtype}" in str(ours.explain())
    compare(theirs, ours, "batched", True, tolerance=0)
    assert unrolled == []


def test_under_autocast_the_type_is_that_of_torch(unrolled):
    theirs, ours = pair("LSTM", dtype=torch.float32)
    x = torch.randn(STEPS, BATCH, INPUTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        equal(tensors(ours(x)), tensors(theirs(x)), tolerance=0)
        assert "under autocast" in str(ours.explain(x))
    assert unrolled == []


def test_derivatives_that_our_kernels_lack_are_torchs():
    theirs, ours = pair("GRU")
    x = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64)
    wanted, found = (
        torch.func.jvp(lambda x, layer=layer: layer(x)[0], (x,), (x,)) for layer in (theirs, ours)
    )
    equal(found, wanted)
    assert ours.explain(x).backend == "llvm"


def test_a_trace_holds_nothing_of_ours():
    theirs, ours = pair("LSTM", INPUTS, HIDDEN, 2)
    x = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64)
    traced = torch.jit.trace(ours, (x,))
    assert "throughtime::" not in str(traced.graph)
    equal(tensors(traced(x)), tensors(theirs(x)))


@every_kind
def test_the_reference_has_second_derivatives(kind):
    theirs, ours = pair(kind, INPUTS, HIDDEN, 2)
    ours.backend = "reference"
    assert str(ours.explain()) == "reference"
    x = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64, requires_grad=True)
    answers = []
    for layer in (theirs, ours):
        (slope,) = torch.autograd.grad(layer(x)[0].pow(2).sum(), x, create_graph=True)
        answers.append(torch.autograd.grad(slope.pow(2).sum(), x))
    equal(answers[1], answers[0])


@every_kind
def test_an_empty_batch_is_torchs(kind):
    theirs, ours = pair(kind, INPUTS, HIDDEN, 2)
    empty = torch.zeros(STEPS, 0, INPUTS, dtype=torch.float64)
    equal(tensors(ours(empty)), tensors(theirs(empty)))
    assert "empty" in str(ours.explain(empty))


def test_explain_says_who_runs_the_layer_and_why():
    x = torch.zeros(STEPS, BATCH, INPUTS)
    assert str(nn.LSTM(INPUTS, HIDDEN).explain()) == "llvm"
    assert str(nn.LSTM(INPUTS, HIDDEN, proj_size=2).explain(x)) == (
        "torch; not llvm: proj_size is 2, and our LSTM does not project its output"
    )
    assert str(nn.GRU(INPUTS, HIDDEN).explain(x, hx=x)) == (
        "torch; not llvm: input or hx does not fit this layer, and torch's own checks say what is wrong"
    )


def test_an_unknown_backend():
    layer = nn.LSTM(INPUTS, HIDDEN)
    layer.backend = "cuda"
    with pytest.raises(ConfigError, match='there is no backend "cuda"'):
        layer(torch.zeros(STEPS, BATCH, INPUTS))


# What is refused.


def zeros(*shape, dtype=torch.float64):
    return torch.zeros(shape, dtype=dtype)


def packed(features):
    return rnn.pack_padded_sequence(zeros(STEPS, BATCH, features), torch.tensor([5, 2, 1]))


@every_kind
@pytest.mark.parametrize(
    ("input", "state_shape"),
    [
        (zeros(INPUTS), None),
        (zeros(1, STEPS, BATCH, INPUTS), None),
        (zeros(STEPS, BATCH, INPUTS + 1), None),
        (zeros(STEPS, BATCH, INPUTS, dtype=torch.float32), None),
        (zeros(STEPS, BATCH, INPUTS, dtype=torch.int64), None),
        (zeros(0, BATCH, INPUTS), None),
        (zeros(STEPS, BATCH, INPUTS), (1, BATCH, HIDDEN)),
        (zeros(STEPS, BATCH, INPUTS), (2, BATCH + 1, HIDDEN)),
        (zeros(STEPS, BATCH, INPUTS), (2, BATCH, HIDDEN - 1)),
        (zeros(STEPS, BATCH, INPUTS), (2, HIDDEN)),
        (zeros(STEPS, INPUTS), (2, 1, HIDDEN)),
        (packed(INPUTS + 1), None),
        (packed(INPUTS), (2, BATCH - 1, HIDDEN)),
        ([[0.0]], None),
        (None, None),
    ],
)
def test_wrong_input_gives_the_error_of_torch(kind, input, state_shape):
    theirs, ours = pair(kind, INPUTS, HIDDEN, 2)
    state = state_shape and zeros(*state_shape)
    hx = (state, state) if kind == "LSTM" and state_shape else state
    same_error(theirs, ours, input, hx)


@pytest.mark.parametrize("form", ["batched", "unbatched", "sorted"])
@every_kind
def test_the_wrong_kind_of_state_gives_the_error_of_torch(kind, form):
    theirs, ours = pair(kind)
    leaf, make = draw_input(theirs, form)
    state = draw_state(theirs, form)
    wrong = [[state[0].float(), *state[1:]], [state[0], None], state[0], 1.0]
    for hx in wrong if kind == "LSTM" else [state[0].float(), (state[0], state[0]), 1.0]:
        same_error(theirs, ours, make(leaf), hx)


def same_error(theirs, ours, input, hx):
    with pytest.raises(Exception) as wanted:
        theirs(input, hx)
    with pytest.raises(wanted.type) as found:
        ours(input, hx)
    assert str(found.value) == str(wanted.value)


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("LSTM", {"hidden_size": 0}, ValueError),
        ("LSTM", {"proj_size": HIDDEN}, ValueError),
        ("LSTM", {"dropout": 2}, ValueError),
        ("GRU", {"proj_size": 1}, ValueError),
        ("RNN", {"nonlinearity": "sigmoid"}, ValueError),
        ("RNN", {"bias": 1}, TypeError),
    ],
)
def test_impossible_options_are_those_of_torch(name, options, error):
    options = {"input_size": INPUTS, "hidden_size": HIDDEN} | options
    with pytest.raises(error) as wanted:
        getattr(torch.nn, name)(**options)
    with pytest.raises(error) as found:
        getattr(nn, name)(**options)
    assert str(found.value) == str(wanted.value)


# In torch's own compiler.


class Model(torch.nn.Module):
    """A layer in a model, as it is met."""

    def __init__(self, kind, **options):
        super().__init__()
        _, self.rnn = pair(kind, INPUTS, HIDDEN, 2, bidirectional=True, **options)

    def forward(self, x, hx=None):
        return self.rnn(x * 2, hx)


def of_ours(graph):
    return [str(node.target) for node in graph.nodes if "throughtime" in str(node.target)]


@every_kind
def test_torch_compile_runs_the_layer_between_two_graphs(kind, unrolled):
    model = Model(kind)
    leaf, make = draw_input(model.rnn, "batched")
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")
    equal(trained(compiled, leaf, make, [])[1], trained(model, leaf, make, [])[1])
    assert len(unrolled) == 8


@every_kind
@pytest.mark.parametrize("with_state", [False, True])
def test_torch_compile_takes_the_layer_into_one_graph_where_it_may(kind, with_state):
    model = Model(kind, batch_first=True)
    leaf, make = draw_input(model.rnn, "batched")
    state = draw_state(model.rnn, "batched") if with_state else []
    graphs = []

    def backend(module, inputs):
        graphs.append(module.graph)
        return module

    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(model, fullgraph=True, backend=backend)
        answer, gradients = trained(compiled, leaf, make, state)
    expected, wanted = trained(model, leaf, make, state)
    equal(tensors(answer), tensors(expected))
    equal(gradients, wanted)
    assert [of_ours(graph) for graph in graphs] == [["throughtime.unroll.default"] * 4]


@every_kind
def test_torch_export_keeps_our_operators(kind):
    model = Model(kind)
    x = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64)
    program = torch.export.export(model, (x,))
    assert of_ours(program.graph) == ["throughtime.unroll.default"] * 4
    equal(tensors(program.module()(x)), tensors(model(x)))


# Everything else is torch's.


@pytest.mark.parametrize(
    "name", ["Linear", "Module", "Parameter", "functional", "utils", "init", "LSTMCell", "GRUCell", "RNNCell"]
)
def test_every_other_name_is_that_of_torch(name):
    assert getattr(nn, name) is getattr(torch.nn, name)


def test_nothing_of_torch_is_missing():
    assert set(dir(torch.nn)) <= set(dir(nn))
    assert {"LSTM", "Recurrent"} <= set(dir(nn))
    assert [name for name in dir(torch.nn) if not hasattr(nn, name)] == []


def test_a_name_that_neither_has_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'throughtime\.nn' has no attribute 'Lstm'"):
        nn.Lstm  # noqa: B018
