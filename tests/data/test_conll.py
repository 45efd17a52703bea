"""Files of tagged sentences: what is read of them, what is written back, and what is said of bad ones."""

import gzip
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import throughtime
from throughtime.data.conll import Sentence, read_aligned, read_conll, write_conll
from throughtime.errors import DataError

DATA = Path(os.environ.get("THROUGHTIME_DATA") or Path(throughtime.__file__).parents[2] / "shared" / "data")
PLAIN = "EU B-ORG\nrejects O\n\nPeter B-PER\nBlackburn I-PER\n"
CONLLU = """\
# newdoc id = one
# text = I don't.
1\tI\tI\tPRON\tPRP\t_\t2\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
2\tdo\tdo\tAUX\tVBP\t_\t0\troot\t_\t_
3\tn't\tnot\tPART\tRB\t_\t2\tadvmod\t_\t_
3.1\tgo\tgo\tVERB\tVB\t_\t_\t_\t2:dep\t_

# text = Yes
1\tYes\tyes\tINTJ\tUH\t_\t0\troot\t_\t_

"""
#: Letters, and white space of Unicode that is part of a word.
tokens = st.text("aé#-.\u00a0\u3000\u2028\x85😀", min_size=1, max_size=4).filter(
    lambda token: not token.startswith("-DOCSTART-")
)
corpora = st.lists(
    st.lists(st.tuples(tokens, tokens, tokens), min_size=1, max_size=4), min_size=1, max_size=4
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("conll")


def saved(folder, text, name="data.conll"):
    path = folder / name
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def read(folder, text, name="data.conll", **columns):
    return read_conll(saved(folder, text, name), **columns)


def written(sentences, tags=None):
    file = io.StringIO()
    for sentence in sentences:
        write_conll(file, sentence, tags or sentence.tags)
    return file.getvalue()


def pairs(sentences):
    return [list(zip(sentence.words, sentence.tags, strict=True)) for sentence in sentences]


EXPECTED = [[("EU", "B-ORG"), ("rejects", "O")], [("Peter", "B-PER"), ("Blackburn", "I-PER")]]


# Columns.


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.rstrip(),
        PLAIN + "\n\n",
        "\n\n" + PLAIN,
        PLAIN.replace(" ", "\t"),
        PLAIN.replace(" ", "   "),
        PLAIN.replace(" ", " NNP _ "),
        PLAIN.replace(" ", "\tNNP\t\t"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n\n", "\n\t\n"),
        PLAIN.replace("\n\n", "\n \t \n\n"),
        PLAIN.replace("\n", " \n"),
        PLAIN.replace(" ", " \t "),
        PLAIN.replace("EU", "  EU"),
        "\ufeff" + PLAIN,
        "-DOCSTART- -X- -X- O\n\n" + PLAIN,
        "-DOCSTART-\n" + PLAIN.replace("\n\n", "\n-DOCSTART- O\n"),
    ],
    ids=range(17),
)
def test_what_files_look_like(folder, text):
    assert pairs(read(folder, text)) == EXPECTED


def test_gzip_is_unpacked(folder):
    assert pairs(read(folder, PLAIN, "data.conll.gz")) == EXPECTED
    assert len(read(folder, CONLLU, "data.conllu.gz")[0].words) == 3


def test_a_word_may_look_like_a_comment_or_hold_white_space_of_unicode(folder):
    text = "#tag O\n\u00a0 B-x\nNew York\tB-y\n\u2028 O\n"
    words = ("#tag", "\u00a0", "New York", "\u2028")
    assert read(folder, text)[0].words == words


def test_columns_are_chosen_by_number(folder):
    text = "1 EU NNP B-ORG\n2 rejects VBZ O\n"
    found = read(folder, text, words=2)[0]
    assert (found.words, found.tags) == (("EU", "rejects"), ("B-ORG", "O"))
    found = read(folder, text, words=2, tags=3)[0]
    assert (found.words, found.tags) == (("EU", "rejects"), ("NNP", "VBZ"))
    # Rows may then be of different lengths.
    assert read(folder, text + "3 German JJ\n", words=2, tags=3)[0].tags == ("NNP", "VBZ", "JJ")


def test_lines_are_counted_from_the_first_of_the_file(folder):
    assert [s.line for s in read(folder, "\n-DOCSTART- O\n\n" + PLAIN)] == [4, 7]
    assert [s.line for s in read(folder, CONLLU, "data.conllu")] == [3, 10]


@given(corpora, st.sampled_from(["\t", " "]))
def test_what_is_written_is_read(folder, corpus, between):
    text = "".join("".join(between.join(row) + "\n" for row in rows) + "\n" for rows in corpus)
    found = read(folder, text)
    assert pairs(found) == [[(word, tag) for word, _, tag in rows] for rows in corpus]
    assert written(found) == text


# CoNLL-U.


def test_conllu_has_rows_that_are_no_words(folder):
    one, other = read(folder, CONLLU, "data.conllu")
    assert (one.words, one.tags) == (("I", "do", "n't"), ("PRON", "AUX", "PART"))
    assert (one.tokens, len(one.rows)) == ((0, 2, 3), 5)
    assert one.comments == ("# newdoc id = one", "# text = I don't.")
    assert (other.words, other.comments) == (("Yes",), ("# text = Yes",))


@pytest.mark.parametrize(
    ("column", "tags"),
    [("xpos", "PRP VBP RB"), ("DEPREL", "nsubj root advmod"), ("lemma", "I do not"), (5, "PRP VBP RB")],
)
def test_conllu_has_columns_by_name(folder, column, tags):
    assert read(folder, CONLLU, "data.conllu", tags=column)[0].tags == tuple(tags.split())


