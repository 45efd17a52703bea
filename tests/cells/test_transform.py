"""Cells made of cells: each against its equations written by hand, and all of them together."""

import copy
import itertools
import pickle

import pytest
import torch

from throughtime.cells.cell import cell
from throughtime.cells.expression import tanh
from throughtime.cells.library import CELLS
from throughtime.cells.transform import (
    expected_zoneout,
    learned_begin,
    probed,
    recurrent_dropout,
    zoneout,
)
from throughtime.kernels.torch_layers import find_layer
from throughtime.kernels.unroll import unroll

STEPS, BATCH, INPUTS, HIDDEN = 5, 3, 2, 4
RATES = {"h": 0.3, "c": 0.6}
every_cell = pytest.mark.parametrize("name", CELLS)


def equal(one, other, tolerance=1e-12):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def normal(*shape):
    return torch.randn(shape, dtype=torch.float64)


def weights_of(made):
    return {
        name: (normal(*shape) * 0.7).requires_grad_()
        for name, shape in made.graph.weight_shapes(INPUTS, HIDDEN).items()
    }


def mask(*shape, rate=0.5):
    return torch.rand(shape, dtype=torch.float64).lt(rate).double()


def given_to(made):
    """Numbers for all that a cell is given: masks of 0 and 1, probes of zeros, statistics."""
    given = {}
    for name, shape in made.graph.given_shapes(STEPS, BATCH, HIDDEN).items():
        kind = made.graph.given[name]
        if kind == "steps":
            given[name] = torch.randint(3, shape)
        elif kind == "table":
            given[name] = torch.rand(3, HIDDEN, dtype=torch.float64) + 0.5
        elif kind == "probe":
            given[name] = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        else:
            given[name] = mask(*shape)
    return given


class Setting:
    """x, a state that is not zero, and the weights of a cell; a run of it and one by hand on the same."""

    def __init__(self, made):
        self.cell, self.weights = made, weights_of(made)
        self.x = normal(STEPS, BATCH, INPUTS).requires_grad_()
        self.state = tuple(normal(BATCH, HIDDEN).requires_grad_() for _ in made.states)
        self.leaves = [self.x, *self.state, *self.weights.values()]

    def run(self, made, given=None, reset=None, **weights):
        return unroll(
            made, self.weights | weights, self.x, self.state, reset=reset, backend="reference", given=given
        )

    def by_hand(self, step):
        """`step(t, x_t, state)` gives the new state; all of them, [T][states][B, H]."""
        states, state = [], self.state
        for t in range(STEPS):
            state = step(t, self.x[t], state)
            states.append(state)
        return torch.stack([state[0] for state in states]), states[-1]

    def agree(self, one, other, *leaves):
        """Values and gradients are equal."""
        equal(one, other)
        answers = [
            torch.autograd.grad(
                loss_of(*run), [*self.leaves, *leaves], retain_graph=True, materialize_grads=True
            )
            for run in (one, other)
        ]
        equal(*answers)


def loss_of(y, final):
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return (y * weights).sum() + sum((value * k).square().sum() for k, value in enumerate(final, start=1))


# The cells by hand, with what is dropped of the state where a matrix multiplies it.


def lstm_step(weights, x, h, c, keep=1.0):
    total = x @ weights["weight_ih"].T + (h * keep) @ weights["weight_hh"].T + weights["bias"]
    i, f, g, o = total.chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_step(weights, x, h, keep=1.0):
    by_x, by_h = x @ weights["weight_ih"].T, (h * keep) @ weights["weight_hh"].T
    r_x, z_x, n_x = by_x.chunk(3, -1)
    r_h, z_h, m = by_h.chunk(3, -1)
    b_r, b_z, b_n, b_m = weights["bias"].chunk(4)
    r, z = (r_x + r_h + b_r).sigmoid(), (z_x + z_h + b_z).sigmoid()
    n = (n_x + b_n + r * (m + b_m)).tanh()
    return ((1 - z) * n + z * h,)


