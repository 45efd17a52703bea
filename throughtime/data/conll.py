"""Tagged sentences in files: a word a line, in columns (CoNLL, CoNLL-U), or words and tags in two files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from throughtime.data.text import read_blocks
from throughtime.errors import DataError

#: The columns of CoNLL-U, in order.
CONLLU = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
#: How a line begins that parts documents.
DOCUMENT = "-DOCSTART-"
#: What stands for a tag where there is none.
NO_TAG = "_"
#: What lies between columns, words and nothing: other white space of Unicode may be part of a word.
BLANK = " \t"


@dataclass(frozen=True)
class Sentence:
    """Words and their tags, and the lines that they were read from.

    rows        the lines as they stand in the file, without comments.
    tokens      which of the rows each word is: CoNLL-U has rows that are no words.
    column      which column of a row the tag is, the first being 0.
    path, line  the file, and the number in it of the first row, from 1.
    comments    the lines before: in CoNLL-U those that begin with #, else -DOCSTART- and a blank line.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    rows: tuple[str, ...]
    tokens: tuple[int, ...]
    column: int
    path: Path
    line: int
    comments: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Where it stands, as "train.conll, line 17"."""
        return f"{self.path}, line {self.line}"


def read_conll(
    path: Path,
    *,
    words: int | str | None = None,
    tags: int | str | None = None,
    columns: int | None = None,
) -> list[Sentence]:
    """The sentences of a file of columns; .gz files are unpacked.

    A line with nothing but white space ends a sentence. Columns are parted by tabs where a line has tabs,
    and otherwise by spaces. Lines of -DOCSTART- are no rows. Words are the first column and tags the last
    of as many as the file's first row has.

    In CoNLL-U (.conllu, .conllu.gz) words are FORM and tags UPOS; lines of # are comments, and multi-word
    tokens (1-2) and empty nodes (1.1) are kept in the rows but are no words.

    `words` and `tags` choose another column, by its number from 1, or by its name in CoNLL-U in any case.
    Where tags are the last of so many `columns`, a file with one fewer has none, and gets `NO_TAG`.
    Raises `DataError`, with path and line, for a row without such a column or with nothing in it, for a
    file without sentences, and for one that is not text.
    """
    reader = _Reader.of(path, words, tags, columns)
    sentences = list(reader.sentences())
    if not sentences:
        raise DataError(f"{path} has no sentences: give a file of a word and its tag a line")
    return sentences


def read_aligned(words_file: Path, tags_file: Path) -> list[Sentence]:
    """The sentences of two files with a sentence a line: words, and as many tags, parted by spaces.

    Lines that are blank in both files are left out. Raises `DataError` where a line has not as many tags as
    words, or one file has more lines than the other.
    """
    words, tags = _lines(words_file), _lines(tags_file)
    if len(words) != len(tags):
        raise DataError(
            f"{words_file} has {len(words)} lines and {tags_file} has {len(tags)}: "
            "a line of tags for each line of words"
        )
    sentences = []
    for number, (of_words, of_tags) in enumerate(zip(words, tags, strict=True), 1):
        ours, theirs = _fields(of_words), _fields(of_tags)
        if len(ours) != len(theirs):
            raise DataError(
                f"line {number} has {len(ours)} words in {words_file} and {len(theirs)} tags in {tags_file}: "
                "a tag for each word"
            )
        if ours:
            rows = tuple(f"{word}\t{tag}" for word, tag in zip(ours, theirs, strict=True))
            sentences.append(
                Sentence(
                    tuple(ours),
                    tuple(theirs),
                    rows,
                    tuple(range(len(rows))),
                    column=1,
                    path=words_file,
                    line=number,
                )
            )
    if not sentences:
        raise DataError(f"{words_file} has no sentences: give a file with words in it")
    return sentences


def columns_of(sentence: Sentence) -> int:
    """How many columns a file like its own has; a word and a tag where that is CoNLL-U."""
    return 2 if _is_conllu(sentence.path) else len(_cells(sentence.rows[0]))


def write_conll(file: TextIO, sentence: Sentence, tags: Sequence[str]) -> None:
    """The sentence as it was read, comments and other columns too, with `tags` in place of its own."""
    if len(tags) != len(sentence.words):
        raise DataError(
            f"a sentence of {len(sentence.words)} words got {len(tags)} tags: give one for each word"
        )
    rows = list(sentence.rows)
    for row, tag in zip(sentence.tokens, tags, strict=True):
        parts = _parts(rows[row])
        parts[2 * sentence.column] = tag
        rows[row] = "".join(parts)
    file.writelines(f"{line}\n" for line in [*sentence.comments, *rows, ""])


@dataclass(frozen=True)
class _Reader:
    """A file, and which of its columns are words and tags."""

    path: Path
    lines: list[str]
    conllu: bool
    words: int
    tags: int
    #: How many columns a row must have, and whether it may have more.
    columns: int
    more: bool

    @classmethod
    def of(cls, path: Path, words: int | str | None, tags: int | str | None, wanted: int | None) -> _Reader:
        lines, conllu = _lines(path), _is_conllu(path)
        first = next((line.strip(" ") for line in lines if _is_row(line, conllu)), "")
        count = len(_cells(first))
        if wanted is not None and tags in (None, wanted) and not conllu and first:
            if tags is None and count not in (wanted, wanted - 1):
                raise DataError(
                    f"{path} has {count} columns, and {wanted} are wanted: give as many, or all but the tags"
                )
            if count == wanted - 1:
                lines = [_with_no_tag(line) if _is_row(line, conllu) else line for line in lines]
                count = wanted
        columns = len(CONLLU) if conllu else max(count, 2)
        defaults: tuple[int | str, int | str] = ("FORM", "UPOS") if conllu else (1, columns)
        one, other = (
            _number(path, default if given is None else given, conllu)
            for given, default in zip((words, tags), defaults, strict=True)
        )
        if one == other:
            raise DataError(f"words and tags of {path} are both column {one + 1}: give two columns")
        if not conllu and tags is not None:
            return cls(path, lines, conllu, one, other, max(one, other) + 1, more=True)
        return cls(path, lines, conllu, one, other, max(columns, one + 1), more=False)

    def sentences(self) -> Iterator[Sentence]:
        """The rows between blank lines."""
        rows: dict[int, str] = {}
        comments: list[str] = []
        for number, line in enumerate([*self.lines, ""], 1):
            if self.conllu and line.startswith("#"):
                comments.append(line)
            elif _is_row(line, self.conllu):
                rows[number] = line.strip(" ")
            elif rows:
                yield self.sentence(rows, comments)
                rows, comments = {}, []
            if not self.conllu and line.startswith(DOCUMENT):
                comments += [line, ""]

    def sentence(self, rows: dict[int, str], comments: list[str]) -> Sentence:
        """One sentence from its rows by the numbers of their lines."""
        words: dict[int, tuple[str, str]] = {}
        for place, (number, row) in enumerate(rows.items()):
            cells = self.cells(row, number)
            if self.conllu and re.search("[-.]", cells[0]):
                continue
            words[place] = cells[self.words], cells[self.tags]
            for column, what in ((self.words, "word"), (self.tags, "tag")):
                if not cells[column]:
                    raise DataError(f"{self.path}, line {number}: no {what} in column {column + 1}")
        return Sentence(
            words=tuple(word for word, _ in words.values()),
            tags=tuple(tag for _, tag in words.values()),
            rows=tuple(rows.values()),
            tokens=tuple(words),
            column=self.tags,
            path=self.path,
            line=min(rows),
            comments=tuple(comments),
        )

    def cells(self, row: str, line: int) -> list[str]:
        """The columns of a row, as many as there must be."""
        cells = _cells(row)
        if len(cells) < self.columns or (len(cells) > self.columns and not self.more):
            wanted = f"{self.columns} or more" if self.more else f"{self.columns}"
            raise DataError(
                f"{self.path}, line {line}: {wanted} columns are wanted, got {len(cells)} in {row[:60]!r}; "
                "part columns by tabs or spaces, and sentences by blank lines"
            )
        return cells


def _is_conllu(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(".conllu")


def _lines(path: Path) -> list[str]:
    """Lines without their ends, which are those of Unix or Windows, and without blank ones at the end."""
    lines = [line.removesuffix("\r") for line in "".join(read_blocks(path)).split("\n")]
    while lines and not lines[-1].strip(BLANK):
        lines.pop()
    return lines


def _is_row(line: str, conllu: bool) -> bool:
    """Whether a line belongs to a sentence."""
    left_out = line.startswith("#") if conllu else line.startswith(DOCUMENT)
    return bool(line.strip(BLANK)) and not left_out


def _with_no_tag(line: str) -> str:
    return line.rstrip(" ") + ("\t" if "\t" in line else " ") + NO_TAG


def _parts(row: str) -> list[str]:
    """Columns and what parts them, in turn."""
    return re.split("(\t)" if "\t" in row else "( +)", row)


def _cells(row: str) -> list[str]:
    return [cell.strip(" ") for cell in (row.split("\t") if "\t" in row else re.split(" +", row))]


def _fields(line: str) -> list[str]:
    return [field for field in re.split(f"[{BLANK}]+", line) if field]


def _number(path: Path, column: int | str, conllu: bool) -> int:
    """A column counted from 0."""
    if isinstance(column, str):
        if not conllu:
            raise DataError(f'the columns of {path} have no names, got "{column}": give a number from 1')
        if column.upper() not in CONLLU:
            raise DataError(f'CoNLL-U has no column "{column}": it has {", ".join(CONLLU)}')
        return CONLLU.index(column.upper())
    if column < 1 or (conllu and column > len(CONLLU)):
        most = f"1 to {len(CONLLU)}" if conllu else "1"
        raise DataError(f"columns are counted from {most}, got {column}")
    return column - 1
