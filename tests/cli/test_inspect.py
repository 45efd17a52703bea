"""`throughtime inspect`: the views of real runs of every task, as a person asks for them."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from toys import toy_config

from throughtime.cli.main import main
from throughtime.insight.table import VIEWS
from throughtime.tasks.table import TASKS

COMMAND = [sys.executable, "-m", "throughtime.cli.main"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of a run of each task after an epoch or two, made when it is asked for."""
    from rich.console import Console

    made = {}

    def run(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            task, config = toy_config(name, folder, max_epochs=2)
            made[name] = folder / "run"
            task.train(config, made[name], Console(quiet=True))
        return made[name]

    return run


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are not drawn, which takes longer than all else."""
    monkeypatch.setattr("throughtime.insight.figures.save", lambda draw, path: [])


def shown(capsys, tmp_path, *arguments):
    """The JSON that a view prints."""
    code = main(["inspect", *map(str, arguments), "--json", "--out", str(tmp_path / "out")])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)


def refused(capsys, *arguments):
    code = main(["inspect", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    return err


def test_the_views_are_listed():
    done = subprocess.run([*COMMAND, "inspect"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    for name, summary in VIEWS.items():
        assert f"  {name}" in done.stdout and summary in done.stdout


def test_a_view_as_a_person_sees_it(runs, tmp_path):
    run = runs("language-model")
    done = subprocess.run(
        [*COMMAND, "inspect", str(run), "gates", "--out", str(tmp_path / "new" / "folder")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "is the most saturated" in done.stdout and "recurrence.0.f" in done.stdout
    names = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert names == {
        "gates.png",
        "gates.svg",
        "gates-over-input.png",
        "gates-over-input.svg",
        "gates.json",
    }
    assert (tmp_path / "new/folder/gates.png").read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(tmp_path / "new/folder/gates.svg").getroot().tag.endswith("svg")
    saved = json.loads((tmp_path / "new/folder/gates.json").read_text())
    assert sum(saved["rows"][0][share] for share in ("shut", "between", "open")) == pytest.approx(1)


def test_the_figures_are_the_same_when_they_are_drawn_again(runs, capsys, tmp_path):
    run = runs("language-model")
    made = []
    for _ in range(2):
        report = shown(capsys, tmp_path, run, "gradients")
        made.append({name: Path(name).read_bytes() for name in report["files"]})
    assert made[0] == made[1]


@pytest.mark.parametrize("name", TASKS)
def test_gradients_of_every_task_go_back_through_time(name, runs, undrawn, capsys, tmp_path):
    report = shown(capsys, tmp_path, runs(name), "gradients")
    assert report["rows"]
    assert all(min(norms) >= 0 for norms in report["whole"].values())
    assert any(max(norms) > 0 for norms in report["whole"].values())
    for key, far in report["by_distance"].items():
        assert far[0] > 0, key


@pytest.mark.parametrize("name", TASKS)
def test_gates_of_every_task_are_shares(name, runs, undrawn, capsys, tmp_path):
    for row in shown(capsys, tmp_path, runs(name), "gates")["rows"]:
        if row["shut"] is None:
            continue  # what is no sigmoid and no tanh
        assert row["shut"] + row["between"] + row["open"] == pytest.approx(1, abs=1e-5)
        assert 0 <= row["constant_units"] <= row["units"]


@pytest.mark.parametrize("name", TASKS)
def test_jacobians_of_every_task_are_bounded_by_their_parts(name, runs, undrawn, capsys, tmp_path):
    report = shown(capsys, tmp_path, runs(name), "jacobian", "--steps", 12)
    for row in report["rows"]:
        values = {int(d): each for d, each in report["singular_values"][row["layer"]].items()}
        assert all(largest >= median >= smallest >= 0 for largest, median, smallest in values.values())


def test_a_text_that_is_given_is_what_is_read(runs, undrawn, capsys, tmp_path):
    run = runs("language-model")
    report = shown(capsys, tmp_path, run, "gradients", "--text", "see the cat")
    [far] = report["by_distance"].values()
    assert len(far) == len("see the cat")


def test_a_file_that_is_given_is_what_is_read(runs, capsys, tmp_path):
    run = runs("language-model")
    (tmp_path / "other.txt").write_text("see the cat drink milk .\n" * 40)
    report = shown(capsys, tmp_path, run, "neurons", "--file", tmp_path / "other.txt", "--steps", 120)
    assert {row["trait"] for row in report["rows"]} >= {"space", "vowel"}
    assert all(-1 <= row["held"] <= 1 for row in report["rows"])


@pytest.mark.parametrize("task", ["classifier", "tagger", "seq2seq"])
def test_a_text_gets_the_answer_of_the_model(task, runs, undrawn, capsys, tmp_path):
    text = {"classifier": "red", "tagger": "the cat", "seq2seq": "0123"}[task]
    report = shown(capsys, tmp_path, runs(task), "gradients", "--text", text)
    assert report["rows"]


def test_what_is_wrong_is_said(runs, capsys, tmp_path):
    run = runs("language-model")
    assert 'there is no view "gate": there are gradients' in refused(capsys, run, "gate")
    assert f"say what to look at: throughtime inspect {run} VIEW" in refused(capsys, run)
    assert "give --text or --file, not both" in refused(
        capsys, run, "gates", "--text", "a", "--file", tmp_path / "x"
    )
    assert "--steps must be 1 or more, got 0" in refused(capsys, run, "gates", "--steps", 0)
    assert "is not a run" in refused(capsys, tmp_path / "nothing", "gates")
    assert "there is nothing to look at: the text is empty" in refused(capsys, run, "gates", "--text", "")
    assert "reads no text: give --file" in refused(capsys, runs("forecaster"), "gates", "--text", "1 2 3")


def test_data_that_are_gone_are_asked_for(capsys, tmp_path):
    from rich.console import Console

    task, config = toy_config("language-model", tmp_path, max_epochs=1)
    task.train(config, tmp_path / "run", Console(quiet=True))
    for path in config.data.paths:
        path.unlink()
    message = refused(capsys, tmp_path / "run", "gates")
    assert "cannot be looked at on its own data" in message and "give --text or --file" in message
    code = main(["inspect", str(tmp_path / "run"), "gates", "--text", "see the cat", "--json"])
    assert code == 0 and json.loads(capsys.readouterr().out)["rows"]
