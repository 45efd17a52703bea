"""Rows: their numbers, and those that are refused."""

import json

import pytest

from throughtime.bench import rivals
from throughtime.bench import rows as module
from throughtime.bench.comparison import Comparison
from throughtime.bench.problems import Size, flops
from throughtime.bench.rows import Row, measure
from throughtime.bench.timing import Timing
from throughtime.cells.library import CELLS
from throughtime.errors import StoppedError

SIZE = Size(steps=3, batch=2, inputs=4, hidden=5)
LSTM = CELLS["lstm"]
TIMINGS = {
    name: Timing((seconds,))
    for name, seconds in {"ours": 0.5, "torch": 1.0, "loop": 2.0, "ours, packed": 0.1, "packed": 0.4}.items()
}


def test_a_ratio_is_the_time_of_the_rival_over_ours():
    row = Row("lstm", SIZE, "train", 3_000_000_000, timings=TIMINGS)
    assert row.gflops == pytest.approx(6)
    assert row.against == pytest.approx({"torch": 2.0, "loop": 4.0, "packed": 4.0})


def test_the_json_of_a_row_has_what_was_agreed():
    row = Row("lstm", SIZE, "train", 10**9, "llvm", Comparison(1e-6, "y"), TIMINGS).as_json()
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert [row[key] for key in ("cell", "T", "B", "I", "H", "pass")] == ["lstm", 3, 2, 4, 5, "train"]
    assert row["gflops"] == pytest.approx(2) and set(row["against"]) == {"torch", "loop", "packed"}
    assert row["backend"] == "llvm" and row["comparison"]["ok"] and row["seconds"]["torch"] == 1.0


def test_every_cell_size_and_pass_has_a_row(monkeypatch):
    monkeypatch.setattr(rivals, "has_jax", lambda: False)  # compiling takes its time
    cells, sizes = [LSTM, CELLS["peephole_lstm"]], [SIZE, Size(2, 1, 3, 4)]
    rows = list(measure(cells, sizes, ["train", "infer"], seconds=0))
    assert [(r.cell, r.size, r.kind) for r in rows] == [
        (cell.name, size, kind) for cell in cells for size in sizes for kind in ("train", "infer")
    ]
    for row in rows:
        assert row.error is None and row.comparison.ok and row.backend and row.gflops > 0
        torchs = {"torch", "packed"} if row.kind == "train" else {"torch"}
        assert set(row.against) == {"loop"} | (torchs if row.cell == "lstm" else set())
        assert row.flops == flops(CELLS[row.cell], row.size, row.kind)


def test_a_cell_that_is_not_its_reference_is_compared_once_and_not_timed(monkeypatch):
    compared, timed = [], []

    def compare(cell, backend):
        compared.append(cell.name)
        return Comparison(1e-3, "y", "off by 1e-3") if cell is LSTM else Comparison(0.0, "y")

    monkeypatch.setattr(module, "compare", compare)
    monkeypatch.setattr(module, "time_in_turns", lambda contenders, **_: timed.append(1) or TIMINGS)
    rows = list(measure([LSTM, CELLS["gru"]], [SIZE], ["train", "infer"], seconds=0))
    assert compared == ["lstm", "gru"] and len(timed) == 2
    assert [row.error for row in rows] == ["off by 1e-3", "off by 1e-3", None, None]
    refused = rows[0].as_json()
    assert refused["error"] == "off by 1e-3" and "gflops" not in refused and "against" not in refused
    assert refused["comparison"] == {"ok": False, "worst_error": 1e-3, "where": "y"}


def test_a_size_that_does_not_fit_into_memory_is_a_row_that_says_so(monkeypatch):
    def fail(contenders, **_):
        raise RuntimeError("can't allocate\nmemory")

    monkeypatch.setattr(module, "time_in_turns", fail)
    (row,) = measure([LSTM], [SIZE], ["train"], seconds=0)
    assert row.error == "can't allocate memory" and row.as_json()["error"] == row.error


@pytest.mark.parametrize("rows", [0, 1])
def test_a_person_may_stop_between_rows_and_keeps_what_is_done(monkeypatch, rows):
    monkeypatch.setattr(module, "time_in_turns", lambda *_, **__: TIMINGS)
    done = []
    with pytest.raises(StoppedError):
        for row in measure([LSTM], [SIZE] * 3, ["infer"], seconds=0, stopped=lambda: len(done) == rows):
            done.append(row)
    assert len(done) == rows


def test_a_person_may_stop_within_a_row():
    asked = iter([False, False, True])
    with pytest.raises(StoppedError):
        next(measure([LSTM], [SIZE], ["infer"], seconds=60, stopped=lambda: next(asked)))
