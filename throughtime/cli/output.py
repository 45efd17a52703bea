"""What commands share: parsing their options, and writing results for people or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

T = TypeVar("T")

#: The option that every command has.
Json = Annotated[
    bool,
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.arg(help="Print the result, or each of several, as one line of JSON."),
]


def parse(command: Callable[..., T], name: str, arguments: list[str]) -> T:
    """Call `command` with the options in `arguments`; wrong ones end the process with code 2."""
    config = (
        tyro.conf.OmitArgPrefixes,
        tyro.conf.DisallowNone,
        tyro.conf.PositionalMetavarFromFieldName,
    )
    return tyro.cli(command, prog=f"throughtime {name}", args=arguments, config=config)


def messages() -> Console:
    """Where progress and remarks go: standard error."""
    return Console(stderr=True, highlight=False)


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Rows of the same columns, for people."""
    made = Table(*(name.replace("_", " ") for name in rows[0]), box=None)
    for row in rows:
        cells = (f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values())
        made.add_row(*map(Text, cells))
    return made


def tables() -> Console:
    """Standard output for tables: wide where there is no terminal, for there is nobody to fold lines for."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def write(text: str) -> None:
    """Text to standard output as it is."""
    sys.stdout.write(text)
    sys.stdout.flush()


def write_json(value: Any) -> None:
    """One JSON object on a line of standard output; what JSON has no form for, as a date, is its text."""
    write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
