"""Who wrote a text: the author whose language model finds it the likeliest."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from throughtime.data.text import open_text
from throughtime.errors import ConfigError, DataError
from throughtime.tasks.language_model import LanguageModelTask

logger = logging.getLogger(__name__)


class Authors:
    """A language model for each author, over the same units or others: texts are compared as a whole.

        author(x) = argmax_a log p_a(x)

    Models of words that do not know the same words are not compared fairly, which a warning says: what an
    author's model does not know is one word to it, and so a likely one.

    Raises `ConfigError` for fewer than two.
    """

    def __init__(self, models: Mapping[str, LanguageModelTask]) -> None:
        if len(models) < 2:
            raise ConfigError(f"authors to choose from: {len(models)}; give the runs of two or more")
        self.models = dict(models)
        tokenisers = [model.tokeniser for model in models.values()]
        known = {frozenset(each.texts) for each in tokenisers if each.kind == "word"}
        if len(known) > 1:
            logger.warning(
                "the models know different words, and one finds likely what it does not know: models of "
                "characters (--tokens char) tell authors apart without that"
            )

    def answer(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """The author of each text, and bits per character by the model of each."""
        return [self._answer(text) for text in texts]

    def _answer(self, text: str) -> dict[str, Any]:
        if not text.strip():
            raise DataError("there is nothing to go by: the text is empty")
        scores = {name: model.score(text).log_prob for name, model in self.models.items()}
        bits = {name: -score / math.log(2) / len(text) for name, score in scores.items()}
        return {"text": text, "author": min(bits, key=bits.__getitem__), "bits_per_character": bits}


def passages(path: Path, words: int | None) -> Iterator[str]:
    """The text of a file, or passages of so many words of it; fewer at its end are left out, and counted."""
    text = "".join(open_text([path]).blocks())
    if words is None:
        yield text
        return
    start = left = 0
    for word in re.finditer(r"\S+", text):
        left += 1
        if left == words:
            yield text[start : word.end()].strip()
            start, left = word.end(), 0
    if left:
        logger.warning("the last %d words of %s are no whole passage and are left out", left, path)
