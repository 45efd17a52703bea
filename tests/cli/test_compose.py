"""compose and colours as a person uses them, and what is said where something is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
import wave

import pytest
from rich.console import Console

from throughtime.cli.main import main
from throughtime.data.abc import check_tune
from throughtime.tasks import engraving
from throughtime.tasks.language_model import LanguageModelConfig, LanguageModelTask

COMMAND = [sys.executable, "-m", "throughtime.cli.main"]
TUNES = [
    f"X:{k}\nT:Tune {'ABCDEFG'[k % 7]}\nM:{meter}\nL:1/8\nK:{key} Major\n{body}\n\n"
    for k, (meter, key, body) in enumerate(
        [
            ("6/8", "D", "|:def afd|A3 d3:|"),
            ("C", "G", "|:GABc dBGB|A4 G4:|"),
            ("6/8", "G", "|:Bcd gdB|A3 G3:|"),
        ]
        * 12
    )
]


def train(folder, name, text, **data):
    path = folder / name
    path.write_text(text)
    config = LanguageModelConfig(
        data={"paths": (path,), **data},
        model={"hidden": 48, "dropout": 0.0},
        training={"max_epochs": 30, "batch_size": 4, "learning_rate": 0.02},
    )
    LanguageModelTask.train(config, folder / path.stem, Console(quiet=True))
    return folder / path.stem


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compose")


@pytest.fixture(scope="module")
def tunes(folder):
    return train(folder, "tunes.abc", "".join(TUNES))


@pytest.fixture
def here(capsys):
    """A command in this process: its code, what it wrote, what it said."""

    def run(*arguments):
        try:
            code = main([*map(str, arguments)])
        except SystemExit as stopped:
            code = stopped.code
        return code, *capsys.readouterr()

    return run


def test_tunes_have_the_fields_that_are_asked_for(tunes, here):
    code, out, _ = here(
        "compose", tunes, "--key", "D", "--meter", "4/4", "--length", "1/8", "--title", "Tune Z",
        "--seed", 3, "--count", 3, "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert code == 0 and found["drawn"] >= len(found["tunes"]) == 3
    assert found["parsed_share"] == found["parsed"] / found["drawn"] > 0.5
    for number, tune in enumerate(found["tunes"], start=1):
        lines = tune["abc"].splitlines()
        # The spelling of the meter and the key is that of the tunes it learned from.
        assert lines[:5] == [f"X:{number}", "T:Tune Z", "M:C", "L:1/8", "K:D Major"]
        assert tune["parses"] and tune["reason"] is None and check_tune(tune["abc"]) is None


def test_tunes_are_written_to_standard_output(tunes, here):
    code, out, err = here("compose", tunes, "--seed", 1, "--count", 2)
    assert code == 0 and out == here("compose", tunes, "--seed", 1, "--count", 2)[1]
    assert out.startswith("X:1\n") and "\n\nX:2\n" in out and "tunes drawn" in err and "% parse" in err
    assert out != here("compose", tunes, "--seed", 2, "--count", 2)[1]


def test_a_score_and_sound_are_written(tunes, here, tmp_path):
    pytest.importorskip("verovio")
    pytest.importorskip("pretty_midi")
    code, out, _ = here(
        "compose", tunes, "--key", "G", "--meter", "6/8", "--seed", 1, "--out", tmp_path / "new", "--json"
    )
    [tune] = json.loads(out)["tunes"]
    assert code == 0 and tune["files"] == [
        str(tmp_path / "new" / f"1.{kind}") for kind in ("abc", "svg", "mid", "wav")
    ]
    assert (tmp_path / "new" / "1.abc").read_text() == tune["abc"]
    assert "<svg" in (tmp_path / "new" / "1.svg").read_text()
    assert (tmp_path / "new" / "1.mid").read_bytes().startswith(b"MThd")
    with wave.open(str(tmp_path / "new" / "1.wav")) as sound:
        assert sound.getnchannels() == 1 and sound.getnframes() > sound.getframerate()


def test_without_the_extra_the_tunes_are_written(tunes, here, tmp_path, monkeypatch):
    monkeypatch.setattr(engraving, "find_spec", lambda name: None)
    code, _, err = here("compose", tunes, "--seed", 1, "--out", tmp_path / "new")
    assert code == 0 and "pip install 'throughtime[music]'; only the ABC is written" in err.replace("\n", " ")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["1.abc"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--key", "H"], '"H" is no key: give a note from A to G'),
        (["--key", "D Makor"], '"Makor" is no mode'),
        (["--meter", "6/7"], '"6/7" is no meter'),
        (["--length", "1/3"], '"1/3" is no length'),
        (["--title", ""], "give a line of text"),
        (["--title", "100 % wool"], "give a line of text without %"),
        (["--count", "0"], "count must be 1 or more, got 0"),
        (["--temperature", "-1"], "temperature must be 0 or more"),
    ],
)
def test_options_that_mean_nothing(tunes, here, options, message):
    code, out, err = here("compose", tunes, *options)
    assert code == 2 and not out and message in err


def test_a_run_without_tunes_is_refused(folder, here):
    run = train(folder, "prose.txt", "the cat sat on the mat\n" * 60)
    code, _, err = here("compose", run)
    assert code == 2 and "this model was not trained on tunes: give a run" in err
    code, _, err = here("colours", run, "red")
    assert code == 2 and "this model knows no colours" in err


def test_wild_tunes_do_not_parse(tunes, here):
    code, out, err = here("compose", tunes, "--temperature", 50, "--seed", 1, "--raw", "--json")
    [tune] = json.loads(out)["tunes"]
    assert (
        code == 0
        and not tune["parses"]
        and tune["reason"].startswith("line ")
        and "does not parse: line" in err
    )
    code, out, err = here("compose", tunes, "--temperature", 50, "--seed", 1)
    assert code == 1 and not out and "is left out, for none that was drawn parses" in err.replace("\n", " ")
    assert "of 10 tunes drawn 0.0% parse" in err


def test_ctrl_c_leaves_what_was_made(tunes, tmp_path):
    command = [*COMMAND, "compose", tunes, "--count", 100_000, "--out", tmp_path / "new"]
    process = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while time.monotonic() < until and not (tmp_path / "new" / "2.abc").exists():
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped" in err and "Traceback" not in err
    assert check_tune((tmp_path / "new" / "1.abc").read_text()) is None


def test_tunes_are_held_out_whole(tunes, here, tmp_path):
    (tmp_path / "others.abc").write_text("".join(TUNES[:3]))
    code, out, _ = here("evaluate", tunes, tmp_path / "others.abc", "--json")
    assert code == 0 and json.loads(out)["metrics"]["bits_per_character"] < 1


def test_colours_from_the_command(folder, here, tmp_path):
    rows = [
        f"{kind} {name},{code}"
        for kind in ("old", "new")
        for name, code in (("red", "#e01010"), ("sky", "#1010e0"))
    ]
    run = train(folder, "names.csv", "name,hex\n" + "\n".join(rows * 20) + "\n", columns=("name", "hex"))
    picture = tmp_path / "swatches.png"
    code, out, _ = here("colours", run, "old red", "new sky", "--plot", picture, "--json")
    red, sky = map(json.loads, out.splitlines())
    assert code == 0 and (red["likeliest"], sky["likeliest"]) == ("#e01010", "#1010e0")
    assert red.keys() == {"name", "colour", "spread", "likeliest", "probability"}
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, out, _ = here("colours", run, "--count", 3, "--seed", 1)
    assert code == 0 and len(out.splitlines()) == 3 and out[0] == "#"
    code, out, _ = here("colours", run, "--measure", folder / "names.csv", "--json")
    assert code == 0 and json.loads(out)["metrics"].keys() == {
        "delta_e",
        "likeliest_delta_e",
        "mean_colour_delta_e",
    }
    for wrong in ([], ["red", "--count", 2], ["--count", 0], ["--measure", "x.csv", "--plot", "y.png"]):
        assert here("colours", run, *wrong)[0] == 2
