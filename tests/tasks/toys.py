"""A small run of every task, on data that it can learn."""

import json
import math
import random
import struct
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from throughtime.tasks.table import TASKS, find_task
from throughtime.tasks.task import DataConfig

PAINT = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (40, 60, 210)}
COLOURS, THINGS = ["red", "green", "blue"], ["house", "car", "tree", "dog"]


def texts(path: Path, random: random.Random) -> None:
    path.write_text("the cat sat on the mat\nthe dog sat on the log\n" * 60)


def labels(path: Path, random: random.Random) -> None:
    """The class is the colour."""
    lines = ["text\tlabel"]
    for k in range(120):
        words = [random.choice(THINGS) for _ in range(k % 5)]
        colour = COLOURS[k % 3]
        words.insert(random.randint(0, len(words)), colour)
        lines.append(f"{' '.join(words)}\t{colour.upper()}")
    path.write_text("\n".join(lines) + "\n")


def tags(path: Path, random: random.Random) -> None:
    """Things are entities, of two words where a colour stands before them."""
    rows = []
    for k in range(80):
        for _ in range(1 + k % 6):
            if random.random() < 0.5:
                rows.append(f"{random.choice(COLOURS)}\tB-THING")
                rows.append(f"{random.choice(THINGS)}\tI-THING")
            else:
                rows.append("and\tO")
        rows.append("")
    path.write_text("\n".join(rows) + "\n")


def pairs(path: Path, random: random.Random) -> None:
    """The target is the source turned round."""
    lines = []
    for k in range(300):
        digits = [str(random.randint(0, 3)) for _ in range(1 + k % 4)]
        lines.append(f"{''.join(digits)}\t{''.join(reversed(digits))}")
    path.write_text("\n".join(lines) + "\n")


def pictures(path: Path, random: random.Random) -> None:
    """A square of a colour somewhere on grey, and two captions of it."""
    lines = []
    for k in range(60):
        colour = list(PAINT)[k % 3]
        image = Image.new("RGB", (16, 16), (random.randint(90, 160),) * 3)
        x, y = random.randint(0, 8), random.randint(0, 8)
        image.paste(PAINT[colour], (x, y, x + 8, y + 8))
        image.save(path.parent / f"{k}.png")
        lines += [f"{k}.png\ta {colour} square", f"{k}.png\tit is {colour}"]
    path.write_text("\n".join(lines) + "\n")


def clips(path: Path, random: random.Random) -> None:
    """A white column walks left or right, and stays for some time; clips of one to six frames."""
    rows = []
    for k in range(48):
        folder = path.parent / f"clips/{k}"
        folder.mkdir(parents=True)
        place, labels = random.randint(5, 10), []
        for t in range(k % 6 + 1):
            labels.append(random.choice(["left", "right", "still"]) if t else "still")
            place += {"left": -1, "right": 1, "still": 0}[labels[-1]]
            frame = np.zeros((16, 16, 3), np.uint8)
            frame[:, place - 1 : place + 1] = 255
            Image.fromarray(frame).save(folder / f"{t}.png")
        rows.append({"clip": f"clips/{k}", "labels": " ".join(labels)})
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


#: A letter is a tone of so many Hz.
TONES = {"a": 300, "b": 520, "c": 900, "d": 1500}


def tones(path: Path, random: random.Random) -> None:
    """Words of one to four letters, each a tone, as sounds of 4000 Hz in the folder `tones`."""
    (path.parent / "tones").mkdir()
    lines = ["path\ttext"]
    for k in range(100):
        word = "".join(random.choice("abcd") for _ in range(1 + k % 4))
        write_tones(path.parent / "tones" / f"{k}.wav", word, random)
        lines.append(f"tones/{k}.wav\t{word}")
    write_tones(path.parent / "tones" / "click.wav", "", random)
    path.write_text("\n".join(lines) + "\n")


def write_tones(path: Path, word: str, random: random.Random) -> None:
    samples = tone_samples(word, random, 4000)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 4000, 0, "NONE", ""))
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))


