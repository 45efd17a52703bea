"""Examples with labels: what of a table is input, what is the answer, and inputs given one by one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from throughtime.data.columns import Places, Table
from throughtime.errors import DataError


def read_labels(table: Table, column: str, separator: str | None = None) -> list[list[str]]:
    """The labels of each row: one, or with a `separator` any number.

    Raises `DataError`, with the row, where a single label is missing.
    """
    rows = []
    for k, value in enumerate(table.column(column)):
        text = "" if value is None else str(value).strip()
        if separator is not None:
            rows.append([part.strip() for part in text.split(separator) if part.strip()])
        elif text:
            rows.append([text])
        else:
            raise DataError(f"{table.place(k)}: {column} is empty: give each row a class, or leave it out")
    return rows


def rarest(labels: Sequence[Sequence[str]]) -> list[str | None]:
    """Of the labels of each row the one that the fewest rows have; None where a row has none.

    To draw the same share of each of these keeps rare labels in both parts, and in the first one those that
    occur once (compare Sechidis et al. 2011).
    """
    counts = Counter(label for row in labels for label in set(row))
    return [min(row, key=lambda label: (counts[label], label), default=None) for row in labels]


def read_texts(table: Table, columns: Sequence[str]) -> list[str]:
    """The text of each row; of several columns, with a space between them. What is missing is empty.

    White space around a value is not part of it.
    """
    values = zip(*map(table.column, columns), strict=True)
    return [" ".join("" if value is None else str(value).strip() for value in row) for row in values]


def table_of(inputs: Sequence[str | dict[str, Any]], columns: Sequence[str], numbers: bool = False) -> Table:
    """Inputs as a table of these columns: objects with them, JSON of such, or texts for a single one.

    With `numbers` a text is always JSON. Raises `DataError` with an example of what is wanted.
    """
    values: dict[str, list[Any]] = {name: [] for name in columns}
    for each in inputs:
        row: Any = each
        if isinstance(row, str) and (numbers or len(columns) > 1):
            try:
                row = json.loads(row)
            except ValueError:
                row = None
        if isinstance(row, str):
            row = {columns[0]: row}
        if not isinstance(row, dict) or not row.keys() >= set(columns):
            example = json.dumps(dict.fromkeys(columns, 0.5 if numbers else "text"))
            raise DataError(f"{_named(each)} has not the columns {', '.join(columns)}: give {example}")
        for name in columns:
            values[name].append(row[name])
    # By what it says, for its number is known to those alone who have the whole stream.
    which = np.arange(len(inputs))
    return Table("the input", values, Places(tuple(map(_named, inputs)), which, np.zeros_like(which)))


def _named(each: str | dict[str, Any]) -> str:
    told = repr(each)
    return f"input {told}" if len(told) <= 200 else f"input {told[:200]}..."