STEP = {"lstm": lstm_step, "gru": gru_step}
both = pytest.mark.parametrize("name", STEP)


@both
def test_the_steps_by_hand_are_those_of_the_plain_cells(name):
    a = Setting(CELLS[name])
    a.agree(a.run(a.cell), a.by_hand(lambda t, x, s: STEP[name](a.weights, x, *s)))


# Each transform.


@both
def test_zoneout_keeps_what_its_masks_say(name):
    """h_t is made of the c_t before zoneout, as in the paper."""
    a = Setting(CELLS[name])
    made = zoneout(a.cell, {state: RATES[state] for state in a.cell.states})
    given = given_to(made)
    assert list(given) == [f"zoneout {state}" for state in a.cell.states]

    def step(t, x, old):
        new = STEP[name](a.weights, x, *old)
        keep = [given[f"zoneout {state}"][t] for state in a.cell.states]
        return tuple(z * o + (1 - z) * n for z, o, n in zip(keep, old, new, strict=True))

    a.agree(a.run(made, given), a.by_hand(step))


def test_zoneout_of_one_state_leaves_the_other():
    a = Setting(CELLS["lstm"])
    made = zoneout(a.cell, {"c": 0.5})
    given = given_to(made)
    assert list(given) == ["zoneout c"]

    def step(t, x, old):
        h, c = lstm_step(a.weights, x, *old)
        return h, torch.where(given["zoneout c"][t] == 1, old[1], c)

    a.agree(a.run(made, given), a.by_hand(step))


@both
def test_zoneout_in_use_takes_the_mean(name):
    a = Setting(CELLS[name])
    made = expected_zoneout(a.cell, {state: RATES[state] for state in a.cell.states})
    assert made.graph.given == {}

    def step(t, x, old):
        new = STEP[name](a.weights, x, *old)
        rates = [RATES[state] for state in a.cell.states]
        return tuple(r * o + (1 - r) * n for r, o, n in zip(rates, old, new, strict=True))

    a.agree(a.run(made), a.by_hand(step))


def test_zoneout_holds_a_state_that_no_equation_reads():
    """The h of the linear recurrent unit is read out only."""
    a = Setting(CELLS["lru"])
    made = zoneout(a.cell, {"h": 0.5})
    given = given_to(made)
    kept = given["zoneout h"]
    y, final = a.run(made, given)
    plain, plain_final = a.run(a.cell)
    h, expected = a.state[0], []
    for t in range(STEPS):
        h = kept[t] * h + (1 - kept[t]) * plain[t]
        expected.append(h)
    a.agree((y, final), (torch.stack(expected), (h, *plain_final[1:])))


@both
def test_recurrent_dropout_drops_the_state_in_products_only(name):
    a = Setting(CELLS[name])
    made = recurrent_dropout(a.cell)
    given = {"dropout 0": mask(BATCH, HIDDEN) * 2}
    assert made.graph.given == {"dropout 0": "row_mask"}
    a.agree(
        a.run(made, given), a.by_hand(lambda t, x, s: STEP[name](a.weights, x, *s, keep=given["dropout 0"]))
    )


def test_recurrent_dropout_has_a_mask_for_each_multiplied_value():
    a = Setting(CELLS["gru_reset_before"])
    made = recurrent_dropout(a.cell)
    given = {"dropout 0": mask(BATCH, HIDDEN) * 2, "dropout 1": mask(BATCH, HIDDEN) * 2}
    assert made.graph.given == dict.fromkeys(given, "row_mask")

    def step(t, x, state):
        (h,) = state
        (z_x, r_x, n_x), (z_h, r_h, n_h), (b_z, b_r, b_n) = (
            a.weights[key].chunk(3) for key in ("weight_ih", "weight_hh", "bias")
        )
        z = (x @ z_x.T + (h * given["dropout 0"]) @ z_h.T + b_z).sigmoid()
        r = (x @ r_x.T + (h * given["dropout 0"]) @ r_h.T + b_r).sigmoid()
        n = (x @ n_x.T + (r * h * given["dropout 1"]) @ n_h.T + b_n).tanh()
        return ((1 - z) * n + z * h,)

    a.agree(a.run(made, given), a.by_hand(step))


