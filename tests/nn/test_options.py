"""The options of the recurrent layer: what they drop, join, learn and show, and what they refuse."""

import copy
import itertools
import pickle

import pytest
import torch

from throughtime.cells.cell import cell
from throughtime.cells.library import CELLS
from throughtime.errors import ConfigError, ShapeError
from throughtime.nn.dropout import chance
from throughtime.nn.recurrent import Recurrent
from throughtime.nn.state import map_state

BATCH, STEPS, INPUTS, HIDDEN = 3, 5, 4, 5
DROPS = ("input_dropout", "dropout", "output_dropout")
both_modes = pytest.mark.parametrize("training", [True, False])


def equal(one, other, tolerance=1e-10):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def normal(*shape):
    return torch.randn(shape, dtype=torch.float64)


def make(cell="lstm", inputs=INPUTS, hidden=HIDDEN, backend="reference", **options):
    """A layer in float64 whose weights are all drawn, those that begin at zero too."""
    layer = Recurrent(cell, inputs, hidden, backend=backend, **options).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(normal(*parameter.shape), alpha=0.3)
    return layer


def flat(state):
    return [value for values in state for value in values]


def rows(state, at):
    return map_state(lambda value: value[at], state)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def loss_of(y, state):
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return (y * weights).sum() + sum((v * k).square().sum() for k, v in enumerate(flat(state), start=1))


def gradients(loss, leaves):
    return torch.autograd.grad(loss, list(leaves), materialize_grads=True)


def near(share, rate, count):
    """Within five standard deviations of the share that is expected of so many."""
    assert abs(float(share) - rate) <= 5 * (rate * (1 - rate) / count) ** 0.5


# Cells that show what is dropped: y is x, h holds itself, h counts its steps.


@cell(state="h")
def shown(x, s, w):
    return w.a(x, bias=False)


@cell(state="h")
def held(x, s, w):
    return w.a(s.h, bias=False)


@cell(state="h c")
def counts(x, s, w):
    return s.h + w.a(x), s.c + w.b(x)


def shows(units, **options):
    """A layer that puts out its input."""
    layer = Recurrent(shown, units, units, backend="reference", **options).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.eye(units))
    return layer


def holds(units, **options):
    layer = Recurrent(held, 1, units, backend="reference", **options).double()
    with torch.no_grad():
        layer.weight_hh_l0.copy_(torch.eye(units))
    return layer


# Dropout of inputs, between layers, of outputs.


@pytest.mark.parametrize("variational", [False, True])
@pytest.mark.parametrize("option", DROPS)
def test_dropout_drops_its_share_and_scales_the_rest(option, variational):
    layer, x = shows(8, layers=2, variational=variational, **{option: 0.3}), torch.ones(200, 10, 8).double()
    y, _ = layer(x)
    assert set(y.unique().tolist()) == {0.0, 1 / (1 - 0.3)}
    dropped = y == 0
    near(dropped.double().mean(), 0.3, 1600 if variational else 16000)
    alike = (dropped == dropped[:, :1]).all()
    assert alike == variational
    assert not (dropped == dropped[:1]).all()
    near((dropped[0] == dropped[1]).double().mean(), 0.7**2 + 0.3**2, 8 if variational else 80)
    equal(layer.eval()(x)[0], x, tolerance=0)


def test_each_dropout_has_its_place():
    x = torch.ones(50, 10, 8).double()
    for option, place in (("input_dropout", 0), ("dropout", 1), ("output_dropout", 2)):
        outputs, _ = shows(8, layers=3, **{option: 0.5}).all_layers(x)
        whole = [bool((output == 1).all()) for output in outputs]
        assert whole == [k < place for k in range(3)], option
    dropped_twice, _ = shows(8, layers=3, dropout=0.5).all_layers(x)
    near((dropped_twice[-1] == 0).double().mean(), 0.75, 4000)


def test_a_gradient_goes_where_the_value_went():
    layer, x = shows(8, input_dropout=0.4), torch.ones(20, 3, 8, dtype=torch.float64, requires_grad=True)
    y, _ = layer(x)
    equal(gradients(y.sum(), [x])[0], y, tolerance=0)


# Recurrent dropout, weight dropout, zoneout.


def test_recurrent_dropout_is_one_mask_for_all_steps_of_a_row():
    layer = holds(8, recurrent_dropout=0.3)
    y, _ = layer(torch.zeros(200, 3, 1).double(), ((torch.ones(200, 8).double(),),))
    mask = y[:, 0]
    assert set(mask.unique().tolist()) == {0.0, 1 / (1 - 0.3)}
    near((mask == 0).double().mean(), 0.3, 1600)
    assert not (mask == mask[:1]).all()
    equal(y, torch.stack([mask, mask**2, mask**3], 1))
    y, _ = layer.eval()(torch.zeros(200, 3, 1).double(), ((torch.ones(200, 8).double(),),))
    assert (y == 1).all()


