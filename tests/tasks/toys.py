"""A small run of every task, on data that it can learn."""

import random
from pathlib import Path

from rich.console import Console

from throughtime.tasks.table import TASKS, find_task
from throughtime.tasks.task import DataConfig

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


#: For each task: its data, the options that make it small and quick, and some inputs.
TOYS = {
    "language-model": (
        texts,
        {"model": {"hidden": 24, "dropout": 0.0}, "training": {"chunk_length": 16, "batch_size": 4}},
        ["the cat", "the dog sat on the mat", "o", "zebra zebra " * 12],
    ),
    "classifier": (
        labels,
        {"model": {"hidden": 8, "embedding": 8, "dropout": 0.0}, "training": {"batch_tokens": 60}},
        ["red house", "car tree dog blue", "", "green", "zebra", "tree " * 30 + "red"],
    ),
    "tagger": (
        tags,
        {"model": {"hidden": 16, "embedding": 8, "dropout": 0.0}, "training": {"batch_tokens": 60}},
        ["red house and dog", "and", "", "blue tree " * 9, "the zebra and green car"],
    ),
    "seq2seq": (
        pairs,
        {
            "data": {"input": "1", "target": "2", "tokens": "char"},
            "model": {"hidden": 32, "dropout": 0.0},
            "training": {"batch_tokens": 400, "learning_rate": 0.02},
        },
        ["12", "0123", "", "3", "9", "012301230123"],
    ),
}
SUFFIX = {"language-model": "txt", "tagger": "conll"}
assert TOYS.keys() == TASKS.keys()


def toy_config(name: str, folder: Path, **training):
    """The configuration of a task over its data, which are written into the folder."""
    write, options, _ = TOYS[name]
    path = folder / f"data.{SUFFIX.get(name, 'tsv')}"
    if not path.exists():
        write(path, random.Random(0))
    task = find_task(name)
    options = {"data": {}, "training": {}} | options
    data = options["data"] | {"paths": (path,)}
    training = {"max_epochs": 20, "learning_rate": 0.02} | options["training"] | training
    return task, task.config_type(**options | {"data": data, "training": training})


def toy_run(name: str, folder: Path, **training) -> Path:
    """A trained run of a task."""
    task, config = toy_config(name, folder, **training)
    assert isinstance(config.data, DataConfig)
    task.train(config, folder / "run", Console(quiet=True))
    return folder / "run"