def test_recurrent_dropout_leaves_cells_without_a_recurrent_matrix():
    assert recurrent_dropout(CELLS["min_gru"]).graph.given == {}


@both
def test_a_learned_begin_is_where_a_row_begins_anew(name):
    a = Setting(CELLS[name])
    made = learned_begin(a.cell)
    reset = torch.zeros(STEPS, BATCH, dtype=torch.bool)
    reset[0, 0] = reset[3, 0] = reset[2, 2] = True
    given = {"reset": reset[..., None].double().expand(STEPS, BATCH, HIDDEN)}
    initial = {f"initial {state}": normal(HIDDEN).requires_grad_() for state in a.cell.states}

    def step(t, x, old):
        at = reset[t][:, None]
        begun = (torch.where(at, v, o) for v, o in zip(initial.values(), old, strict=True))
        return STEP[name](a.weights, x, *begun)

    a.agree(a.run(made, given, reset, **initial), a.by_hand(step), *initial.values())


def test_counters_and_what_is_carried_have_no_learned_begin():
    assert "initial v" not in learned_begin(CELLS["image_rnn"]).graph.vectors
    assert "initial t" not in learned_begin(CELLS["batch_norm_lstm"]).graph.vectors


def retained(values):
    for value in values:
        value.retain_grad()
    return values


@both
def test_the_gradient_of_a_probe_is_that_of_the_state(name):
    """dL/dc_t of the LSTM goes through h_t too, as autograd has it."""
    a = Setting(CELLS[name])
    made = probed(a.cell, a.cell.states)
    given = given_to(made)
    assert list(given) == [f"probe {state}" for state in a.cell.states]
    a.agree(a.run(made, given), a.run(a.cell))
    loss_of(*a.run(made, given)).backward()
    states = []

    def step(t, x, old):
        states.append(retained(STEP[name](a.weights, x, *old)))
        return states[-1]

    loss_of(*a.by_hand(step)).backward()
    for index, state in enumerate(a.cell.states):
        expected = torch.stack([values[index].grad for values in states])
        assert expected.abs().min() > 0
        equal(given[f"probe {state}"].grad, expected)


@cell(state="h v w")
def carried(x, s, w):
    """v is carried, and the next w is this v: one node is three states."""
    return tanh(w.a(x, s.h, s.v)), s.v, s.v


def test_the_probe_of_a_carried_state_is_of_its_later_uses():
    a = Setting(carried)
    made = probed(carried, ("v", "w"))
    given = given_to(made)

    def loss(y, final):
        return y.square().sum() + final[1].sum() + 3 * final[2].sum()

    y, final = a.run(made, given)
    d_v, d_w = torch.autograd.grad(loss(y, final), [given["probe v"], given["probe w"]])
    assert not d_w[:-1].any()
    assert (d_w[-1] == 3).all()
    assert (d_v[-1] == 1).all()
    after_a_step = (y[0].detach(), *a.state[1:])
    rest = unroll(carried, a.weights, a.x[1:], after_a_step, backend="reference")
    equal(d_v[0], torch.autograd.grad(loss(*rest), a.state[1])[0])


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_a_transformed_cell_is_not_taken_for_torchs(name):
    plain = CELLS[name]
    assert find_layer(plain.graph)
    for transform in TRANSFORMS.values():
        assert find_layer(transform(plain).graph) is None
    assert find_layer(expected_zoneout(plain, {"h": 0.5}).graph) is None


# What holds for all transforms.

TRANSFORMS = {
    "recurrent_dropout": recurrent_dropout,
    "zoneout": lambda made: zoneout(made, {"h": 0.5}),
    "learned_begin": learned_begin,
    "probed": lambda made: probed(made, ("h",)),
}
ALL = TRANSFORMS | {"expected_zoneout": lambda made: expected_zoneout(made, {"h": 0.5})}


