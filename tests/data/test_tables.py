"""Tables: each format gives the rows that were written and where they stand, or says why it cannot."""

import csv
import gzip
import json
import logging
from datetime import date
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from throughtime.data import text as blocks
from throughtime.data.columns import Places, Table, join_tables
from throughtime.data.tables import has_header, read_table
from throughtime.data.text import read_lines
from throughtime.errors import DataError

quickly = settings(max_examples=60, deadline=None)
letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufeff")
#: Values as a table of text gives them: no white space around them.
values = (st.text(letters, max_size=12) | st.text('",\n a', max_size=6)).map(str.strip)
lone = values.filter(lambda value: "\t" not in value and "\n" not in value)


def grids(cells):
    """Rows of the same number of cells. Two or more, as a lone empty cell is an empty line."""
    return st.integers(2, 4).flatmap(
        lambda n: st.lists(st.lists(cells, min_size=n, max_size=n), min_size=1, max_size=5)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("tables")


def saved(folder: Path, text: str, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def rows_of(table: Table) -> list[list]:
    return [list(row) for row in zip(*table.values.values(), strict=True)]


def refusal(source, wanted=()) -> str:
    with pytest.raises(DataError) as caught:
        read_table(source, wanted)
    return str(caught.value)


# Lines.


@quickly
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\ufeff"), max_size=9))
)
@example(["a", "", "\x85\u2028\x0b\x1cb", "c"])
def test_only_line_feeds_end_lines(folder, lines):
    lines = [line.removesuffix("\r") for line in lines]
    for end, size in (("\n", 1 << 20), ("\r\n", 1), ("\n", 3)):
        path = saved(folder, "".join(line + end for line in lines), "lines.txt")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blocks, "BLOCK", size)
            assert list(read_lines(path)) == lines


def test_the_last_line_needs_no_end_and_gzip_is_unpacked(tmp_path):
    assert list(read_lines(saved(tmp_path, "\ufeffa\n\nb", "a.txt.gz"))) == ["a", "", "b"]


# Text: csv and tsv.


@quickly
@given(grids(values))
@example([['"', ",", "a\nb"], ["a\u2028b", "a\x85b", ""]])
def test_csv_gives_back_what_the_csv_module_wrote(folder, rows):
    path = folder / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[f"c{k}" for k in range(len(rows[0]))], *rows])
    table = read_table(path)
    assert rows_of(table) == rows
    assert table.columns == tuple(f"c{k}" for k in range(len(rows[0])))


@quickly
@given(grids(values))
def test_the_places_of_csv_rows_are_the_lines_where_they_begin(folder, rows):
    path = folder / "places.csv"
    starts = []
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in rows:
            starts.append(path.read_bytes().count(b"\n") + 1)
            writer.writerow(row)
            file.write("\n")
            file.flush()
    numbers = tuple(str(k + 1) for k in range(len(rows[0])))
    table = read_table(path, numbers)
    assert [table.place(row) for row in range(len(table))] == [f"{path}, line {start}" for start in starts]


@quickly
@given(grids(lone))
@example([['"', "a"], ["b", '"']])
def test_tsv_gives_back_fields_between_tabs_whatever_quotes_are_in_them(folder, rows):
    text = "".join("\t".join(row) + "\n" for row in rows)
    numbers = tuple(str(k + 1) for k in range(len(rows[0])))
    for name in ("table.tsv", "table.txt", "table.TSV.gz"):
        assert rows_of(read_table(saved(folder, text, name), numbers)) == rows


def test_values_and_names_stand_without_the_space_around_them(tmp_path):
    path = saved(tmp_path, 'label, text \nEI,    "a, b "\nN,\tACGT \n', "a.csv")
    table = read_table(path)
    assert table.columns == ("label", "text")
    assert rows_of(table) == [["EI", "a, b"], ["N", "ACGT"]]


def test_only_the_wanted_columns_are_kept_and_in_that_order(tmp_path):
    path = saved(tmp_path, "a,b,c\n1,2,3\n", "a.csv")
    assert read_table(path, ("c", "a")).values == {"c": ["3"], "a": ["1"]}
    assert read_table(path, ("b", "b")).values == {"b": ["2"]}


