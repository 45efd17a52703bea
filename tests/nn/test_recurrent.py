"""The recurrent layer: torch's own as an oracle, its state, its weights, and what it refuses."""

import copy
import itertools
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from throughtime.cells.library import CELLS
from throughtime.errors import CellError, ConfigError, ShapeError
from throughtime.kernels.unroll import BACKENDS
from throughtime.nn.dropout import drop_steps
from throughtime.nn.recurrent import Recurrent
from throughtime.nn.state import map_state
from throughtime.nn.time import reverse

BATCH, STEPS, INPUTS, HIDDEN = 3, 7, 4, 5
ORACLES = {
    "rnn": torch.nn.RNN,
    "rnn_relu": lambda *sizes, **options: torch.nn.RNN(*sizes, nonlinearity="relu", **options),
    "lstm": torch.nn.LSTM,
    "gru": torch.nn.GRU,
}
every_cell = pytest.mark.parametrize("cell", CELLS)
every_backend_of_an_oracle = pytest.mark.parametrize(
    ("name", "backend"),
    [
        (name, backend)
        for name in ORACLES
        for backend, module in BACKENDS.items()
        if module.refusal(CELLS[name].graph, torch.ones(1, 1, 1)) is None
    ],
)
every_shape = pytest.mark.parametrize(
    ("layers", "bidirectional"), [(1, False), (1, True), (3, False), (2, True)]
)


def equal(one, other, tolerance=1e-10):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def normal(*shape):
    return torch.randn(shape, dtype=torch.float64)


def make(cell, **options):
    """A layer in float64 whose weights are all drawn, those that begin at zero too."""
    layer = Recurrent(cell, INPUTS, HIDDEN, **options).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(normal(*parameter.shape), alpha=0.3)
    return layer


def some_state(layer, batch=BATCH):
    return map_state(lambda value: normal(*value.shape), layer.begin(batch))


def flat(state):
    return [value for values in state for value in values]


def rows(state, at):
    return map_state(lambda value: value[at], state)


def padding(lengths, steps=STEPS):
    return torch.arange(steps) >= lengths[:, None]


# torch's layers as an oracle.


def oracle(name, layers, bidirectional, backend="auto"):
    """torch's layer, and ours with its weights."""
    theirs = ORACLES[name](
        INPUTS, HIDDEN, layers, batch_first=True, bidirectional=bidirectional, dtype=torch.float64
    )
    ours = Recurrent(
        name, INPUTS, HIDDEN, layers=layers, bidirectional=bidirectional, backend=backend
    ).double()
    weights = dict(theirs.named_parameters())
    ours.load_state_dict(
        {
            key: our_bias(weights, key.removeprefix("bias"), name) if key.startswith("bias") else weights[key]
            for key in ours.state_dict()
        }
    )
    return theirs, ours


def our_bias(tensors, suffix, name, both=torch.add):
    """torch's two biases, or their gradients, as our one; n and m of the GRU stay apart."""
    from_x, from_h = tensors[f"bias_ih{suffix}"], tensors[f"bias_hh{suffix}"]
    if name != "gru":
        return both(from_x, from_h)
    shared = both(from_x, from_h)[: 2 * HIDDEN]
    return torch.cat([shared, from_x[2 * HIDDEN :], from_h[2 * HIDDEN :]])


def loss_of(y, states):
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return (y * weights).sum() + sum((value * k).square().sum() for k, value in enumerate(states, start=1))


def compare(name, layers, bidirectional, backend, lengths=None):
    theirs, ours = oracle(name, layers, bidirectional, backend)
    x = normal(BATCH, STEPS, INPUTS).requires_grad_()
    state = map_state(lambda value: value.requires_grad_(), some_state(ours))
    stacked = tuple(torch.stack(values) for values in zip(*state, strict=True))

    given = x if lengths is None else pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, final = theirs(given, stacked if len(stacked) > 1 else stacked[0])
    if lengths is not None:
        expected, _ = pad_packed_sequence(expected, batch_first=True, total_length=STEPS)
    finals = final if isinstance(final, tuple) else (final,)
    expected_state = tuple(zip(*(value.unbind() for value in finals), strict=True))

    y, after = ours(x, state, lengths)
    equal(y, expected)
    equal(flat(after), flat(expected_state))

    leaves = [x, *flat(state)]
    loss_of(expected, flat(expected_state)).backward()
    wanted = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    loss_of(y, flat(after)).backward()
    equal([leaf.grad for leaf in leaves], wanted)

    gradients = {key: value.grad for key, value in theirs.named_parameters()}
    for key, parameter in ours.named_parameters():
        if key.startswith("weight"):
            equal(parameter.grad, gradients[key])
        else:
            suffix = key.removeprefix("bias")
            equal(parameter.grad, our_bias(gradients, suffix, name, both=lambda from_x, from_h: from_x))


