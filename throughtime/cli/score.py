"""`throughtime score RUN`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from throughtime.cli.language import load_language_model, readable, warn_of_unknown
from throughtime.cli.output import Json, messages, parse, write, write_json
from throughtime.errors import ConfigError

if TYPE_CHECKING:
    from throughtime.tasks.language_model import LanguageModelTask


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
    pairs: Annotated[
        Path | None,
        arg(help="Table (tsv) of a right sentence and a wrong one: how often is the right likelier?"),
    ] = None,
    json: Json = False,
) -> None:
    """Log-probability of each token, perplexity, and bits per character of a text."""
    from throughtime.data.text import open_text

    if sum(given is not None for given in (text, file, compare, pairs)) != 1:
        raise ConfigError("give a text, or --file FILE, or --compare A B, or --pairs FILE")
    task = load_language_model(run)
    if pairs is not None:
        _score_pairs(task, pairs, json)
        return
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


def _score_pairs(task: LanguageModelTask, path: Path, json: bool) -> None:
    """How often the first sentence of a row is the likelier; without JSON, also where it is not."""
    from throughtime.data.pairs import read_pairs

    pairs, right = read_pairs([path], "1", "2"), 0
    for k, (good, bad) in enumerate(zip(pairs.sources, pairs.targets, strict=True)):
        margin = task.score(good).log_prob - task.score(bad).log_prob
        right += margin > 0
        if json:
            write_json({"right": good, "wrong": bad, "margin": margin})
        elif margin <= 0:
            write(f"{margin:8.3f}  {pairs.places[k]}: {bad}  (right: {good})\n")
    messages().print(f"{right} of {len(pairs)} right sentences are the likelier ({right / len(pairs):.1%})")
