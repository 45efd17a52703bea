"""What gates leave of a state, in closed form, and what is made of the accuracies."""

import math

import pytest
import torch

from throughtime.cells.lstm import lstm
from throughtime.lab import gated_highway as lab
from throughtime.lab.table import find_experiment
from throughtime.lab.vanishing import gradient_left
from throughtime.nn.recurrent import Recurrent


def without_input(way):
    """An LSTM whose gates are constants: it reads neither x nor h."""
    layer = lab.lstm_layer(way, lab.FEATURES, 0)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        layer.get_parameter(name).data.zero_()
    return layer


@pytest.mark.parametrize("bias", lab.FORGET)
def test_constant_gates_leave_their_power(bias):
    left = lab.kept(without_input(bias), 0)
    gate = 1 / (1 + math.exp(-bias))
    assert left == pytest.approx([gate**t for t in range(lab.STEPS + 1)], rel=1e-4)
    assert lab.time_scale(left) == pytest.approx(min(-1 / math.log(gate), lab.STEPS), rel=1e-3)


def test_the_chrono_way_spreads_time_scales_up_to_the_delay():
    gates = lab.lstm_layer(lab.CHRONO, 2, 0).get_parameter("bias_l0").detach().view(4, lab.UNITS)
    order = list(lstm.graph.bias_blocks)
    forget, input_gate = gates[order.index("f")], gates[order.index("i")]
    assert torch.equal(input_gate, -forget)
    scales = 1 + forget.exp()  # 1 / (1 - σ(b))
    assert 2 <= float(scales.min()) < 10
    assert lab.DELAY - 10 < float(scales.max()) <= lab.DELAY
    assert gates[[order.index("g"), order.index("o")]].abs().max() == 0


def test_forget_gates_are_those_the_layer_has():
    """c_1 = i ⊙ g and c_2 = f_2 ⊙ c_1 + i_2 ⊙ g_2, with i_2 = 0 by its bias."""
    layer = lab.lstm_layer(1.0, lab.FEATURES, 0).double()
    x = torch.randn(3, 2, lab.FEATURES, generator=torch.Generator().manual_seed(1)).double()
    state = ((torch.zeros(3, lab.UNITS).double(), torch.ones(3, lab.UNITS).double()),)
    layer.get_parameter("bias_l0").data[: lab.UNITS] = -800.0  # the input gate
    h, ((_, c),) = layer(x[:, :1], state)
    torch.testing.assert_close(c, lab.forget_gates(layer, x[:, :1], h)[:, 0])
    h_two, ((_, c_two),) = layer(x, state)
    torch.testing.assert_close(c_two, lab.forget_gates(layer, x, h_two).prod(dim=1))


def test_the_gradient_is_the_product_of_gates_that_do_not_read_h():
    assert lab.against_gates(False, 3) < lab.EQUAL
    assert lab.against_gates(True, 3) > 0.1


def test_time_scale_between_steps():
    assert lab.time_scale([math.exp(-t / 2.5) for t in range(20)]) == pytest.approx(2.5)
    assert lab.time_scale([1.0, 0.9, 0.8]) == 2.0


def test_a_shut_highway_passes_the_gradient():
    left = [gradient_left(lab.highway(bias), 0)["h"][20] for bias in (0.0, -2.0, -4.0, -20.0)]
    assert left == sorted(left)
    assert left[-1] == pytest.approx(1.0, abs=1e-5)


def test_what_held_by_the_numbers():
    good, bad = 1.0, 0.5
    learned = {f"LSTM, b = {bias:g}": bad for bias in lab.FORGET} | {"LSTM, chrono": bad}
    assert (lab._bias_of_one(learned).held, lab._chrono(learned).held) == ("no", "no")
    learned |= {"LSTM, b = 3": good, "LSTM, chrono": good}
    assert (lab._bias_of_one(learned).held, lab._chrono(learned).held) == ("in part", "yes")
    assert lab._bias_of_one(learned | {"LSTM, b = 1": good}).held == "yes"
    assert lab._bias_of_one(learned | {"LSTM, b = 0": good}).held == "no"
    passed = {bias: [1.0] * (lab.DELAY + 1) for bias in lab.TRANSFORM}
    highways = {"highway, b = 0": bad, "highway, b = -2": bad, "highway, b = -4": good}
    assert lab._highway(passed, highways).held == "in part"
    assert lab._highway(passed, highways | {"highway, b = -2": good}).held == "yes"
    assert lab._highway(passed, highways | {"highway, b = 0": good}).held == "no"


def test_a_small_run(monkeypatch):
    monkeypatch.setattr(lab, "UPDATES", 2)
    monkeypatch.setattr(lab, "ROWS", 4)
    finding = lab.run(0)
    assert [claim.held for claim in finding.claims[:2]] == ["in part", "yes"]
    assert len(finding.rows) == 8 * 101 + 8
    finding.draw()


def test_the_model_that_learns_is_the_layer_that_is_given(monkeypatch):
    layer = Recurrent(lab.highway(-4.0), 2, lab.UNITS)
    before = layer.get_parameter("bias_l0").clone()
    monkeypatch.setattr(lab, "UPDATES", 2)
    lab.learn(layer, 0)
    assert not torch.equal(before, layer.get_parameter("bias_l0"))


@pytest.mark.slow
def test_the_full_run():
    finding = find_experiment("gated-highway").run(0)
    assert [claim.held for claim in finding.claims] == ["in part", "yes", "in part", "yes", "in part"]