def test_words_may_be_lemmas(folder):
    found = read(folder, CONLLU, "data.conllu", words="lemma")[0]
    assert (found.words, found.tags) == (("I", "do", "not"), ("PRON", "AUX", "PART"))


# Writing.


def test_only_the_tags_are_written_anew(folder):
    sentences = read(folder, CONLLU, "data.conllu")
    assert written(sentences) == CONLLU
    assert written(sentences[:1], ["X", "Y", "Z"]) == (
        CONLLU.partition("\n\n")[0]
        .replace("\tPRON\t", "\tX\t")
        .replace("\tAUX\t", "\tY\t")
        .replace("\tPART\t", "\tZ\t")
        + "\n\n"
    )
    sentence = read(folder, "  EU   O NNP O\nO O O O\n")
    assert written(sentence, ["B-ORG", "I-ORG"]) == "EU   O NNP B-ORG\nO O O I-ORG\n\n"
    assert written(read(folder, "EU\t\tO\n"), ["X"]) == "EU\t\tX\n\n"
    sentence = read(folder, "EU NNP O\n", tags=2)
    assert written(sentence, ["X"]) == "EU X O\n\n"


def test_as_many_tags_as_words_are_written(folder):
    with pytest.raises(DataError, match="2 words got 1 tags"):
        written(read(folder, PLAIN), ["O"])


# Parallel files.


def aligned(folder, words, tags):
    return read_aligned(saved(folder, words, "words"), saved(folder, tags, "tags"))


def test_parallel_files(folder):
    found = aligned(folder, "a  b c\r\n\n \nd\n", "O B-x\tI-x\n\n\n O \n\n")
    assert pairs(found) == [[("a", "O"), ("b", "B-x"), ("c", "I-x")], [("d", "O")]]
    assert [sentence.line for sentence in found] == [1, 4]
    assert written(found[:1], ["O", "O", "B-y"]) == "a\tO\nb\tO\nc\tB-y\n\n"
    assert isinstance(found[0], Sentence)


@pytest.mark.parametrize(
    ("words", "tags", "message"),
    [
        ("a b\nc d\n", "O O\nO\n", r"line 2 has 2 words in .*words and 1 tags in .*tags"),
        ("a\n\nb\n", "O\nO\nO\n", r"line 2 has 0 words"),
        ("a\nb\n", "O\n", r"words has 2 lines and .*tags has 1"),
        ("\n\n", "\n", r"has no sentences"),
    ],
)
def test_files_that_are_not_parallel_are_refused(folder, words, tags, message):
    with pytest.raises(DataError, match=message):
        aligned(folder, words, tags)


# What cannot be read.


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("a O\nb\n", {}, r"data\.conll, line 2: 2 columns are wanted, got 1 in 'b'"),
        ("a\nb\n", {}, r"line 1: 2 columns are wanted, got 1"),
        ("a N O\n\nb O\n", {}, r"line 3: 3 columns are wanted, got 2"),
        ("a O\nb N O\n", {}, r"line 2: 2 columns are wanted, got 3"),
        ("a O\nb\n", {"tags": 2}, r"line 2: 2 or more columns are wanted, got 1"),
        ("a O\n", {"words": 3}, r"line 1: 3 columns are wanted, got 2"),
        ("a O\n\tO\n", {}, r"line 2: no word in column 1"),
        ("a\tO\nb\t\n", {}, r"line 2: no tag in column 2"),
        ("a\tO\nb\t \n", {}, r"line 2: no tag in column 2"),
        ("a O\n", {"tags": 1}, r"both column 1"),
        ("a O\n", {"words": 2}, r"both column 2"),
        ("a O\n", {"tags": 0}, r"counted from 1, got 0"),
        ("a O\n", {"tags": "upos"}, r'have no names, got "upos"'),
        ("", {}, r"has no sentences"),
        (" \n-DOCSTART- O\n", {}, r"has no sentences"),
    ],
)
def test_rows_that_cannot_be_read_are_named(folder, text, columns, message):
    with pytest.raises(DataError, match=message):
        read(folder, text, **columns)


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        (CONLLU.replace("\t_\n\n", "\n\n"), {}, r"data\.conllu, line 7: 10 columns are wanted, got 9"),
        (CONLLU.replace("INTJ", ""), {}, r"line 10: no tag in column 4"),
        (CONLLU, {"tags": "pos"}, r'has no column "pos": it has ID, FORM'),
        (CONLLU, {"tags": 11}, r"counted from 1 to 10, got 11"),
        (CONLLU, {"tags": "form"}, r"both column 2"),
        ("# text\n", {}, r"has no sentences"),
    ],
)
def test_conllu_that_cannot_be_read_is_named(folder, text, columns, message):
    with pytest.raises(DataError, match=message):
        read(folder, text, "data.conllu", **columns)


def test_other_encodings_are_refused(folder):
    path = folder / "latin.conll"
    path.write_bytes("a O\nä O\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8: byte 4"):
        read_conll(path)


# Files as they are.

REAL = [
    ("wnut17/wnut17train.conll", 3394, 62730),
    ("wnut17/emerging.dev.conll", 1009, 15733),
    ("wnut17/emerging.test.annotated", 1287, 23394),
    ("ud_ewt/en_ewt-ud-dev.conllu", 2001, 25147),
]


@pytest.mark.parametrize(("name", "sentences", "words"), REAL)
def test_real_files(name, sentences, words):
    path = DATA / "tagging" / name
    if not path.exists():
        pytest.skip(f"{path} is not there: THROUGHTIME_DATA names the folder")
    found = read_conll(path)
    assert (len(found), sum(len(sentence.words) for sentence in found)) == (sentences, words)
    text = path.read_text(encoding="utf-8")
    rows = [line for line in text.split("\n") if line.strip(" \t")]
    assert [line for line in written(found).split("\n") if line] == rows
