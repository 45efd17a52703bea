"""A backend is compared with `reference` in all that it gives, and refused where it is off."""

import pytest
import torch

from throughtime.bench.comparison import SIZE, compare
from throughtime.bench.problems import can_be_timed
from throughtime.cells.library import CELLS
from throughtime.errors import ConfigError
from throughtime.kernels.unroll import BACKENDS, explain

LSTM = CELLS["lstm"]
BACKEND = explain(LSTM, torch.zeros(1, 1, 1)).backend


class Scaled(torch.autograd.Function):
    """The value, with a gradient that is 0.1 % too large."""

    @staticmethod
    def forward(context, value):
        return value.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * 1.001


def wrong(monkeypatch, change):
    """The backend of the LSTM, with `change(y, final, x, lengths)` made to what it gives."""
    run = BACKENDS[BACKEND].run

    def changed(graph, weights, x, state, lengths, reset, *others, **options):
        y, final = run(graph, weights, x, state, lengths, reset, *others, **options)
        return change(y, final, x, lengths)

    assert BACKEND != "reference"
    monkeypatch.setattr(BACKENDS[BACKEND], "run", changed)


@pytest.mark.parametrize("cell", list(filter(can_be_timed, CELLS.values())), ids=lambda cell: cell.name)
def test_every_cell_may_be_timed(cell):
    comparison = compare(cell, explain(cell, torch.zeros(1, 1, SIZE.inputs)).backend)
    assert comparison.ok, comparison.refusal
    assert 0 <= comparison.error < 1e-4


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda y, final, x, lengths: (y + 1e-3, final), "(y, float64, full rows)"),
        (lambda y, final, x, lengths: (y, (final[0], final[1] + 1e-3)), "(final c, float64, full rows)"),
        (lambda y, final, x, lengths: (Scaled.apply(y), final), "(gradient of x, float64, full rows)"),
        (
            lambda y, final, x, lengths: (y if torch.is_grad_enabled() else y + 1e-3, final),
            "(y without gradients, float64, full rows)",
        ),
        (
            lambda y, final, x, lengths: (y + 1e-3 if x.dtype == torch.float32 else y, final),
            "(y, float32, full rows)",
        ),
        (
            lambda y, final, x, lengths: (y if lengths is None else y + 1e-3, final),
            "(y, float64, lengths)",
        ),
        (lambda y, final, x, lengths: (y * float("nan"), final), "off reference by nan (y, float64"),
    ],
    ids=["y", "final", "gradient", "inference", "float32", "lengths", "nan"],
)
def test_a_backend_that_is_off_by_a_thousandth_is_refused(monkeypatch, change, where):
    wrong(monkeypatch, change)
    comparison = compare(LSTM, BACKEND)
    assert not comparison.ok
    assert where in comparison.refusal and BACKEND in comparison.refusal
    error = comparison.as_json()["worst_error"]
    assert error is None if "nan" in where else 1e-4 < error < 1.1e-3


def test_a_backend_that_fails_is_refused(monkeypatch):
    def refuse(*_):
        raise ConfigError("no such instruction")

    wrong(monkeypatch, refuse)
    comparison = compare(LSTM, BACKEND)
    assert not comparison.ok and "no such instruction" in comparison.refusal
    assert comparison.as_json()["worst_error"] is None