def test_numbers_are_for_tables_without_names(tmp_path):
    path = saved(tmp_path, "a\tb\nc\td\n", "a.tsv")
    assert read_table(path, ("2", "1")).values == {"2": ["b", "d"], "1": ["a", "c"]}
    assert read_table(path, ("b",)).values == {"b": ["d"]}


def test_whether_there_is_a_header_can_be_said(tmp_path):
    path = saved(tmp_path, "class,1,2\na,5.1,3.5\n", "a.csv")
    assert read_table(path, ("1", "2"), header=True).values == {"1": ["5.1"], "2": ["3.5"]}
    assert read_table(path, ("1", "2")).values == {"1": ["class", "a"], "2": ["1", "5.1"]}
    assert has_header(("1", "class")) and has_header(()) and not has_header(("1", "2"))


@pytest.mark.parametrize(("name", "empty"), [("a.csv", '""'), ("a.jsonl", '{"text": ""}')])
def test_an_empty_value_of_the_only_column_is_a_row(tmp_path, caplog, name, empty):
    first, third = ('{"text": "first"}', '{"text": "third"}') if name == "a.jsonl" else ("first", "third")
    head = "" if name == "a.jsonl" else "text\n"
    path = saved(tmp_path, f"{head}{first}\n{empty}\n{third}\n", name)
    assert read_table(path).column("text") == ["first", "", "third"]
    assert not caplog.records


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_an_empty_line_where_there_is_one_column_is_counted(tmp_path, caplog, name):
    path = saved(tmp_path, "text\nfirst\n  \nthird\n\n", name)
    assert read_table(path).column("text") == ["first", "third"]
    assert f"{path}: 2 empty lines are left out, the first is line 3" in caplog.text


def test_white_space_before_the_first_row_is_no_row(tmp_path):
    path = saved(tmp_path, "   \n1,2,3\n4,5,6\n", "a.csv")
    assert read_table(path, ("1", "3")).values == {"1": ["1", "4"], "3": ["3", "6"]}


def test_empty_lines_are_left_out_but_count(tmp_path):
    for name, tab in (("a.csv", ","), ("a.tsv", "\t")):
        table = read_table(saved(tmp_path, f"\na{tab}b\r\n\r\n  \n{tab}\n1{tab}2\n\n", name))
        assert rows_of(table) == [["", ""], ["1", "2"]]
        assert [table.place(row).rpartition(", ")[2] for row in (0, 1)] == ["line 5", "line 6"]


def test_a_line_end_in_a_value_is_one_character(tmp_path):
    path = saved(tmp_path, 'a,b\r\n"1\r\n2",3\r\n4,5\r\n', "a.csv")
    table = read_table(path)
    assert rows_of(table) == [["1\n2", "3"], ["4", "5"]]
    assert table.place(1) == f"{path}, line 4"


def test_a_field_may_be_longer_than_csv_allows_by_itself(tmp_path):
    limit = csv.field_size_limit()
    long = "a" * (limit + 1)
    assert read_table(saved(tmp_path, f"a,b\n{long},2\n", "a.csv")).column("a") == [long]
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(("name", "tab"), [("a.csv", ","), ("a.tsv", "\t")])
@pytest.mark.parametrize(("count", "fields"), [(2, "1{0}2"), (4, "1{0}2{0}3{0}4")])
def test_a_row_of_another_width_is_refused_with_its_line(tmp_path, name, tab, count, fields):
    text = f"a{tab}b{tab}c\n1{tab}2{tab}3\n\n" + fields.format(tab)
    message = refusal(saved(tmp_path, text, name))
    assert f"{name}, line 4: {count} fields where line 1 has 3" in message


def test_a_quote_without_its_end_is_refused_where_it_begins(tmp_path):
    message = refusal(saved(tmp_path, 'a,b\n"1\n1",2\n"3,4\n5,6\n', "a.csv"))
    assert "a.csv, line 4: the row that begins here is not csv: unexpected end of data" in message


def test_text_after_a_quote_is_refused(tmp_path):
    assert "a.csv, line 2: the row that begins here" in refusal(saved(tmp_path, 'a,b\n"1"x,2\n', "a.csv"))


