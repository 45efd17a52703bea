"""`throughtime embed RUN`."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from throughtime.cli.language import readable
from throughtime.cli.output import Json, messages, parse, write, write_json
from throughtime.errors import ConfigError

#: Inputs that are embedded side by side.
ROWS = 1024


def run(arguments: list[str]) -> int:
    """Embed."""
    parse(embed, "embed", arguments)
    return 0


def embed(
    run: Annotated[Positional[Path], arg(help="Folder of a run.")],
    input: Annotated[Positional[str | None], arg(help="One input.")] = None,
    file: Annotated[Path | None, arg(help="Each line, or row of a table, of this file is an input.")] = None,
    out: Annotated[
        Path | None, arg(help="File for the vectors: .npy for them alone, .parquet with the inputs.")
    ] = None,
    nearest: Annotated[
        str | None, arg(help="Show the inputs of the file that are nearest to this one.")
    ] = None,
    count: Annotated[int, arg(help="How many of the nearest.")] = 5,
    vector: Annotated[
        Literal["pooled", "state"], arg(help="What the model's output reads, or the last hidden state.")
    ] = "pooled",
    json: Json = False,
) -> None:
    """A vector for each input, to keep or to find what is alike."""
    import numpy as np

    from throughtime.tasks.embedding import check_format, nearest_rows, plain, save_vectors
    from throughtime.tasks.table import load

    if (input is None) == (file is None):
        raise ConfigError("give an input, or --file FILE")
    if nearest is not None and file is None:
        raise ConfigError("--nearest looks among the inputs of a file: add --file FILE")
    if count < 1:
        raise ConfigError(f"count must be 1 or more, got {count}")
    if out is not None:
        check_format(out)
    task = load(run)
    inputs = iter(task.inputs(file)) if file is not None else iter([readable(input or "")])
    given: list[Any] = []
    pieces = []
    while group := list(islice(inputs, ROWS)):
        pieces.append(task.embed(group, vector).numpy())
        given += group
    if not given:
        raise ConfigError(f"{file} has nothing to embed")
    vectors = np.concatenate(pieces)
    if out is not None:
        save_vectors(out, given, vectors)
        messages().print(
            f"{len(vectors)} vectors of {vectors.shape[1]} numbers are in {out}", soft_wrap=True, markup=False
        )
    if nearest is not None:
        query = task.embed([readable(nearest)], vector).numpy()[0]
        for row, cosine in nearest_rows(vectors, query, count):
            if json:
                write_json({"input": plain(given[row]), "cosine": cosine})
            else:
                write(f"{cosine:7.4f}  {plain(given[row])}\n")
    elif out is None:
        for each, values in zip(given, vectors.tolist(), strict=True):
            write_json({"input": plain(each), "vector": values})
