"""The world of shapes in motion: clips with a caption, and a label for each frame."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from throughtime.data.shapes import COLOURS, SHAPES, Box, Colour, Thing, make_background, make_tint, paint
from throughtime.data.video import write_video
from throughtime.storage import storage_errors

#: What a thing does: which way its centre moves (x, y), and whether its side grows.
ACTIONS: dict[str, tuple[int, int, int]] = {
    "left": (-1, 0, 0),
    "right": (1, 0, 0),
    "up": (0, -1, 0),
    "down": (0, 1, 0),
    "grow": (0, 0, 1),
    "shrink": (0, 0, -1),
    "still": (0, 0, 0),
}
#: The label of a frame without a thing.
NOTHING = "nothing"

#: Frames of a clip, of an action, and of a thing's absence before it appears or after it disappears.
SHORTEST, LONGEST = 8, 24
ACTION_FRAMES, ABSENT_FRAMES = (4, 8), (2, 4)
#: The most actions of a clip.
MOST_ACTIONS = 3
#: How far a thing moves in a frame and how much its side grows, as parts of the picture's side.
SPEED, GROWTH = (0.04, 0.07), (0.025, 0.045)
#: Its side at first, and the least and the greatest that it may come to.
SIDE, SIDES = (0.32, 0.5), (0.2, 0.7)
#: The probability that a thing appears, and that it disappears.
COMES, GOES = 0.25, 0.25


class Phase(NamedTuple):
    """What a thing does in the frames from `begin` on, before `end`; "nothing" is that it is not there."""

    action: str
    begin: int
    end: int


class Clip(NamedTuple):
    """A thing in motion.

    frames      the thing in each frame, or None where it is not there.
    labels      how each frame differs from the one before: "left", "right", "up", "down", "grow", "shrink",
                "still" (also where the thing has just come), or "nothing" where there is no thing.
    caption     what a person would say: "a red circle appears then moves left then up then stops".
    said        for each word of the caption the frames it tells of, (first, behind the last), or None.
    background  its colour.
    """

    frames: tuple[Thing | None, ...]
    labels: tuple[str, ...]
    caption: str
    said: tuple[tuple[int, int] | None, ...]
    background: Colour


def make_clip(random: np.random.Generator, size: int = 64) -> Clip:
    """A clip of 8 to 24 frames of `size` by `size` pixels, in which one thing does one to three things."""
    colour, shape = str(random.choice(list(COLOURS))), str(random.choice(list(SHAPES)))
    tint = make_tint(random, colour)
    phases = _phases(random)
    while (boxes := _boxes(random, phases)) is None:
        phases = _phases(random)
    frames = tuple(None if box is None else Thing(colour, shape, _scaled(box, size), tint) for box in boxes)
    caption, said = _caption(colour, shape, phases)
    return Clip(frames, label_frames(frames), caption, said, make_background(random))


def label_frames(frames: Sequence[Thing | None]) -> tuple[str, ...]:
    """How each frame differs from the one before; a thing in the first frame is still."""
    return tuple(_change(before, now) for before, now in pairwise([None, *frames]))


def paint_clip(clip: Clip, size: int, random: np.random.Generator) -> list[Image.Image]:
    """The frames, each with noise of its own."""
    shown = ([] if thing is None else [thing] for thing in clip.frames)
    return [paint(things, clip.background, size, random) for things in shown]


def write_clips(folder: Path, count: int, size: int = 64, seed: int = 0, *, video: bool = False) -> None:
    """Clips as folders of frames `clips/00000/000.png` and on, and `clips.jsonl` with a row for each.

    With `video` they are files `clips/00000.mkv`, of 8 frames per second, without loss. Columns: "clip" (a
    path from the folder), "caption", "labels" and "said" (as in `Clip`). Clip k depends on the seed and k
    alone. Raises `StorageError` where the folder cannot be written.
    """
    rows = []
    with storage_errors(folder, "give a new folder that can be made"):
        (folder / "clips").mkdir(parents=True)
        for k in range(count):
            random = np.random.default_rng([seed, 1, k])
            clip = make_clip(random, size)
            pictures = paint_clip(clip, size, random)
            name = f"clips/{k:05}{'.mkv' if video else ''}"
            if video:
                write_video(folder / name, pictures)
            else:
                _write_frames(folder / name, pictures)
            rows.append({"clip": name, "caption": clip.caption, "labels": clip.labels, "said": clip.said})
        (folder / "clips.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")


def _write_frames(folder: Path, pictures: Sequence[Image.Image]) -> None:
    folder.mkdir()
    for k, picture in enumerate(pictures):
        picture.save(folder / f"{k:03}.png")


def _phases(random: np.random.Generator) -> list[Phase]:
    """What is done and when, of a clip that is neither too short nor too long."""
    while True:
        actions = random.choice(list(ACTIONS), random.integers(1, MOST_ACTIONS + 1), replace=False).tolist()
        lengths = random.integers(ACTION_FRAMES[0], ACTION_FRAMES[1] + 1, len(actions)).tolist()
        for comes, place in ((random.random() < COMES, 0), (random.random() < GOES, len(actions) + 1)):
            if comes:
                actions.insert(place, NOTHING)
                lengths.insert(place, int(random.integers(ABSENT_FRAMES[0], ABSENT_FRAMES[1] + 1)))
        if SHORTEST <= sum(lengths) <= LONGEST:
            ends = np.cumsum(lengths).tolist()
            return [Phase(*each) for each in zip(actions, [0, *ends], ends, strict=False)]


def _boxes(random: np.random.Generator, phases: Sequence[Phase]) -> list[Box | None] | None:
    """A box for each frame in a picture of side 1; None where the thing would leave it or its bounds."""
    side = random.uniform(*SIDE)
    x, y = random.uniform(side / 2, 1 - side / 2, 2)
    boxes: list[Box | None] = []
    for action, begin, end in phases:
        speed, growth = random.uniform(*SPEED), random.uniform(*GROWTH)
        for _ in range(begin, end):
            if action == NOTHING:
                boxes.append(None)
                continue
            if boxes and boxes[-1] is not None:
                right, down, wider = ACTIONS[action]
                x, y, side = x + speed * right, y + speed * down, side + growth * wider
            box = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
            if min(box) < 0 or max(box) > 1 or not SIDES[0] <= side <= SIDES[1]:
                return None
            boxes.append(box)
    return boxes


def _scaled(box: Box, size: int) -> Box:
    left, top, right, bottom = (float(size * edge) for edge in box)
    return left, top, right, bottom


def _change(before: Thing | None, now: Thing | None) -> str:
    if now is None:
        return NOTHING
    if before is None:
        return "still"
    (left, top, right, bottom), then = now.box, before.box
    moved = (left + right - then[0] - then[2], top + bottom - then[1] - then[3])
    change = (*moved, right - left - then[2] + then[0])
    ways = [0 if abs(each) < 1e-6 else int(np.sign(each)) for each in change]
    return next(action for action, way in ACTIONS.items() if list(way) == ways)


def _caption(
    colour: str, shape: str, phases: Sequence[Phase]
) -> tuple[str, tuple[tuple[int, int] | None, ...]]:
    words, said = ["a", colour, shape], list[tuple[int, int] | None]([None] * 3)
    befores = ["", *(phase.action for phase in phases)]
    for before, (action, begin, end) in zip(befores, phases, strict=False):
        phrase = _phrase(before, action)
        if before:
            words.append("then")
            said.append(None)
        words += phrase
        said += [(begin, end)] * len(phrase)
    return " ".join(words), tuple(said)


def _phrase(before: str, action: str) -> list[str]:
    """How an action is said after the one before; "" is the beginning."""
    if action == NOTHING:
        return ["disappears" if before else "appears"]
    if action == "still":
        return ["waits" if before in ("", NOTHING) else "stops"]
    if action in ("grow", "shrink"):
        return [f"{action}s"]
    moving = before in ("left", "right", "up", "down")
    return [action] if moving else ["moves", action]
