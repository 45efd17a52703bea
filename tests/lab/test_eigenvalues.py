"""Powers of matrices, against Fibonacci numbers and closed forms."""

import math

import pytest
import torch

from throughtime.lab import eigenvalues


@pytest.fixture(scope="module")
def finding():
    return eigenvalues.run(0)


def left(finding, matrix):
    return [row["left"] for row in finding.rows if row["matrix"] == matrix]


def test_the_recurrence_counts_fibonacci():
    """[[1, 1], [1, 0]]^10 = [[F_11, F_10], [F_10, F_9]]."""
    power = eigenvalues._by_the_recurrence(torch.tensor(eigenvalues.EXAMPLE, dtype=torch.float64))
    assert power.tolist() == [[89.0, 55.0], [55.0, 34.0]]


def test_the_recurrence_multiplies_from_the_left():
    matrix = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    expected = torch.linalg.matrix_power(matrix, eigenvalues.STEPS)
    torch.testing.assert_close(eigenvalues._by_the_recurrence(matrix), expected)


def test_along_an_eigenvector_its_eigenvalue_is_left_at_each_step(finding):
    golden = (1 + math.sqrt(5)) / 2
    small, large = left(finding, "example")[:11], left(finding, "example")[11:]
    assert large == pytest.approx([golden**t for t in range(11)])
    assert small == pytest.approx([(golden - 1) ** t for t in range(11)])
    assert large[10] == pytest.approx(122.99, abs=0.01)
    assert small[10] == pytest.approx(0.0081, abs=1e-4)


@pytest.mark.parametrize("radius", eigenvalues.RADII)
def test_growth_is_the_norm_of_powers(radius):
    generator = torch.Generator().manual_seed(4)
    matrix = torch.randn(eigenvalues.UNITS, eigenvalues.UNITS, generator=generator, dtype=torch.float64)
    matrix *= radius / torch.linalg.eigvals(matrix).abs().max()
    norms = eigenvalues._growth(radius, torch.Generator().manual_seed(4))
    assert len(norms) == eigenvalues.LONG + 1
    assert norms[0] == pytest.approx(1.0)
    for t in (1, 7, eigenvalues.LONG):
        power = torch.linalg.matrix_power(matrix, t)
        assert norms[t] == pytest.approx(float(torch.linalg.svdvals(power)[0]))
        assert norms[t] >= radius**t * (1 - 1e-9)  # no norm is below the spectral radius


def test_what_held(finding):
    assert [claim.held for claim in finding.claims] == ["yes", "yes", "in part"]
    transient = left(finding, "random, radius 0.9")
    assert max(transient) > 1 > transient[-1]


def test_another_example_does_not_hold(monkeypatch):
    monkeypatch.setattr(eigenvalues, "EXAMPLE", ((1.0, 0.5), (0.5, 0.0)))
    assert eigenvalues.run(0).claims[0].held == "no"


def test_the_same_seed_gives_the_same_numbers(finding):
    assert eigenvalues.run(0).rows == finding.rows
    assert eigenvalues.run(1).rows != finding.rows
    finding.draw()
