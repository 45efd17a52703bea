"""`throughtime bench` as a person uses it."""

import json
import os
import signal
import subprocess
import sys

import pytest

from throughtime.cli.bench import _interrupt

CELL = '''
"""Cells of a user."""
from throughtime.cells import cell, sigmoid, tanh

@cell(state="h")
def mgu(x, s, w):
    """Minimal gated unit (Zhou et al. 2016)."""
    f = sigmoid(w.f(x, s.h))
    return (1 - f) * s.h + f * tanh(w.n(x, f * s.h))

number = 3
'''
QUICK = ["--sizes", "3,2,4,5", "--seconds", "0", "--threads", "1"]
OFF = """
import sys
import torch
from throughtime.cells import CELLS
from throughtime.cli.main import main
from throughtime.kernels.unroll import BACKENDS, explain

module = BACKENDS[explain(CELLS["lstm"], torch.zeros(1, 1, 1)).backend]
run = module.run

def off(graph, *others, **options):
    y, final = run(graph, *others, **options)
    return (y + 1e-3 if graph is CELLS["lstm"].graph else y), final

module.run = off
sys.exit(main(sys.argv[1:]))
"""


def command(*arguments):
    return [sys.executable, "-m", "throughtime.cli.main", "bench", *map(str, arguments)]


def bench(*arguments, cwd=None):
    return subprocess.run(command(*arguments), capture_output=True, text=True, cwd=cwd, timeout=200)


def test_the_last_line_is_the_json_that_was_agreed(tmp_path):
    (tmp_path / "mine.py").write_text(CELL)
    done = bench("--cells", "lstm,mine.py:mgu", *QUICK, "--json", "--output", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    result = json.loads(done.stdout)
    assert set(result) == {"machine", "rows"}
    assert result["machine"]["threads"] == 1 and result["machine"]["matmul_gflops"] > 0
    rows = result["rows"]
    assert [(row["cell"], row["pass"]) for row in rows] == [
        (cell, kind) for cell in ("lstm", "mgu") for kind in ("train", "infer")
    ]
    for row in rows:
        assert [row[key] for key in "TBIH"] == [3, 2, 4, 5] and row["gflops"] > 0
        assert set(row["against"]) <= {"torch", "loop", "jax", "packed"} and row["comparison"]["ok"]
        ours = row["seconds"]["ours"]
        for name in set(row["against"]) - {"packed"}:
            assert row["against"][name] == pytest.approx(row["seconds"][name] / ours)
    assert {"torch", "loop", "packed"} <= set(rows[0]["against"])
    assert {"torch", "packed"}.isdisjoint(rows[2]["against"])
    assert "4/4 mgu 3,2,4,5 infer" in done.stderr
    assert json.loads((tmp_path / "out" / "bench.json").read_text()) == result
    assert (tmp_path / "out" / "bench.png").exists() and (tmp_path / "out" / "bench.svg").exists()


def test_a_table_for_people():
    done = bench("--cells", "gru", *QUICK, "--passes", "infer")
    assert done.returncode == 0, done.stderr
    head, row = done.stdout.splitlines()
    assert "GFLOP/s" in head and "torch" in head and "packed" not in head
    assert row.split()[:6] == ["gru", "3,", "2,", "4,", "5", "infer"]


def test_a_cell_that_is_off_by_a_thousandth_is_not_timed():
    arguments = ["bench", "--cells", "lstm,gru", *QUICK, "--passes", "infer", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", OFF, *arguments], capture_output=True, text=True, timeout=200
    )
    lstm, gru = json.loads(done.stdout)["rows"]
    assert "off reference by" in lstm["error"] and "gflops" not in lstm and not lstm["comparison"]["ok"]
    assert gru["gflops"] > 0 and "error" not in gru
    assert "not timed" in done.stderr and done.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--cells", "lstn"], ["did you mean lstm"]),
        (["--cells", "no.py:mgu"], ["no.py is not a file"]),
        (["--cells", "mine.py:other"], ["mine.py has no other", "mgu"]),
        (["--sizes", "1,2,3"], ['"1,2,3" is not a size']),
        (["--cells", "batch_norm_lstm"], ['"batch_norm_lstm" needs the statistics of batches']),
        (["--passes", "sideways"], ['no pass "sideways": there are train, infer']),
        (["--seconds", "-1"], ["seconds must be 0 or more"]),
        (["--seconds", "nan"], ["seconds must be 0 or more"]),
        (["--threads", "0"], ["threads must be 1 or more"]),
    ],
)
def test_bad_usage_is_one_line_and_code_2(tmp_path, arguments, parts):
    (tmp_path / "mine.py").write_text(CELL)
    done = bench(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("throughtime: ")
    for part in parts:
        assert part in done.stderr


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path):
    (tmp_path / "file").write_text("")
    done = bench(*QUICK, "--output", "file", cwd=tmp_path)
    assert done.returncode == 1 and "1/" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("throughtime: file cannot be written")


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_gives_what_has_been_measured(tmp_path):
    sizes = [f"{steps},2,4,5" for steps in range(3, 203)]
    arguments = [
        "--cells",
        "rnn",
        "--sizes",
        *sizes,
        "--seconds",
        "0.2",
        "--threads",
        "1",
        "--passes",
        "infer",
    ]
    process = subprocess.Popen(
        command(*arguments, "--json", "--output", "out"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    for line in process.stderr:
        if line.startswith("2/200 "):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    rows = json.loads(out.splitlines()[-1])["rows"]
    assert 2 <= len(rows) < 200 and all(row["gflops"] > 0 for row in rows)
    assert f"stopped after {len(rows)} of 200 rows" in err
    assert len(json.loads((tmp_path / "out" / "bench.json").read_text())["rows"]) == len(rows)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_the_first_ctrl_c_waits_for_a_run_to_end_and_the_second_does_not():
    before = signal.getsignal(signal.SIGINT)
    with _interrupt() as interrupted:
        assert not interrupted.is_set()
        signal.raise_signal(signal.SIGINT)
        assert interrupted.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
