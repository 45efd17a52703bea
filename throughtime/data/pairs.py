"""Pairs of texts, a source and its target, for models that turn one sequence into another."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throughtime.data.columns import Places, Table, digest, join_tables
from throughtime.data.tables import read_table
from throughtime.data.text import read_lines
from throughtime.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pair k is `sources[k]` and `targets[k]`, neither of them empty; `places[k]` says where it came from."""

    sources: list[str]
    targets: list[str]
    places: Places

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def digest(self) -> str:
        """The same for the same pairs only, wherever their files lie."""
        return digest({"source": self.sources, "target": self.targets})

    def select(self, rows: Sequence[int]) -> Pairs:
        """These pairs, in this order."""
        return Pairs(
            [self.sources[row] for row in rows], [self.targets[row] for row in rows], self.places.select(rows)
        )


def read_pairs(paths: Sequence[str | Path], input: str | None = None, target: str | None = None) -> Pairs:
    """Pairs from two parallel files, or from the columns `input` and `target` of tables.

    Without columns there are two text files, and line k of the second is the target of line k of the first.
    With them each path is a table, as `read_table` reads it. White space around a text is not part of it. A
    pair with an empty side is left out, which a warning says once.

    Raises `DataError` where parallel files differ in their number of lines, where there is a value that is
    no text, and where no pair is left.
    """
    if input is None and target is None:
        return _without_empty(*_parallel(paths))
    if input is None or target is None:
        given = f"input is {input}" if target is None else f"target is {target}"
        raise DataError(f"{given}, and the other column has no name: give both, or give two parallel files")
    table = join_tables([read_table(path, (input, target)) for path in paths])
    return _without_empty(_texts(table, input), _texts(table, target), table.places)


def _parallel(paths: Sequence[str | Path]) -> tuple[list[str], list[str], Places]:
    if len(paths) != 2:
        raise DataError(
            f"{len(paths)} files and no columns: give two parallel files, or name the input and the target "
            "column of a table"
        )
    first, second = map(Path, paths)
    sources, targets = ([line.strip() for line in read_lines(path)] for path in (first, second))
    if len(sources) != len(targets):
        shorter, lines = min((first, sources), (second, targets), key=lambda side: len(side[1]))
        last = f'the last line of {shorter} is "{lines[-1][:80]}"' if lines else f"{shorter} is empty"
        raise DataError(
            f"{first} has {len(sources)} lines and {second} has {len(targets)}: line k of one is to be "
            f"the target of line k of the other; {last}"
        )
    return sources, targets, Places.counted(f"{first} and {second}, line ", range(1, len(sources) + 1))


def _texts(table: Table, name: str) -> list[str]:
    return [_text(value, table, row, name) for row, value in enumerate(table.column(name))]


def _text(value: Any, table: Table, row: int, name: str) -> str:
    if value is None:
        return ""
    if type(value) not in (str, int, float):
        raise DataError(f'{table.place(row)}: "{name}" is {type(value).__name__} {value!r:.40}; give a text')
    return str(value).strip()


def _without_empty(sources: list[str], targets: list[str], places: Places) -> Pairs:
    pairs = Pairs(sources, targets, places)
    full = [row for row in range(len(pairs)) if sources[row] and targets[row]]
    if not full:
        raise DataError(
            f"none of the {len(pairs)} pairs has a text on both sides: give texts and their targets"
        )
    if len(full) == len(pairs):
        return pairs
    empty = next(row for row in range(len(pairs)) if not (sources[row] and targets[row]))
    logger.warning(
        "%d of %d pairs have an empty side and are left out, the first of them %s",
        len(pairs) - len(full),
        len(pairs),
        places[empty],
    )
    return pairs.select(full)
