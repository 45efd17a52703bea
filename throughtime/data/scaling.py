"""Columns of numbers, brought to mean 0 and standard deviation 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from throughtime.data.columns import Table
from throughtime.errors import DataError, RunError


class Scaling:
    """(x - mean) / deviation for each number of a row, both of the training data; a constant becomes 0."""

    def __init__(self, names: Sequence[str], mean: Sequence[float], deviation: Sequence[float]) -> None:
        self.names, self.mean, self.deviation = list(names), list(mean), list(deviation)

    @classmethod
    def fit(cls, table: Table, names: Sequence[str]) -> Scaling:
        """The scaling of these columns; raises `DataError`, with the row, where there is no finite number."""
        return cls.of(read_numbers(table, names), names)

    @classmethod
    def of(cls, raw: NDArray[np.float64], names: Sequence[str]) -> Scaling:
        """The scaling of these rows [N, F], N at least 1."""
        # Asked of the values: rounding leaves a constant column with a deviation of some 1e-17.
        constant = raw.max(0) == raw.min(0)
        return cls(names, raw.mean(0).tolist(), np.where(constant, 1.0, raw.std(0)).tolist())

    def encode(self, raw: NDArray[np.float64]) -> NDArray[np.float32]:
        """Rows of numbers [N, F], scaled; raises `DataError` for rows of another length."""
        if raw.shape[1:] != (len(self.mean),):
            raise DataError(f"{raw.shape[-1]} numbers in a row, and the model reads {len(self.mean)}")
        return ((raw - np.asarray(self.mean)) / np.asarray(self.deviation)).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Everything that `from_json` needs."""
        return {"names": self.names, "mean": self.mean, "deviation": self.deviation}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Scaling:
        """The scaling that `to_json` described; raises `RunError` where the description is damaged."""
        try:
            return cls(data["names"], data["mean"], data["deviation"])
        except (KeyError, TypeError) as error:
            raise RunError(f"the description of the scaling is damaged: {error}") from None


def read_numbers(table: Table, names: Sequence[str]) -> NDArray[np.float64]:
    """Columns as numbers [N, F]: of each a number, or a list of as many numbers in every row.

    Raises `DataError`, with the row, where there is no finite number, or where rows have not as many.
    """
    rows: list[list[float]] = []
    for k, values in enumerate(zip(*map(table.column, names), strict=True)):
        row = [
            _number(each, name, table, k)
            for name, value in zip(names, values, strict=True)
            for each in (value if isinstance(value, list) else [value])
        ]
        if rows and len(row) != len(rows[0]):
            raise DataError(
                f"{table.place(k)}: {len(row)} numbers where {table.place(0)} has {len(rows[0])}: give as "
                "many in each row"
            )
        rows.append(row)
    return np.asarray(rows, dtype=np.float64)


def _number(value: Any, name: str, table: Table, row: int) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(
            f"{table.place(row)}: {name} is {value!r}, which is no finite number: fill it in, or leave the "
            "row or the column out"
        )
    return number
