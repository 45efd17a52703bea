"""One step of a stream: what `forward` gives for the whole, whatever happens between the steps."""

import copy

import pytest
import torch

from throughtime.cells.library import CELLS
from throughtime.errors import ConfigError, ShapeError
from throughtime.nn.recurrent import Recurrent
from throughtime.nn.state import map_state, reset_rows, select_rows

INPUTS, HIDDEN, STEPS = 4, 20, 5
every_cell = pytest.mark.parametrize("cell", CELLS)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


def close(one, other):
    tolerance = TOLERANCE[one[0].dtype]
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def make(cell, dtype=torch.float64, **options):
    """A layer in use, all of whose weights are drawn."""
    layer = Recurrent(cell, INPUTS, HIDDEN, **options).to(dtype).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return layer


def some_state(layer, batch):
    """Numbers that a step could have left; of a count, its beginning."""
    counts = [[name == "t" for name in cell.states] for cell in layer.cells]
    return tuple(
        tuple(
            v if count else v + torch.randn(v.shape, dtype=v.dtype) for v, count in zip(*layers, strict=True)
        )
        for layers in zip(layer.begin(batch), counts, strict=True)
    )


def stepped(layer, x, state=None):
    outputs = []
    with torch.no_grad():
        for t in range(x.shape[1]):
            y, state = layer.step(x[:, t], state)
            outputs.append(y)
    return torch.stack(outputs, 1), state


def right(layer, x, state=None):
    """Steps give what forward gives for all at once."""
    with torch.no_grad():
        close(stepped(layer, x, state), layer(x, state))


@every_cell
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_are_those_of_forward(cell, batch, dtype):
    layer = make(cell, dtype)
    x = torch.randn(batch, STEPS, INPUTS, dtype=dtype)
    right(layer, x)
    right(layer, x, some_state(layer, batch))


@every_cell
def test_a_step_is_forward_of_one_to_the_last_bit(cell):
    layer = make(cell, torch.float32, layers=2)
    x, state = torch.randn(1, INPUTS), some_state(layer, 1)
    for _ in range(2):
        with torch.no_grad():
            y, after = layer.step(x, state)
            whole, finals = layer(x[:, None], state)
        torch.testing.assert_close((y, after), (whole[:, 0], finals), rtol=0, atol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"cell": ["lstm", "layer_norm_gru", "rnn"]},
        {"cell": "gru", "layers": 3, "connection": "residual"},
        {"cell": "gru", "layers": 3, "connection": "highway"},
        {"cell": "lstm", "layers": 2, "learned_state": True},
        {"cell": "lstm", "zoneout": {"h": 0.05, "c": 0.5}},
        {"cell": "lstm", "layers": 2, "dropout": 0.5, "recurrent_dropout": 0.5, "weight_dropout": 0.5},
        {"cell": "lstm", "backend": "reference"},
        {"cell": "lstm", "checkpoint_every": "auto"},
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", [1, 3])
def test_options(options, batch):
    right(make(**options), torch.randn(batch, STEPS, INPUTS, dtype=torch.float64))


@pytest.mark.parametrize(
    "options",
    [
        {"zoneout": 0.3},
        {"recurrent_dropout": 0.5},
        {"weight_dropout": 0.5},
        {"input_dropout": 0.5, "dropout": 0.5, "output_dropout": 0.5, "layers": 2},
    ],
    ids=str,
)
def test_in_training_it_drops_what_forward_drops(options):
    layer = make("lstm", **options).train()
    x, state = torch.randn(2, INPUTS, dtype=torch.float64), some_state(layer, 2)
    for seed in range(3):
        generators = [torch.Generator().manual_seed(seed) for _ in range(2)]
        with torch.no_grad():
            y, after = layer.step(x, state, generators[0])
            whole, finals = layer(x[:, None], state, generator=generators[1])
        close((y, after), (whole[:, 0], finals))
        layer.eval()
        with torch.no_grad():
            assert not torch.equal(layer.step(x, state)[0], y)
        layer.train()


