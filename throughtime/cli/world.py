"""`throughtime world FOLDER`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from throughtime.cli.output import messages, parse
from throughtime.errors import ConfigError


def run(arguments: list[str]) -> int:
    """Make the world."""
    return parse(world, "world", arguments)


def world(
    folder: Annotated[Positional[Path], arg(help="A new folder for the pictures and their captions.")],
    scenes: Annotated[int, arg(help="Pictures, with captions.jsonl.")] = 2000,
    size: Annotated[int, arg(help="Width and height of a picture in pixels.")] = 64,
    seed: Annotated[int, arg(help="Another seed makes another world.")] = 0,
) -> int:
    """Make pictures of coloured shapes with captions that are true of them, to train a captioner on."""
    from throughtime.data.shapes import LEAST_SIZE, write_scenes

    if folder.exists():
        raise ConfigError(f"{folder} is there already: give a new folder")
    if size < LEAST_SIZE:
        raise ConfigError(f"--size {size} is too small to tell shapes apart: give {LEAST_SIZE} or more")
    if scenes < 1:
        raise ConfigError(f"--scenes {scenes} leaves nothing to make: give 1 or more")
    write_scenes(folder, scenes, size, seed)
    messages().print(f"{scenes} scenes: {folder / 'captions.jsonl'}", soft_wrap=True, markup=False)
    return 0
