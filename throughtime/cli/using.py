"""What the commands that use a trained run share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from throughtime.cli.output import parse
from throughtime.tasks.table import load

#: Which options there are is known by the run alone: those of its own are understood where it comes first.
RunFirst = Annotated[
    Positional[Path], tyro.conf.arg(help="Folder of a run; with --help after it, its own options show too.")
]


def parse_with_search(options: type, name: str, arguments: list[str]) -> Any:
    """The options of a command, and as `search` those of the run's own search, if the command reads them.

    What is not given is as the run has it. The task is loaded, and has the search that was given.
    """
    first = next(iter(arguments), "-")
    task = None if first.startswith("-") else load(first)
    fields = []
    if task is not None and hasattr(task.config, "search") and name in task.searches:
        flat: Any = Annotated[type(task.config.search), tyro.conf.arg(name="")]
        fields.append(("search", flat, dataclasses.field(default=task.config.search)))
    made = dataclasses.make_dataclass("Command", fields, bases=(options,), frozen=True)
    made.__doc__ = options.__doc__
    command = parse(made, name, arguments)
    task = load(command.run) if task is None else task
    if fields:
        task.config = task.config.model_copy(update={"search": command.search})
    return command, task
