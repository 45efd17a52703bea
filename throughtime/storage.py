"""Writing files so that a process killed in between, or a full disk, leaves the old file whole."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from throughtime.errors import StorageError


def cache_folder() -> Path:
    """Where encoded texts and machine code are kept: `throughtime` in $XDG_CACHE_HOME, or in ~/.cache.

    Raises `RuntimeError` where there is no home.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "throughtime"


@contextmanager
def storage_errors(path: Path, advice: str) -> Iterator[None]:
    """Failures to write `path` as `StorageError`, with what would do."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}; {advice}") from None


def write(path: Path, save: Callable[[Path], object], advice: str) -> None:
    """Let `save` write a file next to `path`, then put it in its place at once.

    Raises `StorageError`, which ends with `advice`, where that fails.
    """
    new = path.with_name(f".{os.getpid()}.{path.name}")
    with storage_errors(path, advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save(new)
            with new.open("rb+") as file:
                os.fsync(file.fileno())
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def finite(value: Any) -> Any:
    """The same with null for numbers that are not finite, of which JSON has none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(each) for name, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list | tuple) else value