def test_a_state_can_be_continued_twice():
    layer = make("lstm", layers=2)
    x = torch.randn(1, 6, INPUTS, dtype=torch.float64)
    _, fork = stepped(layer, x[:, :3])
    kept = map_state(torch.clone, fork)
    one, other = stepped(layer, x[:, 3:], fork), stepped(layer, -x[:, 3:], fork)
    torch.testing.assert_close(fork, kept, rtol=0, atol=0)
    torch.testing.assert_close(stepped(layer, x[:, 3:], fork), one, rtol=0, atol=0)
    assert not torch.equal(one[0], other[0])


def test_what_comes_out_may_be_changed_in_place():
    layer = make("lstm")
    x = torch.randn(1, 2, INPUTS, dtype=torch.float64)
    with torch.no_grad():
        y, state = layer.step(x[:, 0])
        (h, _), expected = state[0], layer.step(x[:, 1], state)
        y.zero_()
        close(layer.step(x[:, 1], state), expected)
        h.zero_()
        assert not torch.equal(layer.step(x[:, 1], state)[0], expected[0])


def test_rows_may_be_reset_and_selected_between_steps():
    layer = make("lstm", layers=2, learned_state=True)
    x = torch.randn(3, 4, INPUTS, dtype=torch.float64)
    _, state = stepped(layer, x[:, :2])
    with torch.no_grad():
        fresh = reset_rows(state, torch.tensor([False, True, False]), layer.begin(3))
        y, after = stepped(layer, x[:, 2:], fresh)
        reset = torch.zeros(3, 4, dtype=torch.bool)
        reset[1, 2] = True
        whole, finals = layer(x, reset=reset)
    close((y, after), (whole[:, 2:], finals))
    rows = [2, 0]
    got, _ = stepped(layer, x[rows, 2:], select_rows(fresh, rows))
    close((got,), (y[rows],))


def loaded(layer):
    layer.load_state_dict({name: torch.randn_like(value) for name, value in layer.state_dict().items()})


def optimized(layer):
    for parameter in layer.parameters():
        parameter.grad = torch.randn_like(parameter)
    torch.optim.SGD(layer.parameters(), 0.1).step()


def through_data(layer):
    for parameter in layer.parameters():
        parameter.data.mul_(0.5)


def other_data(layer):
    for parameter in layer.parameters():
        parameter.data = torch.randn_like(parameter)


def replaced(layer):
    for name, parameter in list(layer.named_parameters()):
        setattr(layer, name, torch.nn.Parameter(torch.randn_like(parameter)))


@pytest.mark.parametrize("change", [loaded, optimized, through_data, other_data, replaced])
@pytest.mark.parametrize("cell", ["lstm", "peephole_lstm", "layer_norm_gru"])
def test_changed_weights_are_seen(cell, change):
    layer = make(cell)
    x = torch.randn(1, STEPS, INPUTS, dtype=torch.float64)
    for _ in range(3):
        right(layer, x)
        # the definition, which remembers nothing
        plain = copy.deepcopy(layer)
        plain.backend = "reference"
        before = stepped(layer, x)
        close(before, stepped(plain, x))
        change(layer)
        assert not torch.equal(stepped(layer, x)[0], before[0])


def test_the_type_may_change():
    layer = make("lstm", torch.float32)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float32):
        layer.to(dtype)
        x = torch.randn(1, INPUTS, dtype=dtype)
        with torch.no_grad():
            y, after = layer.step(x)
            whole, finals = layer(x[:, None])
        assert y.dtype == dtype
        torch.testing.assert_close((y, after), (whole[:, 0], finals))


def test_a_copy_steps_by_itself():
    layer = make("lstm")
    x = torch.randn(1, STEPS, INPUTS, dtype=torch.float64)
    right(layer, x)
    other = copy.deepcopy(layer)
    through_data(other)
    right(other, x)
    assert not torch.equal(stepped(layer, x)[0], stepped(other, x)[0])


