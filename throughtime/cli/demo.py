"""`throughtime demo [ball]`."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from throughtime.cli.output import messages, parse, write
from throughtime.cli.train import Options, train
from throughtime.errors import DataError

PROMPT = "def main("


def run(arguments: list[str]) -> int:
    """Train and write, or train and predict a ball."""
    if arguments[:1] == ["ball"]:
        from throughtime.cli.ball import ball

        return parse(ball, "demo ball", arguments[1:])
    return parse(demo, "demo", arguments)


def demo(
    minutes: Annotated[float, arg(help="Minutes of training.")] = 1.5,
    out: Annotated[Path | None, arg(help="Folder of the run; runs/demo-1 and so on if not given.")] = None,
) -> int:
    """Train a character model on the source of the Python standard library, then let it write Python.

    "throughtime demo ball" predicts where a bouncing ball will be, from pixels and from coordinates.
    """
    from throughtime.tasks.language_model import LanguageModelConfig, LanguageModelTask, TextConfig
    from throughtime.tasks.table import load
    from throughtime.train.config import StreamTraining
    from throughtime.train.run import new_folder

    folder = out or new_folder("demo")
    sources = standard_library()
    console = messages()
    console.print(
        f"An LSTM reads {len(sources)} files of the Python standard library, one character at a time.\n"
        "What it writes after each stretch of training, from random letters on:\n"
    )
    config = LanguageModelConfig(
        data=TextConfig(paths=tuple(sources)), training=StreamTraining(max_minutes=minutes)
    )
    code = train(LanguageModelTask, Options(out=folder), config)
    if code:
        return code
    console.print(f'\nThe trained model goes on from "{PROMPT}":\n')
    write(PROMPT)
    for piece in load(folder).stream(PROMPT, 400, temperature=0.5, seed=0):
        write(piece)
    write("\n\n")
    console.print(
        f"Try: throughtime generate {folder} --prompt 'class Tree:'\n"
        f"     throughtime complete {folder} 'import '",
        soft_wrap=True,
    )
    return 0


def standard_library() -> list[Path]:
    """The modules of the standard library that are single files."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    sources = [path for path in sorted(folder.glob("*.py")) if path.stat().st_size]
    if not sources:
        raise DataError(
            f"this Python has no source of its standard library in {folder}: train on files of yours"
        )
    return sources
