"""`throughtime world FOLDER`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from throughtime.cli.output import messages, parse
from throughtime.errors import ConfigError


def run(arguments: list[str]) -> int:
    """Make the world."""
    return parse(world, "world", arguments)


def world(
    folder: Annotated[Positional[Path], arg(help="A new folder for the pictures and what is said of them.")],
    scenes: Annotated[int, arg(help="Still pictures, with captions.jsonl.")] = 2000,
    clips: Annotated[int, arg(help="Moving pictures, with clips.jsonl.")] = 0,
    size: Annotated[int, arg(help="Width and height of a picture in pixels.")] = 64,
    seed: Annotated[int, arg(help="Another seed makes another world.")] = 0,
    video: Annotated[
        bool, FlagCreatePairsOff, arg(help="Clips as video files; else as folders of frames.")
    ] = False,
) -> int:
    """Make pictures of coloured shapes, still or moving, with captions that are true of them."""
    from throughtime.data.motion import write_clips
    from throughtime.data.shapes import LEAST_SIZE, write_scenes
    from throughtime.data.video import check_video

    if folder.exists():
        raise ConfigError(f"{folder} is there already: give a new folder")
    if size < LEAST_SIZE:
        raise ConfigError(f"--size {size} is too small to tell shapes apart: give {LEAST_SIZE} or more")
    if min(scenes, clips) < 0 or not scenes + clips:
        raise ConfigError(f"--scenes {scenes} --clips {clips} leaves nothing to make: give 1 or more of one")
    if seed < 0:
        raise ConfigError(f"--seed {seed} is below 0: give 0 or more")
    if video and not clips:
        raise ConfigError("--video is about clips: say how many, as in --clips 100")
    if video:
        check_video()
    if scenes:
        write_scenes(folder, scenes, size, seed)
        messages().print(f"{scenes} scenes: {folder / 'captions.jsonl'}", soft_wrap=True, markup=False)
    if clips:
        write_clips(folder, clips, size, seed, video=video)
        messages().print(f"{clips} clips: {folder / 'clips.jsonl'}", soft_wrap=True, markup=False)
    return 0
