"""`throughtime lab [NAME ...|all]`."""

from __future__ import annotations

import json as json_library
import time
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from throughtime.cli.output import Json, messages, parse, table, tables, write, write_json
from throughtime.errors import ConfigError
from throughtime.lab.experiment import Experiment, Finding
from throughtime.lab.table import EXPERIMENTS, find_experiment
from throughtime.storage import finite
from throughtime.storage import write as write_file

#: Rows of a table that are shown; the file has all.
MOST_ROWS = 24


def run(arguments: list[str]) -> int:
    """Do experiments."""
    return parse(lab, "lab", arguments)


def lab(
    names: Annotated[
        Positional[tuple[str, ...]], arg(help='Experiments, or "all"; they are listed if none is given.')
    ] = (),
    cells: Annotated[
        str | None, arg(help="Cells for those that take some: lstm,gru,mycells.py:my_cell.")
    ] = None,
    seed: Annotated[int, arg(help="Seed of all randomness.")] = 0,
    out: Annotated[Path, arg(help="Folder for figures (PNG, SVG), numbers (JSON) and the report.")] = Path(
        "lab"
    ),
    json: Json = False,
) -> int:
    """Measure what is claimed of recurrences: each experiment says what held, and draws a figure.

    "throughtime lab all" does every experiment and writes one report (HTML).
    """
    if not names:
        _list(json)
        return 0
    every = "all" in names
    chosen = tuple(EXPERIMENTS.values()) if every else tuple(map(find_experiment, dict.fromkeys(names)))
    given = () if cells is None else tuple(filter(None, (each.strip() for each in cells.split(","))))
    if cells is not None and not given:
        raise ConfigError("--cells names no cell: write lstm,gru or mycells.py:my_cell")
    if seed < 0:
        raise ConfigError(f"--seed must be 0 or more, got {seed}")
    reports = []
    for experiment in chosen:
        takes = not every or experiment.cells  # of all, those that take cells get them
        reports.append(_do(experiment, seed, given if takes else (), out, json))
    if len(chosen) > 1:
        from throughtime.lab.report import write_report

        path = write_report(out / "report.html", reports)
        messages().print(f"the report is {path}", soft_wrap=True, markup=False)
    return 0


def _list(json: bool) -> None:
    rows = [
        {"name": each.name, "title": each.title, "cells": ",".join(each.cells), "source": each.source}
        for each in EXPERIMENTS.values()
    ]
    if json:
        write_json({"experiments": rows})
        return
    width = max(map(len, EXPERIMENTS))
    write("".join(f"  {row['name']:{width}}  {row['title']}\n" for row in rows))
    write('\n"throughtime lab NAME" does one, "throughtime lab all" does all and writes a report.\n')


def _do(experiment: Experiment, seed: int, cells: tuple[str, ...], out: Path, json: bool) -> dict[str, Any]:
    """Do one, say what came of it, and leave its figure and numbers in the folder."""
    from throughtime.insight.figures import save

    console = messages()
    console.print(f"{experiment.name}: {experiment.title} ({experiment.source})", style="bold", markup=False)
    began = time.perf_counter()
    finding = experiment.run(seed, cells)
    report = finite(_report(experiment, finding, seed, cells, time.perf_counter() - began))
    files = save(finding.draw, out / experiment.name)
    text = json_library.dumps(report, ensure_ascii=False, indent=1, default=str)
    numbers = out / f"{experiment.name}.json"
    write_file(numbers, lambda new: new.write_text(text, "utf-8"), "give another folder with --out")
    report["figure"] = str(files[0])
    if json:
        write_json(report)
    else:
        _show(finding)
    console.print(
        f"{report['seconds']:.0f} s; {', '.join(map(str, [*files, numbers]))}\n", soft_wrap=True, markup=False
    )
    return report


def _report(
    experiment: Experiment, finding: Finding, seed: int, cells: tuple[str, ...], seconds: float
) -> dict[str, Any]:
    return {
        "name": experiment.name,
        "title": experiment.title,
        "source": experiment.source,
        "cells": list(cells or experiment.cells),
        "seed": seed,
        "seconds": round(seconds, 2),
        "claims": [claim._asdict() for claim in finding.claims],
        "rows": list(finding.rows),
    }


def _show(finding: Finding) -> None:
    for claim in finding.claims:
        write(f"claimed:  {claim.claim}\nmeasured: {claim.measured}\nheld:     {claim.held}\n\n")
    if 0 < len(finding.rows) <= MOST_ROWS:
        tables().print(table(finding.rows))