@every_cell
@pytest.mark.parametrize("transform", ALL)
def test_weights_stay_as_they_were(name, transform):
    """With them the weights of a layer serve the cell in training, in use and observed."""
    plain, made = CELLS[name].graph, ALL[transform](CELLS[name]).graph
    assert made.input_blocks == plain.input_blocks
    assert [block for block, _ in made.recurrent_blocks] == [block for block, _ in plain.recurrent_blocks]
    assert made.bias_blocks == plain.bias_blocks
    old = [vector for vector in made.vectors if not vector.startswith("initial ")]
    assert old == list(plain.vectors)
    shapes = made.weight_shapes(2, 3)
    assert {key: shapes[key] for key in plain.weights} == plain.weight_shapes(2, 3)
    assert made.states == plain.states


@every_cell
def test_masks_that_drop_nothing_change_nothing(name):
    a = Setting(CELLS[name])
    neutral = {"recurrent_dropout": 1.0, "zoneout": 0.0, "learned_begin": 0.0, "probed": 0.0}
    tables = given_to(a.cell)
    plain = a.run(a.cell, tables)
    for transform, number in neutral.items():
        made = TRANSFORMS[transform](a.cell)
        given = {
            key: tables[key] if key in tables else torch.full_like(value, number)
            for key, value in given_to(made).items()
        }
        begins = {key: normal(HIDDEN) for key in made.graph.vectors if key.startswith("initial ")}
        a.agree(a.run(made, given, **begins), plain)


@pytest.mark.parametrize("name", ["lstm", "gru_reset_before", "image_rnn", "lru", "slstm", "batch_norm_lstm"])
def test_transforms_compose_in_any_order(name):
    """But zoneout comes before the learned begin; and a probe before zoneout is of what that then mixes."""
    a, answers = Setting(CELLS[name]), []
    reset = torch.zeros(STEPS, BATCH, dtype=torch.bool)
    reset[2, 1] = True
    given = begins = None
    for order in itertools.permutations(TRANSFORMS):
        if order.index("learned_begin") < order.index("zoneout"):
            continue
        made = a.cell
        for transform in order:
            made = TRANSFORMS[transform](made)
        if given is None:
            given = given_to(made) | {"reset": reset[..., None].double().expand(STEPS, BATCH, HIDDEN)}
            begins = {
                key: normal(HIDDEN).requires_grad_()
                for key in made.graph.vectors
                if key.startswith("initial ")
            }
        assert made.graph.given.keys() == given.keys()
        answers.append((order, a.run(made, given, reset, **begins)))
    probes = {True: [], False: []}
    for order, answer in answers:
        a.agree(answer, answers[0][1], *begins.values())
        after = order.index("probed") > order.index("zoneout")
        probes[after] += torch.autograd.grad(loss_of(*answer), given["probe h"], retain_graph=True)
    for found in probes.values():
        for gradient in found:
            equal(gradient, found[0])
    assert not torch.equal(probes[True][0], probes[False][0])


@pytest.mark.parametrize("transform", ALL)
def test_a_transformed_cell_is_not_pickled_as_the_plain_one(transform):
    made = ALL[transform](CELLS["lstm"])
    with pytest.raises(pickle.PicklingError, match='cell "lstm" cannot be pickled'):
        pickle.dumps(made)
    assert copy.deepcopy(made) is made


def test_the_plain_cell_stays_as_it_was():
    plain = CELLS["lstm"]
    before = plain.graph.text
    for transform in ALL.values():
        assert transform(plain) is not plain
    assert plain.graph.text == before
    assert pickle.loads(pickle.dumps(plain)) is plain


@pytest.mark.parametrize("transform", ["learned_begin", "probed"])
def test_what_is_made_at_each_call_is_made_once(transform):
    assert TRANSFORMS[transform](CELLS["lstm"]) is TRANSFORMS[transform](CELLS["lstm"])
