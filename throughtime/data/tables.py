"""Reading tables of examples: from files, from folders, and from the Hugging Face Hub."""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from throughtime.data.columns import Places, Table, kept_columns
from throughtime.data.text import find_files, is_text, read_lines
from throughtime.errors import DataError

logger = logging.getLogger(__name__)

#: How a data set of the Hub is named; the split may be cut as in `train[:1000]`.
HUB_FORM = "hf:NAME:SPLIT or hf:NAME:CONFIGURATION:SPLIT"
HUB = re.compile(r"hf:(?P<name>[^:]+)(:(?P<configuration>[^:\[]+))?:(?P<split>[^:\[]+(\[[^\]]*\])?)")
#: A field of a csv file may be as long as csv can be told to allow on every system.
LONGEST_FIELD = (1 << 31) - 1


def read_table(source: str | Path, wanted: Sequence[str] = (), header: bool | None = None) -> Table:
    """The rows of a table, by what the source is; of the columns, those `wanted`, or all where none is named.

    - `.csv`: fields between commas, quoted where they hold commas, quotes or line ends.
    - `.tsv` and `.txt`: fields between tabs; a quote is a character as any other.
    - `.jsonl` and `.ndjson`: an object a line; a row without some key has None there.
    - `.parquet`.
    - A folder of folders of `.txt` files: a text per file, the class named by its folder; or a folder of
      `.txt` files: a text per line, the class named by its file. The columns are "text" and "label".
    - `hf:NAME:SPLIT` or `hf:NAME:CONFIGURATION:SPLIT`: a data set of the Hugging Face Hub. The numbers of
      classes become their names, and None where there is no class.

    Text is UTF-8, and packed where the name ends in .gz as well. The first line of csv and tsv names the
    columns, if `header`; otherwise columns are numbered from 1. Where it is None `has_header(wanted)` tells.
    Their values are texts without white space around them, with "\\n" for each line end in them. Empty lines
    are left out, which a warning says where they could be rows of the only column.

    Raises `DataError`, with file and line, for what is not such a table, where a wanted column is missing,
    and where there is no row.
    """
    name = str(source)
    if name.startswith("hf:"):
        table = _from_hub(name, wanted)
    else:
        table = _from_path(Path(source), wanted, has_header(wanted) if header is None else header)
    if not len(table):
        raise DataError(f"{source} has no rows: give a table with at least one")
    return table


def has_header(wanted: Sequence[str]) -> bool:
    """Whether the first line of csv and tsv names the columns: not where all the wanted are numbers."""
    return not (wanted and all(name.isdecimal() for name in wanted))


def _from_path(path: Path, wanted: Sequence[str], header: bool) -> Table:
    try:
        files = find_files(path)
    except DataError as error:
        raise DataError(f"{error}; a data set of the Hugging Face Hub is written {HUB_FORM}") from None
    if path.is_dir():
        return _from_folder(path, files, wanted)
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix in LINES:
        rows, advice = LINES[suffix]
        return _with_names(path, rows(path), wanted, header, advice)
    if suffix in READERS:
        return READERS[suffix](path, wanted)
    known = ", ".join([*LINES, *READERS])
    raise DataError(f'{path} ends in "{suffix}", which is no table: give {known}, or a folder with texts')


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    lines: list[str] = []  # of the row

    def each() -> Iterator[str]:
        for line in read_lines(path):
            lines.append(line)
            yield line + "\n"

    reader = csv.reader(each(), strict=True, skipinitialspace=True)
    start, limit = 1, csv.field_size_limit(LONGEST_FIELD)
    try:
        for fields in reader:
            # A quoted empty text is a value, and white space is none.
            yield start, [field.strip() for field in fields] if "".join(lines).strip() else []
            start = reader.line_num + 1
            lines.clear()
    except csv.Error as error:
        raise DataError(f"{path}, line {start}: the row that begins here is not csv: {error}") from None
    finally:
        csv.field_size_limit(limit)


def _tsv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(read_lines(path), start=1):
        fields = [field.strip() for field in line.split("\t")]
        yield number, [] if fields == [""] else fields


#: Formats with a row a line: what reads the fields of each row, none of an empty line, and what fields need.
LINES: dict[str, tuple[Callable[[Path], Iterator[tuple[int, list[str]]]], str]] = {
    ".csv": (_csv_rows, "quote values that have commas in them"),
    ".tsv": (_tsv_rows, "fields stand between tabs"),
    ".txt": (_tsv_rows, "fields stand between tabs"),
}


