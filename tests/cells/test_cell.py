"""The decorator that makes a function of equations a cell."""

import pytest

from throughtime.cells.cell import cell
from throughtime.cells.expression import tanh
from throughtime.cells.lstm import lstm
from throughtime.errors import CellError


def vanilla(x, s, w):
    """Vanilla (Me & You 2020)."""
    return tanh(w.h(x, s.h) + w.v * s.h)


def test_a_cell_takes_its_name_title_and_source_from_the_function():
    made = cell(state="h")(vanilla)
    assert (made.name, made.states, made.title, made.source) == (
        "vanilla",
        ("h",),
        "Vanilla",
        "Me & You 2020",
    )


def test_a_function_without_docstring_is_titled_by_its_name():
    @cell(state="h")
    def bare(x, s, w):
        return w.h(x, s.h)

    assert (bare.title, bare.source) == ("bare", "")


@pytest.mark.parametrize("state", ["", "  ", "h h", "h 1c", "h,c"])
def test_states_must_be_different_names(state):
    with pytest.raises(CellError, match='does not name states: write different names, as in state="h c"'):
        cell(state=state)


@pytest.mark.parametrize(("option", "known"), [("bias", "h"), ("vectors", "v")])
def test_an_initial_value_for_what_does_not_exist_is_refused(option, known):
    with pytest.raises(CellError) as caught:
        cell(state="h", **{option: {"k": 1.0}})(vanilla)
    message = str(caught.value)
    assert f'cell "vanilla": {option}= names "k", which the equations do not have' in message
    assert f"there are {known}" in message


def test_an_error_in_the_equations_is_raised_where_the_cell_is_made():
    with pytest.raises(CellError, match="there is no state 'c'"):

        @cell(state="h")
        def wrong(x, s, w):
            return w.h(x, s.c)


def test_a_variant_keeps_the_equations_and_changes_how_weights_begin():
    other = lstm.variant("eager", "Eager LSTM (Me 2020).", recurrent="identity")
    assert (other.name, other.title, other.source) == ("eager", "Eager LSTM", "Me 2020")
    assert (other.equations, other.states) == (lstm.equations, lstm.states)
    assert (other.initial.recurrent, other.initial.bias) == ("identity", {"f": 1.0})
    assert lstm.initial.recurrent == "orthogonal"
