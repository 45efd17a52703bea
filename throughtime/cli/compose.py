"""`throughtime compose RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from throughtime.cli.language import load_language_model, readable, warn_of_unknown
from throughtime.cli.output import Json, messages, parse, write, write_json
from throughtime.errors import ConfigError
from throughtime.storage import write as write_whole

if TYPE_CHECKING:
    from throughtime.tasks.composition import Made


def run(arguments: list[str]) -> int:
    """Make tunes."""
    return parse(compose, "compose", arguments)


def compose(
    run: Annotated[Positional[Path], arg(help="Folder of a language model that was trained on .abc files.")],
    key: Annotated[str | None, arg(help="Key, as D, Em or A Dorian.")] = None,
    meter: Annotated[str | None, arg(help="Meter, as 6/8 or C|.")] = None,
    length: Annotated[str | None, arg(help="Unit of length, as 1/8.")] = None,
    title: Annotated[str | None, arg(help="Title; of the model's making where it is not given.")] = None,
    count: Annotated[int, arg(help="How many tunes to make.")] = 1,
    temperature: Annotated[float, arg(help="Below 1 the tunes are safer, above 1 wilder.")] = 0.8,
    raw: Annotated[bool, arg(help="Keep each tune as it is drawn, whether it parses or not.")] = False,
    seed: Annotated[int | None, arg(help="Makes the tunes repeatable.")] = None,
    out: Annotated[
        Path | None,
        arg(help="Write the tunes into this folder: ABC, and with the extra music score, MIDI, sound."),
    ] = None,
    json: Json = False,
) -> int:
    """Make tunes with a language model of ABC notation."""
    from throughtime.tasks.composition import Composer
    from throughtime.tasks.engraving import missing

    if count < 1:
        raise ConfigError(f"count must be 1 or more, got {count}")
    task = load_language_model(run)
    asked = {"T": title, "M": meter, "L": length, "K": key}
    fields = {name: readable(value) for name, value in asked.items() if value is not None}
    composer = Composer(task, fields, temperature=temperature, seed=seed)
    warn_of_unknown(task, fields.get("T", ""))
    console = messages()
    lacking = missing() if out is not None else None
    if lacking is not None:
        console.print(f"{lacking}; only the ABC is written", style="yellow", markup=False)
    kept = []
    for number in range(1, count + 1):
        made = composer.tune(number, 1) if raw else composer.tune(number)
        if made.fault is not None:
            line, column, reason = made.fault
            verdict = "does not parse" if raw else "is left out, for none that was drawn parses"
            console.print(f"tune {number} {verdict}: line {line}, column {column}: {reason}", markup=False)
        if made.fault is None or raw:
            files = [] if out is None else _write(made, out / f"{number}.abc", sound=lacking is None)
            kept.append(made.to_json() | {"files": [str(file) for file in files]})
            if out is None and not json:
                write(("" if len(kept) == 1 else "\n") + made.abc)
    counts = composer.counts()
    if json:
        write_json(counts | {"tunes": kept})
    console.print(
        f"of {counts['drawn']} tunes drawn {counts['parsed_share']:.1%} parse, and in "
        f"{counts['bars_right_share']:.1%} all bars have the length of the meter",
        soft_wrap=True,
        markup=False,
    )
    if out is not None and kept:
        console.print(f"the tunes are in {out}", soft_wrap=True, markup=False)
    return 0 if kept else 1


def _write(made: Made, path: Path, *, sound: bool) -> list[Path]:
    from throughtime.data.abc import parse_tune
    from throughtime.tasks.engraving import ADVICE, engrave

    write_whole(path, lambda new: new.write_text(made.abc, encoding="utf-8"), ADVICE)
    return [path, *(engrave(parse_tune(made.abc), path) if sound and made.fault is None else [])]
