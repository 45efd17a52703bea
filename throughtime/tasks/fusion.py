"""A language model of ours beside what a transcriber hears."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from throughtime.data.tokens import BOUNDARY, RESERVED, UNKNOWN, Tokeniser
from throughtime.decode.ctc import Fusion
from throughtime.errors import ConfigError
from throughtime.nn.state import State, join_rows, select_rows
from throughtime.tasks.language_model import LanguageModelTask

#: What ends a text where the language model read a text a line.
LINE_END = "\n"


def load_language(folder: Path) -> LanguageModelTask:
    """The language model of a run; raises `ConfigError` where it is a run of another task."""
    from throughtime.tasks.table import load

    task = load(folder)
    if not isinstance(task, LanguageModelTask):
        raise ConfigError(
            f"{folder} is a run of the task {task.config.task}: --language-model takes one of language-model"
        )
    return task


def fuse(language: LanguageModelTask, tokeniser: Tokeniser, weight: float) -> Fusion:
    """The language model over the tokens of `tokeniser`, as a search reads it.

    A text begins where a line does and ends at the line's end, if the model knows line ends; otherwise it
    is a document. Raises `ConfigError` where tokens are of another kind, or some are unknown to the model.
    """
    columns = torch.tensor(_columns(language.tokeniser, tokeniser))
    end = int(columns[BOUNDARY])
    device = next(language.model.parameters()).device

    @torch.no_grad()
    def step(tokens: Tensor, state: State) -> tuple[Tensor, State]:
        log_probs, state = language.model.step(columns[tokens].to(device), state)
        return log_probs.cpu()[:, columns], state

    @torch.no_grad()
    def begin() -> tuple[Tensor, State]:
        state = language.model.begin(1)
        for token in dict.fromkeys([BOUNDARY, end]):
            log_probs, state = language.model.step(torch.tensor([token], device=device), state)
        return log_probs.cpu()[0, columns], state

    first, state = begin()
    return Fusion(step, select_rows, join_rows, first, state, weight)


def _columns(language: Tokeniser, tokeniser: Tokeniser) -> list[int]:
    """The number in the language model of each token; that of what ends a text in place of the blank."""
    if language.kind != tokeniser.kind:
        raise ConfigError(
            f"the language model predicts {language.kind} tokens and the transcriber writes {tokeniser.kind} "
            f"tokens: train the language model with --tokens {tokeniser.kind}"
        )
    known = {text: k for k, text in enumerate(language.texts, start=RESERVED)}
    if missing := [text for text in tokeniser.texts if text not in known]:
        shown = ", ".join(repr(text) for text in missing[:10]) + ", ..." * (len(missing) > 10)
        raise ConfigError(
            f"the language model does not know {len(missing)} of the tokens that the transcriber writes: "
            f"{shown}; train it on text that has them"
        )
    return [known.get(LINE_END, BOUNDARY), UNKNOWN, *(known[text] for text in tokeniser.texts)]