@every_backend_of_an_oracle
@every_shape
def test_outputs_states_and_gradients_are_those_of_torch(name, layers, bidirectional, backend):
    compare(name, layers, bidirectional, backend)


@every_backend_of_an_oracle
@every_shape
def test_lengths_are_those_of_packed_sequences(name, layers, bidirectional, backend):
    compare(name, layers, bidirectional, backend, torch.tensor([4, STEPS, 1]))


# What every layer does.


@every_cell
def test_every_gate_of_every_parameter_gets_a_gradient(cell):
    layer = Recurrent(cell, INPUTS, HIDDEN, layers=2, bidirectional=True)
    y, state = layer(torch.randn(BATCH, STEPS, INPUTS), map_state(torch.ones_like, layer.begin(BATCH)))
    loss_of(y, flat(state)).backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        for gate in parameter.grad.split(HIDDEN):
            assert (gate != 0).any(), name


@every_shape
def test_what_each_layer_puts_out_passes_a_place_for_hooks(layers, bidirectional):
    layer = make("lstm", layers=layers, bidirectional=bidirectional)
    seen = []
    for place in layer.layer:
        place.register_forward_hook(lambda module, inputs, output: seen.append(output))
    y, state = layer(normal(BATCH, STEPS, INPUTS))
    assert len(seen) == layers
    equal(seen[-1], y, tolerance=0)
    for k, output in enumerate(seen):
        assert output.shape == (BATCH, STEPS, layer.output_size)
        equal(output[:, -1, :HIDDEN], state[k * layer.directions][0], tolerance=0)


def test_the_backward_direction_begins_at_the_last_real_step():
    layer = make("rnn", bidirectional=True)
    x, lengths = normal(2, STEPS, INPUTS), torch.tensor([3, STEPS])
    y, after = layer(x, lengths=lengths)
    equal(after[1][0][0], y[0, 0, HIDDEN:])
    changed = x.clone()
    changed[0, 2] += 1
    moved = (layer(changed, lengths=lengths)[0] - y).abs().sum(-1) > 0
    assert moved[0].tolist() == [True] * 3 + [False] * (STEPS - 3)
    assert not moved[1].any()


# The state goes in and comes out.


@every_cell
@every_shape
def test_the_state_begins_with_zeros(cell, layers, bidirectional):
    layer = make(cell, layers=layers, bidirectional=bidirectional)
    state = layer.begin(BATCH)
    assert len(state) == layers * (1 + bidirectional)
    assert [len(values) for values in state] == [len(layer.cells[0].states)] * len(state)
    for value in flat(state):
        assert value.shape == (BATCH, HIDDEN)
        assert value.dtype == torch.float64
        assert not value.any()
    x = normal(BATCH, STEPS, INPUTS)
    equal(layer(x)[0], layer(x, state)[0], tolerance=0)


def test_a_layer_holds_no_state():
    layer = make("lstm", layers=2)
    x = normal(BATCH, STEPS, INPUTS)
    first, after = layer(x)
    layer(normal(BATCH, STEPS, INPUTS), after)
    equal(layer(x)[0], first, tolerance=0)
    assert list(layer.buffers()) == []


def test_the_state_that_is_passed_is_left_as_it_was():
    layer = make("lstm", layers=2)
    state = some_state(layer)
    before = map_state(torch.clone, state)
    layer(normal(BATCH, STEPS, INPUTS), state, reset=torch.ones(BATCH, STEPS, dtype=torch.bool))
    equal(flat(state), flat(before), tolerance=0)


def test_map_state_keeps_the_form():
    state = ((torch.tensor([1.0]), torch.tensor([2.0])), (torch.tensor([3.0]),))
    assert map_state(lambda value: value * 2, state) == ((2.0, 4.0), (6.0,))


# Dropout.


