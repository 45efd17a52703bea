"""Files of ABC notation: cutting them into tunes, and leaving out those that do not parse."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path

from throughtime.data.abc import check_tune
from throughtime.data.text import read_lines
from throughtime.errors import DataError

logger = logging.getLogger(__name__)

#: How many of the tunes that are left out are named.
NAMED = 5
#: Fields that a tune takes from the header of its file where it has none of its own, and those that add up.
FILE_FIELDS, ADDED_FIELDS = "ABCDFGHILMmNORrSUZ", "ImU"


def is_abc(path: Path) -> bool:
    """Whether the name is that of ABC notation."""
    return path.name.lower().endswith((".abc", ".abc.gz"))


def read_tunes(path: Path) -> list[str]:
    """The tunes of a file that parse, each with its header and a line end after every line.

    What the header of the file says, before the first tune, stands in each tune that says nothing of it.
    Those that do not are left out with a warning that counts them and names the first with file, line and
    reason; so are lines of text between tunes. Raises `DataError` where no tune is left.
    """
    tunes: list[str] = []
    bad: list[str] = []
    lines = list(read_lines(path))
    header = _file_header(lines)
    for line, tune in cut_tunes(lines, path):
        added, whole = _with_defaults(tune, header)
        if (fault := check_tune(whole)) is None:
            tunes.append(whole)
        else:
            place = max(line, line - added + fault.line - 1)  # a field of the file counts as the line X:
            bad.append(f"line {place}, column {fault.column}: {fault.reason}")
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


def _file_header(lines: Iterable[str]) -> list[str]:
    """The fields before the first tune."""
    before = takewhile(lambda line: not line.startswith("X:"), lines)
    return [line.rstrip() + "\n" for line in before if line[1:2] == ":" and line[0] in FILE_FIELDS]


def _with_defaults(tune: str, header: Sequence[str]) -> tuple[int, str]:
    """The tune with what it lacks of these fields behind its first line, and how many they are."""
    first, *rest = tune.splitlines(keepends=True)
    own = {line[0] for line in takewhile(lambda line: not line.startswith("K:"), rest) if line[1:2] == ":"}
    lacking = [line for line in header if line[0] in ADDED_FIELDS or line[0] not in own]
    return len(lacking), "".join([first, *lacking, *rest])


def cut_tunes(lines: Iterable[str], path: Path) -> Iterator[tuple[int, str]]:
    """Each tune with the number of its first line, from 1: from a line `X:` to the next, or to an empty line.

    What stands between tunes, such as the header of a file, is no tune; a warning counts lines of it that are
    neither fields, comments nor a text (%%begintext), for they may be music that an empty line has cut off.
    """
    tune: list[str] = []
    start, stray, in_text = 0, list[int](), False
    for number, line in enumerate(lines, start=1):
        begins, ends = line.startswith("X:"), not line.strip()
        in_text = line.startswith("%%begintext") or (in_text and not line.startswith("%%endtext"))
        if tune and (begins or ends):
            yield start, "".join(tune)
            tune = []
        if begins:
            start = number
        if begins or (tune and not ends):
            tune.append(line.rstrip() + "\n")
        elif not ends and not in_text and line[0] != "%" and line[1:2] != ":":
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
