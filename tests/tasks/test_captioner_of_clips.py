"""The captioner on clips: order in time is told, and kinds of input are not mixed."""

import json
import random

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import throughtime
from throughtime.cli.main import main
from throughtime.errors import DataError
from throughtime.tasks.captioner import CaptionerTask, CaptionTaskConfig
from throughtime.train.run import Run

PAINT = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (40, 60, 210)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two colours fill the picture one after the other; the caption says in which order."""
    folder, draw = tmp_path_factory.mktemp("clips"), random.Random(0)
    lines = []
    for k in range(60):
        colours = draw.sample(list(PAINT), 2)
        lengths = [draw.randint(1, 3), draw.randint(1, 3)]
        (folder / f"clips/{k}").mkdir(parents=True)
        each = [colour for colour, length in zip(colours, lengths, strict=True) for _ in range(length)]
        for t, colour in enumerate(each):
            Image.new("RGB", (8, 8), PAINT[colour]).save(folder / f"clips/{k}/{t}.png")
        lines.append({"clip": f"clips/{k}", "caption": f"{colours[0]} then {colours[1]}"})
    (folder / "clips.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    config = CaptionTaskConfig(
        data={"paths": (folder / "clips.jsonl",), "input": "clip", "size": 8},
        model={"hidden": 24, "features": 16, "channels": (8,), "dropout": 0.0},
        training={"max_epochs": 15, "batch_size": 10, "learning_rate": 0.02},
    )
    CaptionerTask.train(config, folder / "run", Console(quiet=True))
    return folder / "run"


def test_the_order_is_learnt(run):
    assert Run(run).best_metrics()["accuracy"] > 0.9
    assert {"captions.png", "attention.png"} <= {path.name for path in run.iterdir()}


def test_the_caption_of_a_clip_does_not_depend_on_its_batch(run):
    task = throughtime.load(run)
    inputs = [str(run.parent / f"clips/{k}") for k in range(6)]
    together = task.answer(inputs)
    for path, answer in zip(inputs, together, strict=True):
        [alone] = task.answer([path])
        assert alone["caption"] == answer["caption"]
        assert alone["log_prob"] == pytest.approx(answer["log_prob"], abs=1e-4)
    vectors = task.embed(inputs)
    assert np.allclose(task.embed(inputs[2:3])[0], vectors[2], atol=1e-5)


def test_attention_is_over_the_frames(run):
    task = throughtime.load(run)
    [path] = [run.parent / "clips/3"]
    frames = len(list(path.iterdir()))
    task.config = task.config.model_copy(
        update={"search": task.config.search.model_copy(update={"attention": True})}
    )
    [answer] = task.answer([str(path)])
    looked = answer["attention"]
    assert looked["words"] == [*answer["caption"].split(), "<end>"] and "grid" not in looked
    weights = np.array(looked["weights"])
    assert weights.shape == (4, frames) and weights.sum(1) == pytest.approx(np.ones(4))


def test_a_clip_is_told_and_drawn(run, tmp_path, capsys):
    assert main(["predict", str(run), str(run.parent / "clips/3"), "--plot", str(tmp_path / "a.png")]) == 0
    assert "then" in capsys.readouterr().out and (tmp_path / "a.png").stat().st_size


def test_a_picture_is_no_clip(run):
    with pytest.raises(DataError, match=r"0\.png is no clip, and clips are read here"):
        throughtime.load(run).answer([str(run.parent / "clips/3/0.png")])