def test_a_missing_column_is_refused_with_those_that_there_are(tmp_path):
    path = saved(tmp_path, "text,label\na,b\n", "a.csv")
    message = refusal(path, ("text", "lable"))
    assert 'a.csv has no column "lable", did you mean "label"?: there are "text", "label"' in message
    assert "give all by number" in message
    assert 'no column "3": there are "1", "2"' in refusal(path, ("1", "3"))
    assert 'no column "0"' in refusal(path, ("0",))
    assert 'no column "1": there are "text"' in refusal(path, ("1", "label"))


def test_many_and_long_names_are_cut_in_messages(tmp_path):
    names = ["x" * 50, *(f"c{k}" for k in range(20))]
    message = refusal(saved(tmp_path, ",".join(names) + "\n", "a.csv"), ("q",))
    assert f'"{"x" * 39}…", "c0"' in message
    assert '"c10" and 9 more' in message


def test_two_columns_of_one_name_are_refused_where_they_are_wanted(tmp_path):
    path = saved(tmp_path, "a,b,a\n1,2,3\n", "a.csv")
    assert '2 columns "a"' in refusal(path)
    assert read_table(path, ("b",)).column("b") == ["2"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.csv.gz"])
def test_a_table_without_rows_is_refused(tmp_path, name):
    assert "a." in (message := refusal(saved(tmp_path, "", name)))
    assert "is empty: give a table" in message or "has no rows" in message
    assert "has no rows" in refusal(saved(tmp_path, "a,b\n", "b.csv"))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_what_is_not_text_is_refused_with_the_byte(tmp_path, name):
    (tmp_path / name).write_bytes(b"a\n\xff")
    assert "is not UTF-8: byte 2 (0xff)" in refusal(tmp_path / name)
    (tmp_path / name).write_bytes(b"a\0")
    assert "byte 1 is NUL" in refusal(tmp_path / name)
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(b"a,b\n" * 1000)[:-9])
    assert "not a whole gzip file" in refusal(tmp_path / f"{name}.gz")


# Objects: jsonl and parquet.


def test_jsonl_gives_the_objects_and_none_for_what_is_missing(tmp_path):
    text = '{"a": "x\\n", "b": 1}\n\n{"b": 2.5, "c": ["é"]}\r\n{"a": null}'
    for name in ("a.jsonl", "a.ndjson", "a.jsonl.gz"):
        path = saved(tmp_path, text, name)
        table = read_table(path)
        assert table.values == {"a": ["x\n", None, None], "b": [1, 2.5, None], "c": [None, ["é"], None]}
        assert [table.place(row) for row in range(3)] == [f"{path}, line {line}" for line in (1, 3, 4)]
    assert read_table(path, ("c", "a")).values == {"c": [None, ["é"], None], "a": ["x\n", None, None]}
    assert 'no column "d": there are "a", "b", "c"' in refusal(path, ("a", "d"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"a": 1', "not JSON"),
        ('{"a": "\\ud800"}', "surrogates not allowed"),
        ("[" * 100_000, "not JSON"),
        ("[1, 2]", "list [1, 2]: give an object"),
    ],
)
def test_a_line_that_is_no_object_is_refused(tmp_path, line, reason):
    message = refusal(saved(tmp_path, '{"a": "\\ud83d\\ude00"}\n' + line, "a.jsonl"))
    assert "a.jsonl, line 2: " in message
    assert reason in message


@pytest.fixture
def parquet(tmp_path):
    """A file of every kind of value that there might be."""
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    rows = {"a": ["x", None], "b": [1, 2], "c": [["y"], []], "d": [date(2000, 1, 2), None]}
    parquet.write_table(pyarrow.table(rows), path)
    return path


def test_parquet_gives_its_columns(parquet):
    table = read_table(parquet, ("c", "a"))
    assert table.values == {"c": [["y"], []], "a": ["x", None]}
    assert table.place(1) == f"{parquet}, row 2"
    assert read_table(parquet).columns == ("a", "b", "c", "d")
    assert len(read_table(parquet).digest) == 64
    assert 'no column "e": there are "a", "b", "c", "d"' in refusal(parquet, ("e",))


def test_a_damaged_parquet_file_is_refused(parquet):
    parquet.write_bytes(parquet.read_bytes()[:-5])
    assert "a.parquet cannot be read as parquet" in refusal(parquet)


# Folders.


