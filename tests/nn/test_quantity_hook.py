"""Looking at what stands inside the steps: the same values by every backend, and nothing else is changed."""

import pytest
import torch

from throughtime.cells.cell import cell
from throughtime.cells.expression import tanh
from throughtime.cells.library import CELLS
from throughtime.errors import ConfigError
from throughtime.kernels.unroll import BACKENDS, Watch, unroll
from throughtime.nn.recurrent import Recurrent

BATCH, STEPS, INPUTS, HIDDEN = 4, 7, 3, 5
LENGTHS = {"full": None, "of different lengths": [STEPS, 0, 4, 1]}


def layer_of(cell, backend="auto", dtype=torch.float64, **options):
    generator = torch.Generator().manual_seed(1)
    return Recurrent(cell, INPUTS, HIDDEN, backend=backend, generator=generator, **options).to(dtype)


def watched(layer, names, index=0, reverse=False):
    seen = []
    layer.register_quantity_hook(
        lambda values, lengths: seen.append({name: value.clone() for name, value in values.items()}),
        names,
        index,
        reverse,
    )
    return seen


def runs_by(cell, backend):
    return BACKENDS[backend].refusal(cell.graph, torch.ones(1, 1, 1, dtype=torch.float64)) is None


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("steps", [1, STEPS])
def test_every_backend_sees_what_the_reference_computes(any_cell, steps, lengths):
    x = torch.randn(BATCH, steps, INPUTS, dtype=torch.float64)
    lengths = None if lengths is None else torch.tensor(lengths).clamp(max=steps)
    found = {}
    for backend in BACKENDS:
        if not runs_by(any_cell, backend):
            continue
        layer = layer_of(any_cell, backend, bidirectional=True).eval()
        seen = watched(layer, list(any_cell.graph.quantities), reverse=True)
        with torch.no_grad():
            layer(x, lengths=lengths)
        [found[backend]] = seen
    for backend, values in found.items():
        for name, value in values.items():
            assert value.shape == (BATCH, steps, HIDDEN)
            torch.testing.assert_close(
                value, found["reference"][name], rtol=1e-10, atol=1e-10, msg=f"{backend}: {name}"
            )


def results(layer, x, lengths, train):
    x = x.clone().requires_grad_(train)
    with torch.set_grad_enabled(train):
        y, state = layer.train(train)(x, lengths=lengths, generator=torch.Generator().manual_seed(2))
    if train and y.requires_grad:
        y.square().sum().backward()
    gradients = [x.grad, *(parameter.grad for parameter in layer.parameters())] if train else []
    return [y.detach(), *(value.detach() for values in state for value in values), *gradients]


def same_bits(cell, backend, train):
    """The outputs, states and gradients of a layer that is looked at, and of one that is not."""
    graph = layer_of(cell)._prepared[train, False][0].graph
    if BACKENDS[backend].refusal(graph, torch.ones(1, 1, 1)) is not None:
        pytest.skip(f"{backend} does not run it")
    x, lengths = torch.randn(BATCH, STEPS, INPUTS), torch.tensor(LENGTHS["of different lengths"])
    for steps, rows in ((STEPS, None), (STEPS, lengths), (1, None)):
        plain, looked = (layer_of(cell, backend, torch.float32, layers=2) for _ in range(2))
        for index in range(2):
            watched(looked, list(cell.graph.quantities), index)
            if train:
                looked.register_state_hook(lambda gradient: None, cell.states[0], index)
        pairs = zip(*(results(each, x[:, :steps], rows, train) for each in (plain, looked)), strict=True)
        for expected, found in pairs:
            assert (expected is None and found is None) or torch.equal(expected, found)


@pytest.mark.parametrize("backend", BACKENDS)
def test_looking_on_changes_no_bit(any_cell, backend):
    same_bits(any_cell, backend, train=False)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CELLS)
def test_looking_on_changes_no_bit_of_training(name, backend):
    same_bits(CELLS[name], backend, train=True)


def test_regularised_layers_are_looked_at_too():
    options = {"recurrent_dropout": 0.3, "zoneout": 0.2, "weight_dropout": 0.2, "learned_state": True}
    x = torch.randn(BATCH, STEPS, INPUTS, dtype=torch.float64)
    found = {}
    for backend in ("llvm", "reference"):
        layer = layer_of("lstm", backend, **options).train()
        seen = watched(layer, ["f", "c", "a_o"])
        _, state = layer(x, generator=torch.Generator().manual_seed(2))
        found[backend] = seen[0]
        torch.testing.assert_close(seen[0]["c"][:, -1], state[0][1].detach())
    for name, value in found["reference"].items():
        torch.testing.assert_close(found["llvm"][name], value, rtol=1e-10, atol=1e-10)


