"""`throughtime identify RUN RUN ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from throughtime.cli.language import load_language_model, readable
from throughtime.cli.output import Json, messages, parse, write, write_json
from throughtime.errors import ConfigError


def run(arguments: list[str]) -> int:
    """Identify the author."""
    parse(identify, "identify", arguments)
    return 0


def identify(
    runs: Annotated[
        Positional[tuple[Path, ...]], arg(help="A language model of each author, named by its folder.")
    ],
    text: Annotated[str | None, arg(help="The text.")] = None,
    file: Annotated[Path | None, arg(help="The text is in this file.")] = None,
    passage: Annotated[int | None, arg(help="Cut the file into passages of so many words.")] = None,
    author: Annotated[str | None, arg(help="Who wrote it: tells how often that was found.")] = None,
    json: Json = False,
) -> None:
    """Who wrote a text: the author whose language model finds it the likeliest."""
    from throughtime.tasks.authorship import Authors, passages

    if (text is None) == (file is None):
        raise ConfigError("give --text TEXT or --file FILE")
    if passage is not None and passage < 1:
        raise ConfigError(f"passage must be 1 word or more, got {passage}")
    if passage is not None and file is None:
        raise ConfigError("--passage cuts a file: give --file FILE with it")
    names = [folder.resolve().name for folder in runs]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"two runs have the same name among {', '.join(names)}: authors are told by folders"
        )
    if author is not None and author not in names:
        raise ConfigError(f'there is no run of "{author}": there are {", ".join(names)}')
    authors = Authors({name: load_language_model(folder) for name, folder in zip(names, runs, strict=True)})
    texts = passages(file, passage) if file is not None else iter([readable(text or "")])
    count = right = 0
    for each in texts:
        [answer] = authors.answer([each])
        count, right = count + 1, right + (answer["author"] == author)
        if json:
            write_json(answer)
        else:
            bits = ", ".join(f"{name} {value:.3f}" for name, value in answer["bits_per_character"].items())
            write(f"{answer['author']}  ({bits} bits per character)  {' '.join(each.split())[:50]}\n")
    if not count:
        raise ConfigError(f"{file} has fewer than {passage} words: give a shorter --passage")
    if author is not None:
        messages().print(f"{right} of {count} are taken for {author}'s ({right / count:.1%})")