def test_a_folder_of_files_has_a_text_per_line(tmp_path, caplog):
    saved(tmp_path, " Abe \n\n\tObi\r\n", "Japanese.txt")
    saved(tmp_path, "Adam\n", "Irish.txt.gz")
    saved(tmp_path, "", "None.txt")
    saved(tmp_path, "by someone", ".hidden")
    with caplog.at_level(logging.WARNING):
        table = read_table(tmp_path)
    assert table.values == {"text": ["Adam", "Abe", "Obi"], "label": ["Irish", "Japanese", "Japanese"]}
    places = [
        f"{tmp_path}/Irish.txt.gz, line 1",
        *(f"{tmp_path}/Japanese.txt, line {line}" for line in (1, 3)),
    ]
    assert [table.place(row) for row in range(3)] == places
    assert not caplog.records


def test_a_folder_of_folders_has_a_text_per_file(tmp_path):
    for name, text in {"pos/2.txt": "good\r\nfilm\n", "pos/10.txt.gz": "fine", "neg/1.txt": " bad\n"}.items():
        saved(tmp_path, text, name)
    table = read_table(tmp_path)
    assert rows_of(table) == [["bad", "neg"], ["fine", "pos"], ["good\nfilm", "pos"]]
    assert [table.place(row) for row in range(3)] == [
        str(tmp_path / name) for name in ("neg/1.txt", "pos/10.txt.gz", "pos/2.txt")
    ]
    assert read_table(tmp_path, ("label",)).values == {"label": ["neg", "pos", "pos"]}
    assert 'no column "class": there are "text", "label"' in refusal(tmp_path, ("class",))


def test_what_is_no_text_of_a_class_is_left_out_and_said(tmp_path, caplog):
    for name in ("LICENSE", "a.txt", "pos/1.txt", "pos/README", "pos/deep/2.txt"):
        saved(tmp_path, name, name)
    with caplog.at_level(logging.WARNING):
        assert rows_of(read_table(tmp_path)) == [["pos/1.txt", "pos"]]
    (record,) = caplog.records
    assert f"no texts of a class: 4 files, as {tmp_path / 'LICENSE'}" in record.getMessage()


def test_texts_in_no_folder_of_a_class_are_left_out_too(tmp_path, caplog):
    for name in ("a.txt", "too/deep/1.txt"):
        saved(tmp_path, name, name)
    with caplog.at_level(logging.WARNING):
        assert rows_of(read_table(tmp_path)) == [["a.txt", "a"]]
    assert "no texts of a class: 1 files, as" in caplog.text


def test_a_folder_without_texts_is_refused(tmp_path):
    saved(tmp_path, "", "LICENSE")
    assert "has no texts: give one folder of .txt files" in refusal(tmp_path)
    saved(tmp_path, "", "a.txt")
    assert "has no rows" in refusal(tmp_path)


# What is none of these.


def test_a_path_that_is_no_table_is_refused_with_what_there_is(tmp_path):
    message = refusal(saved(tmp_path, "a", "a.docx"))
    assert 'ends in ".docx"' in message
    assert ".csv, .tsv, .txt, .jsonl, .ndjson, .parquet" in message
    assert "does not exist" in refusal(tmp_path / "b.csv")
    assert "hf:NAME:SPLIT" in refusal("somebody/something")


# The Hugging Face Hub.


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A data set that the library reads from a folder, as it would one from the Hub."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    label = datasets.ClassLabel(names=["negative", "positive"])
    features = datasets.Features({"sentence": datasets.Value("string"), "label": label})
    rows = {"sentence": ["a", "b", "c"], "label": [0, 1, -1]}
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data" / "train.parquet")
    return f"hf:{tmp_path / 'data'}"


def test_a_data_set_of_the_hub_gives_its_classes_by_name(hub):
    table = read_table(f"{hub}:train")
    assert table.values == {"sentence": ["a", "b", "c"], "label": ["negative", "positive", None]}
    assert table.place(2) == f"{hub}:train, row 3"
    assert read_table(f"{hub}:default:train[1:]", ("label",)).values == {"label": ["positive", None]}
    assert 'no column "text": there are "sentence", "label"' in refusal(f"{hub}:train", ("text",))


def test_what_the_library_says_is_said(hub):
    assert 'Unknown split "test"' in refusal(f"{hub}:test")
    assert "'other' not found" in refusal(f"{hub}:other:train")


