"""The frame tagger, as a person uses it: tables of clips, labels that are new, streams, figures."""

import json
import logging

import numpy as np
import pytest
from rich.console import Console
from toys import toy_config, toy_run

import throughtime
from throughtime.cli.main import main
from throughtime.data.motion import write_clips
from throughtime.data.video import write_video
from throughtime.errors import ConfigError, DataError
from throughtime.tasks.frame_tagger import FrameTaggerConfig, FrameTaggerTask

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return toy_run("frame-tagger", tmp_path_factory.mktemp("toy"))


def test_a_run_has_its_figures(run):
    assert {"confusion.png", "strips.png"} <= {path.name for path in run.iterdir()}


def test_a_folder_a_video_and_a_table_are_predicted_alike(run, tmp_path, capsys):
    from PIL import Image

    folder = run.parent / "clips/11"
    frames = [Image.open(path).convert("RGB") for path in sorted(folder.iterdir())]
    write_video(tmp_path / "clip.mkv", frames)
    (tmp_path / "list.txt").write_text(f"clip.mkv\n{folder}\n")
    assert main(["predict", str(run), str(folder)]) == 0
    said = capsys.readouterr().out
    assert set(said.split()) <= {"left", "right", "still"} and len(said.split()) == len(frames)
    assert main(["predict", str(run), "--file", str(tmp_path / "clip.mkv")]) == 0
    assert capsys.readouterr().out == said
    assert main(["predict", str(run), "--file", str(tmp_path / "list.txt"), "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [" ".join(answer["labels"]) + "\n" for answer in answers] == [said, said]
    assert answers[0]["frames"] == list(range(len(frames))) and len(answers[0]["probabilities"]) == len(
        frames
    )


def test_a_prediction_is_drawn(run, tmp_path):
    folder = run.parent / "clips/11"
    assert main(["predict", str(run), str(folder), "--plot", str(tmp_path / "strip.png")]) == 0
    assert (tmp_path / "strip.png").stat().st_size


def test_evaluate_tells_of_each_label(run, capsys):
    assert main(["evaluate", str(run), str(run.parent / "data.jsonl"), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"]
    assert metrics["accuracy"] > 0.9
    report = throughtime.load(run).report((run.parent / "data.jsonl",))
    assert [row["class"] for row in report.parts] == ["left", "right", "still"]
    assert sum(row["support"] for row in report.parts) == 48 / 6 * 21


def test_a_label_that_training_never_saw_counts_as_wrong(run, tmp_path, caplog):
    """In one of three clips: its label is wrong and it is not in the loss."""
    rows = [json.loads(line) for line in (run.parent / "data.jsonl").read_text().splitlines()][:3]
    old = tmp_path / "old.jsonl"
    new = tmp_path / "new.jsonl"
    for path in (old, new):
        path.write_text(
            "".join(json.dumps(row | {"clip": str(run.parent / row["clip"])}) + "\n" for row in rows)
        )
        rows[2]["labels"] = "still jump still"
    task = throughtime.load(run)
    with caplog.at_level(logging.WARNING):
        report = task.report((new,))
    assert 'has the label "jump", which training never saw' in caplog.text
    assert report.metrics["accuracy"] <= 5 / 6 and report.parts[-1]["class"] == "jump"
    assert report.metrics["loss"] == pytest.approx(task.report((old,)).metrics["loss"], abs=0.05)
    rows = [{"clip": str(run.parent / "clips/1"), "labels": "jump hop"}]
    new.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(DataError, match="no other label is known either: is it the right column"):
        task.evaluate((new,))


def test_which_frames_are_read_is_said_once():
    with pytest.raises(ConfigError, match="--every and --rate both say which frames are read"):
        FrameTaggerConfig(data={"every": 2, "rate": 4.0})


def test_no_data_are_named():
    with pytest.raises(DataError, match="no data: give tables of clips and their labels"):
        FrameTaggerTask.read(FrameTaggerConfig())


def test_frames_that_are_not_read_are_not_answered(run, tmp_path):
    task, config = toy_config("frame-tagger", tmp_path, max_epochs=1)
    config = config.model_copy(update={"data": config.data.model_copy(update={"every": 2})})
    task.train(config, tmp_path / "run", QUIET)
    [answer] = throughtime.load(tmp_path / "run").answer([tmp_path / "clips/4"])
    assert answer["frames"] == [0, 2, 4] and len(answer["labels"]) == 3


@pytest.mark.parametrize("head", ["softmax", "crf"])
def test_a_stream_that_looks_back_only_learns_the_toy(tmp_path, head):
    task, config = toy_config("frame-tagger", tmp_path)
    model = config.model.model_copy(update={"bidirectional": False, "head": head})
    trained = task.train(config.model_copy(update={"model": model}), tmp_path / "run", QUIET)
    assert trained.valid["accuracy"] > 0.9
    answers = throughtime.load(tmp_path / "run").answer([tmp_path / "clips/5"])
    clip = tmp_path / "clips/5"
    (clip / "5.png").unlink()
    shorter = throughtime.load(tmp_path / "run").answer([clip])
    if head == "softmax":  # what a frame is does not depend on those that come
        assert shorter[0]["labels"] == answers[0]["labels"][:5]
        assert np.allclose(shorter[0]["probabilities"], answers[0]["probabilities"][:5], atol=1e-5)


@pytest.mark.slow
def test_the_moving_world_is_learnt(tmp_path):
    write_clips(tmp_path / "world", 1000, 32)
    config = FrameTaggerConfig(data={"paths": (tmp_path / "world/clips.jsonl",)}, training={"max_epochs": 10})
    assert FrameTaggerTask.train(config, tmp_path / "run", QUIET).valid["accuracy"] > 0.95
