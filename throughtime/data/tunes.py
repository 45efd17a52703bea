"""Files of ABC notation: cutting them into tunes, and leaving out those that do not parse."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from throughtime.data.abc import check_tune
from throughtime.data.text import read_lines
from throughtime.errors import DataError

logger = logging.getLogger(__name__)

#: How many of the tunes that are left out are named.
NAMED = 5


def is_abc(path: Path) -> bool:
    """Whether the name is that of ABC notation."""
    return path.name.lower().endswith((".abc", ".abc.gz"))


def read_tunes(path: Path) -> list[str]:
    """The tunes of a file that parse, each with its header and a line end after every line.

    Those that do not are left out with a warning that counts them and names the first with file, line and
    reason; so are lines of text between tunes. Raises `DataError` where no tune is left.
    """
    tunes: list[str] = []
    bad: list[str] = []
    for line, tune in cut_tunes(read_lines(path), path):
        if (fault := check_tune(tune)) is None:
            tunes.append(tune)
        else:
            bad.append(f"line {line + fault.line - 1}, column {fault.column}: {fault.reason}")
    if bad:
        shown = "; ".join(bad[:NAMED]) + ("; ..." if len(bad) > NAMED else "")
        logger.warning(
            "%s: %d of %d tunes do not parse and are left out: %s",
            path,
            len(bad),
            len(bad) + len(tunes),
            shown,
        )
    if not tunes:
        raise DataError(f"{path} has no tune that parses: give ABC notation, where each tune begins with X:")
    return tunes


def cut_tunes(lines: Iterator[str], path: Path) -> Iterator[tuple[int, str]]:
    """Each tune with the number of its first line, from 1: from a line `X:` to the next, or to an empty line.

    What stands between tunes, such as the header of a file, is no tune; a warning counts lines of it that are
    neither fields nor comments, for they may be music that an empty line has cut off.
    """
    tune: list[str] = []
    start, stray = 0, list[int]()
    for number, line in enumerate(lines, start=1):
        begins, ends = line.startswith("X:"), not line.strip()
        if tune and (begins or ends):
            yield start, "".join(tune)
            tune = []
        if begins:
            start = number
        if begins or (tune and not ends):
            tune.append(line.rstrip() + "\n")
        elif not ends and line[0] != "%" and line[1:2] != ":":
            stray.append(number)
    if tune:
        yield start, "".join(tune)
    if stray:
        logger.warning(
            "%s: %d lines outside of tunes are left out, the first is line %d: an empty line ends a tune",
            path,
            len(stray),
            stray[0],
        )
