"""Forward and backward in many pieces, and the products over their rows."""

import itertools

import pytest
import torch
from agreement import close, options_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from throughtime.cells.library import CELLS
from throughtime.kernels import layout, machine

if machine.unsupported():
    pytest.skip(machine.unsupported(), allow_module_level=True)

from throughtime.kernels import dense, passes

pytestmark = pytest.mark.usefixtures("nan_filled")
every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
KINDS = ("full", "lengths", "reset", "both")


@pytest.fixture
def cut(monkeypatch):
    """`cut(rows)`: pieces have about so many rows. Returns where they were cut, forwards and backwards."""
    found, pieces = [], layout.Layout.pieces

    def noted(self, *args, **options):
        found.append(pieces(self, *args, **options))
        return found[-1]

    def cut(rows):
        monkeypatch.setattr(passes, "FORWARD_BYTES", 1)
        monkeypatch.setattr(passes, "BACKWARD_BYTES", 1)
        monkeypatch.setattr(layout, "LEAST_ROWS", rows)
        monkeypatch.setattr(layout.Layout, "pieces", noted)
        return found

    return cut


@pytest.fixture
def products(monkeypatch):
    """The names of the functions of `dense` that ran."""
    names, call = [], dense._call

    def noted(name, *arguments):
        names.append(name)
        return call(name, *arguments)

    monkeypatch.setattr(dense, "_call", noted)
    return names


def in_pieces(problem, found, **options):
    """The answer of machine code, of which forward and backward came in more than two pieces."""
    found.clear()
    answer = problem.answer(problem.run("llvm", **options))
    assert len(found) == 2
    assert min(map(len, found)) > 2, found
    return answer


@pytest.mark.parametrize("kind", KINDS)
def test_any_equations_in_pieces_give_the_values_and_gradients_of_the_reference(draw, cut, any_cell, kind):
    for steps, rows in itertools.product((9, 10), (1, 4)):
        problem, options = draw(any_cell, steps, 4, 2, 5), options_of(kind, steps, 4)
        close(in_pieces(problem, cut(rows), **options), problem.answer(problem.run("reference", **options)))


@every_cell
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [31, 32])
def test_pieces_of_many_rows_take_the_products_of_our_own(draw, cut, products, cell, kind, steps):
    problem, options = draw(cell, steps, 16, 9, 13), options_of(kind, steps, 16)
    found = in_pieces(problem, cut(70), **options)
    assert set(products) == {"pack_rows", "pack_columns", "multiply"}
    close(found, problem.answer(problem.run("reference", **options)))


@every_cell
@pytest.mark.parametrize("kind", KINDS)
def test_pieces_without_gradients_give_the_same_y_to_the_last_bit(draw, cut, cell, kind):
    """What is not kept is written over from one piece to the next."""
    problem, options = draw(cell, 32, 16, 9, 13), options_of(kind, 32, 16)
    found = cut(70)
    y, final = problem.run("llvm", **options)
    with torch.no_grad():
        again, final_again = problem.run("llvm", **options)
    assert min(map(len, found)) > 2
    assert torch.equal(again, y)
    assert all(map(torch.equal, final_again, final))


@every_cell
@pytest.mark.parametrize("kind", KINDS)
def test_y_does_not_depend_on_the_number_of_threads_where_products_are_our_own(
    draw, cut, threads, products, monkeypatch, cell, kind
):
    """Those of torch, for few rows, may round differently."""
    monkeypatch.setattr(dense, "ROWS", 1)
    problem, options, ys = draw(cell, 32, 16, 9, 13), options_of(kind, 32, 16), []
    found = cut(70)
    for count in (1, 2, 3):
        threads(count)
        products.clear()
        with torch.no_grad():
            y, final = problem.run("llvm", **options)
        assert products == ["pack_columns", *["multiply"] * len(found[-1])]
        ys.append((y, *final))
    for other in ys[1:]:
        assert all(map(torch.equal, other, ys[0]))


# The product by itself.


def inside_nan(values, transposed=False):
    """The same numbers within a larger tensor of NaN, rows or columns side by side."""
    values = values.T if transposed else values
    rows, columns = values.shape
    wide = values.new_full((rows + 2, columns + 5), float("nan"))
    wide[1 : 1 + rows, 2 : 2 + columns] = values
    inner = wide[1 : 1 + rows, 2 : 2 + columns]
    return inner.T if transposed else inner


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(st.integers(64, 200), st.integers(8, 70), st.integers(1, 130)),
    double=st.booleans(),
    left_turned=st.booleans(),
    right_turned=st.booleans(),
    count=st.integers(1, 3),
)
@example((64, 8, 1), True, False, False, 1)
@example((129, 8, 16), False, False, True, 3)
@example((200, 70, 130), False, True, True, 2)
@example((191, 33, 97), True, True, False, 3)
def test_a_product_is_that_of_torch_and_touches_nothing_beside_it(
    shape, double, left_turned, right_turned, count
):
    n, d, c = shape
    dtype = torch.float64 if double else torch.float32
    generator = torch.Generator().manual_seed(n * d * c)
    left, right = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((n, d), (d, c)))
    expected = torch.mm(left, right)
    factor = dense.Factor(inside_nan(right.to(dtype), right_turned))
    given_left = inside_nan(left.to(dtype), left_turned)
    wide = torch.full((n + 2, c + 5), 7.0, dtype=dtype)
    out = wide[1 : 1 + n, 2 : 2 + c]
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        for _ in range(2):  # packs the first time
            out.fill_(float("nan"))
            factor.multiply(given_left, out)
            close({"product": out.double()}, {"product": expected}, tolerance=1e-13 if double else 1e-5)
    finally:
        torch.set_num_threads(before)
    out.fill_(7.0)
    assert (wide == 7.0).all()


def test_nan_in_a_row_of_the_left_side_stays_in_its_row():
    left, right = torch.randn(100, 20), torch.randn(20, 37)
    left[41, 3] = float("nan")
    out = torch.empty(100, 37)
    dense.Factor(right).multiply(left, out)
    assert out.isnan().any(1).nonzero().flatten().tolist() == [41]
