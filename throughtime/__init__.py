"""Deep sequence models from their equations."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`load`, imported when it is first used: torch takes its time."""
    if name == "load":
        from throughtime.tasks.table import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
