"""One page of all experiments: what was claimed, what was measured, whether it held, and the figure."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from throughtime.storage import write

STYLE = """
body { font: 17px/1.5 system-ui, sans-serif; color: #1a1a1a; }
body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem; }
h2 { margin-top: 3rem; } img { width: 100%; } small, td.quiet { color: #555; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid #ddd; }
td.held { white-space: nowrap; font-weight: 600; }
"""


def write_report(path: Path, reports: Sequence[dict[str, Any]]) -> Path:
    """Write the page, with its figures in it, whole or not at all; raises `StorageError`."""
    total = sum(report["seconds"] for report in reports)
    index = "".join(
        f'<tr><td><a href="#{report["name"]}">{report["name"]}</a></td><td>{escape(report["title"])}</td>'
        f'<td class="held">{_summary(report)}</td><td class="quiet">{report["seconds"]:.0f} s</td></tr>\n'
        for report in reports
    )
    page = (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>The lab</title>'
        f"<style>{STYLE}</style>\n<h1>What is claimed of recurrences, measured</h1>\n"
        f"<p>{len(reports)} experiments, {total / 60:.1f} minutes.</p>\n"
        f"<table><tr><th>experiment</th><th></th><th>held</th><th></th></tr>\n{index}</table>\n"
        + "".join(map(_section, reports))
        + "</html>\n"
    )
    write(path, lambda new: new.write_text(page, "utf-8"), "make room, or give another folder with --out")
    return path


def _summary(report: dict[str, Any]) -> str:
    counts = [sum(claim["held"] == kind for claim in report["claims"]) for kind in ("yes", "in part", "no")]
    named = zip(counts, ("held", "in part", "not"), strict=True)
    return ", ".join(f"{count} {kind}" for count, kind in named if count)


def _section(report: dict[str, Any]) -> str:
    figure = b64encode(Path(report["figure"]).read_bytes()).decode()
    rows = "".join(
        f"<tr><td>{escape(claim['claim'])}</td><td>{escape(claim['measured'])}</td>"
        f'<td class="held">{claim["held"]}</td></tr>\n'
        for claim in report["claims"]
    )
    cells = f" Cells: {escape(', '.join(report['cells']))}." if report["cells"] else ""
    return (
        f'<h2 id="{report["name"]}">{report["name"]}</h2>\n<p>{escape(report["title"])} '
        f"<small>({escape(report['source'])}; seed {report['seed']}.{cells})</small></p>\n"
        f"<table><tr><th>claimed</th><th>measured</th><th>held</th></tr>\n{rows}</table>\n"
        f'<img alt="Figure of the experiment {report["name"]}" src="data:image/png;base64,{figure}">\n'
    )
