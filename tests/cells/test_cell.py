"""The decorator that makes a function of equations a cell."""

import copy
import pickle

import pytest

from throughtime.cells.cell import cell
from throughtime.cells.elman import irnn
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


# Copies.

here = cell(state="h")(vanilla)


@cell(state="h")
def top(x, s, w):
    """Top (Me 2020)."""
    return tanh(w.h(x, s.h))


eager_top = top.variant("eager_top", "Eager top (You 2021).", recurrent="identity")


@pytest.mark.parametrize("made", [lstm, irnn, top], ids=lambda made: made.name)
def test_a_cell_that_stands_in_a_module_is_pickled_by_its_place(made):
    again = pickle.loads(pickle.dumps(made))
    assert again.equations is made.equations
    assert (again.name, again.title, again.source, again.initial) == (
        made.name,
        made.title,
        made.source,
        made.initial,
    )
    assert (again is made) == (made.name == made.equations.__name__)


def test_a_variant_is_pickled_with_what_it_changes():
    again = pickle.loads(pickle.dumps(eager_top))
    assert (again.name, again.title, again.source) == ("eager_top", "Eager top", "You 2021")
    assert again.initial.recurrent == "identity"
    assert again.equations is top.equations


@pytest.mark.parametrize(
    "made", [here, cell(state="h")(lambda x, s, w: w.h(x, s.h))], ids=["under another name", "lambda"]
)
def test_a_cell_that_pickle_would_not_find_again_is_refused(made):
    with pytest.raises(pickle.PicklingError, match=r"cannot be pickled: .* define it at the top of a module"):
        pickle.dumps(made)


@pytest.mark.parametrize("made", [lstm, here])
def test_a_copy_of_a_cell_is_the_cell(made):
    assert copy.deepcopy([made])[0] is made
