"""The transcriber: what is read and left out, how texts are found, listening, language models, figures."""

import copy
import json
import logging
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from toys import tone_samples, toy_config, toy_run, write_tones

import throughtime
from throughtime.data.audio import read_sound
from throughtime.errors import ConfigError, DataError
from throughtime.tasks.language_model import LanguageModelConfig, LanguageModelTask
from throughtime.tasks.transcriber import TranscriberConfig, TranscriberSearch, TranscriberTask
from throughtime.train.run import Run

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run that reads in both directions, with its data."""
    return toy_run("transcriber", tmp_path_factory.mktemp("transcriber"), max_epochs=15)


@pytest.fixture(scope="module")
def trained(folder):
    return throughtime.load(folder)


@pytest.fixture(scope="module")
def one_way(tmp_path_factory):
    """A run that can listen."""
    folder = tmp_path_factory.mktemp("listener")
    task, config = toy_config("transcriber", folder, max_epochs=15)
    model = config.model.model_copy(update={"bidirectional": False})
    task.train(config.model_copy(update={"model": model}), folder / "run", QUIET)
    return folder / "run"


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    """A language model of words of a and b alone; c and d it has hardly seen."""
    folder = tmp_path_factory.mktemp("language")
    (folder / "words.txt").write_text("cd\n" + "ab\nba\n" * 300)
    config = LanguageModelConfig(
        data={"paths": [folder / "words.txt"]},
        model={"hidden": 16, "dropout": 0.0},
        training={"chunk_length": 12, "batch_size": 4, "max_epochs": 3, "learning_rate": 0.02},
    )
    LanguageModelTask.train(config, folder / "run", QUIET)
    return folder / "run"


def searching(task, **options):
    task = copy.copy(task)
    task.config = task.config.model_copy(update={"search": TranscriberSearch(**options)})
    return task


def sounds(run, *numbers):
    return [str(run.parent / "tones" / f"{k}.wav") for k in numbers]


def test_words_have_their_times(trained, tmp_path):
    soundfile.write(tmp_path / "late.wav", np.concatenate([np.zeros(4000), tone("cab")]), 4000)
    [answer] = trained.answer([tmp_path / "late.wav"])
    [word] = answer["words"]
    assert answer["text"].endswith("cab") and word["word"] == answer["text"]
    assert answer["log_prob"] < 0
    assert word["start"] > 0.9 or len(word["word"]) > 3
    assert 1 < word["end"] < 1.5


def tone(word, rate=4000):
    return np.array(tone_samples(word, random.Random(1), rate)) / 32768


def test_spaces_part_words(trained):
    """Pieces between spaces are words, from the first step of the first token to the last of the last."""
    task = copy.copy(trained)
    task.tokeniser = type(trained.tokeniser)([" ", "a", "b"])
    steps = [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    assert task._words([2, 3, 4, 2, 4], steps) == [
        {"word": "ab", "start": 0.04, "end": 0.1},
        {"word": "b", "start": 0.16, "end": 0.18},
    ]


def test_beams_find_what_scores_best(trained, folder):
    inputs = sounds(folder, 0, 3, 7)
    greedy = trained.answer(inputs)
    beams = searching(trained, beams=8, n_best=3).answer(inputs)
    for one, other in zip(greedy, beams, strict=True):
        assert [each["score"] for each in other["n_best"]] == sorted(
            (each["score"] for each in other["n_best"]), reverse=True
        )
        assert other["log_prob"] >= one["log_prob"] - 1e-6 and len(other["n_best"]) == 3
        assert "\ufffd" not in "".join(each["text"] for each in other["n_best"])
        assert trained.show(other).count("\n") == 2


def test_a_language_model_is_listened_to(trained, folder, language):
    inputs = sounds(folder, 2, 5, 9, 14)
    heard = [answer["text"] for answer in trained.answer(inputs)]
    same = searching(trained, beams=8, language_model=language, language_weight=0.0).answer(inputs)
    assert [answer["text"] for answer in same] == heard
    loud = searching(trained, beams=30, language_model=language, language_weight=30.0).answer(inputs)
    assert {answer["text"] for answer in loud} <= {"ab", "ba"}
    longer = searching(trained, beams=30, length_bonus=20.0).answer(inputs)
    assert all(len(a["text"]) > len(b) for a, b in zip(longer, heard, strict=True))


def test_language_models_that_do_not_fit_are_named(trained, folder, language, tmp_path):
    with pytest.raises(ConfigError, match="run of the task transcriber: --language-model takes one of"):
        searching(trained, language_model=folder).answer(sounds(folder, 0))
    (tmp_path / "ab.txt").write_text("ab\nba\n" * 100)
    training = {"chunk_length": 12, "batch_size": 4, "max_epochs": 1}
    for tokens, message in (
        ("char", r"does not know 2 of the tokens that the transcriber writes: 'c', 'd'"),
        ("word", r"predicts word tokens and the transcriber writes char tokens: .*--tokens char"),
    ):
        config = LanguageModelConfig(
            data={"paths": [tmp_path / "ab.txt"], "tokens": tokens}, model={"hidden": 8}, training=training
        )
        LanguageModelTask.train(config, tmp_path / tokens, QUIET)
        with pytest.raises(ConfigError, match=message):
            searching(trained, language_model=tmp_path / tokens).answer(sounds(folder, 0))


@settings(max_examples=25)
@given(st.lists(st.integers(1, 1500), max_size=8), st.integers(0, 19))
def test_listening_in_pieces_gives_the_text_of_the_whole(one_way, sizes, number):
    task, [path] = throughtime.load(one_way), sounds(one_way, number)
    whole = task.answer([path])[0]["text"]
    samples = read_sound(one_way.parent / "tones" / f"{number}.wav").samples[:, 0]
    stream, before = task.stream(), ""
    for piece in np.split(samples, np.cumsum(sizes)):
        text = stream.feed(piece)
        assert text.startswith(before)  # what was said once stays
        before = text
    assert stream.finish() == whole == stream.text
    assert stream.seconds == pytest.approx(len(samples) / 4000)


def test_listening_at_another_rate_is_converting_the_whole(one_way, tmp_path):
    task = throughtime.load(one_way)
    soundfile.write(tmp_path / "fast.wav", tone("badc", 11025), 11025)
    whole = task.answer([tmp_path / "fast.wav"])[0]["text"]
    stream = task.stream(11025)
    for piece in np.array_split(read_sound(tmp_path / "fast.wav").samples[:, 0], 13):
        stream.feed(piece)
    assert stream.finish() == whole == "badc"


def test_a_model_in_both_directions_says_what_would_do(trained):
    with pytest.raises(ConfigError, match="train with --no-bidirectional"):
        trained.stream()


def test_what_cannot_be_trained_on_is_counted(tmp_path, caplog):
    task, config = toy_config("transcriber", tmp_path)
    [path] = config.data.paths
    soundfile.write(tmp_path / "tones" / "long.wav", np.random.default_rng(0).normal(0, 0.1, 16000), 4000)
    path.write_text(path.read_text() + "tones/click.wav\tabcd\ntones/long.wav\ta\n")
    data = config.data.model_copy(update={"max_seconds": 3.0, "valid": (path,)})
    config = config.model_copy(update={"data": data})
    train = task.read(config).train
    made = task(config, task.learn(config, train))
    with caplog.at_level(logging.WARNING):
        batches = made.batches(train)
    text = caplog.text
    assert "1 of 102 recordings are too short for their text" in text
    assert "it has 0 steps and its text needs 4" in text
    assert "1 of 102 recordings are longer than 3 seconds and are not trained on" in text
    assert len(batches.lengths) == len(train) - 2
    metrics = made.measure(made.encode(train)).metrics
    assert np.isfinite(metrics["loss"])


def test_other_rates_and_channels_are_converted_and_said(trained, folder, tmp_path, caplog):
    two = np.stack([tone("abc", 8000), np.zeros_like(tone("abc", 8000))], 1)
    soundfile.write(tmp_path / "two.wav", two, 8000)
    with caplog.at_level(logging.WARNING):
        assert trained.answer([tmp_path / "two.wav"])[0]["text"] == "abc"
    assert caplog.text.count("two.wav has 2 channels of 8000 Hz and is converted to one of 4000 Hz") == 1
    caplog.clear()
    (tmp_path / "table.tsv").write_text("path\ttext\ntwo.wav\tabc\ntwo.wav\tabc\n")
    with caplog.at_level(logging.WARNING):
        assert trained.evaluate((tmp_path / "table.tsv",))["wer"] == 0
    assert caplog.text.count("2 of 2 recordings are converted to one channel of 4000 Hz") == 1


def test_a_sound_of_length_zero_is_refused_when_it_is_asked_for(trained, tmp_path):
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 4000)
    with pytest.raises(DataError, match=r"none\.wav is a sound of length 0"):
        trained.answer([tmp_path / "none.wav"])


def test_words_are_tokens_too(tmp_path):
    (tmp_path / "t").mkdir()
    rows = ["path\ttext"]
    for k in range(40):
        word = ("ab", "cd")[k % 2]
        write_tones(tmp_path / "t" / f"{k}.wav", word, random.Random(k))
        rows.append(f"t/{k}.wav\t{word}")
    (tmp_path / "data.tsv").write_text("\n".join(rows) + "\n")
    config = TranscriberConfig(
        data={"paths": [tmp_path / "data.tsv"], "tokens": "word", "mels": 12, "normalise": False},
        model={"hidden": 16, "layers": 1, "dropout": 0.0, "band_masks": 0, "time_masks": 0},
        training={"max_epochs": 25, "batch_tokens": 250, "learning_rate": 0.02},
    )
    TranscriberTask.train(config, tmp_path / "run", QUIET)
    task = throughtime.load(tmp_path / "run")
    assert task.features.mean.tolist() == [0] * 12
    answers = task.answer([tmp_path / "t" / "0.wav", tmp_path / "t" / "1.wav"])
    assert [answer["text"] for answer in answers] == ["ab", "cd"]
    assert [len(answer["words"]) for answer in answers] == [1, 1]


def test_the_run_has_a_figure_and_samples(folder, trained, tmp_path):
    assert (folder / "transcript.png").stat().st_size > 5000
    assert "(train more)" in (folder / "samples.txt").read_text()
    assert {"loss", "wer", "cer", "accuracy"} <= Run.open(folder).best_metrics().keys()
    [answer] = trained.answer(sounds(folder, 3))
    labels = [label.get_text() for label in trained.draw(answer).axes[1].get_yticklabels()]
    assert labels == [*dict.fromkeys(answer["text"]), "blank"]


# The command line.


def command(*arguments, **options):
    line = [sys.executable, "-m", "throughtime.cli.main", *map(str, arguments)]
    return subprocess.run(
        line, capture_output=True, timeout=120, env=os.environ | {"COLUMNS": "200"}, **options
    )


def test_listen_writes_what_it_hears(one_way, folder, tmp_path):
    [path] = sounds(one_way, 7)
    text = throughtime.load(one_way).answer([path])[0]["text"]
    with open(path, "rb") as file:  # noqa: PTH123
        done = command("listen", one_way, stdin=file)
    assert done.returncode == 0 and done.stdout.decode() == text + "\n", done.stderr
    raw = (read_sound(one_way.parent / "tones" / "7.wav").samples * 32768).astype("<i2").tobytes()
    done = command("listen", one_way, "--rate", 4000, "--json", input=raw)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1] == {"seconds": pytest.approx(len(raw) / 8000, abs=1e-3), "text": text}
    done = command("listen", folder, input=raw)
    assert done.returncode == 2 and b"--no-bidirectional" in done.stderr
    done = command("listen", one_way, input=b"")
    assert done.returncode == 2 and b"there is no sound on standard input" in done.stderr


def test_predict_reads_a_file_and_draws(folder, tmp_path):
    [path] = sounds(folder, 7)
    done = command("predict", folder, path, "--plot", tmp_path / "heard.png", "--beams", 4, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["words"] and (tmp_path / "heard.png").exists()
    done = command("predict", folder, "--file", folder.parent / "data.tsv")
    assert len(done.stdout.splitlines()) == 100
    done = command("predict", folder, tmp_path / "missing.wav")
    assert done.returncode == 2 and b"missing.wav cannot be read" in done.stderr


def test_a_sound_that_is_too_short_for_a_frame_says_nothing(trained, tmp_path):
    soundfile.write(tmp_path / "short.wav", np.zeros(50), 4000)
    [answer] = trained.answer([tmp_path / "short.wav"])
    assert (answer["text"], answer["log_prob"], answer["words"]) == ("", 0.0, [])
    assert torch.isfinite(trained.embed([tmp_path / "short.wav"])).all()
