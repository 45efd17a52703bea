"""Text files: which are found, how they are read, and what is said about those that are not text."""

import gzip
import itertools
import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from throughtime.data import text as module
from throughtime.data.text import find_files, open_text, read_blocks
from throughtime.errors import DataError

quickly = settings(max_examples=60, deadline=None)
#: Text as files hold it: no NUL, and no byte order mark that would be taken off.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=40)
lines = st.lists(st.text("aé€😀 ", max_size=12), min_size=1, max_size=6).map("\n".join)
#: Small enough that characters of several bytes straddle the border of a block.
block_sizes = st.integers(1, 7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("text")


@pytest.fixture
def block(monkeypatch):
    """`block(n)`: read n bytes at a time from here on."""
    return lambda size: monkeypatch.setattr(module, "BLOCK", size)


def saved(folder: Path, text: str, name: str = "text.txt") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def contents(path: Path) -> str:
    return "".join(read_blocks(path))


def read_in(size: int, read):
    """What `read()` gives where files are read `size` bytes at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", size)
        return read()


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        open_text([path])
    return str(caught.value)


# Which files are found.


def test_a_file_stands_for_itself_even_where_it_is_hidden(tmp_path):
    assert find_files(saved(tmp_path, "a", ".hidden")) == [tmp_path / ".hidden"]


def test_a_folder_stands_for_all_files_below_it_in_the_order_of_their_names(tmp_path):
    names = ["B.txt", "a/2.txt", "a/10.txt", "a/b/c.txt", "b.txt", "c.txt.gz"]
    for name in reversed(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        saved(tmp_path, name, name)
    found = [str(path.relative_to(tmp_path)) for path in find_files(tmp_path)]
    assert found == ["B.txt", "a/10.txt", "a/2.txt", "a/b/c.txt", "b.txt", "c.txt.gz"]


def test_what_is_hidden_is_left_out(tmp_path):
    for name in (".git/config", ".cache", "a/.b/c.txt", "__pycache__/a.pyc", "a/shown.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        saved(tmp_path, "a", name)
    assert find_files(tmp_path) == [tmp_path / "a" / "shown.txt"]


def test_a_folder_in_a_hidden_folder_is_read(tmp_path):
    inside = tmp_path / ".hidden" / "texts"
    inside.mkdir(parents=True)
    assert find_files(saved(inside, "a").parent) == [inside / "text.txt"]


def test_a_path_that_is_missing(tmp_path):
    assert refusal(tmp_path / "no.txt") == f"{tmp_path / 'no.txt'} does not exist: check the path"


def test_a_folder_without_files(tmp_path):
    (tmp_path / "inside").mkdir()
    saved(tmp_path, "a", ".hidden")
    assert refusal(tmp_path) == f"the folder {tmp_path} has no files in it"


def test_a_pipe_is_neither_a_file_nor_a_folder(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert f"{tmp_path / 'pipe'} is neither a file nor a folder" in refusal(tmp_path / "pipe")


# UTF-8.


@pytest.mark.parametrize(
    ("data", "offset", "byte", "reason"),
    [
        (b"abc\xff", 3, "0xff", "invalid start byte"),
        (b"\xe2\x82\xac\xe2(", 3, "0xe2", "invalid continuation byte"),
        (b"a\xc3\xa9\x80b", 3, "0x80", "invalid start byte"),
        (b"ab\xed\xa0\x80", 2, "0xed", "invalid continuation byte"),
        (b"ab\xe2\x82", 2, "0xe2", "unexpected end of data"),
        (b"abcd\xf0\x9f\x98", 4, "0xf0", "unexpected end of data"),
        (b"\xef\xbb\xbfa\xff", 4, "0xff", "invalid start byte"),
        ("käse".encode("latin-1"), 1, "0xe4", "invalid continuation byte"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 1 << 20])
def test_the_byte_that_is_not_utf8_is_named(tmp_path, block, data, offset, byte, reason, size):
    block(size)
    path = tmp_path / "bad.txt"
    path.write_bytes(data)
    message = refusal(path)
    assert message.startswith(f"{path} is not UTF-8: byte {offset} ({byte}) {reason}; ")
    assert "iconv" in message


def test_a_bad_byte_far_into_a_file_is_named(tmp_path):
    good = "é".encode() * (module.BLOCK // 2) + b"a"
    path = tmp_path / "long.txt"
    path.write_bytes(good + b"\xff" + b"b" * 100)
    assert f"byte {len(good)} (0xff) invalid start byte" in refusal(path)
    path.write_bytes(good + "€".encode()[:2])
    assert f"byte {len(good)} (0xe2) unexpected end of data" in refusal(path)


@quickly
@given(before=texts, bad=st.sampled_from([b"\xff", b"\xc3(", b"\x80", b"\xe2\x82"]), size=block_sizes)
@example(before="aaé", bad=b"\xff", size=3)
def test_the_offset_is_the_number_of_good_bytes_before(folder, before, bad, size):
    path = folder / "bad.txt"
    path.write_bytes(before.encode() + bad)
    message = read_in(size, lambda: refusal(path))
    assert f"is not UTF-8: byte {len(before.encode())} ({bad[0]:#04x})" in message


@pytest.mark.parametrize("size", [2, 3, 1 << 20])
@pytest.mark.parametrize(
    ("data", "offset"), [(b"\0", 0), (b"PK\x03\x04\0", 4), ("é€".encode() + b"\0\xff", 5)]
)
def test_a_nul_is_a_sign_of_a_binary_file(tmp_path, block, data, offset, size):
    block(size)
    path = tmp_path / "binary"
    path.write_bytes(data)
    assert refusal(path) == f"{path} is not text: byte {offset} is NUL, as in binary files; give text"


def test_utf16_is_refused(tmp_path):
    path = tmp_path / "utf16.txt"
    path.write_bytes("text".encode("utf-16"))
    assert f"{path} is not text: byte 3 is NUL" in refusal(path)


@pytest.mark.parametrize("size", [3, 4, 1 << 20])
def test_a_byte_order_mark_is_left_out_at_the_start_alone(tmp_path, block, size):
    block(size)
    path = saved(tmp_path, "\ufeffab\ufeffé")
    assert contents(path) == "ab\ufeffé"
    assert open_text([path]).characters == 4


@quickly
@given(text=texts, size=block_sizes)
def test_the_text_is_that_of_the_file_however_it_is_read(folder, text, size):
    path = saved(folder, text)
    assert read_in(size, lambda: contents(path)) == text


def test_line_ends_are_left_as_they_are(tmp_path):
    text = "a\r\nb\rc\n\n\u2028d"
    assert contents(saved(tmp_path, text)) == text


# Compressed files.


def test_gz_is_unpacked(tmp_path):
    text = "zip é\n" * 1000
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    saved(tmp_path, text, "b.txt")
    zipped, plain = (open_text([tmp_path / name]) for name in ("a.txt.gz", "b.txt"))
    assert "".join(zipped.blocks()) == text
    assert zipped.digest == plain.digest


@pytest.mark.parametrize("cut", [1, 12, 200, -9, -1])
def test_a_gz_file_that_was_cut_off(tmp_path, cut):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(i % 97 + 32 for i in range(1 << 16)))[:cut])
    assert refusal(path).startswith(f"{path} is not a whole gzip file: ")


def test_a_gz_file_that_is_none(tmp_path):
    assert "is not a whole gzip file: Not a gzipped file" in refusal(saved(tmp_path, "plain", "a.gz"))


def test_a_gz_file_with_a_damaged_byte(tmp_path):
    data = bytearray(gzip.compress(b"abcdefgh" * 500))
    data[len(data) // 2] ^= 0xFF
    path = tmp_path / "a.gz"
    path.write_bytes(data)
    assert "is not a whole gzip file" in refusal(path)


def test_offsets_in_a_gz_file_are_those_of_its_text(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"a" * 5000 + b"\xff"))
    assert "byte 5000 (0xff)" in refusal(path)


# Nothing to read, or nothing that can be read.


@pytest.mark.parametrize("name", ["empty.txt", "empty.gz"])
def test_an_empty_file(tmp_path, name):
    path = saved(tmp_path, "", name)
    assert refusal(path) == f"no text: {path} is empty; give files with text in them"


def test_a_file_of_a_byte_order_mark_is_empty(tmp_path):
    assert "is empty" in refusal(saved(tmp_path, "\ufeff"))


def test_a_folder_of_empty_files(tmp_path):
    for name in "abc":
        saved(tmp_path, "", name)
    assert refusal(tmp_path) == "no text: all 3 files are empty; give files with text in them"


def test_an_empty_file_among_others_is_no_document(tmp_path):
    for name, text in (("a", ""), ("b", "text"), ("c", "")):
        saved(tmp_path, text, name)
    text = open_text([tmp_path])
    assert [document.path.name for document in text.documents] == ["b"]


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = saved(tmp_path, "a")

    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(module, "_open", forbidden)
    assert refusal(path) == f"{path} cannot be read: Permission denied"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_the_right_to_read_it(tmp_path):
    path = saved(tmp_path, "a")
    path.chmod(0)
    assert refusal(path) == f"{path} cannot be read: Permission denied"


# Several files: documents, and the digest.


def test_documents_come_in_the_order_of_the_paths(tmp_path):
    (tmp_path / "inside").mkdir()
    last, first = saved(tmp_path, "éa", "last"), saved(tmp_path / "inside", "bcd", "first")
    text = open_text([first.parent, last])
    assert [(d.path, d.start, d.stop) for d in text.documents] == [(first, 0, 3), (last, 0, 2)]
    assert text.characters == 5
    assert list(text.blocks()) == ["bcd", "éa"]


def test_the_digest_is_of_what_files_hold_and_not_of_where_they_are(tmp_path):
    def digest(folder, *texts):
        (tmp_path / folder).mkdir()
        return open_text([saved(tmp_path / folder, t, f"{folder}{k}") for k, t in enumerate(texts)]).digest

    digests = [
        digest("one", "ab", "c"),
        digest("moved", "a", "bc"),
        digest("joined", "abc"),
        digest("turned", "c", "ab"),
        digest("changed", "ab", "d"),
    ]
    assert digest("two", "ab", "c") == digests[0]
    assert len(set(digests)) == 5


# Blocks end where lines do.


@quickly
@given(text=lines, size=block_sizes)
def test_blocks_end_at_line_ends_and_make_up_the_text(folder, text, size):
    path = saved(folder, text + "\nlast")
    (document,) = open_text([path]).documents
    blocks = read_in(size, lambda: list(document.blocks()))
    assert "".join(blocks) == text + "\nlast"
    assert all(block.endswith("\n") for block in blocks[:-1])


def test_blocks_are_not_the_whole_text(tmp_path, block):
    block(10)
    (document,) = open_text([saved(tmp_path, "one two\n" * 100)]).documents
    assert max(map(len, document.blocks())) <= 20


def test_a_long_line_is_cut_where_it_has_a_space(tmp_path, block, monkeypatch):
    block(5)
    monkeypatch.setattr(module, "LONGEST_LINE", 12)
    text = "word " * 20 + "\nnext line\n"
    (document,) = open_text([saved(tmp_path, text)]).documents
    blocks = list(document.blocks())
    assert "".join(blocks) == text
    assert all(block[-1] in " \n" for block in blocks)
    assert max(map(len, blocks)) <= 12 + 5


def test_a_long_line_without_a_space_is_cut_anywhere(tmp_path, block, monkeypatch):
    block(5)
    monkeypatch.setattr(module, "LONGEST_LINE", 12)
    text = "x" * 101
    (document,) = open_text([saved(tmp_path, text)]).documents
    blocks = list(document.blocks())
    assert "".join(blocks) == text
    assert max(map(len, blocks)) <= 12 + 5


# Cutting off a part.


@quickly
@given(
    contents=st.lists(lines, min_size=1, max_size=4).filter(any),
    share=st.floats(0, 1),
    size=block_sizes,
)
@example(contents=["abc", "xyz"], share=0.5, size=2)
@example(contents=["abc", "xyz"], share=0.0, size=2)
@example(contents=["abc", "xyz"], share=1.0, size=2)
def test_the_parts_of_a_split_make_up_the_text(folder, contents, share, size):
    paths = [saved(folder, text, f"{k}.txt") for k, text in enumerate(contents)]
    whole = open_text(paths)
    first, second = whole.split(share)
    read = [read_in(size, lambda part=part: "".join(part.blocks())) for part in (first, second)]
    assert "".join(read) == "".join(contents)
    assert list(map(len, read)) == [first.characters, second.characters]
    assert first.characters == pytest.approx((1 - share) * whole.characters, abs=1 + 1e-9)
    assert all(len(document) for document in (*first.documents, *second.documents))


def test_a_split_cuts_one_document_in_two(tmp_path):
    paths = [saved(tmp_path, text, name) for name, text in (("a", "abcd"), ("b", "efgh"), ("c", "ij"))]
    first, second = open_text(paths).split(0.4)
    assert [(d.path.name, d.start, d.stop) for d in first.documents] == [("a", 0, 4), ("b", 0, 2)]
    assert [(d.path.name, d.start, d.stop) for d in second.documents] == [("b", 2, 4), ("c", 0, 2)]
    assert ["".join(d.blocks()) for d in second.documents] == ["gh", "ij"]


def test_a_part_can_be_split_again(tmp_path):
    text = "".join(f"{k}\n" for k in range(50))
    first, second = open_text([saved(tmp_path, text)]).split(0.3)
    parts = itertools.chain(first.split(0.5), second.split(0.2))
    assert "".join(block for part in parts for block in part.blocks()) == text
