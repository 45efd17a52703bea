"""Named columns of examples, and the place that each row came from."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from throughtime.errors import DataError


@dataclass(frozen=True, eq=False)
class Places:
    """Where rows came from: `places[3]` is "train.csv, line 17".

    Row k is `numbers[k]` of what `prefixes[which[k]]` counts ("train.csv, line "); a number of 0 is left out,
    for a file that is one row.
    """

    prefixes: tuple[str, ...]
    which: NDArray[np.int64]
    numbers: NDArray[np.int64]

    @classmethod
    def counted(cls, prefix: str, numbers: Iterable[int]) -> Places:
        """The places of rows that all came from one source."""
        array = np.fromiter(numbers, dtype=np.int64)
        return cls((prefix,), np.zeros_like(array), array)

    def __len__(self) -> int:
        return len(self.which)

    def __getitem__(self, row: int) -> str:
        prefix, number = self.prefixes[self.which[row]], self.numbers[row]
        return f"{prefix}{number}" if number else prefix

    def select(self, rows: Sequence[int]) -> Places:
        """The places of these rows, in this order."""
        chosen = np.asarray(rows, dtype=np.int64)
        return Places(self.prefixes, self.which[chosen], self.numbers[chosen])


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of named columns. `values` holds a list per column, `source` says where the table is from."""

    source: str
    values: dict[str, list[Any]]
    places: Places

    def __len__(self) -> int:
        return len(self.places)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns in order."""
        return tuple(self.values)

    @property
    def digest(self) -> str:
        """The same for the same columns and values only, wherever and in whatever format they lie."""
        return digest(self.values)

    def column(self, name: str) -> list[Any]:
        """The values of a column, one per row; raises `DataError` where there is no such column."""
        if name not in self.values:
            raise _no_column(self.source, name, self.columns)
        return self.values[name]

    def place(self, row: int) -> str:
        """Where a row came from, as "train.csv, line 17"."""
        return self.places[row]

    def select(self, rows: Sequence[int]) -> Table:
        """The table of these rows, in this order."""
        values = {name: [column[row] for row in rows] for name, column in self.values.items()}
        return Table(self.source, values, self.places.select(rows))


def join_tables(tables: Sequence[Table]) -> Table:
    """The rows of all tables in order; raises `DataError` where their columns are not the same."""
    if not tables:
        raise DataError("no table: give at least one")
    first = tables[0]
    for table in tables:
        if set(table.columns) != set(first.columns):
            raise DataError(
                f"{table.source} has the columns {_quoted(table.columns)} and {first.source} "
                f"{_quoted(first.columns)}: tables are joined where they have the same"
            )
    values = {name: [value for table in tables for value in table.values[name]] for name in first.columns}
    starts = np.cumsum([0] + [len(table.places.prefixes) for table in tables])
    places = Places(
        tuple(prefix for table in tables for prefix in table.places.prefixes),
        np.concatenate([table.places.which + start for table, start in zip(tables, starts, strict=False)]),
        np.concatenate([table.places.numbers for table in tables]),
    )
    return Table(", ".join(dict.fromkeys(table.source for table in tables)), values, places)


def digest(values: Mapping[str, Sequence[Any]]) -> str:
    """The sha256 of columns: of their names and, row by row, their values."""
    sha = hashlib.sha256(json.dumps(list(values)).encode())
    for row in zip(*values.values(), strict=True):
        sha.update(b"\n" + json.dumps(row, default=str).encode())
    return sha.hexdigest()


# Which columns there are, and what is said where one is not.


def kept_columns(source: str, names: Sequence[str], wanted: Sequence[str], hint: str = "") -> tuple[str, ...]:
    """The wanted columns, or all; raises `DataError` where one is missing or has the name of another."""
    for name in wanted:
        if name not in names:
            raise _no_column(source, name, names, hint)
    kept = tuple(dict.fromkeys(wanted or names))
    for name in kept:
        if (count := list(names).count(name)) > 1:
            raise DataError(
                f'{source} has {count} columns "{name}": give each column a name of its own{hint}'
            )
    return kept


def _no_column(source: str, name: str, names: Sequence[str], hint: str = "") -> DataError:
    close = difflib.get_close_matches(name, names, n=1)
    meant = f', did you mean "{close[0]}"?' if close else ""
    return DataError(f'{source} has no column "{name}"{meant}: there are {_quoted(names)}{hint}')


def _quoted(names: Sequence[str]) -> str:
    shown = [f'"{name if len(name) <= 40 else name[:39] + "…"}"' for name in names[:12]]
    return ", ".join(shown) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