def test_layers_and_directions_have_masks_of_their_own():
    layer = holds(16, recurrent_dropout=0.5, bidirectional=True, layers=2, merge="sum")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.eye(16))
    ones = torch.ones(4, 16).double()
    _, after = layer(torch.zeros(4, 1, 1).double(), ((ones,),) * 4)
    masks = flat(after)
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(masks, 2))


def test_weight_dropout_drops_entries_for_all_rows_and_steps():
    layer = holds(30, weight_dropout=0.4)
    with torch.no_grad():
        layer.weight_hh_l0.fill_(0.1)
    y, _ = layer(torch.zeros(30, 2, 1).double(), ((torch.eye(30).double(),),))
    weight = y[:, 0].T
    dropped = weight == 0
    near(dropped.double().mean(), 0.4, 900)
    equal(weight[~dropped], torch.full_like(weight[~dropped], 0.1 / 0.6))
    equal(y[:, 1], (weight @ weight).T)
    (gradient,) = gradients(y.sum(), [layer.weight_hh_l0])
    assert torch.equal(gradient == 0, dropped)
    assert (layer.weight_hh_l0 == 0.1).all()
    y, _ = layer.eval()(torch.zeros(30, 1, 1).double(), ((torch.eye(30).double(),),))
    assert (y == 0.1).all()


@pytest.mark.parametrize("option", ["recurrent_dropout", "weight_dropout"])
def test_inputs_are_left_whole_by_what_regularises_the_recurrence(option):
    layer, x = make("lstm", **{option: 0.5}), normal(BATCH, 1, INPUTS)
    zero = map_state(torch.zeros_like, layer.begin(BATCH))
    equal(layer.train()(x, zero)[0], layer.eval()(x, zero)[0], tolerance=0)


@pytest.mark.parametrize(
    ("zoneout", "rates"), [(0.3, (0.3, 0.3)), ({"h": 0.2, "c": 0.6}, (0.2, 0.6)), ({"c": 0.4}, (0, 0.4))]
)
def test_zoneout_keeps_its_share_of_each_state(zoneout, rates):
    layer = Recurrent(counts, 1, 10, zoneout=zoneout, backend="reference").double()
    with torch.no_grad():
        layer.weight_ih_l0.zero_()
        layer.bias_l0.fill_(1.0)
    before, changes = layer.begin(50), []
    for _ in range(20):
        _, after = layer.step(torch.zeros(50, 1).double(), before)
        changes.append(torch.stack([new - old for new, old in zip(after[0], before[0], strict=True)]))
        before = after
    changes = torch.stack(changes)
    assert set(changes.unique().tolist()) <= {0.0, 1.0}
    for index, rate in enumerate(rates):
        near((changes[:, index] == 0).double().mean(), rate, 10000)
        if rate:
            assert not (changes[:, index] == changes[:1, index]).all()
            assert not (changes[:, index] == changes[:, index, :1]).all()
    _, after = layer.eval()(torch.zeros(50, 20, 1).double())
    for value, rate in zip(after[0], rates, strict=True):
        equal(value, torch.full((50, 10), 20 * (1 - rate)).double())


def lstm_step(layer, suffix, x, h, c):
    weight_ih, weight_hh, bias = (getattr(layer, n + suffix) for n in ("weight_ih", "weight_hh", "bias"))
    i, f, g, o = (x @ weight_ih.T + h @ weight_hh.T + bias).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def test_zoneout_in_evaluation_is_the_mean_of_both():
    layer, x = make("lstm", zoneout={"h": 0.1, "c": 0.4}).eval(), normal(BATCH, STEPS, INPUTS)
    h = c = torch.zeros(BATCH, HIDDEN).double()
    expected = []
    for t in range(STEPS):
        new_h, new_c = lstm_step(layer, "_l0", x[:, t], h, c)
        h, c = 0.1 * h + 0.9 * new_h, 0.4 * c + 0.6 * new_c
        expected.append(h)
    y, after = layer(x)
    equal(y, torch.stack(expected, 1))
    equal(after[0], (h, c))


def test_zoneout_by_name_is_for_the_layers_that_have_the_state():
    layer, x = make(["gru", "lstm"], zoneout={"c": 0.5}).eval(), normal(BATCH, STEPS, INPUTS)
    plain = make(["gru", "lstm"]).eval()
    plain.load_state_dict(layer.state_dict())
    outputs, expected = layer.all_layers(x)[0], plain.all_layers(x)[0]
    equal(outputs[0], expected[0], tolerance=0)
    assert not torch.allclose(outputs[1], expected[1])


# Randomness.

RANDOM = {
    "input_dropout": 0.5,
    "dropout": 0.5,
    "output_dropout": 0.5,
    "recurrent_dropout": 0.5,
    "weight_dropout": 0.5,
    "zoneout": 0.5,
}


@pytest.mark.parametrize(("rate", "share"), [(2**-18, 0.0), (0.3, 0.3), (1 - 2**-18, 1.0)])
def test_chance_is_the_rate_however_near_it_is_to_0_or_1(rate, share):
    found = chance((10_000,), rate, torch.device("cpu"), seeded())
    assert found.double().mean().item() == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("option", RANDOM)
