"""`throughtime listen RUN`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from throughtime.cli.output import Json, parse, write, write_json
from throughtime.data.pcm import read_pcm
from throughtime.errors import ConfigError, DataError
from throughtime.tasks.table import load

if TYPE_CHECKING:
    from throughtime.tasks.listener import Listener


@dataclass(frozen=True)
class Listen:
    """Write down what is said on standard input while it is said: a wav, or raw 16-bit samples."""

    run: Annotated[Positional[Path], arg(help="Folder of a transcriber's run, in one direction.")]
    rate: Annotated[
        int | None, arg(help="Samples a second of raw sound; as the model reads it if not given.")
    ] = None
    json: Json = False


def run(arguments: list[str]) -> int:
    """Listen."""
    command = parse(Listen, "listen", arguments)
    task = load(command.run, "transcriber")
    task.model.begin(1)  # whether it can listen at all is said before anything is read
    if sys.stdin is None:
        raise ConfigError("standard input is closed: give it sound, as with arecord or < FILE.wav")
    usual = task.features.rate if command.rate is None else command.rate
    rate, pieces = read_pcm(sys.stdin.buffer, usual)  # type: ignore[arg-type]
    listener, shown = task.stream(rate), ""
    try:
        for samples in pieces:
            shown = _say(listener.feed(samples), shown, listener.seconds, command.json)
    except KeyboardInterrupt:  # this is how live sound ends
        _end(listener, shown, command.json)
        raise
    if not listener.seconds:
        raise DataError("there is no sound on standard input: give a wav, or raw 16-bit samples")
    _end(listener, shown, command.json)
    return 0


def _end(listener: Listener, shown: str, json: bool) -> None:
    """Write what is still missing, and the whole."""
    shown = _say(listener.finish(), shown, listener.seconds, json)
    if json:
        write_json({"seconds": round(listener.seconds, 3), "text": shown})
    else:
        write("\n")


def _say(text: str, shown: str, seconds: float, json: bool) -> str:
    """Write what is new; returns all that is written now."""
    if text != shown and json:
        write_json({"seconds": round(seconds, 3), "text": text})
    elif text != shown:
        write(text.removeprefix(shown))
    return text
