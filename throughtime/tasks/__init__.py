"""One file for each task: what a command runs."""

from throughtime.tasks.table import TASKS, find_task, load

__all__ = [
    "TASKS",
    "find_task",
    "load",
]
