"""A language model of ours beside what a transcriber hears."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from throughtime.data.tokens import BOUNDARY, RESERVED, UNKNOWN, Tokeniser
from throughtime.decode.ctc import Fusion
from throughtime.errors import ConfigError
from throughtime.nn.state import State, join_rows, select_rows
from throughtime.tasks.language_model import LanguageModelTask

#: What ends a text where the language model read a text a line.
LINE_END = "\n"


def fuse(language: LanguageModelTask, tokeniser: Tokeniser, weight: float) -> Fusion:
    """The language model over the tokens of `tokeniser`, as a search reads it.

    A text begins where a line does and ends at the line's end, if the model knows line ends; otherwise it
    is a document. Raises `ConfigError` where tokens are of another kind, or some are unknown to the model.
    """
    columns = torch.tensor(_columns(language.tokeniser, tokeniser))
    end = int(columns[BOUNDARY])
    device = next(language.model.parameters()).device

    @torch.no_grad()
    def step(tokens: Tensor, states: Sequence[State]) -> tuple[Tensor, Sequence[State]]:
        log_probs, after = torch.empty(len(tokens), len(columns)), list(states)
        for rows in _alike(states):
            joined = join_rows([states[row] for row in rows])
            found, joined = language.model.step(columns[tokens[rows]].to(device), joined)
            log_probs[rows] = found.cpu()[:, columns]
            for k, row in enumerate(rows):
                after[row] = select_rows(joined, [k])
        return log_probs, after

    @torch.no_grad()
    def begin() -> tuple[Tensor, State]:
        state = language.model.begin(1)
        for token in dict.fromkeys([BOUNDARY, end]):
            log_probs, state = language.model.step(torch.tensor([token], device=device), state)
        return log_probs.cpu()[0, columns], state

    first, state = begin()
    return Fusion(step, first, state, weight)


def _alike(states: Sequence[State]) -> list[list[int]]:
    """The rows whose states have one shape: that of a transformer grows with what it has read."""
    groups: dict[tuple[torch.Size, ...], list[int]] = {}
    for row, state in enumerate(states):
        groups.setdefault(tuple(value.shape for values in state for value in values), []).append(row)
    return list(groups.values())


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
