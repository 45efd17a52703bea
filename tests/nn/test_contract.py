"""The contract: an answer depends on no batch, padding or pieces, for any cell and option."""

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from throughtime.cells.library import CELLS
from throughtime.kernels.unroll import BACKENDS
from throughtime.nn.recurrent import Recurrent
from throughtime.nn.state import State, join_rows, map_state, select_rows

STEPS, INPUTS, HIDDEN = 7, 3, 4
LENGTHS = torch.tensor([5, STEPS, 0, 1, 4])
BATCH = len(LENGTHS)
PADDING = torch.arange(STEPS) >= LENGTHS[:, None]
ONE = torch.ones(1, 1, 1, dtype=torch.float64)

OPTIONS: dict[str, dict[str, Any]] = {
    "two layers, bidirectional": {"layers": 2, "bidirectional": True},
    "residual": {"layers": 3, "connection": "residual"},
    "highway": {"layers": 2, "connection": "highway"},
    "learned state": {"layers": 2, "learned_state": True},
    "zoneout": {"layers": 2, "zoneout": 0.3},
    "merge by sum": {"layers": 2, "bidirectional": True, "merge": "sum", "connection": "residual"},
    "merge by mean": {"layers": 2, "bidirectional": True, "merge": "mean"},
    "different layers": {"hidden_size": [4, 6]},
    "checkpoints": {"layers": 2, "checkpoint_every": 3},
    "all at once": {
        "layers": 2,
        "connection": "residual",
        "learned_state": True,
        "zoneout": {"h": 0.2},
        "checkpoint_every": 2,
    },
}
#: What each backend is asked with all options: cells that it runs as they are and under zoneout.
SEVERAL = {
    "llvm": ["lstm", "gru_reset_before", "layer_norm_lstm"],
    "torch": ["lstm", "gru"],
    "scan": ["min_gru", "lru"],
    "reference": ["lstm", "batch_norm_lstm"],
}


@dataclass(frozen=True)
class Case:
    """A layer to be made: its cell or cells, the backend, and options."""

    cell: str
    backend: str
    options: dict[str, Any] = field(default_factory=dict)

    def make(self) -> Recurrent:
        """The layer in evaluation, with weights that are all drawn, those that begin at zero too."""
        options = {"hidden_size": HIDDEN} | self.options
        cell = [self.cell, "min_gru" if self.backend == "scan" else self.second]
        if not isinstance(options["hidden_size"], list):
            cell = self.cell
        layer = Recurrent(cell, INPUTS, backend=self.backend, **options).double().eval()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.add_(normal(*parameter.shape), alpha=0.3)
            for name, buffer in layer.named_buffers():
                buffer.add_(torch.rand_like(buffer) if "variance" in name else normal(*buffer.shape))
        return layer

    @property
    def takes_resets(self) -> bool:
        """A layer of torch has no learned begin within a sequence."""
        unable = self.backend == "torch" and "learned_state" in self.options
        return not (self.options.get("bidirectional") or unable)

    @property
    def second(self) -> str:
        """Another cell that the backend runs."""
        return "lstm" if self.cell == "gru" else "gru"


def able(cell: str, backend: str, options: dict[str, Any]) -> bool:
    """Zoneout makes of the cell of a layer of torch another one."""
    if backend == "torch" and "zoneout" in options:
        return False
    return BACKENDS[backend].refusal(CELLS[cell].graph, ONE) is None


CASES = [
    pytest.param(Case(cell, backend), id=f"{cell}-{backend}")
    for cell in CELLS
    for backend in BACKENDS
    if able(cell, backend, {})
] + [
    pytest.param(Case(cell, backend, options), id=f"{cell}-{backend}-{name}")
    for name, options in OPTIONS.items()
    for backend, cells in SEVERAL.items()
    for cell in cells
    if able(cell, backend, options)
]
every_case = pytest.mark.parametrize("case", CASES)


