"""The transcriber: what is read and left out, how texts are found, listening, language models, figures."""

import copy
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time

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
from throughtime.data.tokens import UNKNOWN
from throughtime.decode.ctc import prefix_beam_search
from throughtime.errors import ConfigError, DataError, RunError
from throughtime.tasks import table
from throughtime.tasks.fusion import fuse
from throughtime.tasks.language_model import LanguageModelConfig, LanguageModelTask
from throughtime.tasks.transcriber import TranscriberConfig, TranscriberSearch, TranscriberTask
from throughtime.tasks.transcript import word_times
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
    """A second of silence before a sound moves its word by a second."""
    early, late = tone("cab"), np.concatenate([noise(4000), tone("cab")])
    for name, samples in (("early", early), ("late", late)):
        soundfile.write(tmp_path / f"{name}.wav", samples, 4000)
    answers = trained.answer([tmp_path / "early.wav", tmp_path / "late.wav"])
    (one,), (other,) = (answer["words"] for answer in answers)
    assert one["word"] == other["word"] == "cab" and all(answer["log_prob"] < 0 for answer in answers)
    assert 0 <= one["start"] < 0.1 and 0.2 < one["end"] < len(early) / 4000 + 0.05
    assert other["start"] == pytest.approx(one["start"] + 1, abs=0.03)
    assert other["end"] == pytest.approx(one["end"] + 1, abs=0.03)


def noise(count):
    return np.random.default_rng(0).uniform(-20, 20, count).round() / 32768


def tone(word, rate=4000):
    return np.array(tone_samples(word, random.Random(1), rate)) / 32768


