"""`throughtime demo ball`."""

import json

import pytest
from PIL import Image

from throughtime.cli import ball
from throughtime.cli.main import main
from throughtime.tasks import balls


@pytest.mark.parametrize("count", [1, 2])
def test_two_predictors_are_trained_and_the_balls_move(tmp_path, capsys, monkeypatch, count):
    monkeypatch.setattr(balls, "TRAIN", 100)
    monkeypatch.setattr(balls, "VALID", 10)
    monkeypatch.setattr(ball, "TEST", 12)
    out = tmp_path / "ball"
    arguments = ["--minutes", "0.02", "--balls", str(count), "--out", str(out), "--json"]
    assert main(["demo", "ball", *arguments]) == 0
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert answer["errors"].keys() == {"constant velocity", "from pixels", "from coordinates"}
    for errors in answer["errors"].values():
        assert errors.keys() == {"1", "5", "10", "20"} and all(0 < error < 100 for error in errors.values())
    assert answer["errors"]["constant velocity"]["1"] < 0.02 < answer["errors"]["constant velocity"]["20"]
    with Image.open(out / "ball.gif") as film:
        assert film.n_frames == 30
    assert "after 20" in said.err and "@" in said.err
    assert (out / "pixels/model.safetensors").exists() and (out / "coordinates/forecast.png").exists()
    assert main(["demo", "ball", *arguments]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_a_demo_that_is_stopped_compares_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(balls, "TRAIN", 100)
    monkeypatch.setattr(balls, "VALID", 10)
    monkeypatch.setattr(balls, "fit", lambda *_, **__: (None, False))
    assert main(["demo", "ball", "--minutes", "0.02", "--out", str(tmp_path / "ball"), "--json"]) == 130
    said = capsys.readouterr()
    assert not said.out and "stopped before the predictors could be compared" in said.err
    assert main(["demo", "ball", "--minutes", "0", "--out", str(tmp_path / "no")]) == 2
    assert "--minutes 0 leaves no time to train" in capsys.readouterr().err and not (tmp_path / "no").exists()