@pytest.mark.parametrize(
    ("source", "name", "configuration", "split"),
    [
        ("hf:nyu-mll/glue:sst2:validation", "nyu-mll/glue", "sst2", "validation"),
        ("hf:imdb:train[:10%]", "imdb", None, "train[:10%]"),
        ("hf:imdb:plain:train[5:]", "imdb", "plain", "train[5:]"),
    ],
)
def test_the_parts_of_a_name_reach_the_library(monkeypatch, source, name, configuration, split):
    datasets = pytest.importorskip("datasets")
    asked = []

    def unreachable(*args, **options):
        asked.append((args, options))
        raise ConnectionError("Couldn't reach it.\nmore")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    message = refusal(source)
    assert asked == [((name, configuration), {"split": split})]
    assert f"{source} cannot be loaded: Couldn't reach it; check the name" in message
    assert "without a network, give the data as a file" in message
    assert "more" not in message


@pytest.mark.parametrize("source", ["hf:imdb", "hf::train", "hf:a:b:c:d", "hf:"])
def test_a_name_without_a_split_is_refused(source):
    assert "write hf:NAME:SPLIT or hf:NAME:CONFIGURATION:SPLIT" in refusal(source)


# Tables themselves.


def test_the_digest_is_that_of_the_content(tmp_path):
    rows = [{"a": "x", "b": "1"}, {"a": "y", "b": "2"}]
    text = "a,b\nx,1\ny,2\n"
    digests = {
        read_table(saved(tmp_path, text, "a.csv")).digest,
        read_table(saved(tmp_path, text, "elsewhere/b.csv.gz")).digest,
        read_table(saved(tmp_path, text.replace(",", "\t"), "a.tsv")).digest,
        read_table(saved(tmp_path, "\n".join(map(json.dumps, rows)), "a.jsonl")).digest,
    }
    assert len(digests) == 1
    others = ["a,c\nx,1\ny,2\n", "a,b\nx,1\ny,3\n", "a,b\ny,2\nx,1\n", "a,b\nx,1\n", "b,a\nx,1\ny,2\n"]
    digests |= {read_table(saved(tmp_path, other, "o.csv")).digest for other in others}
    assert len(digests) == 6


def test_rows_are_selected_with_their_places(tmp_path):
    path = saved(tmp_path, "a,b\n1,2\n3,4\n5,6\n", "a.csv")
    table = read_table(path).select([2, 0])
    assert table.values == {"a": ["5", "1"], "b": ["6", "2"]}
    assert [table.place(row) for row in range(len(table))] == [f"{path}, line 4", f"{path}, line 2"]
    assert len(table.select([])) == 0


def test_a_column_that_is_not_there_is_refused(tmp_path):
    table = read_table(saved(tmp_path, "text,label\n1,2\n", "a.csv"))
    with pytest.raises(DataError, match=r'a\.csv has no column "texts", did you mean "text"\?: there are'):
        table.column("texts")


def test_tables_of_the_same_columns_are_joined(tmp_path):
    for name in ("x/1.txt", "x/2.txt", "y/1.txt"):
        saved(tmp_path, name, f"folder/{name}")
    first = read_table(tmp_path / "folder")
    path = saved(tmp_path, "label,text\nz,3\n", "a.csv")
    joined = join_tables([first, read_table(path), first.select([2])])
    assert joined.values == {"text": ["x/1.txt", "x/2.txt", "y/1.txt", "3", "y/1.txt"], "label": [*"xxyzy"]}
    places = [joined.place(row) for row in range(len(joined))]
    assert places == [*map(first.place, range(3)), f"{path}, line 2", first.place(2)]
    assert joined.source == f"{tmp_path / 'folder'}, {path}"


def test_other_tables_are_not_joined(tmp_path):
    tables = [read_table(saved(tmp_path, f"a,{name}\n1,2\n", f"{name}.csv")) for name in "bc"]
    with pytest.raises(DataError, match=r'c\.csv has the columns "a", "c" and .*b\.csv "a", "b"'):
        join_tables(tables)
    with pytest.raises(DataError, match="no table"):
        join_tables([])


def test_a_place_that_is_not_there_is_an_index_error():
    with pytest.raises(IndexError):
        Places.counted("a, line ", [1, 2])[2]
