"""`throughtime complete RUN TEXT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from throughtime.cli.language import load_language_model, readable, warn_of_unknown
from throughtime.cli.output import Json, messages, parse, write, write_json
from throughtime.errors import ConfigError


def run(arguments: list[str]) -> int:
    """Suggest words."""
    parse(complete, "complete", arguments)
    return 0


def complete(
    run: Annotated[Positional[Path], arg(help="Folder of a trained language model.")],
    text: Annotated[
        Positional[str], arg(help="What has been typed; a space at its end asks for a new word.")
    ],
    count: Annotated[int, arg(help="How many words.")] = 5,
    json: Json = False,
) -> None:
    """The likeliest next words with their probabilities: predictive typing."""
    if count < 1:
        raise ConfigError(f"count must be 1 or more, got {count}")
    task, text = load_language_model(run), readable(text)
    warn_of_unknown(task, text)
    words = task.complete(text, count)
    if not words:
        messages().print("the model knows no word that goes on from this")
    if json:
        write_json({"text": text, "words": [{"word": word, "probability": p} for word, p in words]})
        return
    for word, probability in words:
        write(f"{probability:7.2%}  {word}\n")
