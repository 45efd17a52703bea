"""A cell: equations with a name, the states they carry, and how their weights begin."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from operator import attrgetter
from pickle import PicklingError
from typing import Any

from throughtime.cells.trace import CellGraph, trace
from throughtime.errors import CellError


@dataclass(frozen=True)
class Initial:
    """How the weights of a cell begin: names of `throughtime.cells.initial`, and constants by name.

    `bias` gives the constant for the bias of a map, `vectors` the constant of a learned vector or the
    name of how it is drawn; what is not named begins at 0.
    """

    input: str = "glorot"
    recurrent: str = "orthogonal"
    bias: Mapping[str, float] = field(default_factory=dict)
    vectors: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Cell:
    """A recurrence: `equations(x, s, w)` returns the new states.

    `title` and `source` are taken from the first line of the docstring, written as "Title (source).".
    """

    name: str
    states: tuple[str, ...]
    equations: Callable[..., Any]
    initial: Initial
    title: str
    source: str

    @cached_property
    def graph(self) -> CellGraph:
        """What one step computes, traced from the equations."""
        return trace(self.name, self.states, self.equations)

    def variant(self, name: str, doc: str, **initial: Any) -> Cell:
        """The same equations under another name, with weights that begin otherwise."""
        title, source = _title_and_source(doc)
        return replace(self, name=name, title=title, source=source, initial=replace(self.initial, **initial))

    def computing(self, graph: CellGraph) -> Cell:
        """This cell with another graph in place of that of its equations."""
        made = replace(self, equations=_no_equations)
        made.__dict__["graph"] = graph
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Cell:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """The place of the equations: pickle cannot name a function whose name the cell has taken."""
        place = self.equations.__module__, self.equations.__qualname__
        try:
            found = _at(*place)
        except (ImportError, AttributeError):
            found = None
        if not isinstance(found, Cell) or found.equations is not self.equations:
            raise PicklingError(
                f'cell "{self.name}" cannot be pickled: {place[1]} in {place[0]} is not the cell; '
                "define it at the top of a module, under the name of its function"
            )
        return _restored, (*place, self.name, self.initial, self.title, self.source)


def _no_equations(x: Any, s: Any, w: Any) -> Any:
    raise CellError("this cell was made from a graph and has no equations of its own")


def _at(module: str, path: str) -> Any:
    return attrgetter(path)(import_module(module))


def _restored(module: str, path: str, name: str, initial: Initial, title: str, source: str) -> Cell:
    found: Cell = _at(module, path)
    if found.name == name:
        return found
    return replace(found, name=name, initial=initial, title=title, source=source)


def cell(
    state: str,
    *,
    input: str = "glorot",
    recurrent: str = "orthogonal",
    bias: Mapping[str, float] | None = None,
    vectors: Mapping[str, float | str] | None = None,
) -> Callable[[Callable[..., Any]], Cell]:
    """Make a function of equations a `Cell`.

        @cell(state="h c", bias={"f": 1.0})
        def lstm(x, s, w):
            i = sigmoid(w.i(x, s.h))      # w.i(a, b) is W_a a + W_b b + bias, under the name i
            ...
            return o * tanh(c), c         # the new states in their order; the first is the output

    `state` names the states, separated by spaces. `w.name(...)` is an affine map, with a bias unless
    `bias=False` is passed to it; `w.name` without a call is a learned vector. The other arguments are
    those of `Initial`. Raises `CellError` where the equations cannot be traced.
    """
    states = tuple(state.split())
    if not states or len(set(states)) < len(states) or not all(name.isidentifier() for name in states):
        raise CellError(f'state="{state}" does not name states: write different names, as in state="h c"')

    def make(equations: Callable[..., Any]) -> Cell:
        title, source = _title_and_source(inspect.getdoc(equations) or equations.__name__)
        initial = Initial(input, recurrent, dict(bias or {}), dict(vectors or {}))
        made = Cell(equations.__name__, states, equations, initial, title, source)
        _check_initial(made)
        return made

    return make


def _check_initial(made: Cell) -> None:
    graph, initial = made.graph, made.initial
    for option, given, known in (
        ("bias", initial.bias, graph.bias_blocks),
        ("vectors", initial.vectors, graph.vectors),
    ):
        if unknown := set(given) - set(known):
            raise CellError(
                f'cell "{made.name}": {option}= names "{min(unknown)}", which the equations do not have: '
                f"there are {', '.join(known) or 'none'}"
            )


def _title_and_source(doc: str) -> tuple[str, str]:
    first = doc.strip().splitlines()[0].removesuffix(".")
    title, _, source = first.partition(" (")
    return title, source.removesuffix(")")
