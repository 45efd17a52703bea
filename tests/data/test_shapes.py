"""The world of shapes: what a caption says is to be seen in the pixels."""

import json

import numpy as np
import pytest
from PIL import Image

from throughtime.data.shapes import (
    COLOURS,
    NOISE,
    RELATIONS,
    SHAPES,
    holds,
    make_scene,
    paint,
    write_scenes,
)
from throughtime.errors import StorageError


def drawn(seed, size=64):
    random = np.random.default_rng([7, seed])
    scene = make_scene(random, size)
    return scene, np.asarray(paint(scene.things, scene.background, size, random), dtype=float)


def pixels_of(colour, picture):
    """The places whose colour is strong, and nearest to that of this name."""
    strong = picture.max(-1) - picture.min(-1) > 60
    distances = {name: np.abs(picture - np.array(rgb)).sum(-1) for name, rgb in COLOURS.items()}
    nearest = np.min(list(distances.values()), 0)
    return np.argwhere(strong & (distances[colour] == nearest))


@pytest.mark.parametrize("seed", range(60))
def test_the_caption_is_true_of_the_pixels(seed):
    scene, picture = drawn(seed)
    words = scene.caption.split()
    if len(scene.things) == 1:
        [thing] = scene.things
        assert words == ["a", thing.colour, thing.shape]
        assert len(pixels_of(thing.colour, picture)) > 30
        return
    (_, colour, shape, _, *relation, _, other_colour, other_shape) = words
    assert (colour, shape) != (other_colour, other_shape)
    if colour == other_colour:
        return
    (y, x), (other_y, other_x) = (pixels_of(c, picture).mean(0) for c in (colour, other_colour))
    far = {"left": other_x - x, "right": x - other_x, "above": other_y - y, "below": y - other_y}
    # The centre of mass of a triangle lies a sixth of its height below the middle of its box.
    assert far[relation[0]] == max(far.values()) > 8


@pytest.mark.parametrize("seed", range(20))
def test_words_name_things_by_their_boxes(seed):
    scene, picture = drawn(seed)
    words = scene.caption.split()
    assert len(words) == len(scene.named)
    for word, named in zip(words, scene.named, strict=True):
        assert (named is not None) == (word in COLOURS or word in SHAPES)
        if word in COLOURS:
            left, top, right, bottom = scene.things[named].box
            inside = pixels_of(word, picture[int(top) : int(bottom), int(left) : int(right)])
            area = {"circle": np.pi / 4, "square": 1, "triangle": 1 / 2, "cross": 5 / 9}
            share = len(inside) / ((right - left) * (bottom - top))
            assert share == pytest.approx(area[scene.things[named].shape], abs=0.15)


def test_a_thing_fills_its_box_and_no_more():
    scene, picture = next(s for s in map(drawn, range(50)) if s[0].things[0].shape == "square")
    left, top, right, bottom = scene.things[0].box
    inside = picture[top:bottom, left:right]
    assert np.abs(inside - np.array(scene.things[0].tint)).max() < 6 * NOISE
    edge = picture[max(top - 1, 0), left:right] if top else picture[bottom, left:right]
    assert np.abs(edge.mean(0) - np.array(scene.things[0].tint)).max() > 30


def test_a_relation_holds_or_its_opposite_or_neither():
    one, right, diagonal = (0, 0, 10, 10), (20, 4, 30, 14), (20, 20, 30, 30)
    assert holds("left of", one, right) and holds("right of", right, one)
    assert not holds("above", one, right) and not holds("right of", one, right)
    assert not any(holds(relation, one, diagonal) for relation in RELATIONS)


@pytest.mark.parametrize("seed", range(40))
def test_the_first_in_the_alphabet_is_named_first(seed):
    scene, _ = drawn(seed)
    names = [thing[:2] for thing in scene.things]
    assert names == sorted(names)
    assert [scene.caption.split()[1:3], scene.caption.split()[-2:]][: len(names)] == [
        [*name] for name in names
    ]


def test_every_colour_shape_and_relation_is_drawn():
    captions = [make_scene(np.random.default_rng(k)).caption for k in range(600)]
    text = " ".join(captions)
    assert all(word in text for word in [*COLOURS, *SHAPES, "left of", "right of", "above", "below"])
    assert 0.1 < sum(len(caption.split()) == 3 for caption in captions) / 600 < 0.3


def test_a_world_is_made_of_its_seed(tmp_path):
    write_scenes(tmp_path / "one", 6, 32, seed=1)
    write_scenes(tmp_path / "more", 9, 32, seed=1)
    write_scenes(tmp_path / "other", 6, 32, seed=2)
    one, more, other = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "scenes").iterdir()}
        for name in ("one", "more", "other")
    )
    assert one == {name: more[name] for name in one}
    assert not set(one.values()) & set(other.values())


def test_the_table_names_its_pictures(tmp_path):
    write_scenes(tmp_path / "world", 4, 48, seed=0)
    rows = [json.loads(line) for line in (tmp_path / "world/captions.jsonl").read_text().splitlines()]
    assert [row["image"] for row in rows] == [f"scenes/0000{k}.png" for k in range(4)]
    for row in rows:
        with Image.open(tmp_path / "world" / row["image"]) as picture:
            assert picture.size == (48, 48) and picture.mode == "RGB"
        assert len(row["named"]) == len(row["caption"].split())
        assert {k for k in row["named"] if k is not None} == set(range(len(row["objects"])))


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "scenes").mkdir()
    with pytest.raises(StorageError, match="give a new folder"):
        write_scenes(tmp_path, 1)
