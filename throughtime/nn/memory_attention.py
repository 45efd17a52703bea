"""Attention: for each query a weighted mean of a memory, with weights that the query chooses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from throughtime.cells.initial import glorot
from throughtime.errors import ConfigError, ShapeError
from throughtime.nn.masks import masked_softmax, real_steps
from throughtime.nn.options import check_sizes

#: How `Attention` scores a step of the memory.
Kind = Literal["additive", "dot", "general"]
#: Hidden units, over all rows and steps, of the additive score that are held at a time. Pieces that stay
#: near the processor are as fast as all at once, though the backward pass computes them again.
PIECE = 2**19


@dataclass(frozen=True)
class Memory:
    """What attention looks at, with what is the same for all queries: made by `Attention.prepare`.

    values   [B, S, M], zero in padding.
    keys     [B, S, K], what queries are compared with.
    padding  [B, S], True where a row has no step.
    """

    values: Float[Tensor, "B S M"]
    keys: Float[Tensor, "B S K"]
    padding: Bool[Tensor, "B S"]

    def select(self, rows: Int[Tensor, "R"]) -> Memory:
        """The rows of the batch that `rows` names, in its order."""
        return Memory(self.values[rows], self.keys[rows], self.padding[rows])


class Attention(nn.Module):
    """a = softmax_s(score(q, m_s)), context = Σ_s a_s m_s, for queries q over a memory m_1 .. m_S.

    kind         "additive": vᵀ tanh(W q + U m_s) (Bahdanau, Cho & Bengio 2015);
                 "dot": qᵀ m_s, "general": qᵀ W m_s (Luong, Pham & Manning 2015).
    query_size   features of q.
    memory_size  features of m.
    hidden       units of the additive score; `query_size` where it is None.
    coverage     whether the additive score also sees how much a step was looked at before, Σ of the weights
                 of all earlier queries: vᵀ tanh(W q + U m_s + w coverage_s) (See, Liu & Manning 2017,
                 without their bias). w begins at zero. Queries then go one after another, by `step`.

    The softmax runs over the real steps of a row: padding, whatever stands in it, is not read and gets
    the weight 0. A row without steps has the context 0. Matrices and v begin uniform (Glorot & Bengio 2010).

    A query costs 2 S M multiplications with "dot" and "general". "additive" has S H tanh besides, which take
    several times longer than these. `forward` makes them for `PIECE` units at a time and does not keep them:
    the backward pass makes them again, so that memory does not grow with T S H. `step` keeps those of its
    query until the backward pass, and T steps hold T S H.

    Raises `ConfigError` for options that do not fit each other.
    """

    def __init__(
        self,
        kind: Kind,
        query_size: int,
        memory_size: int,
        hidden: int | None = None,
        coverage: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check(kind, query_size, memory_size, hidden, coverage)
        self.kind, self.query_size, self.memory_size = kind, query_size, memory_size
        self.hidden = query_size if hidden is None else hidden
        if kind == "additive":
            self.weight_query = nn.Parameter(glorot(self.hidden, query_size, generator))
            self.weight_memory = nn.Parameter(glorot(self.hidden, memory_size, generator))
            self.v = nn.Parameter(glorot(1, self.hidden, generator)[0])
        elif kind == "general":
            self.weight_memory = nn.Parameter(glorot(query_size, memory_size, generator))
        self.weight_coverage = nn.Parameter(torch.zeros(self.hidden)) if coverage else None
        #: The weights of attention pass through here: a place for hooks.
        self.looks = nn.Identity()

    def prepare(self, values: Float[Tensor, "B S M"], lengths: Int[Tensor, "B"] | None = None) -> Memory:
        """What does not depend on the queries, computed once; `lengths` gives the real steps of each row.

        Raises `ShapeError` where `values` is no batch of sequences of `memory_size` features or `lengths`
        does not fit it.
        """
        padding = ~real_steps(values, lengths)
        if values.shape[2] != self.memory_size:
            raise ShapeError(
                f"the memory must have shape [batch, time, {self.memory_size}], got {list(values.shape)}"
            )
        values = values.masked_fill(padding[..., None], 0)
        keys = values if self.kind == "dot" else F.linear(values, self.weight_memory)
        return Memory(values, keys, padding)

    def forward(
        self, queries: Float[Tensor, "B T Q"], memory: Memory
    ) -> tuple[Float[Tensor, "B T M"], Float[Tensor, "B T S"]]:
        """The context and the weights of all queries at once.

        Raises `ConfigError` with coverage, under which a query waits for the weights of those before.
        """
        if self.weight_coverage is not None:
            raise ConfigError("attention with coverage takes one query after another: use step")
        self._check_queries(queries, 3, memory)
        return self._attend(self._scores(queries, memory.keys), memory)

    def step(
        self, query: Float[Tensor, "B Q"], memory: Memory, coverage: Float[Tensor, "B S"] | None = None
    ) -> tuple[Float[Tensor, "B M"], Float[Tensor, "B S"]]:
        """The context and the weights of one query in each row.

        `coverage` is the sum of the weights of all earlier steps, zeros before the first. Raises
        `ShapeError` where the layer sees it and it is not given, or is given and not seen.
        """
        self._check_queries(query, 2, memory)
        keys = memory.keys
        if (coverage is None) != (self.weight_coverage is None):
            raise ShapeError(
                "coverage must be given, zeros before the first step"
                if coverage is None
                else "coverage is given to an attention without it: make it with coverage=True"
            )
        if coverage is not None and self.weight_coverage is not None:
            if coverage.shape != keys.shape[:2]:
                raise ShapeError(
                    f"coverage must have shape {list(keys.shape[:2])}, got {list(coverage.shape)}"
                )
            keys = keys + coverage[..., None] * self.weight_coverage
        context, weights = self._attend(self._scores(query[:, None], keys), memory)
        return context[:, 0], weights[:, 0]

    def _attend(self, scores: Float[Tensor, "B T S"], memory: Memory) -> tuple[Tensor, Tensor]:
        """The mean of the memory under the softmax of the scores of its real steps, and the softmax."""
        weights: Tensor = self.looks(masked_softmax(scores, memory.padding[:, None]))
        return weights @ memory.values, weights

    def _scores(self, queries: Float[Tensor, "B T Q"], keys: Float[Tensor, "B S K"]) -> Tensor:
        if self.kind != "additive":
            return queries @ keys.transpose(1, 2)
        queries = F.linear(queries, self.weight_query)
        pieces = queries.split(max(PIECE // max(keys.numel(), 1), 1), 1)
        if len(pieces) == 1:
            return _additive(queries, keys, self.v)
        scores = [
            checkpoint(_additive, piece, keys, self.v, use_reentrant=False, preserve_rng_state=False)
            for piece in pieces
        ]
        return torch.cat(scores, 1)

    def _check_queries(self, queries: Tensor, dimensions: int, memory: Memory) -> None:
        shape = queries.shape
        if len(shape) != dimensions or shape[0] != len(memory.keys) or shape[-1] != self.query_size:
            time = ", time" if dimensions == 3 else ""
            raise ShapeError(
                f"queries must have shape [batch{time}, {self.query_size}] with the memory's batch of "
                f"{len(memory.keys)}, got {list(shape)}"
            )

    def extra_repr(self) -> str:
        """What `repr` shows."""
        hidden = f", hidden={self.hidden}" if self.kind == "additive" else ""
        coverage = ", coverage=True" if self.weight_coverage is not None else ""
        return f"{self.kind}, {self.query_size}, {self.memory_size}{hidden}{coverage}"


def coverage_loss(weights: Float[Tensor, "B S"], coverage: Float[Tensor, "B S"]) -> Float[Tensor, "B"]:
    """Σ_s min(a_s, coverage_s) of one step: what looks again at the same is paid for (See et al. 2017)."""
    return torch.minimum(weights, coverage).sum(-1)


def _additive(
    queries: Float[Tensor, "B T H"], keys: Float[Tensor, "B S H"], v: Float[Tensor, "H"]
) -> Float[Tensor, "B T S"]:
    return (queries[:, :, None] + keys[:, None]).tanh() @ v


def _check(kind: str, query_size: int, memory_size: int, hidden: int | None, coverage: bool) -> None:
    if kind not in get_args(Kind):
        raise ConfigError(f'there is no attention "{kind}": there are {", ".join(get_args(Kind))}')
    check_sizes(query_size=query_size, memory_size=memory_size, hidden=1 if hidden is None else hidden)
    if kind == "dot" and query_size != memory_size:
        raise ConfigError(
            f'attention "dot" needs query_size = memory_size, got {query_size} and {memory_size}: '
            'take "general", which has a matrix between them'
        )
    if kind != "additive" and hidden is not None:
        raise ConfigError(f'attention "{kind}" has no hidden units, got {hidden}: leave hidden out')
    if kind != "additive" and coverage:
        raise ConfigError(
            f'coverage enters the additive score, and the attention is "{kind}": take "additive"'
        )
