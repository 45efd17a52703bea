"""The `throughtime` command: finds the command that is meant and imports only what that one needs."""

from __future__ import annotations

import importlib
import io
import os
import sys

from throughtime import __version__
from throughtime.errors import ThroughTimeError

#: Each command: the module whose `run(arguments)` does it, and what it does.
COMMANDS = {
    "demo": (
        "throughtime.cli.demo",
        "Train on the Python standard library for a minute and write some Python.",
    ),
    "train": ("throughtime.cli.train", "Train a model on your data."),
    "generate": ("throughtime.cli.generate", "Make text with a trained language model."),
    "compose": ("throughtime.cli.compose", "Make tunes with a language model of ABC notation."),
    "colours": (
        "throughtime.cli.colours",
        "Say which colour a name has, or invent names with their colours.",
    ),
    "score": ("throughtime.cli.score", "Say how likely a text is, token by token."),
    "complete": ("throughtime.cli.complete", "Suggest the likeliest next words."),
    "identify": ("throughtime.cli.identify", "Say who wrote a text, by a language model of each author."),
    "correct": ("throughtime.cli.correct", "Correct spelling by what a language model of words expects."),
    "predict": ("throughtime.cli.predict", "Use a trained model on an input, a file or a stream of lines."),
    "listen": ("throughtime.cli.listen", "Write down what is said on standard input while it is said."),
    "evaluate": ("throughtime.cli.evaluate", "Measure a trained model on other data."),
    "embed": ("throughtime.cli.embed", "Make a vector for each input, and find what is alike."),
    "world": ("throughtime.cli.world", "Make a world of coloured shapes to learn from, with captions."),
    "inspect": (
        "throughtime.cli.inspect",
        "Look inside a trained model: gradients, gates, neurons, attention.",
    ),
    "lab": ("throughtime.cli.lab", "Measure what is claimed of recurrences, each claim an experiment."),
    "bench": ("throughtime.cli.bench", "Time every cell on this machine beside what else would run it."),
    "cells": ("throughtime.cli.cells", "List the recurrences, or show the equations of one."),
}
#: Turns of the busy loop in which a thread of libgomp waits before it sleeps.
SPINS = "10000"
#: The exit code of a command that Ctrl-C ended, by the custom of shells.
INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not have every character
            stream.reconfigure(errors="replace")
    name = arguments[0] if arguments else "--help"
    if name in {"-h", "--help"}:
        _print(_help())
        return 0
    if name == "--version":
        _print(f"throughtime {__version__}")
        return 0
    if name not in COMMANDS:
        return _fail(f'there is no command "{name}": there are {", ".join(COMMANDS)}', 2)
    module, _ = COMMANDS[name]
    # torch's threads wait for each other in a busy loop. Where another program has one of the cores they
    # would wait whole time slices for a thread that cannot run: let them give way sooner.
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    try:
        code: int = importlib.import_module(module).run(arguments[1:])
        sys.stdout.flush()
        return code
    except ThroughTimeError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("stopped", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {summary}" for name, (_, summary) in COMMANDS.items())
    return (
        "usage: throughtime COMMAND [--help] ...\n\n"
        "Deep sequence models from their equations: train, use and look inside.\n\n"
        f"commands:\n{rows}\n\n"
        '"throughtime COMMAND --help" shows the options of a command.'
    )


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"throughtime: {' '.join(message.split())}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
