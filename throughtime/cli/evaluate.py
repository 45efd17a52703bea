"""`throughtime evaluate RUN DATA`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import Positional, arg

from throughtime.cli.output import Json, messages, table, write, write_json
from throughtime.cli.using import RunFirst, parse_with_search


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained model on data it did not train on."""

    run: RunFirst
    paths: Annotated[Positional[tuple[Path, ...]], arg(help="Data that the model did not train on.")]
    figures: Annotated[Path | None, arg(help="Folder to draw pictures of how the model does into.")] = None
    json: Json = False


def run(arguments: list[str]) -> int:
    """Measure a model."""
    command, task = parse_with_search(Evaluate, "evaluate", arguments)
    report, signatures = task.report(command.paths), task.signatures()
    if command.figures is not None:
        drawn = ", ".join(map(str, report.draw(command.figures)))
        messages().print(
            f"drawn: {drawn or 'nothing, this task has no figure'}", soft_wrap=True, markup=False
        )
    if command.json:
        parts = {"parts": list(report.parts)} if report.parts else {}
        write_json({"metrics": report.metrics} | parts | ({"signatures": signatures} if signatures else {}))
        return 0
    for name, value in report.metrics.items():
        signature = f"  ({signatures[name]})" if name in signatures else ""
        write(f"{name.replace('_', ' ')}: {value:.4f}{signature}\n")
    if report.parts:
        Console().print(table(report.parts))
    return 0
