"""`throughtime listen RUN`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from throughtime.cli.output import Json, write, write_json
from throughtime.cli.using import RunFirst, parse_with_search
from throughtime.data.pcm import read_pcm
from throughtime.errors import ConfigError, DataError


@dataclass(frozen=True)
class Listen:
    """Write down what is said on standard input while it is said: a wav, or raw 16-bit samples."""

    run: RunFirst
    rate: Annotated[
        int | None, arg(help="Samples a second of raw sound; as the model reads it if not given.")
    ] = None
    json: Json = False


def run(arguments: list[str]) -> int:
    """Listen."""
    from throughtime.tasks.transcriber import TranscriberTask

    command, task = parse_with_search(Listen, "listen", arguments)
    if not isinstance(task, TranscriberTask):
        raise ConfigError(
            f"{command.run} is a run of the task {task.config.task}: listen takes a transcriber"
        )
    task.model.begin(1)  # whether it can listen at all is said before anything is read
    if sys.stdin is None:
        raise ConfigError("standard input is closed: give it sound, as with arecord or < FILE.wav")
    usual = task.features.rate if command.rate is None else command.rate
    rate, pieces = read_pcm(sys.stdin.buffer, usual)  # type: ignore[arg-type]
    listener, shown = task.stream(rate), ""
    for samples in pieces:
        shown = _say(listener.feed(samples), shown, listener.seconds, command.json)
    if not listener.seconds:
        raise DataError("there is no sound on standard input: give a wav, or raw 16-bit samples")
    shown = _say(listener.finish(), shown, listener.seconds, command.json)
    if command.json:
        write_json({"seconds": round(listener.seconds, 3), "text": shown})
    else:
        write("\n")
    return 0


def _say(text: str, shown: str, seconds: float, json: bool) -> str:
    """Write what is new; returns all that is written now."""
    if text != shown and json:
        write_json({"seconds": round(seconds, 3), "text": text})
    elif text != shown:
        write(text.removeprefix(shown))
    return text