def test_spaces_part_words():
    """Pieces between spaces are words, from the start of the first to the end of the last."""
    spans = [(0, 0.1), (0.2, 0.3), (0.4, 0.5), (0.6, 0.7), (0.8, 0.9), (1, 1.1)]
    assert word_times([" ", "a", "b", " ", "b", " cd"], spans) == [
        {"word": "ab", "start": 0.2, "end": 0.5},
        {"word": "b", "start": 0.8, "end": 0.9},
        {"word": "cd", "start": 1, "end": 1.1},
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
    for answer in searching(
        trained, beams=4, n_best=4, language_model=language, language_weight=0.7, length_bonus=0.3
    ).answer(inputs):
        for each in answer["n_best"]:
            said = throughtime.load(language).score("\n" + each["text"] + "\n").log_probs[1:]
            expected = each["log_prob"] + 0.7 * sum(said) + 0.3 * len(each["text"])
            assert each["score"] == pytest.approx(expected, abs=1e-4)
    longer = searching(trained, beams=30, length_bonus=20.0).answer(inputs)
    assert all(len(a["text"]) > len(b) for a, b in zip(longer, heard, strict=True))


@pytest.mark.parametrize("model", ["recurrent", "transformer", "bag-of-words", "fixed-window", "big-window"])
def test_any_language_model_is_fused(model, trained, tmp_path):
    """What a search reads step by step, beginnings of different lengths, is what `score` says of a text."""
    (tmp_path / "words.txt").write_text("abc\nda\nc\nbbbb\n" * 60)
    config = LanguageModelConfig(
        data={"paths": [tmp_path / "words.txt"]},
        model={"model": model, "hidden": 8, "dropout": 0.0}
        | ({"context": 4} if model in ("transformer", "big-window") else {})
        | ({"heads": 2} if model == "transformer" else {}),
        training={"chunk_length": 12, "batch_size": 4, "max_epochs": 1},
    )
    LanguageModelTask.train(config, tmp_path / "run", QUIET)
    language = throughtime.load(tmp_path / "run")
    fusion = fuse(language, trained.tokeniser, 0.5)
    log_probs = torch.randn(
        8, trained.tokeniser.size, generator=torch.Generator().manual_seed(0)
    ).log_softmax(-1)
    log_probs[:, UNKNOWN] = -torch.inf
    found = prefix_beam_search(log_probs, beams=12, n_best=12, fusion=fusion)
    assert len({len(each.tokens) for each in found}) > 2
    for each in found:
        said = language.score("\n" + trained.text(each.tokens) + "\n").log_probs[1:]
        assert each.score == pytest.approx(each.log_prob + 0.5 * sum(said), abs=1e-4)


def test_a_language_model_is_loaded_once(trained, folder, language, monkeypatch):
    loaded = []

    def load(*arguments):
        loaded.append(arguments)
        return table.load(*arguments)

    monkeypatch.setattr("throughtime.tasks.transcriber.load", load)
    task = searching(trained, language_model=language)
    one = task.answer(sounds(folder, 0))
    assert task.answer(sounds(folder, 0)) == one and len(loaded) == 1
    task.config = task.config.model_copy(
        update={"search": TranscriberSearch(language_model=language, language_weight=20.0, beams=30)}
    )
    assert task.answer(sounds(folder, 2))[0]["text"] in ("ab", "ba")


def test_the_figure_is_of_the_answer(trained, folder, language):
    [path] = sounds(folder, 2)
    task = searching(trained, beams=30, language_model=language, language_weight=30.0)
    [answer] = task.answer([path])
    assert answer["text"] != trained.answer([path])[0]["text"]
    above, below = task.draw(answer).axes
    labels = [label.get_text() for label in below.get_yticklabels()]
    assert above.get_title(loc="left") == answer["text"] and labels == [*answer["text"], "blank"]


@pytest.mark.parametrize("seed", range(4))
def test_the_rate_is_that_of_most_recordings(tmp_path, seed):
    task, config = toy_config("transcriber", tmp_path, seed=seed)
    [path] = config.data.paths
    for k in range(15):
        write_tones(tmp_path / "tones" / f"fast{k}.wav", "ab", random.Random(k))
        samples = soundfile.read(tmp_path / "tones" / f"fast{k}.wav")[0]
        soundfile.write(tmp_path / "tones" / f"fast{k}.wav", samples, 8000)
    head, *rows = path.read_text().splitlines()
    fast = [f"tones/fast{k}.wav\tab" for k in range(15)]
    path.write_text("\n".join([head, *fast, *rows]) + "\n")
    assert task.learn(config, task.read(config).train)["features"]["rate"] == 4000


def test_language_models_that_do_not_fit_are_named(trained, folder, language, tmp_path):
    with pytest.raises(RunError, match="run of the task transcriber: give one of the task language-model"):
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


def test_words_are_tokens_too(tmp_path, caplog):
    (tmp_path / "t").mkdir()
    rows = ["path\ttext"]
    for k in range(40):
        word = ("ab", "cd")[k % 2]
        write_tones(tmp_path / "t" / f"{k}.wav", word, random.Random(k))
        rows.append(f"t/{k}.wav\t{word}")
    (tmp_path / "data.tsv").write_text("\n".join(rows) + "\n")
    rows[-1] = rows[-1].replace("cd", "dc")  # a word that occurs once
    (tmp_path / "data.tsv").write_text("\n".join(rows) + "\n")
    config = TranscriberConfig(
        data={
            "paths": [tmp_path / "data.tsv"],
            "valid": [tmp_path / "data.tsv"],
            "tokens": "word",
            "mels": 12,
            "normalise": False,
        },
        model={"hidden": 16, "layers": 1, "dropout": 0.0, "band_masks": 0, "time_masks": 0},
        training={"max_epochs": 25, "batch_tokens": 250, "learning_rate": 0.02},
    )
    with caplog.at_level(logging.WARNING):
        TranscriberTask.train(config, tmp_path / "run", QUIET)
    assert "1 of 40 texts have words that occur once in training or not at all" in caplog.text
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


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_listen_writes_its_end_at_ctrl_c(one_way):
    [path] = sounds(one_way, 7)
    samples = read_sound(one_way.parent / "tones" / "7.wav").samples
    text = throughtime.load(one_way).answer([path])[0]["text"]
    raw = (samples * 32768).astype("<i2").tobytes()
    for options, end in ((("--json",), {"seconds": round(len(samples) / 4000, 3), "text": text}), ((), None)):
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "throughtime.cli.main",
                "listen",
                str(one_way),
                "--rate",
                "4000",
                *options,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        process.stdin.write(raw)
        first = process.stdout.read(1)  # it has begun to hear
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
        out = (first + rest).decode()
        assert process.returncode == 130 and b"stopped" in errors
        assert json.loads(out.splitlines()[-1]) == end if options else out == text + "\n"


def test_listen_takes_a_transcriber_and_plain_sound(one_way, language):
    done = command("listen", language, input=b"")
    assert done.returncode == 2 and b"is a run of the task language-model: give one of" in done.stderr
    done = command("listen", one_way, input=b"fLaC" + bytes(100))
    assert done.returncode == 2 and b"standard input is FLAC" in done.stderr and not done.stdout


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
