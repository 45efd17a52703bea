"""Looking inside while a model is trained, and TensorBoard."""

import json
import sys

import pytest
import torch
from rich.console import Console
from toys import toy_config

from throughtime.cli.main import main
from throughtime.errors import ConfigError
from throughtime.insight.gradients import quarters
from throughtime.train.config import TrainingConfig
from throughtime.train.run import Run


def trained(folder, name="language-model", **training):
    folder.mkdir()
    task, config = toy_config(name, folder, max_epochs=2, **training)
    task.train(config, folder / "run", Console(quiet=True))
    return Run(folder / "run")


def watched(run):
    return [record for record in run.read_metrics() if "watch" in record]


def test_watching_records_and_changes_nothing(tmp_path):
    plain = trained(tmp_path / "plain")
    looked = trained(tmp_path / "looked", watch=("gradients", "gates"), watch_every=3)
    assert plain.model.read_bytes() == looked.model.read_bytes()
    records = watched(looked)
    steps = max(record["step"] for record in plain.read_metrics())
    assert [record["step"] for record in records] == [k + 1 for k in range(0, steps, 3)]
    for record in records:
        gates, gradients = record["watch"]["gates"], record["watch"]["gradients"]
        assert set(gates) == {f"recurrence.0.{name}" for name in "ifgo"}
        assert all(0 <= gates[key]["shut"] + gates[key]["open"] <= 1 for key in gates)
        assert gates["recurrence.0.f"]["mean"] == pytest.approx(0.73, abs=0.2)  # a bias of 1 opens it
        [norms] = gradients.values()
        assert list(norms) == ["quarter_1", "quarter_2", "quarter_3", "quarter_4"]
        assert all(value > 0 for value in norms.values())
        assert record["watch"]["seconds"]["looked"] > 0


def test_quarters_are_means_over_the_steps_that_rows_have():
    norms = torch.arange(16.0).view(2, 8)
    real = torch.tensor([[True] * 8, [True] * 3 + [False] * 5])
    assert quarters(norms, real) == {
        "quarter_1": pytest.approx((0 + 1 + 8 + 9) / 4),
        "quarter_2": pytest.approx((2 + 3 + 10) / 3),
        "quarter_3": pytest.approx(4.5),
        "quarter_4": pytest.approx(6.5),
    }
    assert quarters(norms, real & False)["quarter_4"] is None


@pytest.mark.parametrize("name", ["classifier", "tagger", "seq2seq"])
def test_other_tasks_are_watched(name, tmp_path):
    run = trained(tmp_path / name, name, watch=("gradients",))
    assert watched(run)[0]["watch"]["gradients"]


def test_what_is_recorded_goes_to_tensorboard(tmp_path):
    event = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = trained(tmp_path / "run", watch=("gates",), watch_every=5, tensorboard=True)
    seen = event.EventAccumulator(str(run.board))
    seen.Reload()
    tags = set(seen.Tags()["scalars"])
    assert {"train/loss", "valid/loss", "watch/gates/recurrence.0.f/mean"} <= tags
    first = watched(run)[0]["watch"]["gates"]["recurrence.0.f"]["mean"]
    assert seen.Scalars("watch/gates/recurrence.0.f/mean")[0].value == pytest.approx(first, rel=1e-6)


def test_tensorboard_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'throughtime\[tensorboard\]'"):
        trained(tmp_path / "run", tensorboard=True)


def test_names_may_stand_in_one_word():
    assert TrainingConfig(watch=("gradients,gates",)).watch == ("gradients", "gates")
    with pytest.raises(ConfigError, match='there is no "gats" to watch: there are gradients, gates'):
        TrainingConfig(watch=("gats",))


def test_a_model_without_recurrence_is_not_watched(tmp_path):
    _, config = toy_config("classifier", tmp_path)
    path = str(config.data.paths[0])
    arguments = [*("--watch", "gates"), *("--model", "bag-of-words"), *("--max-epochs", "1")]
    code = main(["train", "classifier", path, *arguments, "--out", str(tmp_path / "run")])
    assert code == 2


def test_the_command_line_takes_it(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("see the cat drink milk .\n" * 80)
    arguments = ["--watch", "gradients,gates", "--hidden", "8", "--max-epochs", "1", "--json"]
    run = str(tmp_path / "run")
    assert main(["train", "language-model", str(tmp_path / "text.txt"), *arguments, "--out", run]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["run"] == run
    assert set(watched(Run(tmp_path / "run"))[0]["watch"]) == {"gates", "gradients", "seconds"}
