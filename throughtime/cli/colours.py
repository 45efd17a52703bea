"""`throughtime colours RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from throughtime.cli.language import load_language_model, readable, warn_of_unknown
from throughtime.cli.output import Json, parse, write, write_json
from throughtime.cli.predict import draw_into
from throughtime.errors import ConfigError


def run(arguments: list[str]) -> int:
    """Give names their colours."""
    parse(colours, "colours", arguments)
    return 0


def colours(
    run: Annotated[Positional[Path], arg(help="Folder of a language model of names and colours.")],
    names: Annotated[Positional[tuple[str, ...]], arg(help="Names to give a colour.")] = (),
    count: Annotated[int | None, arg(help="Invent so many names with their colours.")] = None,
    temperature: Annotated[float, arg(help="Of inventing: below 1 safer, above 1 wilder.")] = 0.8,
    seed: Annotated[int | None, arg(help="Makes inventing repeatable.")] = None,
    measure: Annotated[
        Path | None, arg(help="Measure how far the colours of the names in this table lie from its own.")
    ] = None,
    plot: Annotated[Path | None, arg(help="Draw the colours into this file.")] = None,
    json: Json = False,
) -> None:
    """Say which colour a name has, or invent names with their colours."""
    from throughtime.tasks.colours import Colours, draw_swatches

    if bool(names) + (count is not None) + (measure is not None) != 1:
        raise ConfigError("give names, or --count N to invent some, or --measure TABLE")
    if count is not None and count < 1:
        raise ConfigError(f"count must be 1 or more, got {count}")
    if measure is not None and plot is not None:
        raise ConfigError("--plot draws colours of names: give names or --count with it")
    task = load_language_model(run)
    model = Colours(task)
    if measure is not None:
        metrics = model.measure([measure])
        if json:
            write_json({"metrics": metrics})
        else:
            write("".join(f"{name}: {value:g}\n" for name, value in metrics.items()))
        return
    if count is not None:
        answers = model.invent(count, temperature, seed)
    else:
        given = [readable(name) for name in names]
        warn_of_unknown(task, "".join(given))
        answers = [model.of(name) for name in given]
    for answer in answers:
        if json:
            write_json(answer)
        else:
            write(f"{answer['colour']}  ± {answer['spread']:4.1f}  {answer['name']}\n")
    if plot is not None:
        draw_into(plot, lambda: draw_swatches(answers))