def test_dropout_acts_between_layers_in_training_alone():
    layer = make("gru", layers=3, dropout=0.4)
    singles = [Recurrent("gru", size, HIDDEN).double() for size in (INPUTS, HIDDEN, HIDDEN)]
    for k, single in enumerate(singles):
        names = [name.removesuffix("_l0") for name, _ in single.named_parameters()]
        single.load_state_dict({f"{n}_l0": getattr(layer, f"{n}_l{k}") for n in names})
    x = normal(BATCH, STEPS, INPUTS)

    def by_hand(training):
        y = x.transpose(0, 1)
        for k, single in enumerate(singles):
            y = drop_steps(y, 0.4, variational=False) if training and k > 0 else y
            y = single(y.transpose(0, 1))[0].transpose(0, 1)
        return y.transpose(0, 1)

    for training in (True, False):
        layer.train(training)
        torch.manual_seed(3)
        y, _ = layer(x)
        torch.manual_seed(3)
        equal(y, by_hand(training))
    layer.train()
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])


def test_a_single_layer_drops_nothing():
    layer = make("gru", dropout=0.9).train()
    x = normal(BATCH, STEPS, INPUTS)
    equal(layer(x)[0], layer.eval()(x)[0], tolerance=0)


# Weights: their names, how they begin, and how they travel.


def test_parameters_have_the_names_that_torch_gives_them():
    ours = {
        name: value.shape for name, value in make("lstm", layers=2, bidirectional=True).named_parameters()
    }
    theirs = {
        name.replace("bias_ih", "bias"): value.shape
        for name, value in torch.nn.LSTM(INPUTS, HIDDEN, 2, bidirectional=True).named_parameters()
        if not name.startswith("bias_hh")
    }
    assert ours == theirs


def test_learned_vectors_have_their_own_names():
    names = [name for name, _ in make("peephole_lstm").named_parameters()]
    assert names == ["weight_ih_l0", "weight_hh_l0", "bias_l0", "p_i_l0", "p_f_l0", "p_o_l0"]


def test_a_generator_decides_the_weights():
    def weights(seed):
        generator = torch.Generator().manual_seed(seed)
        layer = Recurrent("lstm", INPUTS, HIDDEN, layers=2, generator=generator)
        return torch.cat([parameter.flatten() for parameter in layer.parameters()])

    before = torch.get_rng_state()
    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_layers_and_directions_begin_with_different_weights():
    layer = Recurrent("gru", HIDDEN, HIDDEN, layers=2, bidirectional=True)
    firsts = [getattr(layer, f"weight_hh{suffix}") for suffix in layer.suffixes]
    assert len(firsts) == 4
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(firsts, 2))


@every_cell
def test_a_state_dict_carries_all_there_is(cell):
    options = {"layers": 2, "bidirectional": True}
    layer, other = make(cell, **options), make(cell, **options)
    x = normal(BATCH, STEPS, INPUTS)
    assert not torch.equal(layer(x)[0], other(x)[0])
    other.load_state_dict(layer.state_dict())
    equal(other(x)[0], layer(x)[0], tolerance=0)


@every_cell
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["deepcopy", "pickle"]
)
def test_a_copy_is_the_same_and_its_own(cell, copied):
    layer = make(cell, layers=2)
    other, x = copied(layer), normal(BATCH, STEPS, INPUTS)
    expected = layer(x)[0]
    equal(other(x)[0], expected, tolerance=0)
    assert [each.name for each in other.cells] == [cell] * 2
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    equal(other(x)[0], expected, tolerance=0)


def test_a_cell_can_be_given_itself():
    layer = Recurrent(CELLS["gru"], INPUTS, HIDDEN)
    assert layer.cells[0] is CELLS["gru"]


def test_repr_says_what_the_layer_is():
    assert "lstm, 4, 5, layers=2, bidirectional=True, dropout=0.1" in repr(
        Recurrent("lstm", 4, 5, layers=2, bidirectional=True, dropout=0.1)
    )


# What is refused.


@pytest.mark.parametrize(
    ("sizes", "options", "said"),
    [
        ((0, 5), {}, "input_size must be 1 or more, got 0"),
        ((4, -1), {}, "hidden_size must be 1 or more, got -1"),
        ((4, 5), {"dropout": 1.0}, "dropout must lie in [0, 1), got 1.0"),
        ((4, 5), {"dropout": -0.1}, "dropout must lie in [0, 1), got -0.1"),
    ],
)
def test_impossible_sizes(sizes, options, said):
    with pytest.raises(ConfigError) as caught:
        Recurrent("lstm", *sizes, **options)
    assert str(caught.value) == said


