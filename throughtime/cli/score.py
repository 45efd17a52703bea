"""`throughtime score RUN`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from throughtime.cli.language import load_language_model, readable, warn_of_unknown
from throughtime.cli.output import Json, parse, write, write_json
from throughtime.errors import ConfigError


def run(arguments: list[str]) -> int:
    """Score a text."""
    parse(score, "score", arguments)
    return 0


def score(
    run: Annotated[Positional[Path], arg(help="Folder of a trained language model.")],
    text: Annotated[Positional[str | None], arg(help="The text.")] = None,
    file: Annotated[Path | None, arg(help="Score the text of this file; shows the sums alone.")] = None,
    compare: Annotated[
        tuple[str, str] | None, arg(help="Say which of two sentences is the likelier.")
    ] = None,
    json: Json = False,
) -> None:
    """Log-probability of each token, perplexity, and bits per character of a text."""
    from throughtime.data.text import open_text

    if sum(given is not None for given in (text, file, compare)) != 1:
        raise ConfigError("give a text, or --file FILE, or --compare A B")
    task = load_language_model(run)
    if compare is not None:
        scores = []
        for sentence in map(readable, compare):
            warn_of_unknown(task, sentence)
            scores.append(task.score(sentence).log_prob)
        better = int(scores[1] > scores[0])
        if json:
            write_json({"likelier": compare[better], "log_probs": scores, "sentences": list(compare)})
        else:
            rows = "".join(
                f"{value:10.3f}  {sentence}\n" for value, sentence in zip(scores, compare, strict=True)
            )
            write(f"{rows}likelier by {abs(scores[1] - scores[0]):.3f} nats: {compare[better]}\n")
        return
    given = "".join(open_text([file]).blocks()) if file is not None else readable(text or "")
    warn_of_unknown(task, given)
    result = task.score(given)
    if json:
        write_json(asdict(result) | {"metrics": result.metrics})
        return
    if file is None:
        table = Table("token", "log-probability", box=None)
        for token, value in zip(result.tokens, result.log_probs, strict=True):
            table.add_row(repr(token), f"{value:.3f}")
        Console().print(table)
    for name, value in result.metrics.items():
        write(f"{name.replace('_', ' ')}: {value:.4f}\n")
