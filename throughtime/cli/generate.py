"""`throughtime generate RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from throughtime.cli.language import load_language_model, readable, warn_of_unknown
from throughtime.cli.output import Json, parse, write, write_json


def run(arguments: list[str]) -> int:
    """Make text."""
    parse(generate, "generate", arguments)
    return 0


def generate(
    run: Annotated[Positional[Path], arg(help="Folder of a trained language model.")],
    prompt: Annotated[str, arg(help="Text to go on from.")] = "",
    length: Annotated[int, arg(help="Most tokens to make; the end of a document may come first.")] = 500,
    temperature: Annotated[
        float, arg(help="0 takes the likeliest token, 1 draws from the model as it is.")
    ] = 0.8,
    top_k: Annotated[int | None, arg(help="Draw among so many likeliest tokens.")] = None,
    top_p: Annotated[
        float | None, arg(help="Draw among the likeliest of so much probability together.")
    ] = None,
    seed: Annotated[int | None, arg(help="Makes the text repeatable.")] = None,
    json: Json = False,
) -> None:
    """Make text with a trained language model, token by token."""
    task, prompt = load_language_model(run), readable(prompt)
    warn_of_unknown(task, prompt)
    pieces = task.stream(prompt, length, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    if json:
        text = "".join(pieces)
        write_json({"prompt": prompt, "text": text})
        return
    first = next(pieces, "")  # what is wrong with the options is said before anything is written
    write(prompt + first)
    for piece in pieces:
        write(piece)
    write("\n")