def test_an_unknown_cell_or_backend():
    with pytest.raises(CellError, match='there is no cell "ltsm": did you mean'):
        Recurrent("ltsm", 4, 5)
    with pytest.raises(ConfigError, match='there is no backend "cuda"'):
        Recurrent("lstm", 4, 5, backend="cuda")(torch.zeros(1, 1, 4))


@pytest.mark.parametrize("shape", [(3, 7, 5), (7, 4), (1, 3, 7, 4)])
def test_x_must_have_batch_time_and_features(shape):
    with pytest.raises(ShapeError) as caught:
        Recurrent("lstm", INPUTS, HIDDEN)(torch.zeros(shape))
    assert str(caught.value) == (
        f"x must be floating point of shape [batch, time, 4], got torch.float32 of shape {list(shape)}"
    )


def test_x_must_be_a_floating_tensor_and_torchs_states_are_refused():
    layer, x = Recurrent("lstm", INPUTS, HIDDEN), torch.zeros(BATCH, STEPS, INPUTS)
    packed = pack_padded_sequence(x, torch.tensor([2, 2, 2]), batch_first=True)
    with pytest.raises(ShapeError, match=r"got PackedSequence; sequences of different lengths are padded"):
        layer(packed)
    with pytest.raises(ShapeError, match=r"got torch.int64 of shape"):
        layer(x.long())
    with pytest.raises(ShapeError, match=r"that is \(\(h, c\),\) and not \(h, c\)"):
        layer(x, torch.nn.LSTM(INPUTS, HIDDEN)(x)[1])


def test_under_autocast_the_recurrence_keeps_its_precision():
    layer, x = Recurrent("lstm", INPUTS, HIDDEN), torch.randn(BATCH, STEPS, INPUTS)
    with torch.autocast("cpu"):
        y, _ = layer(x.bfloat16())
    torch.testing.assert_close(y, layer(x.bfloat16().float())[0])


@pytest.mark.parametrize("name", ["lstm", "peephole_lstm"])
def test_torch_func_gets_true_derivatives(name):
    layer, x, direction = make(name), normal(BATCH, STEPS, INPUTS), normal(BATCH, STEPS, INPUTS)
    _, found = torch.func.jvp(lambda value: layer(value)[0].square().sum(), (x,), (direction,))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x)[0].square().sum(), x)
    equal(found, (gradient * direction).sum())


def test_the_state_must_fit_the_stack():
    layer = Recurrent("lstm", INPUTS, HIDDEN, layers=2, bidirectional=True)
    x = torch.zeros(BATCH, STEPS, INPUTS)
    with pytest.raises(ShapeError, match="one entry for each of 2 layers and 2 directions, got 1"):
        layer(x, Recurrent("lstm", INPUTS, HIDDEN).begin(BATCH))
    with pytest.raises(ShapeError, match='cell "lstm" with 2 states'):
        layer(x, Recurrent("gru", INPUTS, HIDDEN, layers=2, bidirectional=True).begin(BATCH))
    with pytest.raises(ShapeError, match="state h must have shape"):
        layer(x, layer.begin(BATCH + 1))


def test_lengths_must_fit_the_batch():
    layer, x = Recurrent("lstm", INPUTS, HIDDEN, bidirectional=True), torch.zeros(2, STEPS, INPUTS)
    for lengths in ([STEPS], [1, STEPS + 1], [-1, 2]):
        with pytest.raises(ShapeError, match="lengths must"):
            layer(x, lengths=torch.tensor(lengths))


def test_a_bidirectional_layer_takes_no_resets():
    layer = Recurrent("lstm", INPUTS, HIDDEN, bidirectional=True)
    with pytest.raises(ShapeError, match="reads the future and cannot be reset within a sequence"):
        layer(torch.zeros(1, 2, INPUTS), reset=torch.zeros(1, 2, dtype=torch.bool))


# Backwards in time.


@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_reverse_turns_each_row_within_its_length(lengths):
    x = torch.arange(5 * len(lengths) * 2).view(5, len(lengths), 2)
    turned = reverse(x, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        assert turned[:, row].tolist() == [*x[:length, row].flip(0).tolist(), *x[length:, row].tolist()]
    assert torch.equal(reverse(turned, torch.tensor(lengths)), x)


def test_reverse_without_lengths_turns_all():
    x = torch.arange(6).view(3, 1, 2)
    assert reverse(x, None).tolist() == [[[4, 5]], [[2, 3]], [[0, 1]]]
