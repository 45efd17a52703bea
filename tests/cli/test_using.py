"""The commands that use a trained run, as a person uses them: on real files, each in a process of its own.

What is tried many ways besides is tried in this process, which has torch in memory already.
"""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from pyarrow.parquet import read_table
from rich.console import Console
from toys import toy_config

from throughtime import load
from throughtime.cli.main import main

COMMAND = [sys.executable, "-m", "throughtime.cli.main"]
VERSE = "see the cat drink milk .\nsee the bat fly home .\n"


def throughtime(*arguments, **options):
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def lines(done):
    """What a command wrote that went well."""
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def here(capsys):
    """The same in this process."""

    def run(*arguments):
        arguments = [*map(str, arguments)]
        try:
            code = main(arguments)
        except SystemExit as stopped:  # as the parser of options does
            code = stopped.code
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run


def same(answer, expected):
    return answer == expected | {"log_prob": pytest.approx(expected["log_prob"], rel=1e-3)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs: digits turned round, colours as classes, a model of characters and one of words."""
    folder = tmp_path_factory.mktemp("using")
    for name, task, epochs, data in (
        ("digits", "seq2seq", 12, {}),
        ("colours", "classifier", 8, {}),
        ("cats", "language-model", 4, {}),
        ("verse", "language-model", 12, {"tokens": "word"}),
    ):
        (folder / f"{name}.data").mkdir()
        made, config = toy_config(task, folder / f"{name}.data", max_epochs=epochs)
        if data:
            config.data.paths[0].write_text(VERSE * 60)
            config = config.model_copy(update={"data": config.data.model_copy(update=data)})
        made.train(config, folder / name, Console(quiet=True))
    return folder


@pytest.fixture(scope="module")
def digits(folder):
    return folder / "digits", load(folder / "digits")


def test_predict_an_input(digits, here, tmp_path):
    run, task = digits
    [expected] = task.answer(["012"])
    picture = tmp_path / "new" / "attention.png"
    done = throughtime("predict", run, "012", "--plot", picture)
    assert done.stdout == expected["output"] + "\n" and done.stderr.split() == ["drawn:", str(picture)]
    assert picture.read_bytes().startswith(b"\x89PNG")
    for text in ("-5", ""):
        [line] = lines(here("predict", "--json", run, text))  # no option, though it looks like one
        assert same(json.loads(line), task.answer([text])[0])


def test_predict_with_options_of_the_search(digits, here):
    run, _ = digits
    answer = json.loads(*lines(throughtime("predict", run, "0123", "--n-best", 3, "--attention", "--json")))
    assert len(answer["n_best"]) == 3 and len(answer["attention"]["weights"][0]) == 5
    drawn = ["predict", run, "0123", "--temperature", 5, "--n-best", 4, "--seed"]
    first = lines(here(*drawn, 1))
    assert len(first) == 4 and first == lines(here(*drawn, 1)) != lines(here(*drawn, 2))


def test_predict_a_file(digits, here, tmp_path):
    run, task = digits
    inputs = [*(str(k % 4) * (k % 5) for k in range(150)), "0123"]
    (tmp_path / "in.txt").write_text("\n".join(inputs) + "\n")
    expected = [answer["output"] for answer in task.answer(inputs)]
    assert lines(throughtime("predict", run, "--file", tmp_path / "in.txt")) == expected
    (tmp_path / "in.tsv").write_text("12\t21\n30\t3\n")
    answers = map(json.loads, lines(here("predict", run, "--file", tmp_path / "in.tsv", "--json")))
    assert [answer["input"] for answer in answers] == ["12", "30"]


#: Tests in the background may be told to ignore Ctrl-C, which every child inherits: this one does not.
HEARD = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", HEARD, *COMMAND, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_lines_that_come_in_are_answered_at_once_and_in_order(digits):
    run, task = digits
    process = start("predict", run, "-", "--json")

    for line, read in ((b"012\n", "012"), (b"\n", ""), (b"3\r\n", "3"), (b"1\xff2\n", "1\ufffd2")):
        process.stdin.write(line)
        process.stdin.flush()
        assert same(json.loads(process.stdout.readline()), task.answer([read])[0])
    many = [f"{k % 4}{k // 4 % 4}{k // 16 % 4}" for k in range(300)]
    out, err = process.communicate("\n".join(many).encode(), timeout=60)  # no end after the last line
    assert [json.loads(line)["input"] for line in out.splitlines()] == many
    assert (process.returncode, err) == (0, b"")


def test_ctrl_c_ends_the_reading_of_lines(digits):
    process = start("predict", digits[0], "-")
    process.stdin.write(b"1\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"1\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert process.stderr.read() == b"throughtime: stopped\n"
    process.communicate()


def test_output_into_a_closed_pipe_is_quiet(digits, tmp_path):
    (tmp_path / "many.txt").write_text("012\n" * 3000)
    pipe = (
        f"{' '.join(COMMAND)} predict {digits[0]} - < {tmp_path}/many.txt | head -1; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, timeout=60)
    assert (done.stdout.count("\n"), done.stderr, done.returncode) == (1, "", 0)


def test_a_closed_standard_input_is_said(digits, here, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)  # which is what Python makes of it
    one_line_error(here("predict", digits[0], "-"), "standard input is closed")


def test_help_shows_the_search_of_the_run(folder, here):
    with_run = here("predict", folder / "digits", "--help")
    assert with_run.returncode == 0 and "--beams" in with_run.stdout and "--plot" in with_run.stdout
    assert "--beams" not in here("predict", folder / "colours", "--help").stdout
    assert "--figures" in here("evaluate", "--help").stdout


def test_evaluate(digits, folder, here):
    run, task = digits
    data = folder / "digits.data" / "data.tsv"
    said = lines(throughtime("evaluate", run, data))
    shown = dict(line.split(": ", 1) for line in said if ": " in line)
    assert sum("words from" in line for line in said) == 1  # below it BLEU by length
    options = ["--beams", 1, "--no-repeat-ngram", 1, "--json"]
    result = json.loads(*lines(here("evaluate", run, data, *options)))
    best = task.evaluate((data,))
    assert float(shown["loss"]) == pytest.approx(best["loss"], abs=2e-4)
    assert float(shown["accuracy"]) == pytest.approx(best["accuracy"], abs=2e-4)
    assert shown["bleu"].endswith(f"({task.signatures()['bleu']})")
    assert sum(row["texts"] for row in result["parts"]) == 300
    assert result["signatures"] == task.signatures() and result["metrics"].keys() == best.keys()
    assert result["metrics"]["accuracy"] < best["accuracy"]  # some have a digit twice


def test_evaluate_draws_figures(folder, here, tmp_path):
    data = folder / "colours.data" / "data.tsv"
    done = here("evaluate", folder / "colours", data, "--figures", tmp_path / "figures")
    assert "drawn: " in done.stderr and "accuracy: " in done.stdout
    assert all(colour in done.stdout for colour in ("RED", "GREEN", "BLUE"))
    assert [path.suffix for path in (tmp_path / "figures").iterdir()] == [".png"]


def test_embed_keeps_vectors(folder, here, tmp_path):
    run, inputs = folder / "colours", ["red house", "", "blue"]
    (tmp_path / "in.txt").write_text("\n".join(inputs) + "\n")
    vectors, states = (load(run).embed(inputs, kind).numpy() for kind in ("pooled", "state"))
    options = ["--file", tmp_path / "in.txt", "--out"]
    done = throughtime("embed", run, *options, tmp_path / "v.npy")
    assert done.stdout == "" and done.stderr.startswith("3 vectors of ")
    assert np.allclose(np.load(tmp_path / "v.npy"), vectors, atol=1e-5)
    here("embed", run, *options, tmp_path / "v.parquet", "--vector", "state")
    table = read_table(tmp_path / "v.parquet")
    assert table["input"].to_pylist() == inputs
    assert np.allclose(np.array(table["vector"].to_pylist()), states, atol=1e-5)
    result = json.loads(*lines(here("embed", run, "red house")))
    assert result["input"] == "red house" and np.allclose(result["vector"], vectors[0], atol=1e-5)


def test_embed_finds_what_is_alike(folder, here, tmp_path):
    (tmp_path / "in.txt").write_text("blue car\nred house\ngreen dog\nred tree\n")
    command = [
        "embed",
        folder / "colours",
        "--file",
        tmp_path / "in.txt",
        "--nearest",
        "red dog",
        "--count",
        2,
    ]
    found = [json.loads(line) for line in lines(here(*command, "--json"))]
    assert {each["input"] for each in found} == {"red house", "red tree"}
    assert 1 >= found[0]["cosine"] >= found[1]["cosine"]
    shown = lines(here(*command))
    assert [line.split("  ")[1] for line in shown] == [each["input"] for each in found]


def test_identify(folder, here, tmp_path):
    runs = [folder / "cats", folder / "verse"]
    [line] = lines(throughtime("identify", *runs, "--text", "the dog sat on the log"))
    assert line.startswith("cats  (cats ") and line.endswith("bits per character)  the dog sat on the log")
    (tmp_path / "verse.txt").write_text(VERSE + "the cat sat")
    options = ["--file", tmp_path / "verse.txt", "--passage", 6, "--author", "verse", "--json"]
    done = here("identify", *runs, *options)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["text"] for answer in answers] == VERSE.splitlines()
    assert all(answer["bits_per_character"].keys() == {"cats", "verse"} for answer in answers)
    assert done.stderr == "2 of 2 are taken for verse's (100.0%)\n"


def test_correct(folder, here, tmp_path):
    run = folder / "verse"
    assert lines(throughtime("correct", run, "See teh xat fly home.")) == ["See the bat fly home."]
    answer = json.loads(*lines(here("correct", run, "--json", "see teh bat")))
    assert answer["output"] == "see the bat" and answer["changes"][0]["word"] == "teh"
    (tmp_path / "pairs.tsv").write_text("teh cat\tthe cat\nsee teh bat\tsee the hat\n")
    done = here("correct", run, "--pairs", tmp_path / "pairs.tsv")
    assert done.stdout == "see the bat  (from see teh bat, right: see the hat)\n"
    assert done.stderr == "1 of 2 are right (50.0%)\n"
    (tmp_path / "lines.txt").write_text("teh cat\n\nsee\n")
    assert lines(here("correct", run, "--file", tmp_path / "lines.txt")) == ["the cat", "", "see"]


def test_score_pairs(folder, here, tmp_path):
    (tmp_path / "pairs.tsv").write_text("the cat sat\tthe zat sat\nqqq\tthe dog\n")
    command = ["score", folder / "cats", "--pairs", tmp_path / "pairs.tsv"]
    done = throughtime(*command)
    assert done.stderr == "1 of 2 right sentences are the likelier (50.0%)\n"
    [line] = done.stdout.splitlines()
    assert line.endswith("pairs.tsv, line 2: the dog  (right: qqq)") and float(line.split()[0]) < 0
    first, second = map(json.loads, lines(here(*command, "--json")))
    assert (first["right"], first["wrong"]) == ("the cat sat", "the zat sat")
    assert first["margin"] > 0 > second["margin"]


def one_line_error(done, *parts):
    assert done.returncode == 2, done.stderr
    assert done.stdout == "" and done.stderr.count("\n") == 1 and done.stderr.startswith("throughtime: ")
    assert all(part in done.stderr for part in parts), done.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("predict nowhere 1", "nowhere is not a run: there is no such folder"),
        ("evaluate digits.data 1", "digits.data is not a run: it has no config.toml"),
        ("predict digits", "give an input, or --file FILE, or -"),
        ("predict digits 1 --file digits.data/data.tsv", "give an input, or --file FILE, or -"),
        ("predict digits --file missing.tsv", "missing.tsv does not exist"),
        ("predict digits - --plot a.png", "--plot draws the picture of one input"),
        ("predict digits 1 --plot a.xyz", 'a.xyz ends in ".xyz", which is no picture'),
        ("predict colours red --plot a.png", "classifier draws no picture"),
        ("predict digits 1 --beams 0", "beams"),
        ("predict colours --file digits", "digits"),  # a run, and not the one that is used
        ("evaluate digits", "no table: give at least one"),
        ("embed colours red --out v.csv", "v.csv ends in neither .npy nor .parquet"),
        ("embed colours red --nearest blue", "add --file FILE"),
        ("identify cats --text a", "give the runs of two or more"),
        ("identify cats cats/../cats --text a", "two runs have the same name"),
        (
            "identify cats digits --text a",
            "digits is a run of the task seq2seq: give one of the task language-model",
        ),
        ("correct cats teh", "the run predicts char tokens"),
        ("score cats --pairs missing.tsv", "missing.tsv does not exist"),
    ],
)
def test_wrong_input_is_one_line_and_code_2(folder, here, monkeypatch, arguments, part):
    monkeypatch.chdir(folder)
    one_line_error(here(*arguments.split()), part)


def test_so_it_is_in_a_process(folder):
    one_line_error(throughtime("predict", "digits", "1", "--groups", "2", cwd=folder), "groups must divide")


@pytest.mark.parametrize(
    "arguments",
    ["predict colours red --beams 2", "predict --beams 2 digits 1", "predict", "predict digits 1 2"],
)
def test_options_that_are_not_understood_are_code_2(folder, here, monkeypatch, arguments):
    monkeypatch.chdir(folder)
    done = here(*arguments.split())
    assert (done.returncode, done.stdout) == (2, "") and done.stderr
