"""The options of the recurrent layer: what they may be, and which do not fit each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from throughtime.cells.cell import Cell
from throughtime.errors import ConfigError
from throughtime.kernels.unroll import BACKENDS

Merge = Literal["concat", "sum", "mean"]
Connection = Literal["residual", "highway"]

#: The options that are probabilities.
RATES = (
    "input_dropout",
    "dropout",
    "output_dropout",
    "recurrent_dropout",
    "weight_dropout",
    "zoneout",
)


def count_layers(cell: object, hidden_size: object, layers: int | None) -> int:
    """How many layers there are, said in up to three ways."""
    counts = {
        name: len(value)
        for name, value in (("cell", cell), ("hidden_size", hidden_size))
        if isinstance(value, Sequence) and not isinstance(value, str)
    }
    if layers is not None:
        counts["layers"] = layers
    if len(set(counts.values())) > 1 or min(counts.values(), default=1) < 1:
        given = ", ".join(f"{name} says {count}" for name, count in counts.items())
        raise ConfigError(f"the number of layers must be 1 or more, and the same throughout: {given}")
    return max(counts.values(), default=1)


def for_each(value: Any, layers: int) -> list[Any]:
    """The value of each layer, from one for all or one for each."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return [value] * layers


def check_sizes(**sizes: int) -> None:
    """Raise `ConfigError` where one is not a positive integer."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ConfigError(f"{name} must be 1 or more, got {size!r}")


def check_backend(backend: str) -> None:
    """Raise `ConfigError` where there is no such backend."""
    if backend != "auto" and backend not in BACKENDS:
        raise ConfigError(f'there is no backend "{backend}": there are auto, {", ".join(BACKENDS)}')


def check_choices(merge: str, connection: str | None) -> None:
    """Raise `ConfigError` where one is not known."""
    for name, value, known in (
        ("merge", merge, ("concat", "sum", "mean")),
        ("connection", connection, (None, "residual", "highway")),
    ):
        if value not in known:
            raise ConfigError(f"{name} must be one of {', '.join(map(str, known))}, got {value!r}")


def check_widths(connection: str | None, widths: Sequence[int]) -> None:
    """Raise `ConfigError` where a connection has no two layers to join, or layers of different widths."""
    if connection is not None and len(widths) < 2:
        raise ConfigError(f'connection="{connection}" joins layers, and there is one: give layers=2 or more')
    if connection is not None and len(set(widths)) > 1:
        raise ConfigError(
            f'connection="{connection}" joins the input and output of each layer beyond the first, '
            f"which must be of one width, got {list(widths)}"
        )


def check_rates(cells: Sequence[Cell], rates: Mapping[str, float | Mapping[str, float]]) -> None:
    """Raise `ConfigError` where one of `RATES` is no probability, or a cell has nothing to drop."""
    flat: dict[str, float] = {}
    for name, rate in rates.items():
        if isinstance(rate, Mapping):
            states = {state for cell in cells for state in cell.graph.driven}
            if unknown := set(rate) - states:
                driven = ", ".join(sorted(states))
                raise ConfigError(f'{name} names "{min(unknown)}": the states that x drives are {driven}')
            for cell in cells:
                inner = [state for state in cell.graph.driven if state != cell.states[0]]
                if len({rate.get(state, 0.0) for state in inner}) > 1:
                    raise ConfigError(
                        f'{name}: the states {", ".join(inner)} of cell "{cell.name}" may hold one quantity '
                        "together and share a mask: give them one rate"
                    )
            flat |= {f"{name} of {state}": each for state, each in rate.items()}
        else:
            flat[name] = rate
    for name, each in flat.items():
        if not 0 <= each < 1:
            raise ConfigError(f"{name} must lie in [0, 1), got {each}")
    if flat["recurrent_dropout"] or flat["weight_dropout"]:
        for cell in cells:
            if not cell.graph.recurrent_blocks:
                raise ConfigError(
                    f'cell "{cell.name}" has no recurrent matrix: recurrent_dropout and weight_dropout '
                    "have nothing to drop; take zoneout or variational dropout"
                )
