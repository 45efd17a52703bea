"""The table, the lines, the files and the figure."""

import json

import pytest
from rich.console import Console

from throughtime.bench.problems import Size
from throughtime.bench.report import as_line, as_table, check_folder, write_report
from throughtime.bench.rows import Row
from throughtime.bench.timing import Timing
from throughtime.errors import StorageError

SIZE = Size(50, 64, 128, 128)


def timings(**seconds):
    return {name: Timing((value,)) for name, value in seconds.items()}


ROWS = [
    Row("lstm", SIZE, "train", 3 * 10**9, "llvm", timings=timings(ours=0.02, torch=0.03, loop=0.06)),
    Row("mine", SIZE, "train", 10**9, "llvm", timings=timings(ours=0.02, loop=0.05)),
    Row("off", SIZE, "train", 10**9, "llvm", error="llvm is off reference by 1.0e-03"),
]


def shown(rows):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(as_table(rows))
    return [line.split() for line in capture.get().splitlines()]


def test_the_table_has_a_column_for_each_rival_there_is():
    head, lstm, mine, off = shown(ROWS)
    assert head[-3:] == ["GFLOP/s", "torch", "loop"]
    assert lstm[-5:] == ["20.00", "0%", "150", "1.50", "3.00"]
    assert mine[-3:] == ["50", "-", "2.50"]
    assert off[0] == "off" and "not timed" in " ".join(off)


def test_a_line_says_what_was_measured_or_why_not():
    assert as_line(ROWS[0]) == (
        "lstm 50,64,128,128 train: 20.00 ms, 150 GFLOP/s; against torch 1.50, loop 3.00"
    )
    assert as_line(ROWS[2]).endswith("not timed: llvm is off reference by 1.0e-03")


@pytest.mark.parametrize("sizes", [1, 2, 7])
def test_numbers_and_figure_are_written(tmp_path, sizes):
    rows = [
        Row(row.cell, Size(50 + k, 64, 8, 8), row.kind, row.flops, row.backend, timings=row.timings)
        for k in range(sizes)
        for row in ROWS[:2]
    ]
    write_report(tmp_path, {"cores": 2, "matmul_gflops": 160.0}, [*rows, ROWS[2]])
    result = json.loads((tmp_path / "bench.json").read_text())
    assert result["machine"]["cores"] == 2 and len(result["rows"]) == 2 * sizes + 1
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (tmp_path / "bench.svg").read_text()


def test_without_a_timed_row_there_is_no_figure(tmp_path):
    write_report(tmp_path, {}, [ROWS[2]])
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


def test_the_folder_is_looked_at_beforehand(tmp_path):
    check_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="--output"):
        check_folder(tmp_path / "file")
