"""How a task looks for the tokens of an output: the likeliest, or drawn by chance."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Protocol, Self

import torch
from jaxtyping import Int
from pydantic import Field, model_validator
from torch import Tensor

from throughtime.config import Config
from throughtime.data.tokens import BOUNDARY, UNKNOWN
from throughtime.decode.beam import beam_search
from throughtime.decode.sequences import Hypothesis, sample_sequences


class SearchConfig(Config):
    """How an output is looked for; where it is drawn, by `temperature`, what a search needs is not read."""

    beams: int = Field(5, ge=1, description="Beginnings kept at each step; 1 is greedy search.")
    length_penalty: float = Field(1.0, ge=0, description="Exponent of the length normalisation; 0 is none.")
    no_repeat_ngram: int = Field(0, ge=0, description="No sequence of so many tokens twice; 0 allows any.")
    n_best: int = Field(1, ge=1, description="Outputs for each input.")
    groups: int = Field(1, ge=1, description="Groups of beams that are kept apart by diversity.")
    diversity: float = Field(0.0, ge=0, description="What a token costs that another group took, in nats.")
    temperature: float | None = Field(
        None, ge=0, description="Draw the output instead of searching it; 1 draws from the model as it is."
    )
    top_k: int | None = Field(None, ge=1, description="Draw among so many likeliest tokens.")
    top_p: float | None = Field(
        None, gt=0, le=1, description="Draw among the likeliest of so much probability."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Makes what is drawn repeatable.")
    attention: bool = Field(
        False, description="Give the attention of each output token to the input, in JSON."
    )

    @model_validator(mode="after")
    def _check_drawn(self) -> Self:
        for name in ("top_k", "top_p"):
            if self.temperature is None and getattr(self, name) is not None:
                option = name.replace("_", "-")
                raise ValueError(
                    f"--{option} is for outputs that are drawn: add --temperature 1, or leave it out"
                )
        return self


class Decoder(Protocol):
    """A model that goes on from a state, token by token."""

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The log-probability of every token after these, and the state after them."""

    def select(self, state: Any, rows: Tensor) -> Any:
        """The rows of a state that `rows` names, in its order."""


def search_tokens(
    model: Decoder, state: Any, most: Int[Tensor, "B"], seeds: Sequence[int], search: SearchConfig
) -> list[list[Hypothesis]]:
    """The outputs of each row of a state, of at most so many tokens, the last one counted.

    Those that were searched for come the best first, those that were drawn as they were. What is drawn for a
    row depends on it, the number that stands for its input in `seeds`, and the seed of the search alone.
    """

    def step(tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """A step of the model, wherever it is, for a search on the processor."""
        log_probs, state = model.step(tokens.to(device), state)
        return log_probs.cpu(), state

    device = next(model.parameters()).device  # type: ignore[attr-defined]
    begin = torch.full((len(most),), BOUNDARY)
    if search.temperature is None:
        return beam_search(
            step,
            model.select,
            begin,
            state,
            end=BOUNDARY,
            beams=max(search.beams, search.n_best),
            max_length=most,
            length_penalty=search.length_penalty,
            no_repeat_ngram=search.no_repeat_ngram,
            n_best=search.n_best,
            groups=search.groups,
            diversity=search.diversity,
            banned=[UNKNOWN],
        )
    count = search.n_best
    rows = torch.arange(len(most)).repeat_interleave(count)
    drawn = sample_sequences(
        step,
        model.select,
        begin[rows],
        model.select(state, rows),
        end=BOUNDARY,
        max_length=most[rows],
        temperature=search.temperature,
        top_k=search.top_k,
        top_p=search.top_p,
        banned=[UNKNOWN],
        seeds=[zlib.crc32(f"{search.seed} {n}".encode(), seed) for seed in seeds for n in range(count)],
    )
    return [drawn[k : k + count] for k in range(0, len(drawn), count)]
