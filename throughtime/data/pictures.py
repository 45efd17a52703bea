"""Still pictures: files of PNG and JPEG as numbers of one size."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from throughtime.data.columns import Table
from throughtime.errors import DataError

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]

#: The formats that are read, and the ends of their files' names.
FORMATS = ("PNG", "JPEG")
SUFFIXES = (".png", ".jpg", ".jpeg")
#: What a picture stands on where it lets light through.
PAPER = "white"
#: What Pillow calls the ways to hold a colour, in words.
MODES = {"1": "black and white", "L": "grey", "P": "palette", "LA": "grey with alpha", "RGBA": "alpha"}


def read_picture(path: str | Path, size: int) -> Pixels:
    """The red, green and blue [3, size, size] of a picture, 0 to 255.

    The picture is turned as its EXIF orientation says, its shorter side is made `size` long (bicubic, with
    smoothing) and what the longer one has more is cut off on both sides alike. Grey, palette and CMYK become
    RGB, and what is transparent stands on white.

    Raises `DataError` for what is no whole PNG or JPEG.
    """
    return load_picture(Path(path), size).pixels


def read_pictures(
    paths: Sequence[Path], size: int, places: Sequence[str] | None = None, skip_damaged: bool = False
) -> tuple[Pixels, list[int]]:
    """The pictures [N, 3, size, size] of files that can be read, and which of the paths those are.

    How many were no RGB is said in a warning. Raises `DataError` where a picture cannot be read, with the
    number of such and the first, and with `places` where that was asked for; with `skip_damaged` a warning
    says the same.
    """
    found: list[Pixels] = []
    kept: list[int] = []
    wrong: list[str] = []
    modes: Counter[str] = Counter()
    for k, path in enumerate(paths):
        try:
            picture = load_picture(path, size)
        except DataError as error:
            wrong.append(str(error) if places is None else f"{places[k]}: {error}")
            continue
        found.append(picture.pixels)
        kept.append(k)
        modes[picture.mode] += 1
    if wrong:
        message = f"{len(wrong)} of {len(paths)} pictures cannot be read; the first: {wrong[0]}"
        if not (skip_damaged and found):
            raise DataError(message if len(paths) > 1 else wrong[0])
        logger.warning("%s; they are left out", message)
    warn_of_modes(modes, "pictures")
    return np.stack(found) if found else np.zeros((0, 3, size, size), np.uint8), kept


class Loaded(NamedTuple):
    """A picture as it is read: its pixels, and the mode and the sides (width, height) that it had."""

    pixels: Pixels
    mode: str
    sides: tuple[int, int]


def load_picture(path: Path, size: int) -> Loaded:
    """What `read_picture` reads, with what it was before; raises the same."""
    try:
        if not path.stat().st_size:
            raise DataError(f"{path} is empty: give a picture, PNG or JPEG")
        with Image.open(path, formats=FORMATS) as file:
            mode = file.mode
            whole = _to_rgb(ImageOps.exif_transpose(file))
            return Loaded(fit_picture(whole, size), mode, whole.size)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"{path} is no picture that can be read: give PNG or JPEG") from None
    except FileNotFoundError:
        raise DataError(f"{path} is not there: paths in a table go from its folder, or --folder") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder: give a picture, PNG or JPEG") from None
    except PermissionError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # the library raises whatever its decoders do
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise DataError(f"{path} is damaged: {reason}; mend it or leave it out") from None


def fit_picture(picture: Image.Image, size: int) -> Pixels:
    """The pixels [3, size, size] of an RGB picture, of which the middle is kept where it is no square."""
    fitted = ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(fitted).transpose(2, 0, 1))


def warn_of_modes(modes: Counter[str], what: str) -> None:
    """Say in a warning how many pictures, by their modes, were not RGB; `what` they are: "pictures"."""
    if others := {mode: count for mode, count in modes.items() if mode != "RGB"}:
        told = ", ".join(f"{count} {MODES.get(mode, mode)}" for mode, count in sorted(others.items()))
        logger.warning("%d of %d %s were made RGB: %s", sum(others.values()), modes.total(), what, told)


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut at 255
        return Image.fromarray((np.asarray(picture) // 257).clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        over = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, PAPER), over).convert("RGB")
    return picture.convert("RGB")


def picture_paths(table: Table, column: str, folder: Path) -> list[Path]:
    """The file of each row, its path going from `folder`; raises `DataError` for a row without one."""
    files = []
    for row, value in enumerate(table.column(column)):
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{table.place(row)}: {column} is {value!r:.40}: give the path of its file")
        files.append(Path(os.path.normpath(folder / value.strip())))
    return files