def test_a_generator_decides_what_is_dropped(option):
    layer, x = make("lstm", layers=2, bidirectional=True, **{option: 0.5}), normal(BATCH, STEPS, INPUTS)
    before = torch.get_rng_state()
    first, second, third = (layer(x, generator=seeded(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    generator = seeded(1)
    layer(x, generator=generator)
    assert not torch.equal(layer(x, generator=generator)[0], first)
    torch.manual_seed(5)
    by_global = layer(x)[0]
    assert not torch.equal(layer(x)[0], by_global)
    torch.manual_seed(5)
    assert torch.equal(layer(x)[0], by_global)


def test_steps_draw_from_the_generator_too():
    layer, x = make("gru", input_dropout=0.5, zoneout=0.3), normal(BATCH, INPUTS)
    before = torch.get_rng_state()
    assert torch.equal(layer.step(x, generator=seeded(1))[0], layer.step(x, generator=seeded(1))[0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("checkpoint_every", [2, "auto"])
def test_checkpoints_compute_with_the_masks_that_were_drawn(checkpoint_every):
    layer, x = make("lstm", layers=2, variational=True, **RANDOM), normal(BATCH, STEPS, INPUTS)
    answers = []
    for every in (None, checkpoint_every):
        layer.checkpoint_every = every
        y, state = layer(x, generator=seeded(3))
        answers.append((y, state, gradients(loss_of(y, state), layer.parameters())))
    equal(*answers)


def test_checkpoints_keep_less():
    def kept(every):
        layer, numbers = make("lstm", checkpoint_every=every), []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda value: numbers.append(value.numel()) or value, lambda value: value
        )
        with hooks:
            layer(normal(BATCH, 64, INPUTS))
        return sum(numbers)

    assert kept("auto") < kept(None) / 4


@pytest.mark.parametrize(
    "options",
    [{name: rate} for name, rate in RANDOM.items() if name != "zoneout"]
    + [{"variational": True}, {"zoneout": {"c": 0.0}}, {"learned_state": True}],
)
def test_in_evaluation_the_layer_is_the_plain_one_to_the_last_bit(options):
    layer = Recurrent("lstm", INPUTS, HIDDEN, layers=2, generator=seeded(), **options).eval()
    plain = Recurrent("lstm", INPUTS, HIDDEN, layers=2, generator=seeded())
    x = torch.randn(BATCH, STEPS, INPUTS)
    assert str(layer.explain(1)) == str(plain.explain(1))
    for one in (plain.train(), plain.eval()):
        equal(layer(x), one(x), tolerance=0)


# Layers: how they are joined.


def singles(layer, cells, widths):
    """The layers of a stack by themselves."""
    found = []
    for k, (name, width) in enumerate(zip(cells, widths, strict=True)):
        inputs = layer._width(k)
        single = Recurrent(
            name, inputs, width, bidirectional=layer.bidirectional, backend="reference"
        ).double()
        names = {n: n.replace("_l0", f"_l{k}") for n, _ in single.named_parameters()}
        single.load_state_dict({n: getattr(layer, of) for n, of in names.items()})
        found.append(single)
    return found


def chained(parts, x, join, lengths=None):
    y, outputs, states = x, [], []
    for k, part in enumerate(parts):
        out, state = part(y, lengths=lengths)
        y = join(k, y, out)
        outputs.append(y)
        states += state
    return outputs, tuple(states)


@pytest.mark.parametrize("lengths", [None, torch.tensor([2, STEPS, 0])])
@pytest.mark.parametrize("connection", [None, "residual", "highway"])
@pytest.mark.parametrize("merge", [None, "concat", "sum", "mean"])
def test_merge_and_connection_by_hand(merge, connection, lengths):
    options = {} if merge is None else {"bidirectional": True, "merge": merge}
    layer, x = make("gru", layers=3, connection=connection, **options), normal(BATCH, STEPS, INPUTS)
    parts = singles(layer, ["gru"] * 3, [HIDDEN] * 3)

    def join(k, below, y):
        if merge in ("sum", "mean"):
            forward, backward = y.chunk(2, -1)
            y = (forward + backward) / (1 if merge == "sum" else 2)
        if k == 0 or connection is None:
            return y
        if connection == "residual":
            return below + y
        gate = (below @ layer.highway[k - 1].weight.T + layer.highway[k - 1].bias).sigmoid()
        return gate * y + (1 - gate) * below

    expected, expected_state = chained(parts, x, join, lengths)
    outputs, state = layer.all_layers(x, lengths=lengths)
    equal(outputs, expected)
    equal(state, expected_state)
    assert layer.output_size == HIDDEN * (2 if merge == "concat" else 1) == outputs[-1].shape[-1]
    y, after = layer(x, lengths=lengths)
    equal((y, after), (outputs[-1], state), tolerance=0)
    if lengths is not None:
        assert (y[torch.arange(STEPS) >= lengths[:, None]] == 0).all()


def test_a_residual_carries_what_is_dropped_before_a_layer():
    x = torch.ones(BATCH, STEPS, 8).double()
    y, _ = shows(8, layers=2, dropout=0.5, connection="residual")(x)
    assert set(y.unique().tolist()) == {1.0, 3.0}


def test_a_highway_begins_by_carrying():
    layer = Recurrent("gru", INPUTS, HIDDEN, layers=3, connection="highway", generator=seeded())
    again = Recurrent("gru", INPUTS, HIDDEN, layers=3, connection="highway", generator=seeded())
    assert len(layer.highway) == 2
    for one, other in zip(layer.highway, again.highway, strict=True):
        assert (one.bias == -1).all()
        assert torch.equal(one.weight, other.weight)
        assert one.weight.std() > 0.1


@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers_of_different_cells_and_widths(bidirectional):
    cells, widths = ["lstm", CELLS["gru"], "lru"], [5, 3, 7]
    layer = make(cells, hidden=widths, bidirectional=bidirectional, learned_state=False)
    x = normal(BATCH, STEPS, INPUTS)
    expected = chained(singles(layer, cells, widths), x, lambda k, below, y: y)
    outputs, state = layer.all_layers(x)
    equal((outputs, state), expected)
    ways = 1 + bidirectional
    assert [len(values) for values in state] == [2] * ways + [1] * ways + [3] * ways
    assert [output.shape[-1] for output in outputs] == [width * ways for width in widths]
    assert layer.output_size == 7 * ways
    found = gradients(loss_of(outputs[-1], state), layer.parameters())
    assert all(gradient.abs().max() > 0 for gradient in found)
    equal(layer(x, layer.begin(BATCH))[0], outputs[-1], tolerance=0)


@pytest.mark.parametrize(
    ("cell", "hidden", "layers", "count"),
    [
        ("gru", 5, None, 1),
        ("gru", 5, 3, 3),
        (["gru", "lstm"], 5, None, 2),
        ("gru", [5, 6], None, 2),
        (("gru", "gru"), (5, 6), 2, 2),
        (["gru"], 5, 1, 1),
    ],
)
def test_the_number_of_layers_is_that_of_any_list(cell, hidden, layers, count):
    assert len(Recurrent(cell, 4, hidden, layers=layers).begin(1)) == count


def test_hooks_of_all_layers_see_what_all_layers_gives():
    layer, x, seen = make("gru", layers=3, connection="residual"), normal(BATCH, STEPS, INPUTS), []
    for place in layer.layer:
        place.register_forward_hook(lambda module, inputs, output: seen.append(output))
    outputs, _ = layer.all_layers(x)
    equal(seen, outputs, tolerance=0)


def test_a_layer_that_is_replaced_is_what_goes_on():
    layer, x = make("gru", layers=2), normal(BATCH, STEPS, INPUTS)
    handle = layer.layer[0].register_forward_hook(lambda module, inputs, output: output * 0)
    changed, _ = layer.all_layers(x)
    assert not changed[0].any()
    zeros = singles(layer, ["gru"] * 2, [HIDDEN] * 2)[1](torch.zeros(BATCH, STEPS, HIDDEN).double())[0]
    equal(changed[1], zeros)
    handle.remove()
    assert layer.all_layers(x)[0][0].any()


# The learned state.


@pytest.mark.parametrize("cell", ["lstm", "lru", "image_rnn", "batch_norm_lstm"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_learned_state_is_where_each_row_begins(cell, bidirectional):
    layer = make(cell, layers=2, bidirectional=bidirectional, learned_state=True).eval()
    begin, x = layer.begin(BATCH), normal(BATCH, STEPS, INPUTS)
    learned = {n: value for n, value in layer.named_parameters() if n.startswith("initial_")}
    driven = CELLS[cell].graph.driven
    assert list(learned) == [f"initial_{state}{s}" for s in layer.suffixes for state in driven]
    for values, suffix in zip(begin, layer.suffixes, strict=True):
        for name, value in zip(CELLS[cell].states, values, strict=True):
            expected = learned.get(f"initial_{name}{suffix}", torch.zeros(HIDDEN).double())
            equal(value, expected.expand(BATCH, HIDDEN), tolerance=0)
    equal(layer(x), layer(x, begin), tolerance=0)
    plain = make(cell, layers=2, bidirectional=bidirectional).eval()
    plain.load_state_dict({n: v for n, v in layer.state_dict().items() if n not in learned})
    equal(layer(x), plain(x, begin), tolerance=0)
    lengths = torch.tensor([0, STEPS, 2])
    _, after = layer(x, lengths=lengths)
    equal(rows(after, 0), rows(begin, 0), tolerance=0)


def test_the_learned_state_begins_at_zero_and_learns():
    layer = Recurrent("lstm", INPUTS, HIDDEN, learned_state=True).double()
    assert not layer.initial_h_l0.any()
    y, _ = layer(normal(BATCH, STEPS, INPUTS))
    y.sum().backward()
    assert layer.initial_h_l0.grad.abs().min() > 0
    assert layer.initial_c_l0.grad.abs().min() > 0


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "lru", "slstm"])
def test_a_reset_begins_with_the_learned_state(cell, backend):
    layer = make(cell, layers=2, learned_state=True, backend=backend)
    x = normal(1, 7, INPUTS).requires_grad_()
    reset = torch.tensor([[False, False, True, False, True, True, False]])
    state = map_state(lambda value: normal(*value.shape).requires_grad_(), layer.begin(1))
    leaves = [x, *flat(state), *layer.parameters()]
    answers = [layer(x, state, reset=reset)]
    pieces = [layer(x[:, :2], state), *(layer(x[:, a:b]) for a, b in ((2, 4), (4, 5), (5, 7)))]
    answers.append((torch.cat([y for y, _ in pieces], 1), pieces[-1][1]))
    equal(*answers)
    found, expected = (gradients(loss_of(*answer), leaves) for answer in answers)
    equal(found, expected)
    names = [name for name, _ in layer.named_parameters()]
    of = dict(zip(names, found[-len(names) :], strict=True))
    assert any(gradient.any() for name, gradient in of.items() if name.startswith("initial_"))


def test_resets_with_lengths_and_zoneout_begin_with_the_learned_state():
    layer, x = make("lstm", learned_state=True, zoneout=0.3).eval(), normal(2, STEPS, INPUTS)
    lengths, reset = torch.tensor([4, 2]), torch.zeros(2, STEPS, dtype=torch.bool)
    reset[0, 2] = reset[1, 3] = True
    y, after = layer(
        x.masked_fill((torch.arange(STEPS) >= lengths[:, None])[..., None], torch.nan), None, lengths, reset
    )
    one, _ = layer(x[:1, :2])
    two, last = layer(x[:1, 2:4])
    equal(y[:1], torch.cat([one, two, torch.zeros(1, 1, HIDDEN)], 1))
    equal(rows(after, slice(1)), last)
    equal(rows(after, slice(1, 2)), layer(x[1:, :2])[1])


def test_without_resets_a_mask_of_them_changes_nothing():
    layer, x = make("lstm", learned_state=True), normal(BATCH, STEPS, INPUTS)
    equal(layer(x, reset=torch.zeros(BATCH, STEPS, dtype=torch.bool)), layer(x))


# Hooks of states.


def by_hand(layer, x, lengths):
    """A stack of LSTMs in both directions, as a loop. y and, for each direction, each step's new (h, c)."""
    states = {}
    for index, suffix in enumerate(layer.suffixes):
        if index % layer.directions == 0:
            below, ways = x if index == 0 else torch.cat(ways, -1), []
        h = c = torch.zeros(len(x), HIDDEN, dtype=x.dtype)
        y = [None] * STEPS
        for t in range(STEPS) if index % layer.directions == 0 else reversed(range(STEPS)):
            new = lstm_step(layer, suffix, below[:, t], h, c)
            for value in new:
                value.requires_grad_() if not value.requires_grad else None
                value.retain_grad()
            there = (t < lengths)[:, None]
            states[index, t] = dict(zip("hc", new, strict=True))
            h, c = torch.where(there, new[0], h), torch.where(there, new[1], c)
            y[t] = new[0] * there
        ways.append(torch.stack(y, 1))
    return torch.cat(ways, -1), states


def expected_gradient(states, index, state):
    found = [states[index, t][state].grad for t in range(STEPS)]
    return torch.stack([torch.zeros(BATCH, HIDDEN).double() if g is None else g for g in found], 1)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("lengths", [[STEPS] * BATCH, [2, STEPS, 0]])
@pytest.mark.parametrize("bidirectional", [False, True])
@both_modes
def test_a_hook_sees_the_gradient_of_each_state(training, bidirectional, lengths, backend):
    layer = make("lstm", layers=2, bidirectional=bidirectional, backend=backend).train(training)
    x, lengths, seen = normal(BATCH, STEPS, INPUTS), torch.tensor(lengths), {}
    handles = [
        layer.register_state_hook(
            lambda gradient, key=(index, state): seen.__setitem__(key, gradient),
            state,
            layer=index // layer.directions,
            reverse=bool(index % layer.directions),
        )
        for index in range(len(layer.suffixes))
        for state in "hc"
    ]
    y, _ = layer(x, lengths=lengths)
    weights = normal(*y.shape)
    (y * weights).sum().backward()
    expected, states = by_hand(layer, x, lengths)
    equal(y, expected)
    (expected * weights).sum().backward()
    assert len(seen) == len(handles)
    for (index, state), gradient in seen.items():
        equal(gradient, expected_gradient(states, index, state))


def test_a_hook_works_with_frozen_weights_and_a_plain_input():
    layer, x, seen = make("gru").eval().requires_grad_(False), normal(BATCH, STEPS, INPUTS), []
    plain, _ = layer(x)
    assert not plain.requires_grad
    layer.register_state_hook(seen.append)
    y, _ = layer(x)
    equal(y, plain, tolerance=0)
    y[:, 2].sum().backward()
    (gradient,) = seen
    assert gradient.shape == (BATCH, STEPS, HIDDEN)
    assert (gradient[:, 2] == 1).all()
    assert (gradient[:, :2] != 0).any(-1).all()
    assert not gradient[:, 3:].any()


def test_hooks_of_steps():
    layer, x, seen = make("gru", bidirectional=True), normal(BATCH, STEPS, INPUTS), {}
    for reverse in (False, True):
        for step in (None, 0, 3, -1, -STEPS):
            layer.register_state_hook(
                lambda gradient, key=(reverse, step): seen.__setitem__(key, gradient),
                step=step,
                reverse=reverse,
            )
    y, _ = layer(x)
    y.square().sum().backward()
    for (reverse, step), gradient in seen.items():
        if step is not None:
            assert gradient.shape == (BATCH, HIDDEN)
            equal(gradient, seen[reverse, None][:, step], tolerance=0)
    assert len(seen) == 10


@pytest.mark.parametrize("step", [STEPS, -STEPS - 1])
def test_a_hook_of_a_step_that_is_not_there(step):
    layer = make("gru")
    layer.register_state_hook(lambda gradient: None, step=step)
    with pytest.raises(ShapeError, match=f"a hook waits for step {step}, and the sequence has {STEPS}"):
        layer(normal(BATCH, STEPS, INPUTS))


def test_rates_may_change_between_calls():
    layer, x = make("lstm"), normal(BATCH, STEPS, INPUTS)
    plain, _ = layer(x)
    for option in ("zoneout", "recurrent_dropout", "weight_dropout"):
        setattr(layer, option, 0.9)
        assert not torch.equal(layer(x)[0], plain), option
        setattr(layer, option, 0.0)
        assert torch.equal(layer(x)[0], plain), option


@pytest.mark.parametrize("cell", ["slstm", "lru"])
def test_states_that_hold_one_quantity_share_the_mask_of_zoneout(cell):
    layer = make(cell, zoneout=0.3)
    y, _ = layer(5 * normal(BATCH, 100, INPUTS))
    inner = [name for name in layer.cells[0].states if name != "h"]
    names = set(layer._prepared[True, False][0].graph.given)
    assert names == {"zoneout h", f"zoneout {inner[0]}"}
    if cell == "slstm":
        assert y.abs().max() <= 1
    with pytest.raises(ConfigError, match="share a mask: give them one rate"):
        Recurrent(cell, INPUTS, HIDDEN, zoneout={inner[0]: 0.1})


def test_hooks_are_called_once_for_each_backward_pass_until_they_are_removed():
    layer, x, seen = make("lstm"), normal(BATCH, STEPS, INPUTS), []
    first = layer.register_state_hook(lambda gradient: seen.append("h"))
    second = layer.register_state_hook(lambda gradient: seen.append("h too"))
    third = layer.register_state_hook(lambda gradient: seen.append("c"), "c")
    y, _ = layer(x)
    assert seen == []
    y.sum().backward(retain_graph=True)
    assert sorted(seen) == ["c", "h", "h too"]
    (2 * y).sum().backward()
    assert sorted(seen) == ["c", "c", "h", "h", "h too", "h too"]
    seen.clear()
    first.remove()
    third.remove()
    layer(x)[0].sum().backward()
    assert seen == ["h too"]
    second.remove()
    layer(x)[0].sum().backward()
    assert seen == ["h too"]
    expected = make("lstm")
    expected.load_state_dict(layer.state_dict())
    equal(layer(x), expected(x), tolerance=0)


def test_a_second_backward_pass_shows_its_own_gradient():
    layer, seen = make("gru"), []
    layer.register_state_hook(seen.append)
    y, _ = layer(normal(BATCH, STEPS, INPUTS))
    y.sum().backward(retain_graph=True)
    (3 * y).sum().backward()
    equal(seen[1], 3 * seen[0])


def test_a_hook_changes_no_value_and_no_gradient():
    layer, x = make("lstm", layers=2, bidirectional=True, checkpoint_every=2), normal(BATCH, STEPS, INPUTS)
    seen, answers = [], []
    for hooked in (False, True):
        if hooked:
            layer.register_state_hook(lambda gradient: seen.append(gradient) or gradient * 0, layer=1)
        y, state = layer(x, lengths=torch.tensor([2, STEPS, 0]))
        answers.append((y, state))
        layer.zero_grad()
        loss_of(y, state).backward()
        answers[-1] += ([parameter.grad.clone() for parameter in layer.parameters()],)
    assert len(seen) == 1
    equal(*answers, tolerance=1e-14)


def test_a_hook_sees_the_learned_begin_after_a_reset_and_nothing_across_it():
    layer, seen = make("gru", learned_state=True), []
    layer.register_state_hook(seen.append)
    reset = torch.zeros(BATCH, STEPS, dtype=torch.bool)
    reset[1, 3] = True
    y, _ = layer(normal(BATCH, STEPS, INPUTS), reset=reset)
    y[:, -1].sum().backward()
    assert not seen[0][1, :3].any()
    assert (seen[0][1, 3:] != 0).any(-1).all()
    assert (seen[0][[0, 2]] != 0).any(-1).all()


def test_a_hook_of_zoneout_is_of_the_state_that_is_carried():
    layer, seen = make("gru", zoneout=0.5).train(), []
    layer.register_state_hook(seen.append)
    x, generator = normal(BATCH, STEPS, INPUTS), seeded(1)
    y, _ = layer(x, generator=generator)
    y[:, -1].sum().backward()
    assert (seen[0][:, -1] == 1).all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_hooks_wait(mode):
    layer, x = make("gru"), normal(BATCH, STEPS, INPUTS)
    plain = layer(x)
    layer.register_state_hook(lambda gradient: pytest.fail("there is no backward pass"))
    with mode():
        equal(layer(x), plain, tolerance=0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layer": 2}, "there is no layer 2: there are ['_l0', '_l1']"),
        ({"layer": -1}, "there is no layer -1: there are ['_l0', '_l1']"),
        ({"reverse": True}, "there is no layer 0 in reverse: there are ['_l0', '_l1']"),
        ({"state": "m"}, 'cell "lstm" has no state "m": it has h, c'),
        ({"state": "c", "layer": 1}, 'cell "gru" has no state "c": it has h'),
    ],
)
def test_a_hook_of_what_is_not_there(options, said):
    with pytest.raises(ConfigError) as caught:
        make(["lstm", "gru"]).register_state_hook(lambda gradient: None, **options)
    assert str(caught.value) == said


# Steps of a stream.


def test_a_step_refuses_the_future_and_a_sequence():
    with pytest.raises(ConfigError, match="a bidirectional layer reads the future and has no single step"):
        make("gru", bidirectional=True).step(normal(BATCH, INPUTS))
    with pytest.raises(ShapeError) as caught:
        make("gru").step(normal(BATCH, STEPS, INPUTS))
    assert str(caught.value) == f"x must have shape [batch, 4], got [{BATCH}, {STEPS}, 4]"
    with pytest.raises(ShapeError):
        make("gru").step(normal(BATCH, INPUTS + 1))


# What is refused.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        *(
            ({name: rate}, f"{name} must lie in [0, 1), got {rate}")
            for name in RANDOM
            for rate in (1.0, -0.1, float("nan"))
        ),
        ({"zoneout": {"c": 1.5}}, "zoneout of c must lie in [0, 1), got 1.5"),
        ({"zoneout": {"m": 0.5}}, 'zoneout names "m": the states that x drives are c, h'),
        (
            {"cell": "batch_norm_lstm", "zoneout": {"t": 0.5}},
            'zoneout names "t": the states that x drives are c, h',
        ),
        ({"merge": "max"}, "merge must be one of concat, sum, mean, got 'max'"),
        ({"connection": "skip"}, "connection must be one of None, residual, highway, got 'skip'"),
        (
            {"hidden_size": [5, 6], "connection": "residual"},
            'connection="residual" joins the input and output of each layer beyond the first, '
            "which must be of one width, got [5, 6]",
        ),
        (
            {"cell": "min_gru", "recurrent_dropout": 0.5},
            'cell "min_gru" has no recurrent matrix: recurrent_dropout and weight_dropout have nothing to '
            "drop; take zoneout or variational dropout",
        ),
        (
            {"cell": ["lstm", "sru"], "weight_dropout": 0.5},
            'cell "sru" has no recurrent matrix: recurrent_dropout and weight_dropout have nothing to '
            "drop; take zoneout or variational dropout",
        ),
        (
            {"cell": ["gru", "gru"], "layers": 3},
            "the number of layers must be 1 or more, and the same throughout: cell says 2, layers says 3",
        ),
        (
            {"cell": ["gru", "gru"], "hidden_size": [5, 5, 5]},
            "the number of layers must be 1 or more, and the same throughout: cell says 2, "
            "hidden_size says 3",
        ),
        ({"cell": []}, "the number of layers must be 1 or more, and the same throughout: cell says 0"),
        ({"layers": 0}, "the number of layers must be 1 or more, and the same throughout: layers says 0"),
        ({"hidden_size": [5, 0]}, "hidden_size must be 1 or more, got 0"),
        ({"input_size": 0}, "input_size must be 1 or more, got 0"),
    ],
)
def test_options_that_cannot_be(options, said):
    with pytest.raises(ConfigError) as caught:
        Recurrent(**({"cell": "lstm", "input_size": 4, "hidden_size": 5} | options))
    assert str(caught.value) == said