def test_hooks_see_every_step():
    layer = make("lstm", layers=2)
    x = torch.randn(1, STEPS, INPUTS, dtype=torch.float64)
    expected, seen = stepped(layer, x), []
    handles = [
        module.register_forward_hook(lambda module, arguments, output: seen.append(output))
        for module in (*layer.layer, layer)
    ]
    close(stepped(layer, x), expected)
    assert len(seen) == 3 * STEPS
    close((torch.cat(seen[1::3], 1),), expected[:1])
    assert [y.shape for y in seen[:2]] == [(1, 1, HIDDEN)] * 2
    for handle in handles:
        handle.remove()
    layer.layer[0].register_forward_hook(lambda module, arguments, output: output * 0)
    assert not torch.equal(stepped(layer, x)[0], expected[0])


def test_gradients_flow_when_they_are_wanted():
    layer = make("lstm", layers=2)
    x = torch.randn(2, STEPS, INPUTS, dtype=torch.float64)
    right(layer, x)
    gradients = []
    for run in (lambda: layer(x)[0], lambda: steps_with_gradient(layer, x)):
        layer.zero_grad()
        run().square().sum().backward()
        gradients.append(tuple(parameter.grad.clone() for parameter in layer.parameters()))
    close(*gradients)


def steps_with_gradient(layer, x):
    state, outputs = None, []
    for t in range(x.shape[1]):
        y, state = layer.step(x[:, t], state)
        outputs.append(y)
    return torch.stack(outputs, 1)


def test_state_hooks_are_called():
    layer, seen = make("lstm"), []
    x = torch.randn(2, INPUTS, dtype=torch.float64)
    right(layer, x[:, None])
    layer.register_state_hook(seen.append)
    layer.step(x)[0].sum().backward()
    close(tuple(seen), (torch.ones(2, 1, HIDDEN, dtype=torch.float64),))


def test_torch_compile_takes_a_step():
    layer = make("lstm")
    x, state = torch.randn(1, INPUTS, dtype=torch.float64), some_state(layer, 1)
    run = torch.compile(layer.step, backend="eager", fullgraph=True)
    with torch.no_grad():
        for _ in range(2):
            close(run(x, state), layer.step(x, state))


def test_no_rows():
    layer = make("lstm")
    y, after = layer.step(torch.randn(0, INPUTS, dtype=torch.float64))
    assert y.shape == (0, HIDDEN)
    assert [value.shape for value in after[0]] == [(0, HIDDEN)] * 2


def test_a_bidirectional_layer_is_refused():
    with pytest.raises(ConfigError, match="reads the future and has no single step"):
        make("lstm", bidirectional=True).step(torch.randn(1, INPUTS, dtype=torch.float64))


WRONG = {
    "x of another width": lambda x, state: (x[:, 1:], state),
    "x of another type": lambda x, state: (x.float(), state),
    "a layer too few": lambda x, state: (x, state[:1]),
    "a state too few": lambda x, state: (x, (state[0][:1], state[1])),
    "a state of another width": lambda x, state: (x, (state[0], (state[1][0][:, 1:], state[1][1]))),
    "another batch": lambda x, state: (x[:1], state),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_errors_are_those_of_forward(change):
    layer = make("lstm", layers=2)
    x, state = torch.randn(2, INPUTS, dtype=torch.float64), some_state(layer, 2)
    right(layer, x[:, None], state)
    x, state = change(x, state)
    said = []
    for run in (lambda: layer.step(x, state), lambda: layer(x[:, None], state)):
        with torch.no_grad(), pytest.raises(ShapeError) as error:
            run()
        said.append(str(error.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("shape", [(INPUTS,), (1, 1, INPUTS)])
def test_x_has_two_dimensions(shape):
    with pytest.raises(ShapeError, match=r"x must have shape \[batch, 4\], got"):
        make("lstm").step(torch.randn(shape, dtype=torch.float64))
