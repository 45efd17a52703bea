"""The base of all configuration: frozen, with a description and bounds for each field, declared once."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from throughtime.errors import ConfigError


class Config(BaseModel):
    """A part of a configuration; unknown fields and values out of bounds raise `ConfigError`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_message(error)) from None

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """Read a file; what it leaves out keeps its default."""
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not TOML: {error}") from None
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def to_toml(self) -> str:
        """The text of a file that `from_toml` reads back; fields that are None are left out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


class ChoiceConfig(Config):
    """A configuration whose field `choice` decides which others are read.

    `read_by` has, for each option that not every choice reads, those that do. Raises `ConfigError` where an
    option that what was chosen does not read is other than by default.
    """

    choice: ClassVar[str] = "model"
    read_by: ClassVar[Mapping[str, tuple[str, ...]]]

    @model_validator(mode="after")
    def _check_read(self) -> Self:
        chosen: str = getattr(self, self.choice)
        for name, readers in self.read_by.items():
            default = type(self).model_fields[name].default
            if chosen not in readers and getattr(self, name) != default:
                option, choice = (f"--{each.replace('_', '-')}" for each in (name, self.choice))
                raise ValueError(
                    f"{option} is not read with {choice} {chosen}: leave it at {default}, or take "
                    f"{choice} {' or '.join(readers)}"
                )
        return self


def _message(error: ValidationError) -> str:
    """The first complaint of pydantic in one line, with the option's name as the command line has it."""
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    name = ".".join(str(part) for part in first["loc"]).replace("_", "-")
    given = "" if first["type"] in {"missing", "value_error"} else f", got {first['input']!r}"
    return (f"{name}: " if name else "") + message + given