def test_a_rate_that_drops_nothing_asks_for_nothing():
    Recurrent("min_gru", 4, 5, recurrent_dropout=0.0, weight_dropout=0.0)
    Recurrent("gru", 4, [5, 6])


@pytest.mark.parametrize("learned_state", [False, True])
@pytest.mark.parametrize(
    ("reset", "given"),
    [
        (torch.zeros(STEPS, BATCH, dtype=torch.bool), f"torch.bool of shape [{STEPS}, {BATCH}]"),
        (torch.zeros(BATCH, STEPS + 1, dtype=torch.bool), f"torch.bool of shape [{BATCH}, {STEPS + 1}]"),
        (torch.zeros(STEPS, dtype=torch.bool), f"torch.bool of shape [{STEPS}]"),
        (torch.zeros(BATCH, STEPS), f"torch.float32 of shape [{BATCH}, {STEPS}]"),
    ],
)
def test_reset_must_be_bool_for_each_row_and_step(learned_state, reset, given):
    with pytest.raises(ShapeError) as caught:
        make("lstm", learned_state=learned_state)(normal(BATCH, STEPS, INPUTS), reset=reset)
    assert str(caught.value) == f"reset must be bool of shape [batch, time] = [{BATCH}, {STEPS}], got {given}"


def test_a_regularised_cell_is_no_layer_of_torch():
    with pytest.raises(ConfigError, match='backend "torch" cannot run cell "lstm"'):
        make("lstm", zoneout=0.1, backend="torch")(normal(BATCH, STEPS, INPUTS))
    choice = make("lstm", zoneout=0.1, backend="auto").eval().explain()
    assert choice.backend != "torch"


