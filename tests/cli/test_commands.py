"""The command line as a person uses it: real processes on real files."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

VERSE = "the cat sat on the mat\nthe dog sat on the log\nthe cow sat on the bough\n"
SMALL = ["--hidden", "24", "--batch-size", "4", "--chunk-length", "16", "--learning-rate", "0.01"]


def throughtime(*arguments, cwd=None, **options):
    command = [sys.executable, "-m", "throughtime.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def text(folder):
    path = folder / "verse.txt"
    path.write_text(VERSE * 40)
    return path


@pytest.fixture(scope="module")
def trained(folder, text):
    run = folder / "run"
    done = throughtime(
        "train", "language-model", text, "--out", run, "--max-epochs", 60, "--dropout", 0, "--json", *SMALL
    )
    assert done.returncode == 0, done.stderr
    return run, done


def one_line_error(done, code, *parts):
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("throughtime: ")
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr


def test_train_prints_its_result_as_the_last_line(trained):
    run, done = trained
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result) == {"run", "valid", "test", "seconds", "steps"}
    assert result["run"] == str(run) and result["valid"]["bits_per_character"] < 1
    assert "step 0 (at first)" in done.stderr and "(train more)" in done.stderr
    assert (run / "samples.txt").read_text().count("===") >= 6


def test_generate(trained):
    done = throughtime("generate", trained[0], "--prompt", "the cat", "--length", 16, "--temperature", 0)
    assert done.stdout == "the cat sat on the mat\n\n"
    done = throughtime("generate", trained[0], "--length", 5, "--seed", 1, "--json")
    assert len(json.loads(done.stdout)["text"]) <= 5


def test_unseen_characters_in_a_prompt_are_said(trained):
    done = throughtime("generate", trained[0], "--prompt", "the [b]Ñandú", "--length", 5)
    assert done.returncode == 0 and "never seen in training" in done.stderr and "'Ñ'" in done.stderr
    assert done.stdout.startswith("the [b]Ñandú")


def test_a_prompt_that_is_not_utf8_is_read_as_unknown(trained):
    done = throughtime("generate", trained[0], "--prompt", os.fsdecode(b"the \xff"), "--length", 3)
    assert done.returncode == 0 and done.stdout.startswith("the \ufffd")


def test_a_terminal_without_the_characters_gets_what_it_can_show():
    done = throughtime("cells", "lstm", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and "c_t = f_t ? c_{t-1} + i_t ? g_t" in done.stdout


def test_score_and_compare(trained, text):
    done = throughtime("score", trained[0], "the cat", "--json")
    result = json.loads(done.stdout)
    assert "".join(result["tokens"]) == "the cat" and len(result["log_probs"]) == 7
    assert set(result["metrics"]) == {"loss", "perplexity", "bits_per_character"}
    done = throughtime("score", trained[0], "--file", text)
    assert re.search(r"perplexity: 1\.\d+", done.stdout)
    done = throughtime("score", trained[0], "--compare", "the dog sat", "dog the sat")
    assert done.stdout.splitlines()[-1].endswith("nats: the dog sat")


def test_complete(trained):
    done = throughtime("complete", trained[0], "the cow sat on ", "--count", 2, "--json")
    words = json.loads(done.stdout)["words"]
    assert len(words) == 2 and words[0]["word"] == "the" and words[0]["probability"] > 0.5


def test_evaluate(trained, text):
    metrics = json.loads(throughtime("evaluate", trained[0], text, "--json").stdout)["metrics"]
    assert metrics["bits_per_character"] < 1


def test_cells_are_listed_and_shown():
    listed = throughtime("cells")
    assert "peephole_lstm" in listed.stdout and "4I + 4H + 7" in listed.stdout
    shown = throughtime("cells", "lstm").stdout
    assert "c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t" in shown and r"\begin{aligned}" in shown
    assert json.loads(throughtime("cells", "gru", "--json").stdout)["states"] == "h"


def test_help_is_quick():
    began = time.perf_counter()
    assert throughtime("--help").returncode == 0
    assert time.perf_counter() - began < 5  # the bound of half a second is for a quiet machine


def test_each_command_has_help(trained):
    for command in ("train", "generate", "score", "complete", "listen", "evaluate", "bench", "cells", "demo"):
        done = throughtime(command, "--help")
        assert done.returncode == 0 and "usage: throughtime" in done.stdout, command


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["sing"], ['no command "sing"', "train"]),
        (["train", "sing"], ['no task "sing"', "language-model"]),
        (["train", "language-model"], ["no text: give files or folders"]),
        (["train", "language-model", "missing.txt"], ["missing.txt does not exist"]),
        (["train", "language-model", "empty.txt"], ["empty.txt is empty"]),
        (["train", "language-model", "latin.txt"], ["latin.txt is not UTF-8: byte 3 (0xe9)"]),
        (["train", "language-model", "binary.bin"], ["binary.bin is not text: byte 2 is NUL"]),
        (["train", "language-model", "one.txt"], ["too short"]),
        (["train", "language-model", "verse.txt", "--cell", "lstn"], ['no cell "lstn": did you mean lstm']),
        (["train", "language-model", "verse.txt", "--dropout", "2"], ["dropout", "less than 1, got 2"]),
        (["train", "language-model", "verse.txt", "--config", "no.toml"], ["no.toml cannot be read"]),
        (["train", "language-model", "verse.txt", "--config", "bad.toml"], ["bad.toml", "hidden"]),
        (["train", "language-model", "--resume", "."], ["is not a run: it has no config.toml"]),
        (["train", "language-model", "verse.txt", "--out", "run"], ["not empty", "--resume run"]),
        (["train", "language-model", "--from", "run"], ["no text: give files or folders"]),
        (["train", "language-model", "verse.txt", "--from", "run", "--hidden", "9"], ["is not that of run"]),
        (["train", "language-model", "--from", "run", "--resume", "run"], ["give one of --config, --resume"]),
        (["generate", "nowhere"], ["nowhere is not a run: there is no such folder"]),
        (["generate", "run", "--temperature", "-1"], ["temperature must be 0 or more"]),
        (["generate", "run", "--length", "-1"], ["length must be 0 or more"]),
        (["complete", "run", "the", "--count", "0"], ["count must be 1 or more"]),
        (["score", "run"], ["give a text, or --file FILE, or --compare A B"]),
        (["score", "run", ""], ["nothing to score"]),
        (["evaluate", "run"], ["give files or folders"]),
        (["evaluate", "run", "much text " * 40], ["is no path"]),
        (["train", "language-model", "--resume", "run", "--out", "other"], ["--out or --resume, not both"]),
        (["train", "language-model", "verse.txt", "--seed", "9" * 20], ["seed", "less than"]),
        (["cells", "lstn"], ["did you mean lstm"]),
    ],
)
def test_bad_usage_is_one_line_and_code_2(folder, trained, arguments, parts):
    (folder / "empty.txt").write_text("")
    (folder / "one.txt").write_text("a")
    (folder / "latin.txt").write_bytes("café".encode("latin-1"))
    (folder / "binary.bin").write_bytes(b"ab\0cd")
    (folder / "bad.toml").write_text("[model]\nhidden = -3\n")
    one_line_error(throughtime(*arguments, cwd=folder), 2, *parts)


@pytest.mark.parametrize("arguments", [["--hidden", "many"], ["--nonsense", "1"]])
def test_options_that_cannot_be_parsed_are_code_2(folder, text, arguments):
    done = throughtime("train", "language-model", text, *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr and arguments[0] in done.stderr


def test_a_damaged_checkpoint_is_one_line(trained, folder):
    import shutil

    shutil.copytree(trained[0], folder / "damaged")
    last = folder / "damaged" / "checkpoints" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:1000])
    done = throughtime("train", "language-model", "--resume", folder / "damaged", "--max-epochs", 99)
    one_line_error(done, 2, "last.safetensors is damaged")


def start(text, run):
    command = [sys.executable, "-m", "throughtime.cli.main", "train", "language-model", str(text)]
    options = ["--out", str(run), "--max-epochs", "100000", *SMALL]
    process = subprocess.Popen(command + options, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (run / "metrics.jsonl").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)
    return process


def test_ctrl_c_saves_and_says_how_to_go_on(text, folder):
    run = folder / "interrupted"
    process = start(text, run)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert f"throughtime train language-model --resume {run}" in err
    assert throughtime("generate", run, "--length", 5).returncode == 0
    steps = int(re.search(r"stopped at step (\d+)", err).group(1))
    done = throughtime("train", "language-model", "--resume", run, "--max-epochs", 1 + steps // 20, "--json")
    assert done.returncode == 0 and json.loads(done.stdout.splitlines()[-1])["steps"] >= steps


def test_a_killed_process_leaves_a_run_that_works(text, folder):
    run = folder / "killed"
    process = start(text, run)
    process.kill()
    process.communicate()
    assert throughtime("generate", run, "--length", 5).returncode == 0
    done = throughtime("train", "language-model", "--resume", run, "--max-epochs", 1)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name != "posix", reason="limits of file size are of POSIX systems")
def test_a_full_disk_is_one_line_and_code_1(text, folder):
    train = [sys.executable, "-m", "throughtime.cli.main", "train", "language-model", text, *SMALL]
    command = ["bash", "-c", 'ulimit -f 20 && exec "$@"', "bash", *train, "--out", folder / "full"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_output_into_a_closed_pipe_is_quiet(trained):
    command = f"{sys.executable} -m throughtime.cli.main generate {trained[0]} --length 3000 | head -c 10"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr and "Error" not in done.stderr


@pytest.mark.slow
def test_the_demo_writes_python(folder):
    done = throughtime("demo", "--minutes", "0.2", "--out", folder / "demo")
    assert done.returncode == 0, done.stderr
    assert "(at first)" in done.stderr and "throughtime generate" in done.stderr
    assert done.stdout.startswith("def main(")
