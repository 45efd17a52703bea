"""Pictures: turned, cut and made RGB as people see them; what is damaged is named."""

import io

import numpy as np
import pytest
from PIL import Image

from throughtime.data.pictures import read_picture, read_pictures
from throughtime.errors import DataError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def halves(left=RED, right=BLUE, size=(16, 16), mode="RGB"):
    """A picture of two colours side by side."""
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image.convert(mode)


def saved(path, image=None, **options):
    (image or halves()).save(path, **options)
    return path


def corners(pixels):
    """Top left, top right, bottom left, bottom right."""
    return [tuple(pixels[:, y, x].tolist()) for y in (0, -1) for x in (0, -1)]


def test_a_picture_of_the_size_is_read_as_it_is(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    path = saved(tmp_path / "a.png", Image.fromarray(noise))
    assert np.array_equal(read_picture(path, 8), noise.transpose(2, 0, 1))


def test_the_middle_of_a_long_picture_is_kept(tmp_path):
    wide = Image.new("RGB", (64, 16), GREEN)
    wide.paste(halves(), (24, 0))
    pixels = read_picture(saved(tmp_path / "a.png", wide), 16)
    assert corners(pixels) == [RED, BLUE] * 2
    tall = Image.new("RGB", (16, 80), GREEN)
    tall.paste(halves(), (0, 32))
    assert corners(read_picture(saved(tmp_path / "b.png", tall), 16)) == [RED, BLUE] * 2


@pytest.mark.parametrize(
    "orientation, seen",
    [
        (1, [RED, BLUE, RED, BLUE]),
        (2, [BLUE, RED, BLUE, RED]),
        (3, [BLUE, RED, BLUE, RED]),
        (6, [RED, RED, BLUE, BLUE]),
        (8, [BLUE, BLUE, RED, RED]),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_picture_is_turned_as_its_exif_says(tmp_path, orientation, seen, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{suffix}", exif=exif)
    found = np.array(corners(read_picture(path, 16)), dtype=int)
    assert np.abs(found - np.array(seen)).max() < 20  # JPEG is nearly right


@pytest.mark.parametrize(
    "mode, suffix", [("L", "png"), ("P", "png"), ("CMYK", "jpg"), ("1", "png"), ("L", "jpg")]
)
def test_other_ways_to_hold_colours_become_rgb(tmp_path, mode, suffix):
    black_white = halves((0, 0, 0), (255, 255, 255), mode=mode)
    found = np.array(corners(read_picture(saved(tmp_path / f"a.{suffix}", black_white), 16)), dtype=int)
    assert np.abs(found - np.array([(0,) * 3, (255,) * 3] * 2)).max() < 10


def test_sixteen_bits_of_grey_keep_their_shades(tmp_path):
    grey = np.repeat(np.array([[0, 257 * 100, 257 * 200, 65535]], dtype=np.uint16), 4, 0)
    path = saved(tmp_path / "a.png", Image.fromarray(grey))
    assert read_picture(path, 4)[0, 0].tolist() == [0, 100, 200, 255]


def test_what_is_transparent_stands_on_white(tmp_path):
    image = halves().convert("RGBA")
    image.putalpha(Image.new("L", (16, 16), 255))
    image.paste((0, 0, 0, 0), (8, 0, 16, 16))
    assert corners(read_picture(saved(tmp_path / "a.png", image), 16)) == [RED, (255, 255, 255)] * 2
    palette = halves(mode="P")
    blue = palette.getpixel((15, 0))
    path = saved(tmp_path / "b.png", palette, transparency=blue)
    assert corners(read_picture(path, 16)) == [RED, (255, 255, 255)] * 2


def whole_jpeg():
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(data, "JPEG")
    return data.getvalue()


def whole_png():
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("a.png", b"", "is empty"),
        ("a.jpg", b"no picture at all", "is no picture that can be read: give PNG or JPEG"),
        ("a.jpg", whole_jpeg()[:2000], "is damaged"),
        ("a.png", whole_png()[:2000], "is damaged"),
        ("a.png", whole_png()[:40], "is no picture"),
        ("a.gif", b"GIF89a\1\0\1\0\0\0\0;", "is no picture that can be read"),
    ],
)
def test_what_is_no_whole_picture_is_named(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{name} ({said})"):
        read_picture(path, 16)
    with pytest.raises(DataError, match=rf"{name} is not there"):
        read_picture(tmp_path / "gone" / name, 16)


def test_what_was_no_rgb_is_counted(tmp_path, caplog):
    paths = [saved(tmp_path / f"{k}.png", halves(mode=mode)) for k, mode in enumerate(["L", "RGB", "L", "P"])]
    pixels, kept = read_pictures(paths, 8)
    assert pixels.shape == (4, 3, 8, 8) and kept == [0, 1, 2, 3]
    assert "3 of 4 pictures were made RGB: 2 grey, 1 palette" in caplog.text
