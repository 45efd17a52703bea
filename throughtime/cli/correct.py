"""`throughtime correct RUN TEXT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from throughtime.cli.language import load_language_model, readable
from throughtime.cli.output import Json, messages, parse, write, write_json
from throughtime.errors import ConfigError


def run(arguments: list[str]) -> int:
    """Correct spelling."""
    parse(correct, "correct", arguments)
    return 0


def correct(
    run: Annotated[Positional[Path], arg(help="Folder of a language model of words.")],
    text: Annotated[Positional[str | None], arg(help="The text.")] = None,
    file: Annotated[Path | None, arg(help="Correct each line of this file.")] = None,
    pairs: Annotated[
        Path | None, arg(help="Table (tsv) of a wrong text and the right one: how many it gets.")
    ] = None,
    json: Json = False,
) -> None:
    """Correct the words that a language model does not know, by what it expects in their place."""
    from throughtime.data.pairs import read_pairs
    from throughtime.data.text import read_lines
    from throughtime.tasks.spelling import Corrector

    if sum(given is not None for given in (text, file, pairs)) != 1:
        raise ConfigError("give a text, or --file FILE, or --pairs FILE")
    corrector = Corrector(load_language_model(run))
    rights: list[str] = []
    if pairs is not None:
        given = read_pairs([pairs], "1", "2")
        lines, rights = iter(given.sources), given.targets
    else:
        lines = read_lines(file) if file is not None else iter([readable(text or "")])
    hits = 0
    for k, line in enumerate(lines):
        [answer] = corrector.answer([line])
        hits += bool(rights) and answer["output"] == rights[k]
        if json:
            write_json(answer)
        elif not rights or answer["output"] != rights[k]:
            write(answer["output"] + (f"  (from {line}, right: {rights[k]})" if rights else "") + "\n")
    if rights:
        messages().print(f"{hits} of {len(rights)} are right ({hits / len(rights):.1%})")