# What it looks like and how it travels.


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, "lstm, 4, 5, layers=1"),
        ({"zoneout": {"c": 0.5}}, "lstm, 4, 5, layers=1, zoneout={'c': 0.5}"),
        (
            {"layers": 2, "bidirectional": True, "merge": "sum", "connection": "highway"},
            "lstm, 4, 5, layers=2, bidirectional=True, merge=sum, connection=highway",
        ),
        (
            {"learned_state": True, "input_dropout": 0.1, "variational": True, "weight_dropout": 0.2},
            "lstm, 4, 5, layers=1, learned_state=True, input_dropout=0.1, weight_dropout=0.2, "
            "variational=True",
        ),
        ({"cell": ["lstm", "gru"]}, "lstm gru, 4, 5, layers=2"),
        (
            {"cell": ["gru", "lstm", "gru"], "hidden_size": [5, 3, 5]},
            "gru lstm gru, 4, 5 3 5, layers=3",
        ),
    ],
)
def test_repr_shows_the_options_that_are_not_at_their_defaults(options, shown):
    layer = Recurrent(**({"cell": "lstm", "input_size": 4, "hidden_size": 5} | options))
    assert layer.extra_repr() == shown
    assert repr(layer).startswith(f"Recurrent(\n  {shown}\n")