def tone_samples(word: str, random: random.Random, rate: int) -> list[int]:
    samples = [0.0] * (rate // 100)
    for letter in word:
        for k in range(int(random.uniform(0.06, 0.1) * rate)):
            samples.append(0.5 * math.sin(2 * math.pi * TONES[letter] * k / rate))
        samples += [0.0] * (rate // 50)
    return [int(32767 * each + random.uniform(-20, 20)) for each in samples]


def waves(path: Path, random: random.Random) -> None:
    """Two waves of period 8 at different heights, with a little noise."""
    lines = ["step,who,value"]
    for who, (level, size) in {"a": (5, 1), "b": (-20, 10)}.items():
        for k in range(150):
            value = level + size * (math.sin(2 * math.pi * k / 8) + random.gauss(0, 0.02))
            lines.append(f"{k},{who},{value:.4f}")
    path.write_text("\n".join(lines) + "\n")


def _moved(text: str) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(lines[:-9] + lines[:9])


@dataclass(frozen=True)
class Toy:
    """The small run of a task.

    write      writes its data into a file, and what belongs to them beside it.
    options    what makes it small and quick.
    inputs     some inputs; a path is one beside the data.
    learnt     whether the best validation shows that it has learned.
    suffix     of the file.
    changed    other data of the same kind.
    new        what is put in place of what, so that there is something new to read; nothing where a task has
               no vocabulary.
    reading    an option of the data that a run which begins from another cannot have otherwise.
    """

    write: Callable[[Path, random.Random], None]
    options: dict[str, dict[str, Any]]
    inputs: Sequence[Any]
    learnt: Callable[[dict[str, float]], bool]
    suffix: str = "tsv"
    changed: Callable[[str], str] = _moved
    new: Mapping[str, str] = field(default_factory=dict)
    reading: Mapping[str, Any] = field(default_factory=dict)


TOYS = {
    "language-model": Toy(
        texts,
        {"model": {"hidden": 24, "dropout": 0.0}, "training": {"chunk_length": 16, "batch_size": 4}},
        ["the cat", "the dog sat on the mat", "o", "zebra zebra " * 12],
        lambda metrics: metrics["loss"] < 0.4,
        suffix="txt",
        new={"dog": "wug"},
        reading={"tokens": "bpe"},
    ),
    "classifier": Toy(
        labels,
        {"model": {"hidden": 8, "embedding": 8, "dropout": 0.0}, "training": {"batch_tokens": 60}},
        ["red house", "car tree dog blue", "", "green", "zebra", "tree " * 30 + "red"],
        lambda metrics: metrics["accuracy"] > 0.9,
        new={"green": "violet", "GREEN": "VIOLET"},
        reading={"tokens": "bpe"},
    ),
    "tagger": Toy(
        tags,
        {"model": {"hidden": 16, "embedding": 8, "dropout": 0.0}, "training": {"batch_tokens": 60}},
        ["red house and dog", "and", "", "blue tree " * 9, "the zebra and green car"],
        lambda metrics: metrics["f1"] > 0.9,
        suffix="conll",
        new={"green": "violet", "THING": "ANIMAL"},
        reading={"lower": False},
    ),
    "frame-tagger": Toy(
        clips,
        {
            "data": {"size": 16},
            "model": {"hidden": 16, "channels": (8, 16), "features": 16, "dropout": 0.0},
            "training": {"batch_frames": 30, "learning_rate": 0.01, "max_epochs": 30},
        },
        [Path(f"clips/{k}") for k in (0, 5, 11, 3, 1, 17)],
        lambda metrics: metrics["accuracy"] > 0.9,
        suffix="jsonl",
        changed=lambda text: text.replace("left", "gauche"),
        new={"left": "gauche"},
        reading={"every": 2},
    ),
    "seq2seq": Toy(
        pairs,
        {
            "data": {"input": "1", "target": "2", "tokens": "char"},
            "model": {"hidden": 32, "dropout": 0.0},
            "training": {"batch_tokens": 400, "learning_rate": 0.02},
        },
        ["12", "0123", "", "3", "9", "012301230123"],
        lambda metrics: metrics["accuracy"] > 0.9,
        new={"3": "7"},
        reading={"tokens": "word"},
    ),
    "captioner": Toy(
        pictures,
        {
            "data": {"input": "1", "target": "2", "size": 16},
            "model": {
                "model": "initial-state",
                "hidden": 24,
                "features": 24,
                "channels": (12, 16),
                "dropout": 0.0,
            },
            "training": {"batch_size": 8, "learning_rate": 0.01},
        },
        [Path("0.png"), Path("4.png"), Path("8.png"), Path("3.png")],
        lambda metrics: metrics["accuracy"] > 0.9,
        new={"square": "box"},
        reading={"tokens": "char"},
    ),
    "forecaster": Toy(
        waves,
        {
            "data": {"time": "step", "series": "who", "season": 8},
            "model": {"hidden": 16, "horizon": 6, "context": 12, "horizons": "recursive"},
            "search": {"samples": 5},
            "training": {"batch_size": 32},
        },
        ["1 2 3 4 5 6 7 8 9 10 11 12", "3", "4 4 4 4 4", "-7,8," * 15, "0.1 0.2 0.1"],
        lambda metrics: metrics["mse_scaled"] < 0.01,
        suffix="csv",
        changed=lambda text: text.replace("\n3,a,", "\n3,a,1"),
        reading={"known": ("x",)},
    ),
    "transcriber": Toy(
        tones,
        {
            "data": {"mels": 12},
            "model": {"hidden": 24, "layers": 1, "dropout": 0.0, "band_masks": 0, "time_masks": 0},
            "training": {"batch_tokens": 250},
        },
        [*(Path(f"tones/{k}.wav") for k in (0, 3, 17, 6)), Path("tones/click.wav")],
        lambda metrics: metrics["wer"] < 0.1,
        changed=lambda text: text.replace("\ta", "\tb"),
        new={"d": "e"},
        reading={"tokens": "word"},
    ),
}
assert TOYS.keys() == TASKS.keys()


def toy_inputs(name: str, run: Path) -> list[Any]:
    """The inputs of a toy, beside the run that was trained on it."""
    return [run.parent / each if isinstance(each, Path) else each for each in TOYS[name].inputs]


def toy_config(name: str, folder: Path, **training):
    """The configuration of a task over its data, which are written into the folder."""
    toy = TOYS[name]
    path = folder / f"data.{toy.suffix}"
    if not path.exists():
        toy.write(path, random.Random(0))
    task = find_task(name)
    options = {"data": {}, "training": {}} | toy.options
    data = options["data"] | {"paths": (path,)}
    training = {"max_epochs": 20, "learning_rate": 0.02} | options["training"] | training
    return task, task.config_type(**options | {"data": data, "training": training})


def toy_run(name: str, folder: Path, **training) -> Path:
    """A trained run of a task."""
    task, config = toy_config(name, folder, **training)
    assert isinstance(config.data, DataConfig)
    task.train(config, folder / "run", Console(quiet=True))
    return folder / "run"