def equal(one: Any, other: Any, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def some_state(layer: Recurrent) -> State:
    """Numbers for all states but those that count steps."""
    state = layer.begin(BATCH)
    names = [layer.cells[index // layer.directions].states for index in range(len(state))]
    return tuple(
        tuple(
            torch.full_like(value, 2.0) if name == "t" else normal(*value.shape).requires_grad_()
            for name, value in zip(each, values, strict=True)
        )
        for each, values in zip(names, state, strict=True)
    )


def flat(state: State) -> list[torch.Tensor]:
    return [value for values in state for value in values]


def rows(state: State, row: int) -> State:
    return select_rows(state, [row])


class Question:
    """A layer, x with NaN in the padding, a state, and resets where the layer takes them.

    Answers to it are values and gradients.
    """

    def __init__(self, case: Case) -> None:
        self.layer, self.reset = case.make(), None
        if case.takes_resets:
            self.reset = torch.zeros(BATCH, STEPS, dtype=torch.bool)
            self.reset[1, 3] = self.reset[1, 5] = self.reset[2, 0] = self.reset[0, 6] = self.reset[4, 0] = (
                True
            )
        x = normal(BATCH, STEPS, INPUTS)
        self.x = x.masked_fill(PADDING[..., None], torch.nan).requires_grad_()
        self.state = some_state(self.layer)
        leaves = [self.x, *flat(self.state), *self.layer.parameters()]
        self.leaves = [leaf for leaf in leaves if leaf.requires_grad]

    def answer(self, y: torch.Tensor, state: State) -> list[torch.Tensor]:
        """y, the state after, and the gradients of x, of the state before, and of the weights."""
        weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
        loss = (y * weights).sum() + sum((v * k).square().sum() for k, v in enumerate(flat(state), start=1))
        found = torch.autograd.grad(loss, self.leaves, materialize_grads=True)
        return [y, *flat(state), *found]

    def run(self, rows: slice, steps: slice, state: State, lengths: torch.Tensor | None) -> Any:
        reset = None if self.reset is None else self.reset[rows, steps]
        return self.layer(self.x[rows, steps], state, lengths, reset)

    def at_once(self) -> list[torch.Tensor]:
        return self.answer(*self.run(slice(None), slice(None), self.state, LENGTHS))

    def alone(self) -> list[torch.Tensor]:
        """Each row by itself, as long as it is. One without steps is what it was."""
        ys, states = [], []
        for row, length in enumerate(LENGTHS.tolist()):
            y, state = self.x.new_zeros(1, 0, self.layer.output_size), rows(self.state, row)
            if length:
                y, state = self.run(slice(row, row + 1), slice(length), state, None)
            ys.append(torch.cat([y, y.new_zeros(1, STEPS - length, y.shape[2])], 1))
            states.append(state)
        return self.answer(torch.cat(ys), join_rows(states))

    def in_pieces(self, *cuts: int) -> list[torch.Tensor]:
        ys, state = [], self.state
        for start, stop in itertools.pairwise([0, *cuts, STEPS]):
            left = (LENGTHS - start).clamp(0, stop - start)
            y, state = self.run(slice(None), slice(start, stop), state, left)
            ys.append(y)
        return self.answer(torch.cat(ys, 1), state)

    def with_more_padding(self) -> list[torch.Tensor]:
        x = torch.cat([self.x, self.x.new_full((BATCH, 3, INPUTS), torch.inf)], 1)
        reset = None if self.reset is None else torch.cat([self.reset, self.reset[:, :3]], 1)
        y, state = self.layer(x, self.state, LENGTHS, reset)
        assert not y[:, STEPS:].any()
        return self.answer(y[:, :STEPS], state)


@every_case
def test_alone_in_a_batch_in_pieces_and_padded(case):
    question = Question(case)
    expected = question.at_once()
    y, d_x = expected[0], expected[1 + len(flat(question.state))]
    assert y[~PADDING].isfinite().all()
    assert not y[PADDING].any()
    assert not d_x[PADDING].any()
    assert all(value.isfinite().all() for value in expected)
    equal(question.alone(), expected)
    equal(question.with_more_padding(), expected)
    if not question.layer.bidirectional:
        equal(question.in_pieces(1, 5), expected)
        equal(question.in_pieces(4), expected)
    without_steps = int((LENGTHS == 0).nonzero())
    _, after = question.layer(question.x, question.state, LENGTHS)
    equal(rows(after, without_steps), rows(question.state, without_steps), tolerance=0)


@every_case
def test_step_by_step_and_rows_that_are_the_same(case):
    layer = case.make()
    x, state = normal(1, STEPS, INPUTS), rows(some_state(layer), 0)
    y, after = layer(x, state)
    many = layer(x.expand(3, -1, -1), select_rows(state, [0, 0, 0]))
    equal(many, (y.expand(3, -1, -1), map_state(lambda value: value.expand(3, -1), after)))
    equal(layer(x, state, torch.tensor([STEPS])), (y, after), tolerance=0)
    if layer.bidirectional:
        return
    ys, now = [], state
    for t in range(STEPS):
        y_t, now = layer.step(x[:, t], now)
        ys.append(y_t)
    equal((torch.stack(ys, 1), now), (y, after))
    begun, _ = layer.step(x[:, 0])
    equal(begun, layer(x[:, :1])[0][:, 0])


@pytest.mark.parametrize("case", [case for case in CASES if case.values[0].takes_resets])
def test_a_reset_is_a_fresh_start(case):
    layer = case.make()
    x, state = normal(BATCH, STEPS, INPUTS), some_state(layer)
    reset = torch.zeros(BATCH, STEPS, dtype=torch.bool)
    reset[1, 3] = reset[2, 0] = True
    y, after = layer(x, state, reset=reset)
    plain, plain_after = layer(x, state)
    fresh, fresh_after = layer(x[1:2, 3:])
    equal(y[1:2, 3:], fresh)
    equal(rows(after, 1), fresh_after)
    equal(y[1, :3], plain[1, :3])
    whole, whole_after = layer(x[2:3])
    equal(y[2:3], whole)
    equal(rows(after, 2), whole_after)
    for row in (0, 3, 4):
        equal(y[row], plain[row])
        equal(rows(after, row), rows(plain_after, row))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_no_steps_and_no_rows(name, bidirectional):
    layer = Case(name, "auto", {"layers": 2, "bidirectional": bidirectional}).make()
    for batch, steps in ((2, 0), (0, 3), (0, 0)):
        state = map_state(lambda value, batch=batch: value[:batch], some_state(layer))
        y, after = layer(normal(batch, steps, INPUTS), state)
        assert y.shape == (batch, steps, layer.output_size)
        equal(after, state, tolerance=0)


def test_every_backend_is_asked_about_every_option():
    """All but a backend that has none of what an option needs."""
    assert set(SEVERAL) == set(BACKENDS)
    asked = {(case.values[0].backend, str(case.values[0].options)) for case in CASES}
    missing = {(b, name) for b in BACKENDS for name, o in OPTIONS.items() if (b, str(o)) not in asked}
    assert missing == {("torch", "zoneout"), ("torch", "all at once")}
