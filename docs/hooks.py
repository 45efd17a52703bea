"""Fills the place `<!-- library of cells -->` of a page from the table of cells."""

from typing import Any

from throughtime.cells.cell import Cell
from throughtime.cells.formula import as_text
from throughtime.cells.library import CELLS

PLACE = "<!-- library of cells -->"


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """The text of a page, as mkdocs asks for it."""
    return markdown.replace(PLACE, "\n\n".join(map(entry, CELLS.values())))


def entry(cell: Cell) -> str:
    """The heading, the source and the equations of a cell."""
    source = f" ({cell.source})" if cell.source else ""
    equations = "\n".join(as_text(cell.graph))
    return f"### {cell.name}\n\n{cell.title}{source}.\n\n```text\n{equations}\n```"
