"""A world of coloured shapes: pictures whose captions are true by construction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from throughtime.storage import storage_errors

Colour = tuple[int, int, int]
#: Left, top, right and bottom in pixels; right and bottom are the first ones outside.
Box = tuple[float, float, float, float]

COLOURS: dict[str, Colour] = {
    "red": (215, 45, 45),
    "green": (45, 170, 60),
    "blue": (45, 75, 215),
    "yellow": (235, 215, 50),
    "purple": (150, 50, 185),
}
#: The corners of each shape in a square of side 1; a circle has none.
SHAPES: dict[str, tuple[tuple[float, float], ...]] = {
    "circle": (),
    "square": ((0, 0), (1, 0), (1, 1), (0, 1)),
    "triangle": ((0.5, 0), (1, 1), (0, 1)),
    "cross": tuple(
        (x / 3, y / 3)
        for x, y in [
            (1, 0),
            (2, 0),
            (2, 1),
            (3, 1),
            (3, 2),
            (2, 2),
            (2, 3),
            (1, 3),
            (1, 2),
            (0, 2),
            (0, 1),
            (1, 1),
        ]
    ),
}
#: The axis of each relation (0 is x), and whether the first thing has the smaller coordinate on it.
RELATIONS = {"left of": (0, True), "right of": (0, False), "above": (1, True), "below": (1, False)}

#: Pixels of the fine grid on which a pixel's edge is drawn: its colour is their mean.
FINE = 4
#: Sides of things, as parts of the picture's.
SMALLEST, LARGEST = 0.3, 0.45
#: How far a relation's axis must lead: centres lie so many times as far apart on it as on the other.
CLEAR = 1.5
#: The share of scenes with one thing.
ALONE = 0.2
#: How far each channel of a colour wanders from its name's, and the standard deviation of a pixel's noise.
TINT, NOISE = 20, 5.0
#: The least side of a picture in which shapes can be told from each other.
LEAST_SIZE = 16


class Thing(NamedTuple):
    """A shape in a place. `tint` is the colour that it is painted in, which varies about `colour`."""

    colour: str
    shape: str
    box: Box
    tint: Colour


class Scene(NamedTuple):
    """What a picture shows.

    things      what is to be seen.
    caption     what a person would say of it: "a red circle is above a blue square", or "a red circle".
    named       for each word of the caption the thing it names, a place in `things`, or None.
    background  its colour.
    """

    things: tuple[Thing, ...]
    caption: str
    named: tuple[int | None, ...]
    background: Colour


def make_scene(random: np.random.Generator, size: int = 64) -> Scene:
    """A scene in a picture of `size` by `size` pixels: two things, which differ in colour or shape, or one.

    The relation is unambiguous: on its axis the things do not overlap, and their centres lie 1.5 times as far
    apart as on the other. So is which is named first: the thing whose colour, or else whose shape, comes
    first in the alphabet. Nobody could tell otherwise which of them a word is about before it is said.
    """
    background = make_background(random)
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    if random.random() < ALONE:
        [kind] = random.choice(kinds, 1).tolist()
        things: tuple[Thing, ...] = (_thing(random, kind, _place(random, size)),)
        return Scene(things, f"a {' '.join(kind)}", (None, 0, 0), background)
    first, second = sorted(random.choice(kinds, 2, replace=False).tolist())
    relation = str(random.choice(list(RELATIONS)))
    while not holds(relation, one := _place(random, size), other := _place(random, size)):
        pass
    things = _thing(random, first, one), _thing(random, second, other)
    caption = f"a {' '.join(first)} is {relation} a {' '.join(second)}"
    between = [None] * len(f"is {relation} a".split())
    return Scene(things, caption, (None, 0, 0, *between, 1, 1), background)


def holds(relation: str, one: Box, other: Box) -> bool:
    """Whether a thing with the first box clearly stands in this relation to one with the second."""
    axis, smaller = RELATIONS[relation]
    if not smaller:
        one, other = other, one
    along, across = (abs(_centre(other)[k] - _centre(one)[k]) for k in (axis, 1 - axis))
    return one[axis + 2] <= other[axis] and along >= CLEAR * across


def make_background(random: np.random.Generator) -> Colour:
    """A grey, dark or light, with a trace of colour."""
    return _near((int(random.integers(60, 200)),) * 3, 8, random)


def make_tint(random: np.random.Generator, colour: str) -> Colour:
    """A colour that people would call by this name."""
    return _near(COLOURS[colour], TINT, random)


def paint(things: Sequence[Thing], background: Colour, size: int, random: np.random.Generator) -> Image.Image:
    """A picture [size, size] of things, later ones before earlier ones, with soft edges and some noise."""
    canvas = Image.new("RGB", (size * FINE, size * FINE), background)
    pen = ImageDraw.Draw(canvas)
    for thing in things:
        left, top, right, bottom = (FINE * edge for edge in thing.box)
        if corners := SHAPES[thing.shape]:
            # Pillow paints the last pixel as well.
            width, height = right - left - 1, bottom - top - 1
            pen.polygon([(left + x * width, top + y * height) for x, y in corners], fill=thing.tint)
        else:
            pen.ellipse((left, top, right - 1, bottom - 1), fill=thing.tint)
    clean = np.asarray(canvas.resize((size, size), Image.Resampling.BOX), dtype=np.float64)
    noisy = clean + random.normal(0, NOISE, clean.shape)
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def write_scenes(folder: Path, count: int, size: int = 64, seed: int = 0) -> None:
    """Pictures `scenes/00000.png` and on, and `captions.jsonl` with a row for each.

    Columns: "image" (a path from the folder), "caption", "objects" (the box of each thing) and "named" (as in
    `Scene.named`). Scene k depends on the seed and k alone. Raises `StorageError` where the folder cannot be
    written.
    """
    rows = []
    with storage_errors(folder, "give a new folder that can be made"):
        (folder / "scenes").mkdir(parents=True)
        for k in range(count):
            random = np.random.default_rng([seed, k])
            scene = make_scene(random, size)
            name = f"scenes/{k:05}.png"
            paint(scene.things, scene.background, size, random).save(folder / name)
            boxes = [thing.box for thing in scene.things]
            rows.append({"image": name, "caption": scene.caption, "objects": boxes, "named": scene.named})
        (folder / "captions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")


def _thing(random: np.random.Generator, kind: Sequence[str], box: Box) -> Thing:
    colour, shape = kind
    return Thing(colour, shape, box, make_tint(random, colour))


def _place(random: np.random.Generator, size: int) -> Box:
    """A square somewhere in the picture, of whole pixels."""
    side = int(random.integers(round(SMALLEST * size), round(LARGEST * size) + 1))
    left, top = random.integers(0, size - side + 1, 2).tolist()
    return left, top, left + side, top + side


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _near(colour: Colour, far: int, random: np.random.Generator) -> Colour:
    red, green, blue = np.clip(colour + random.integers(-far, far + 1, 3), 0, 255).tolist()
    return red, green, blue
