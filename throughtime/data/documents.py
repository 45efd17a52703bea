"""Small documents, many to a file: tunes of ABC notation, rows of a table. Each is held out whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from throughtime.data.columns import join_tables
from throughtime.data.tables import read_table
from throughtime.data.text import Text, find_files, open_text
from throughtime.data.tunes import is_abc, read_tunes
from throughtime.errors import DataError


@dataclass(frozen=True)
class Documents:
    """Documents in order, in memory. `kind` says what they are, "tunes" or "rows"."""

    texts: tuple[str, ...]
    kind: str

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Sequence[int]) -> Documents:
        """These documents, in this order."""
        return Documents(tuple(self.texts[row] for row in rows), self.kind)

    @property
    def digest(self) -> str:
        """The same for the same documents only, wherever they lie."""
        return hashlib.sha256(json.dumps(self.texts).encode()).hexdigest()

    @property
    def characters(self) -> int:
        """How many characters the documents have together."""
        return sum(map(len, self.texts))

    @property
    def source(self) -> str:
        """What they are, for a message."""
        return f"{len(self)} {self.kind}"

    def blocks(self) -> Iterator[str]:
        """The text of all documents."""
        return iter(self.texts)

    def each(self) -> Iterator[Iterator[str]]:
        """The text of each document, in blocks."""
        return (iter([text]) for text in self.texts)


def open_documents(paths: Sequence[Path], columns: Sequence[str] = ()) -> Text | Documents:
    """What a language model reads from these files and folders.

    With `columns` they are tables (see `read_table`), and each row is a document: a line of the values of
    these columns with tabs between them. Files that end in .abc, or .abc.gz, are tunes, each a document (see
    `read_tunes`). Any other file is text, one document. Raises `DataError` as those readers do, and for tunes
    together with other files.
    """
    if columns:
        table = join_tables([read_table(path, columns) for path in paths])
        rows = zip(*map(table.column, columns), strict=True)
        return Documents(tuple("\t".join(map(in_line, row)) + "\n" for row in rows), "rows")
    files = [file for path in paths for file in find_files(path)]
    others = [file for file in files if not is_abc(file)]
    if not files or len(others) == len(files):
        return open_text(paths)
    if others:
        raise DataError(
            f"{others[0]} is no ABC, and others of the files are: give tunes, or other text, alone"
        )
    return Documents(tuple(tune for file in files for tune in read_tunes(file)), "tunes")


def in_line(value: object) -> str:
    """A value as it stands in a line: with one space for white space of any kind, nothing for None."""
    return "" if value is None else " ".join(str(value).split())