ALL_OPTIONS = {
    "bidirectional": True,
    "merge": "mean",
    "connection": "highway",
    "learned_state": True,
    "variational": True,
    **RANDOM,
}


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["deepcopy", "pickle"]
)
@both_modes
def test_a_copy_has_all_options(copied, training):
    layer = make(["lstm", "gru"], **ALL_OPTIONS).train(training)
    other, x = copied(layer), normal(BATCH, STEPS, INPUTS)
    expected = layer(x, generator=seeded(1))
    equal(other(x, generator=seeded(1)), expected, tolerance=0)
    assert repr(other) == repr(layer)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    equal(other(x, generator=seeded(1)), expected, tolerance=0)


def test_a_state_dict_carries_all_there_is():
    layer, other = (make(["lstm", "gru"], **ALL_OPTIONS) for _ in range(2))
    x = normal(BATCH, STEPS, INPUTS)
    assert not torch.equal(layer(x, generator=seeded(1))[0], other(x, generator=seeded(1))[0])
    other.load_state_dict(layer.state_dict())
    equal(other(x, generator=seeded(1)), layer(x, generator=seeded(1)), tolerance=0)


def test_every_parameter_gets_a_gradient_with_all_options():
    layer = make(["lstm", "gru"], **ALL_OPTIONS | {"weight_dropout": 0.1})
    y, state = layer(normal(20, STEPS, INPUTS), generator=seeded(1))
    loss_of(y, state).backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


@pytest.mark.parametrize("with_reset", [False, True])
@pytest.mark.parametrize("options", [{}, {"zoneout": 0.3}, {"learned_state": True, "connection": "residual"}])
def test_torch_compile_of_a_layer_that_never_ran(options, with_reset):
    layer, x = make("lstm", layers=2, backend="auto", **options).eval(), normal(BATCH, STEPS, INPUTS)
    reset = torch.zeros(BATCH, STEPS, dtype=torch.bool)
    reset[1, 2] = True
    torch._dynamo.reset()
    compiled = torch.compile(pickle.loads(pickle.dumps(layer)), fullgraph=True, backend="aot_eager")
    answers = []
    for run in (compiled, layer):
        y, state = run(x, reset=reset if with_reset else None)
        answers.append((y, state, gradients(loss_of(y, state), run.parameters())))
    equal(*answers, tolerance=0)
