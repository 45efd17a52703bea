"""Encoded texts: made once, by content, whole or not at all."""

import errno

import numpy as np
import pytest

from throughtime.data import text as reading
from throughtime.data.corpus import cache_folder, encode
from throughtime.data.text import open_text
from throughtime.data.tokens import BOUNDARY, Characters, Words, fit_tokeniser
from throughtime.errors import StorageError

LETTERS = Characters("\nabcdefghijklmnopqrstuvwxyz")

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def text(tmp_path):
    """`text(content, ...)`: a text of one document for each content."""

    def make(*contents):
        folder = tmp_path / "texts"
        folder.mkdir(exist_ok=True)
        paths = [folder / f"{len(list(folder.iterdir()))}-{k}.txt" for k in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_text(content, encoding="utf-8", newline="")
        return open_text(paths)

    return make


def files(cache):
    return sorted((path for path in cache.rglob("*") if path.is_file()), key=lambda path: path.name)


def test_each_document_stands_after_a_boundary(text):
    tokens = encode(text("ab\nc", "d"), LETTERS)
    assert tokens.tolist() == [BOUNDARY, 3, 4, 2, 5, BOUNDARY, 6]


def test_empty_documents_have_no_boundary(text):
    assert encode(text("a", "", "b"), LETTERS).tolist() == [BOUNDARY, 3, BOUNDARY, 4]


def test_tokens_do_not_depend_on_the_blocks(text, monkeypatch, cache):
    content = "a word\nand a line of words\n\nand one more" * 5
    whole, tokeniser = text(content), fit_tokeniser("word", [content])
    at_once = encode(whole, tokeniser).tolist()
    assert at_once == [BOUNDARY, *tokeniser.encode(content)]
    for path in files(cache):
        path.unlink()
    monkeypatch.setattr(reading, "BLOCK", 7)
    assert encode(whole, tokeniser).tolist() == at_once


@pytest.mark.parametrize(("words", "size"), [(65534, "uint16"), (65535, "uint32")])
def test_numbers_take_four_bytes_where_two_are_too_few(text, words, size):
    tokeniser = Words([f"w{k}" for k in range(words)])
    tokens = encode(text(f"w0 w{words - 1}"), tokeniser)
    assert tokens.dtype == size
    assert tokens.tolist() == [BOUNDARY, 2, words + 1]


def test_the_tokens_are_read_from_the_file(text, cache):
    tokens = encode(text("abc"), LETTERS)
    (path,) = files(cache)
    assert isinstance(tokens, np.memmap)
    assert tokens.tolist() == np.fromfile(path, tokens.dtype).tolist()
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 1


# Once for each content and tokeniser.


def test_a_text_is_encoded_once(text, cache, monkeypatch):
    first = encode(text("abc"), LETTERS).tolist()
    (path,) = files(cache)
    written = path.stat().st_mtime_ns, path.stat().st_ino
    monkeypatch.setattr(Characters, "encode", lambda self, text: pytest.fail("encoded again"))
    assert encode(text("abc"), LETTERS).tolist() == first
    assert files(cache) == [path]
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == written


def test_another_file_with_the_same_text_is_the_same(text, cache):
    one, other = text("abc", "d"), text("abc", "d")
    assert one.documents[0].path != other.documents[0].path
    assert encode(one, LETTERS).tolist() == encode(other, LETTERS).tolist()
    assert len(files(cache)) == 1


def test_a_file_that_changed_is_encoded_anew(text, cache):
    one = text("abc")
    encode(one, LETTERS)
    one.documents[0].path.write_text("xyz")
    assert encode(open_text([one.documents[0].path]), LETTERS).tolist() == [BOUNDARY, 26, 27, 28]
    assert len(files(cache)) == 2


def test_other_borders_between_documents_are_another_text(text, cache):
    assert encode(text("ab", "c"), LETTERS).tolist() != encode(text("a", "bc"), LETTERS).tolist()
    assert len(files(cache)) == 2


@pytest.mark.parametrize("contents", [("abcdef",), ("abc", "xyz"), ("ab", "cd", "wx", "yz")])
def test_the_two_halves_of_a_text_are_different(text, contents):
    first, second = text(*contents).split(0.5)
    decoded = [LETTERS.decode(encode(part, LETTERS)) for part in (first, second)]
    whole = "".join(contents)
    assert decoded == [whole[: len(whole) // 2], whole[len(whole) // 2 :]]


def test_each_tokeniser_has_its_own_tokens(text, cache):
    whole = text("a b a b")
    for tokeniser in (Characters("ab "), Characters("ba "), Words(["a", "b"]), Words(["b", "a"])):
        assert tokeniser.decode(encode(whole, tokeniser)) == "a b a b"
    assert len(files(cache)) == 4


# Where it goes, and where it cannot.


def test_the_cache_is_in_the_folder_that_the_environment_names(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere" / "throughtime"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for unset in (
        lambda: monkeypatch.setenv("XDG_CACHE_HOME", ""),
        lambda: monkeypatch.delenv("XDG_CACHE_HOME"),
    ):
        unset()
        assert cache_folder() == tmp_path / "home" / ".cache" / "throughtime"


class Stopped(Exception):
    """What comes in the middle of the work."""


@pytest.mark.parametrize("error", [Stopped, KeyboardInterrupt])
def test_what_fails_half_way_leaves_nothing_behind(text, cache, monkeypatch, error):
    def stop(self, text):
        if "d" in text:
            raise error
        return real(self, text)

    real = Characters.encode
    whole = text("abc\n" * 10, "d")
    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(Characters, "encode", stop)
        encode(whole, LETTERS)
    assert files(cache) == []
    assert len(encode(whole, LETTERS)) == 43


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("100 requested and 0 written"), "100 requested and 0 written"),
    ],
)
def test_a_full_disk(text, cache, monkeypatch, error, reason):
    def full(self, text):
        raise error

    monkeypatch.setattr(Characters, "encode", full)
    with pytest.raises(StorageError) as caught:
        encode(text("abc"), LETTERS)
    message = str(caught.value)
    assert (
        message.startswith(str(cache / "throughtime" / "tokens"))
        and f"cannot be written: {reason}; " in message
    )
    assert "set XDG_CACHE_HOME" in message
    assert files(cache) == []


def test_a_cache_that_cannot_be_made(text, cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="Not a directory"):
        encode(text("abc"), LETTERS)
