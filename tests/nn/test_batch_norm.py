"""The batch-normalised LSTM: its training against the paper written out, and its statistics in use."""

import pytest
import torch

from throughtime.cells.cell import cell
from throughtime.cells.expression import batch_norm, tanh
from throughtime.errors import CellError, ConfigError
from throughtime.nn import Recurrent

BATCH, STEPS, INPUTS, HIDDEN = 6, 5, 3, 4
NORMED = ("i", "hi", "f", "hf", "g", "hg", "o", "ho", "c")


def normal(*shape):
    return torch.randn(shape, dtype=torch.float64)


def make(**options):
    """A layer whose weights are all drawn, gains away from 0."""
    layer = Recurrent("batch_norm_lstm", INPUTS, HIDDEN, **options).double()
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.add_(normal(*parameter.shape), alpha=0.3 if name.startswith("gain") else 0.5)
    return layer


def by_hand(layer, x, rows_of_step):
    """Cooijmans et al. 2016, equations 6 to 8, each BN by torch's own; the statistics of every step."""
    p = {name.removesuffix("_l0"): value for name, value in layer.named_parameters()}
    from_x = dict(zip("ifgo", (x @ p["weight_ih"].T).chunk(4, -1), strict=True))
    w_h = dict(zip("ifgo", p["weight_hh"].chunk(4), strict=True))
    h, c = torch.zeros(2, len(x), HIDDEN, dtype=torch.float64)
    outputs, statistics = [], []
    for t in range(x.shape[1]):
        rows, seen = rows_of_step(t), {}

        def normed(name, value, seen=seen):
            seen[name] = value.mean(0), value.var(0)
            scaled = torch.nn.functional.batch_norm(value, None, None, training=True)
            return p[f"gain_{name}"] * scaled

        a = {
            k: normed(k, from_x[k][rows, t]) + normed(f"h{k}", h[rows] @ w_h[k].T) + p[f"shift_{k}"]
            for k in "ifgo"
        }
        new_c = a["f"].sigmoid() * c[rows] + a["i"].sigmoid() * a["g"].tanh()
        new_h = a["o"].sigmoid() * torch.tanh(normed("c", new_c) + p["shift_c"])
        h, c = h.index_copy(0, rows, new_h), c.index_copy(0, rows, new_c)
        outputs.append(torch.zeros_like(h).index_copy(0, rows, new_h))
        statistics.append(seen)
    return torch.stack(outputs, 1), h, c, statistics


@pytest.mark.parametrize("lengths", [None, torch.tensor([5, 2, 3, 5, 4, 2])])
def test_training_is_the_papers(lengths):
    layer, x = make(), normal(BATCH, STEPS, INPUTS).requires_grad_()
    ends = torch.full((BATCH,), STEPS) if lengths is None else lengths
    expected, h, c, statistics = by_hand(layer, x, lambda t: (ends > t).nonzero().flatten())
    y, ((final_h, final_c, count),) = layer(x, lengths=lengths)
    torch.testing.assert_close((y, final_h, final_c), (expected, h, c), rtol=1e-10, atol=1e-10)
    assert torch.equal(count, ends[:, None].expand(-1, HIDDEN).double())

    leaves = [x, *layer.parameters()]
    weight = normal(*y.shape)
    found, wanted = (
        torch.autograd.grad((v * weight).sum(), leaves, retain_graph=True) for v in (y, expected)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)

    for name in NORMED:
        for t, seen in enumerate(statistics):
            mean, variance = seen[name]
            torch.testing.assert_close(getattr(layer, f"mean_{name}_l0")[t], 0.1 * mean)
            torch.testing.assert_close(getattr(layer, f"variance_{name}_l0")[t], 0.9 + 0.1 * variance)
        assert not getattr(layer, f"mean_{name}_l0")[STEPS:].any()


def test_use_reads_the_statistics_of_its_step_and_changes_none():
    layer = make(norm_steps=3)
    for _ in range(20):
        layer(normal(BATCH, STEPS, INPUTS))
    before = {name: value.clone() for name, value in layer.named_buffers()}
    x, reset = normal(BATCH, STEPS, INPUTS), torch.zeros(BATCH, STEPS, dtype=torch.bool)
    reset[2, 2] = True
    y, _ = layer.eval()(x, reset=reset)
    assert all(torch.equal(value, before[name]) for name, value in layer.named_buffers())
    torch.testing.assert_close(y[2, 2:], layer(x[2:3, 2:])[0][0], rtol=1e-10, atol=1e-10)
    y, _ = layer(x)
    for step in range(3):
        with torch.no_grad():
            layer.mean_i_l0[step] += 1
        changed = (layer(x)[0] != y).any(2).any(0)
        with torch.no_grad():
            layer.mean_i_l0.copy_(before["mean_i_l0"])
        assert not changed[:step].any() and changed[step:].all()


def test_use_is_compiled_and_training_says_why_not():
    layer = make()
    assert "join its rows" in layer.explain().refused["llvm"]
    assert layer.eval().explain().backend == "llvm"


def test_a_single_row_trains_on_the_running_statistics():
    layer, x = make(), normal(1, STEPS, INPUTS)
    before = {name: value.clone() for name, value in layer.named_buffers()}
    y, _ = layer(x)
    assert all(torch.equal(value, before[name]) for name, value in layer.named_buffers())
    torch.testing.assert_close(y, layer.eval()(x)[0], rtol=1e-10, atol=1e-10)


def test_computing_a_batch_again_would_count_it_twice():
    with pytest.raises(ConfigError, match="twice in its running statistics"):
        make(checkpoint_every=2)(normal(BATCH, STEPS, INPUTS))


def counter_left_out(x, s, w):
    return tanh(batch_norm(w.a(x, s.h), "a"))


def counting_by_two(x, s, w):
    return tanh(batch_norm(w.a(x, s.h), "a")), s.t + 2


def one_name_twice(x, s, w):
    return tanh(batch_norm(w.a(x), "a") + batch_norm(w.b(s.h), "a")), s.t + 1


@pytest.mark.parametrize(
    ("equations", "states", "said"),
    [
        (counter_left_out, "h", r"needs a state t that becomes s\.t \+ 1"),
        (counting_by_two, "h t", r"needs a state t that becomes s\.t \+ 1"),
        (one_name_twice, "h t", 'the name "a" for two batch_norm'),
    ],
)
def test_equations_that_cannot_be_are_refused(equations, states, said):
    with pytest.raises(CellError, match=said):
        cell(state=states)(equations)