def test_batch_statistics_are_counted_once():
    x = torch.randn(BATCH, STEPS, INPUTS)
    plain, looked = (layer_of("batch_norm_lstm", dtype=torch.float32).train() for _ in range(2))
    watched(looked, ["i", "c"])
    plain(x), looked(x)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, looked.state_dict()[name]), name


def test_states_before_a_reset_are_zero_to_the_gates():
    layer = layer_of("gru").eval()
    seen = watched(layer, ["m", "h"])
    x, reset = torch.randn(1, 3, INPUTS, dtype=torch.float64), torch.tensor([[False, True, False]])
    with torch.no_grad():
        layer(x, reset=reset)
    bias = layer.bias_l0.chunk(4)[layer.cells[0].graph.bias_blocks.index("m")]
    torch.testing.assert_close(seen[0]["m"][0, 1], bias.detach())
    assert not torch.allclose(seen[0]["m"][0, 2], bias)


def test_pieces_are_shown_as_one():
    x = torch.randn(BATCH, STEPS, INPUTS, dtype=torch.float64)
    whole, pieces = layer_of("lstm"), layer_of("lstm", checkpoint_every=3)
    seen = [watched(each, ["f", "c"]) for each in (whole, pieces)]
    for layer in (whole, pieces):
        layer(x)[0].sum().backward()
    assert [len(each) for each in seen] == [1, 1]
    for name in ("f", "c"):
        torch.testing.assert_close(seen[0][0][name], seen[1][0][name])


def test_gates_of_an_lstm_are_what_torch_computes():
    oracle = torch.nn.LSTMCell(INPUTS, HIDDEN).double()
    layer = layer_of("lstm")
    with torch.no_grad():
        layer.weight_ih_l0.copy_(oracle.weight_ih)
        layer.weight_hh_l0.copy_(oracle.weight_hh)
        layer.bias_l0.copy_(oracle.bias_ih + oracle.bias_hh)
    seen = watched(layer, ["i", "f", "g", "o", "a_f"])
    x = torch.randn(1, 2, INPUTS, dtype=torch.float64)
    with torch.no_grad():
        layer(x)
        h, _ = oracle(x[:, 0])
        a = oracle.weight_ih @ x[0, 1] + oracle.bias_ih + oracle.weight_hh @ h[0] + oracle.bias_hh
    i, f, g, o = a.chunk(4)
    for name, value in {
        "i": i.sigmoid(),
        "f": f.sigmoid(),
        "g": g.tanh(),
        "o": o.sigmoid(),
        "a_f": f,
    }.items():
        torch.testing.assert_close(seen[0][name][0, 1], value)


def test_a_handle_takes_the_hook_away():
    layer, seen = layer_of("lstm"), []
    handle = layer.register_quantity_hook(lambda values, lengths: seen.append(values), ["f"])
    handle.remove()
    layer(torch.randn(1, 2, INPUTS, dtype=torch.float64))
    assert seen == []


def test_names_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match='cell "gru" has no quantity "f": it has h, r, z, n, m, a_r'):
        layer_of("gru").register_quantity_hook(print, ["f"])
    with pytest.raises(ConfigError, match="there is no layer 1"):
        layer_of("gru").register_quantity_hook(print, ["r"], layer=1)


def test_a_gate_called_as_a_state_has_a_tilde():
    @cell(state="h c")
    def named_alike(x, s, w):
        """A candidate called as the state is."""
        c = 0.5 * s.c + tanh(w.c(x, s.h))
        return tanh(c), c

    assert list(named_alike.graph.quantities) == ["h", "c", "c~", "a_c"]
    assert list(CELLS["coupled_lstm"].graph.quantities) == ["h", "c", "f", "g", "o", "a_f", "a_g", "a_o"]


def test_unroll_shows_what_is_watched():
    seen = []
    x = torch.randn(3, 2, INPUTS)
    weights = {
        name: torch.randn(shape) for name, shape in CELLS["rnn"].graph.weight_shapes(INPUTS, HIDDEN).items()
    }
    y, _ = unroll(CELLS["rnn"], weights, x, watch=Watch(("a_h", "h"), seen.append))
    torch.testing.assert_close(seen[0]["a_h"].tanh(), y)
    torch.testing.assert_close(seen[0]["h"], y)
