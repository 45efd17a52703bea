"""Text files: finding them, reading them as UTF-8 in blocks, and cutting off a part for validation."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from throughtime.errors import DataError

BLOCK = 1 << 20
#: A line longer than this is cut where it has a space, so that memory stays bounded.
LONGEST_LINE = 1 << 24


@dataclass(frozen=True)
class Document:
    """The characters `start` up to `stop` of a text file; `digest` is that of the whole file's text."""

    path: Path
    digest: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def blocks(self) -> Iterator[str]:
        """The text in blocks of bounded size that end at the end of a line."""
        return _at_line_ends(self._characters())

    def _characters(self) -> Iterator[str]:
        position = 0
        for block in read_blocks(self.path):
            piece = block[max(self.start - position, 0) : max(self.stop - position, 0)]
            position += len(block)
            if piece:
                yield piece
            if position >= self.stop:
                return


@dataclass(frozen=True)
class Text:
    """Documents in order."""

    documents: tuple[Document, ...]

    @property
    def digest(self) -> str:
        """The same for the same text only, wherever its files lie."""
        parts = [f"{document.digest} {document.start} {document.stop}\n" for document in self.documents]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    @property
    def characters(self) -> int:
        """How many characters the documents have together."""
        return sum(len(document) for document in self.documents)

    @property
    def source(self) -> str:
        """Where it is from, for a message."""
        return str(self.documents[0].path)

    def each(self) -> Iterator[Iterator[str]]:
        """The text of each document, in blocks."""
        return (document.blocks() for document in self.documents)

    def split(self, share: float) -> tuple[Text, Text]:
        """The first `1 - share` of the characters and the rest; the document at the cut is cut in two."""
        left = int(self.characters * (1 - share))
        first: list[Document] = []
        second: list[Document] = []
        for document in self.documents:
            middle = document.start + min(max(left, 0), len(document))
            left -= len(document)
            for part, start, stop in (
                (first, document.start, middle),
                (second, middle, document.stop),
            ):
                if start < stop:
                    part.append(replace(document, start=start, stop=stop))
        return Text(tuple(first)), Text(tuple(second))

    def blocks(self) -> Iterator[str]:
        """The text of all documents."""
        for document in self.documents:
            yield from document.blocks()


def open_text(paths: Iterable[Path]) -> Text:
    """The text of files and folders, each file one document.

    A folder stands for all files below it in the order of their names; what is hidden (a name with a
    leading dot, `__pycache__`) or a run is left out. A file ending in .gz is unpacked as it is read. Every
    byte is read once here, so that later reading cannot fail half-way. Raises `DataError` for a path that
    is missing, a file that is not text in UTF-8, and for text that is empty.
    """
    files = [file for path in paths for file in find_files(path)]
    if not files:
        raise DataError("no text: give files or folders")
    documents = [document for document in map(_open_document, files) if len(document)]
    if not documents:
        raise DataError(f"no text: {_named(files)} empty; give files with text in them")
    return Text(tuple(documents))


def _open_document(path: Path) -> Document:
    digest, length = hashlib.sha256(), 0
    for block in read_blocks(path):
        digest.update(block.encode())
        length += len(block)
    return Document(path, digest.hexdigest(), 0, length)


def find_files(path: Path) -> list[Path]:
    """The file itself, or all files below a folder, in the order of their names.

    What is hidden is left out, and so are runs, which training in the folder may have left there.
    """
    try:
        if path.is_file():
            return [path]
        exists, folder = path.exists(), path.is_dir()
    except OSError as error:
        raise DataError(f"{str(path)[:60]} is no path: {error.strerror}") from None
    if not exists:
        raise DataError(f"{path} does not exist: check the path")
    if not folder:
        raise DataError(f"{path} is neither a file nor a folder: text is read twice, so save it first")
    runs = {file.parent for file in path.rglob("processor.json") if (file.parent / "config.toml").exists()}
    files = [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file()
        and not any(part.startswith(".") or part == "__pycache__" for part in file.relative_to(path).parts)
        and not runs.intersection(file.parents)
    ]
    if not files:
        raise DataError(f"the folder {path} has no files in it")
    return files


def is_text(path: Path) -> bool:
    """Whether the name is that of plain text."""
    return path.name.endswith((".txt", ".txt.gz"))


def read_blocks(path: Path) -> Iterator[str]:
    """The text of a file in blocks of about a megabyte; a byte order mark at the start is left out.

    Raises `DataError`, with the byte offset, where the bytes are not UTF-8 or hold a NUL as binary
    files do.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    try:
        with _open(path) as file:
            while True:
                data = file.read(BLOCK)
                if (nul := data.find(0)) >= 0:
                    raise DataError(
                        f"{path} is not text: byte {offset + nul} is NUL, as in binary files; give text"
                    )
                pending = len(decoder.getstate()[0])
                try:
                    text = decoder.decode(data, final=not data)
                except UnicodeDecodeError as error:
                    bad = offset - pending + error.start
                    raise DataError(
                        f"{path} is not UTF-8: byte {bad} ({error.object[error.start]:#04x}) {error.reason}; "
                        "convert the file first, for example with iconv"
                    ) from None
                yield text.removeprefix("\ufeff") if offset == 0 else text
                offset += len(data)
                if not data:
                    return
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is not a whole gzip file: {error}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a text file, without their ends, which are "\\n" or "\\r\\n" and nothing else.

    A file ending in .gz is unpacked as it is read. Raises `DataError` as `read_blocks` does.
    """
    pieces: list[str] = []
    for block in read_blocks(path):
        *ended, rest = block.split("\n")
        for line in ended:
            yield "".join([*pieces, line]).removesuffix("\r")
            pieces.clear()
        pieces.append(rest)
    if last := "".join(pieces):
        yield last.removesuffix("\r")


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb"))


def _at_line_ends(blocks: Iterable[str]) -> Iterator[str]:
    """The same text, cut after line ends so that no word is torn."""
    kept = ""
    for block in blocks:
        kept += block
        cut = kept.rfind("\n") + 1
        if not cut and len(kept) > LONGEST_LINE:
            cut = kept.rfind(" ") + 1 or len(kept)
        if cut:
            yield kept[:cut]
            kept = kept[cut:]
    if kept:
        yield kept


def _named(files: list[Path]) -> str:
    return f"{files[0]} is" if len(files) == 1 else f"all {len(files)} files are"
