"""The one tree of exceptions. Each message names what was given, what was wanted, and what would do.

ThroughTimeError
├── UsageError            what a person gave cannot be used (exit code 2)
│   ├── CellError         the equations of a cell
│   ├── ShapeError        the shape or kind of a tensor
│   ├── DataError         a file or a text
│   ├── ConfigError       an option or a configuration file
│   └── RunError          a run folder or a checkpoint
├── DivergedError         training went to NaN or Inf again and again (exit code 1)
├── StoppedError          a person stopped what was going on (exit code 130)
└── StorageError          writing a run failed, for example on a full disk (exit code 1)
"""


class ThroughTimeError(Exception):
    """The root of all errors that this package raises on purpose."""

    exit_code = 1


class UsageError(ThroughTimeError):
    """What a person gave cannot be used."""

    exit_code = 2


class CellError(UsageError):
    """The equations of a cell, or the name of one, are not usable."""


class ShapeError(UsageError, ValueError):
    """A tensor has the wrong shape, type or range."""


class DataError(UsageError):
    """A file or a text cannot be read as what it should be."""


class ConfigError(UsageError):
    """An option or a configuration file has an impossible value."""


class RunError(UsageError):
    """A folder is not a run, or a file in it is damaged."""


class KernelError(UsageError, RuntimeError):
    """A backend is asked for what it does not do."""


class DivergedError(ThroughTimeError):
    """Training went to NaN or Inf again and again."""


class StoppedError(ThroughTimeError):
    """A person stopped what was going on."""

    exit_code = 130


class StorageError(ThroughTimeError):
    """A run could not be written."""
