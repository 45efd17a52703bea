"""`throughtime world`."""

import pytest

from throughtime.cli.main import main


def test_a_world_is_made(tmp_path, capsys):
    assert main(["world", str(tmp_path / "w"), "--scenes", "3", "--size", "32"]) == 0
    assert "3 scenes" in capsys.readouterr().err
    assert len(list((tmp_path / "w/scenes").iterdir())) == 3


@pytest.mark.parametrize(("options", "ends"), [([], {""}), (["--video"], {".mkv"})])
def test_a_moving_world_is_made(tmp_path, capsys, options, ends):
    arguments = ["--scenes", "0", "--clips", "2", "--size", "32", *options]
    assert main(["world", str(tmp_path / "w"), *arguments]) == 0
    assert "2 clips" in capsys.readouterr().err
    assert {path.suffix for path in (tmp_path / "w/clips").iterdir()} == ends
    assert not (tmp_path / "w/scenes").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--size", "4"], "too small"),
        (["--scenes", "0"], "leaves nothing to make"),
        (["--clips", "-1"], "leaves nothing to make"),
    ],
)
def test_what_cannot_be_made_is_said(tmp_path, capsys, options, said):
    assert main(["world", str(tmp_path / "w"), *options]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_a_folder_that_is_there_is_left_alone(tmp_path, capsys):
    assert main(["world", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
