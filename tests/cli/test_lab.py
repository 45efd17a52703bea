"""`throughtime lab`: experiments as a person asks for them."""

import json
import subprocess
import sys

import pytest

from throughtime.cli.main import main
from throughtime.lab.experiment import Experiment
from throughtime.lab.table import EXPERIMENTS

COMMAND = [sys.executable, "-m", "throughtime.cli.main"]
CELL = '''
from throughtime.cells import cell, tanh


@cell(state="h")
def leaky(x, s, w):
    """A leaky unit (by hand)."""
    return 0.9 * s.h + 0.1 * tanh(w.h(x, s.h))
'''


def throughtime(*arguments, cwd):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120, cwd=cwd
    )


def test_the_experiments_are_listed(tmp_path, capsys):
    assert main(["lab"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name}" in out and row.title in out for name, row in EXPERIMENTS.items())
    assert main(["lab", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["experiments"]
    assert [row["name"] for row in listed] == list(EXPERIMENTS)


def test_an_experiment_says_what_held_and_leaves_its_figure(tmp_path):
    done = throughtime("lab", "eigenvalues", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("claimed:") == done.stdout.count("measured:") == done.stdout.count("held:") == 3
    assert {path.name for path in (tmp_path / "lab").iterdir()} == {
        "eigenvalues.png",
        "eigenvalues.svg",
        "eigenvalues.json",
    }
    report = json.loads((tmp_path / "lab/eigenvalues.json").read_text())
    left = {row["eigenvalue"]: row["left"] for row in report["rows"][:22] if row["step"] == 10}
    assert left == {-0.618: pytest.approx(0.618034**10), 1.618: pytest.approx(1.618034**10)}


def test_a_second_run_gives_the_same(tmp_path):
    files = []
    for _ in range(2):
        done = throughtime("lab", "eigenvalues", "--json", cwd=tmp_path)
        report = json.loads(done.stdout)
        del report["seconds"]
        files.append((report, (tmp_path / "lab/eigenvalues.svg").read_bytes()))
    assert files[0] == files[1]


def test_cells_of_ones_own(tmp_path, capsys, monkeypatch):
    (tmp_path / "mycells.py").write_text(CELL)
    monkeypatch.chdir(tmp_path)
    assert main(["lab", "two-sums", "--cells", "gru, mycells.py:leaky", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["cells"] == ["gru", "mycells.py:leaky"]
    assert report["claims"][0]["held"] == "yes"


def test_several_make_a_report(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["lab", "eigenvalues", "activations", "--out", "made"]) == 0
    page = (tmp_path / "made/report.html").read_text()
    assert page.count("<h2") == 2 and page.count("data:image/png;base64,") == 2
    assert '<a href="#activations">' in page
    assert "&lt;" not in page.partition("</style>")[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eigen"], 'there is no experiment "eigen": did you mean eigenvalues?'),
        (["eigenvalues", "--cells", "gru"], 'the experiment "eigenvalues" takes no --cells: leave them out'),
        (["two-sums", "--cells", "grv"], 'there is no cell "grv": did you mean gru'),
        (["two-sums", "--cells", " , "], "--cells names no cell"),
        (["two-sums", "--seed", "-1"], "--seed must be 0 or more, got -1"),
    ],
)
def test_what_is_wrong_is_said(arguments, message, capsys, tmp_path):
    assert main(["lab", *arguments, "--out", str(tmp_path / "lab")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize("row", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_every_experiment_has_its_file_and_its_page(row: Experiment):
    from importlib import import_module
    from pathlib import Path

    module = import_module(f"throughtime.lab.{row.name.replace('-', '_')}")
    assert callable(module.run) and len(module.__doc__) > 80
    docs = Path(__file__).parents[2] / "docs"
    assert f"images/lab/{row.name}.png" in (docs / "lab" / f"{row.name}.md").read_text()
    assert (docs / "images" / "lab" / f"{row.name}.png").exists()
