"""The penalties on activations: plain loops over rows as an oracle, and padding that must not be read."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.errors import ShapeError
from throughtime.nn.penalties import activation_penalty, temporal_activation_penalty

BATCH, STEPS, FEATURES = 4, 6, 3
LENGTHS = torch.tensor([3, STEPS, 0, 1])
PENALTIES = [activation_penalty, temporal_activation_penalty]
every_penalty = pytest.mark.parametrize("penalty", PENALTIES)


def normal(*shape):
    return torch.randn(shape, dtype=torch.float64)


def by_hand(penalty, y, lengths):
    """The mean over one list of squares."""
    squares = []
    for row, length in zip(y, lengths.tolist(), strict=True):
        if penalty is activation_penalty:
            squares += [value**2 for step in row[:length] for value in step]
        else:
            for t in range(length - 1):
                squares += [(row[t + 1, f] - row[t, f]) ** 2 for f in range(y.shape[2])]
    return sum(squares) / len(squares) if squares else torch.zeros((), dtype=y.dtype)


def test_known_answers():
    y = torch.tensor([[[1.0, 2.0], [4.0, 2.0], [4.0, -2.0]]])
    assert activation_penalty(y).item() == pytest.approx((1 + 4 + 16 + 4 + 16 + 4) / 6)
    assert temporal_activation_penalty(y).item() == pytest.approx((9 + 0 + 0 + 16) / 4)


@every_penalty
@given(lengths=st.lists(st.integers(0, STEPS), max_size=5), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_values_are_those_by_hand(penalty, lengths, seed):
    torch.manual_seed(seed)
    y, lengths = normal(len(lengths), STEPS, FEATURES), torch.tensor(lengths).long()
    torch.testing.assert_close(penalty(y, lengths), by_hand(penalty, y, lengths))


@every_penalty
def test_gradients_are_those_by_hand(penalty):
    y = normal(BATCH, STEPS, FEATURES)
    one, other = y.clone().requires_grad_(), y.clone().requires_grad_()
    penalty(one, LENGTHS).backward()
    by_hand(penalty, other, LENGTHS).backward()
    assert one.grad.any()
    torch.testing.assert_close(one.grad, other.grad)


@every_penalty
def test_gradcheck(penalty):
    y = normal(BATCH, STEPS, FEATURES).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: penalty(y, LENGTHS), y)


@every_penalty
def test_no_lengths_are_full_lengths(penalty):
    y = normal(BATCH, STEPS, FEATURES)
    assert torch.equal(penalty(y), penalty(y, torch.full((BATCH,), STEPS)))


@every_penalty
@pytest.mark.parametrize("filler", [torch.nan, torch.inf, 1e200])
def test_padding_reaches_no_value_and_no_gradient(penalty, filler):
    y, padding = normal(BATCH, STEPS, FEATURES), torch.arange(STEPS) >= LENGTHS[:, None]
    results = []
    for content in (0.0, filler):
        filled = y.masked_fill(padding[..., None], content).requires_grad_()
        value = penalty(filled, LENGTHS)
        value.backward()
        assert not filled.grad[padding].any()
        results.append([value, filled.grad])
    assert results[1][0].isfinite()
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)


@every_penalty
@pytest.mark.parametrize("shape", [(BATCH, STEPS, FEATURES), (BATCH, 0, FEATURES), (0, STEPS, FEATURES)])
def test_no_steps_cost_nothing(penalty, shape):
    y = torch.full(shape, torch.nan, requires_grad=True)
    value = penalty(y, torch.zeros(shape[0], dtype=torch.long))
    value.backward()
    assert value.shape == ()
    assert value.item() == 0
    assert not y.grad.any()


def test_single_steps_have_no_neighbours():
    y = normal(BATCH, STEPS, FEATURES).requires_grad_()
    value = temporal_activation_penalty(y, torch.ones(BATCH, dtype=torch.long))
    value.backward()
    assert value.item() == 0
    assert not y.grad.any()
    assert temporal_activation_penalty(y[:, :1]).item() == 0


@every_penalty
def test_what_does_not_fit_is_refused(penalty):
    for y in (torch.zeros(3), torch.zeros(2, 3), torch.zeros(2, 3, 4, dtype=torch.long)):
        with pytest.raises(ShapeError, match="y must be floating point of shape"):
            penalty(y)
    for lengths in ([STEPS + 1, 1, 1, 1], [-1, 1, 1, 1], [1]):
        with pytest.raises(ShapeError, match="lengths must "):
            penalty(normal(BATCH, STEPS, FEATURES), torch.tensor(lengths))
