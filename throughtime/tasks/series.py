"""Series as a configuration names them: read, and parted into what is trained on and what is kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from pydantic import Field, model_validator

from throughtime.data.calendar import Cycle
from throughtime.data.columns import Table
from throughtime.data.series import Part, Series, joined, split_time
from throughtime.data.series_tables import Missing, Roles, read_long, read_rows, read_wide
from throughtime.data.split import hold_out
from throughtime.data.tables import read_table
from throughtime.errors import ConfigError, DataError
from throughtime.tasks.task import Corpus, DataConfig, Paths


class SeriesConfig(DataConfig):
    """What is read, and which columns are what."""

    paths: Annotated[Paths, tyro.conf.Positional] = Field((), description="Tables: csv, tsv, jsonl, parquet.")
    layout: Literal["long", "wide", "rows"] = Field(
        "long", description="A row for each step; a column for each series; a row for each series."
    )
    targets: tuple[str, ...] = Field((), description="Columns to forecast; the only one that is left.")
    time: str | None = Field(None, description="Column of the time: numbers of steps, or dates (ISO 8601).")
    series: str | None = Field(None, description="Column that says which series a row is of.")
    known: tuple[str, ...] = Field((), description="Columns of numbers known before they happen.")
    past: tuple[str, ...] = Field((), description="Columns of numbers known once they have happened.")
    static: tuple[str, ...] = Field((), description="Columns of numbers that do not change within a series.")
    positions: bool = Field(
        False, description="The two targets are a place, whatever the direction; ADE and FDE."
    )
    missing: Missing = Field("refuse", description="What becomes of numbers that are missing.")
    season: int | None = Field(
        None, ge=1, description="Steps after which series repeat; by the dates, else 1, if not given."
    )
    calendar: tuple[Cycle, ...] | None = Field(
        None, description="What the model is told of dates; what steps of such a size vary in, if not given."
    )
    valid_steps: int | None = Field(None, ge=1, description="Steps kept for validation, for a share.")
    test_steps: int | None = Field(None, ge=1, description="Last steps kept for the test, for a share.")
    split: Literal["time", "series"] = Field(
        "time", description="What validation and test are without files: ends of all series, or whole series."
    )
    continues: bool = Field(
        False, description="Files for validation and test go on where the series of those names end."
    )

    @model_validator(mode="after")
    def _check_together(self) -> SeriesConfig:
        named = [*self.targets, *self.known, *self.past, *self.static, self.time, self.series]
        for name in filter(None, named):
            if named.count(name) > 1:
                raise ValueError(f'column "{name}" has two uses: give each column one')
        kept = {"valid_steps": self.valid, "test_steps": self.test}
        for name, files in kept.items():
            option = f"--{name.replace('_', '-')}"
            if getattr(self, name) and files:
                raise ValueError(f"{option} is not read where there are files: leave it out")
            if getattr(self, name) and self.split == "series":
                raise ValueError(f"{option} is of --split time: give a share of the series")
        if self.continues and not (self.valid or self.test):
            raise ValueError("--continues is of files for validation or test: give some, or leave it out")
        return self


def divided(data: SeriesConfig, seed: int, counts: bool) -> Corpus[Part]:
    """The series to train, to validate and to test on: files, or the ends of series, or some of them.

    With `counts` all values must be counts.
    """
    whole = read_series(data, data.paths, counts)
    series: Sequence[Series] = whole
    test = None
    if not data.test and (data.test_share or data.test_steps):
        series, test = _kept(data, series, data.test_share, data.test_steps, seed)
    if data.valid:
        valid = _following(data, series, data.valid, counts)
    else:
        series, valid = _kept(data, series, data.valid_share, data.valid_steps, seed)
    if data.test:
        test = _following(data, valid.series if data.valid else whole, data.test, counts)
    return Corpus(Part(list(series), [0] * len(series)), valid, test)


def read_series(data: SeriesConfig, paths: Paths, counts: bool) -> list[Series]:
    """The series of some files; where there are several, with the file in their names."""
    if not paths:
        raise DataError("no data: give tables of numbers, before the options")
    found = []
    for path in paths:
        for one in _read_one(data, path):
            named = len(paths) > 1 and not data.continues
            found.append(replace(one, name=f"{Path(path).stem} {one.name}".strip()) if named else one)
    if counts:
        _check_counts(found)
    return found


def _read_one(data: SeriesConfig, path: Path) -> list[Series]:
    if data.layout != "long":
        others = data.targets or data.series or data.known or data.past or data.static
        if others or (data.time and data.layout == "rows"):
            raise ConfigError(
                f"--layout {data.layout} has no columns of other kinds: leave their options out"
            )
        table = read_table(path)
        if data.layout == "rows":
            return read_rows(table, data.missing)
        return read_wide(table, data.time, data.missing)
    named = Roles(data.targets, data.time, data.series, data.known, data.past, data.static)
    table = read_table(path, named.columns if data.targets else ())
    return read_long(table, named if data.targets else _with_target(named, table), data.missing)


def _with_target(roles: Roles, table: Table) -> Roles:
    left = [name for name in table.columns if name not in roles.columns]
    if len(left) != 1:
        raise DataError(
            f"{table.source}: which columns are to be forecast? Give --targets; there are "
            f"{', '.join(left) or 'none that have no other use'}"
        )
    return replace(roles, targets=(left[0],))


def target_names(data: SeriesConfig, train: Part) -> Sequence[str]:
    """What the targets are called in answers."""
    count = train.series[0].values.shape[1]
    if data.positions and count != 2:
        raise DataError(f"--positions is for two targets, x and y, got {count}")
    return data.targets or ["value"]


def _kept(
    data: SeriesConfig, series: Sequence[Series], share: float, steps: int | None, seed: int
) -> tuple[list[Series], Part]:
    """The series to go on with, and what is kept apart of them."""
    if data.split == "series":
        rest, held = hold_out(len(series), share, seed)
        return [series[k] for k in rest], Part([series[k] for k in held], [0] * len(held))
    begun, kept = split_time(series, share, steps)
    return begun.series, kept


def _following(data: SeriesConfig, series: Sequence[Series], paths: Paths, counts: bool) -> Part:
    found = read_series(data, paths, counts)
    return joined(series, found) if data.continues else Part(found, [0] * len(found))


def _check_counts(series: Sequence[Series]) -> None:
    for one in series:
        bad = ~np.isnan(one.values) & ((one.values < 0) | (one.values != np.round(one.values)))
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise DataError(
                f"{one.place}: {one.name or 'the series'} is {one.values[row, column]} at {one.times[row]}, "
                "which is no count: a negative binomial distribution is of counts, take another --head"
            )
