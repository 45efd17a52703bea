"""`throughtime evaluate RUN DATA`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from throughtime.cli.output import Json, parse, write, write_json


def run(arguments: list[str]) -> int:
    """Measure a model."""
    parse(evaluate, "evaluate", arguments)
    return 0


def evaluate(
    run: Annotated[Positional[Path], arg(help="Folder of a run.")],
    paths: Annotated[Positional[tuple[Path, ...]], arg(help="Data that the model did not train on.")],
    json: Json = False,
) -> None:
    """Measure a trained model on data it did not train on."""
    from throughtime.tasks.table import load

    metrics = load(run).evaluate(paths)
    if json:
        write_json({"metrics": metrics})
        return
    for name, value in metrics.items():
        write(f"{name.replace('_', ' ')}: {value:.4f}\n")