def _with_names(
    path: Path,
    rows: Iterator[tuple[int, list[str]]],
    wanted: Sequence[str],
    header: bool,
    advice: str,
) -> Table:
    """The table of rows of which the first names the columns, if there is such a header."""
    first, names = next((row for row in rows if row[1] and not (header and row[1] == [""])), (0, []))
    if not names:
        raise DataError(f"{path} is empty: give a table")
    hint = ""
    if header:
        hint = "; the first line names them: where it does not, give all by number, from 1"
    else:
        rows = chain([(first, names)], rows)
        names = [str(k) for k in range(1, len(names) + 1)]
    kept = kept_columns(str(path), names, wanted, hint)
    values: dict[str, list[str]] = {name: [] for name in kept}
    columns = [(values[name], names.index(name)) for name in kept]
    lines: list[int] = []
    empty: list[int] = []
    for line, fields in rows:
        if not fields or (fields == [""] and len(names) > 1):
            empty.append(line)
            continue
        if len(fields) != len(names):
            raise DataError(
                f"{path}, line {line}: {len(fields)} fields where line {first} has {len(names)}; {advice}"
            )
        for column, index in columns:
            column.append(fields[index])
        lines.append(line)
    if empty and len(names) == 1:
        logger.warning("%s: %d empty lines are left out, the first is line %d", path, len(empty), empty[0])
    return Table(str(path), values, Places.counted(f"{path}, line ", lines))


def _from_jsonl(path: Path, wanted: Sequence[str]) -> Table:
    names: dict[str, None] = {}
    values: dict[str, list[Any]] = {}
    lines: list[int] = []
    for number, record in _json_rows(path):
        for name in record:
            if name not in names:
                names[name] = None
                if not wanted or name in wanted:
                    values[name] = [None] * len(lines)
        for name, column in values.items():
            column.append(record.get(name))
        lines.append(number)
    kept = kept_columns(str(path), list(names), wanted) if lines else ()
    return Table(str(path), {name: values[name] for name in kept}, Places.counted(f"{path}, line ", lines))


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if "\\u" in line:  # an escape may be half of a character, which no file in UTF-8 can hold
                json.dumps(record, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not JSON: {error}; give one object a line") from None
        if not isinstance(record, dict):
            raise DataError(
                f"{path}, line {number}: {type(record).__name__} {line[:40]}: give an object, as "
                '{"text": "...", "label": "..."}'
            )
        yield number, record


def _from_parquet(path: Path, wanted: Sequence[str]) -> Table:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            kept = kept_columns(str(path), file.schema_arrow.names, wanted)
            table = file.read(columns=list(kept))
            values = {name: table.column(name).to_pylist() for name in kept}
            count = table.num_rows
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}") from None
    return Table(str(path), values, Places.counted(f"{path}, row ", range(1, count + 1)))


#: The other formats of files.
READERS: dict[str, Callable[[Path, Sequence[str]], Table]] = {
    ".jsonl": _from_jsonl,
    ".ndjson": _from_jsonl,
    ".parquet": _from_parquet,
}


def _from_folder(folder: Path, files: Sequence[Path], wanted: Sequence[str]) -> Table:
    texts = [file for file in files if is_text(file)]
    kept = kept_columns(str(folder), ("text", "label"), wanted)
    in_folders = [file for file in texts if file.parent.parent == folder]
    used = in_folders or [file for file in texts if file.parent == folder]
    if not used:
        raise DataError(f"{folder} has no texts: give one folder of .txt files, or one .txt file, per class")
    if left := sorted(set(files).difference(used)):
        logger.warning("%s: left out as no texts of a class: %d files, as %s", folder, len(left), left[0])
    values: dict[str, list[str]] = {"text": [], "label": []}
    origins: list[tuple[int, int]] = []
    for k, file in enumerate(used):
        label = file.parent.name if in_folders else file.name.removesuffix(".gz").removesuffix(".txt")
        for number, text in _whole(file) if in_folders else _each_line(file):
            values["text"].append(text)
            values["label"].append(label)
            origins.append((k, number))
    prefixes = tuple(str(file) if in_folders else f"{file}, line " for file in used)
    which, numbers = np.array(origins, dtype=np.int64).reshape(-1, 2).T
    places = Places(prefixes, which, numbers)
    return Table(str(folder), {name: values[name] for name in kept}, places)


def _whole(path: Path) -> Iterator[tuple[int, str]]:
    yield 0, "\n".join(read_lines(path)).strip()


def _each_line(path: Path) -> Iterator[tuple[int, str]]:
    return ((number, line.strip()) for number, line in enumerate(read_lines(path), start=1) if line.strip())


def _from_hub(source: str, wanted: Sequence[str]) -> Table:
    from datasets import ClassLabel, load_dataset

    parts = HUB.fullmatch(source)
    if not parts:
        raise DataError(f"{source} does not name a data set and a split: write {HUB_FORM}")
    try:
        data = load_dataset(parts["name"], parts["configuration"], split=parts["split"])
        kept = kept_columns(source, data.column_names, wanted)
        values = {name: data[name][:] for name in kept}
    except DataError:
        raise
    except Exception as error:  # the library raises whatever the network, the file system and parsers do
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise DataError(
            f"{source} cannot be loaded: {reason}; check the name, the configuration and the split, or, "
            "without a network, give the data as a file: .parquet, .jsonl or .csv"
        ) from None
    for name in kept:
        if isinstance(classes := data.features[name], ClassLabel):
            named = dict(enumerate(classes.names))
            values[name] = [named.get(value) for value in values[name]]
    return Table(source, values, Places.counted(f"{source}, row ", range(1, len(data) + 1)))
