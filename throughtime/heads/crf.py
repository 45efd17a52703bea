"""The conditional random field: a distribution over whole sequences of classes."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from throughtime.errors import ShapeError
from throughtime.heads.categorical import Loss
from throughtime.heads.chain import Scores, best_path, log_partition, marginals
from throughtime.nn.masks import real_steps


class CRF(nn.Module):
    """A linear-chain conditional random field (Lafferty et al. 2001; Lample et al. 2016):

        p(y | f) ∝ exp(begin[y_1] + Σ_t (W f_t + b)[y_t] + Σ_t transitions[y_t-1, y_t] + end[y_T])

    features    how many features f_t has.
    classes     K, how many classes there are.
    legal       a table [K+1, K+1] of which class (column) may follow which (row); row K stands for the begin
                and column K for the end. What is not legal has probability 0, in the loss too. All is legal
                without it. It is no part of the state dict.

    Transitions, begin and end are zero at first, so that the head begins as one softmax for each step.
    Sequences are summed in double precision. A row of zero length adds nothing.
    Raises `ShapeError` for a table of another shape, and for tensors that do not fit.
    """

    legal: Tensor | None

    def __init__(self, features: int, classes: int, legal: Bool[Tensor, "K+1 K+1"] | None = None) -> None:
        super().__init__()
        if legal is not None and (legal.dtype != torch.bool or legal.shape != (classes + 1, classes + 1)):
            raise ShapeError(
                f"legal must be a table of booleans of shape [{classes + 1}, {classes + 1}], one more than "
                f"there are classes, got {legal.dtype} of shape {list(legal.shape)}"
            )
        self.features, self.classes = features, classes
        self.linear = nn.Linear(features, classes)
        nn.init.normal_(self.linear.weight, std=features**-0.5)
        nn.init.zeros_(self.linear.bias)
        self.transitions = nn.Parameter(torch.zeros(classes, classes))
        self.begin = nn.Parameter(torch.zeros(classes))
        self.end = nn.Parameter(torch.zeros(classes))
        self.register_buffer("legal", legal, persistent=False)

    def loss(
        self, features: Float[Tensor, "B T F"], targets: Int[Tensor, "B T"], lengths: Int[Tensor, "B"]
    ) -> Loss:
        """-log p(targets | features) in nats, summed over the rows; its count is that of the real steps.

        What `targets` holds in padding is not read. Raises `ShapeError` for targets that are no class, or
        that are not legal: their loss would be infinite.
        """
        emissions, real = self._emissions(features, lengths)
        if not real.numel():
            return Loss(emissions.sum().to(self.begin.dtype), 0)
        scores, targets = self._scores(), self._checked(targets, real)
        lengths = real.sum(1)
        sequence = _score(emissions, scores, targets, real, lengths)
        if self.legal is not None and sequence.isneginf().any():
            row = int(sequence.isneginf().nonzero()[0])
            raise ShapeError(
                f"the targets of row {row} hold a transition that is not legal: repair them first, got "
                f"{targets[row, : int(lengths[row])].tolist()}"
            )
        total = log_partition(emissions.transpose(0, 1), scores, lengths) - sequence.sum()
        return Loss(total.to(self.begin.dtype), int(lengths.sum()))

    @torch.no_grad()
    def decode(self, features: Float[Tensor, "B T F"], lengths: Int[Tensor, "B"]) -> Int[Tensor, "B T"]:
        """The most probable sequence (Viterbi 1967); -100 in padding."""
        emissions, real = self._emissions(features, lengths)
        if not real.numel():
            return real.long()
        path = best_path(emissions.transpose(0, 1), self._scores(), real.sum(1))
        return path.T.masked_fill(~real, -100)

    @torch.no_grad()
    def marginals(
        self, features: Float[Tensor, "B T F"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B T K"]:
        """p(y_t = k | all features of the row), without gradients; zeros in padding."""
        emissions, real = self._emissions(features, lengths)
        if not real.numel():
            return emissions.to(self.begin.dtype)
        found = marginals(emissions.transpose(0, 1), self._scores(), real.sum(1))
        return found.transpose(0, 1).to(self.begin.dtype)

    def extra_repr(self) -> str:
        """What `repr` shows."""
        return "" if self.legal is None else f"{int((~self.legal).sum())} of {self.legal.numel()} not legal"

    def _emissions(
        self, features: Float[Tensor, "B T F"], lengths: Int[Tensor, "B"]
    ) -> tuple[Float[Tensor, "B T K"], Bool[Tensor, "B T"]]:
        real = real_steps(features, lengths)
        if features.shape[2] != self.features:
            raise ShapeError(
                f"features must have shape [batch, time, {self.features}], got {list(features.shape)}"
            )
        # Before the projection, whose gradient would read what stands in padding.
        features = features.masked_fill(~real[..., None], 0)
        return F.linear(features, self.linear.weight, self.linear.bias).double(), real

    def _scores(self) -> Scores:
        scores = Scores(self.transitions.double(), self.begin.double(), self.end.double())
        if self.legal is None:
            return scores
        tables = self.legal[:-1, :-1], self.legal[-1, :-1], self.legal[:-1, -1]
        return Scores(
            *(each.masked_fill(~table, -torch.inf) for each, table in zip(scores, tables, strict=True))
        )

    def _checked(self, targets: Int[Tensor, "B T"], real: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
        if targets.shape != real.shape or targets.is_floating_point():
            raise ShapeError(
                f"targets must be integers of shape {list(real.shape)}, as the features have, "
                f"got {targets.dtype} of shape {list(targets.shape)}"
            )
        targets = targets.masked_fill(~real, 0)
        if targets.min() < 0 or targets.max() >= self.classes:
            wrong = int(targets[(targets < 0) | (targets >= self.classes)][0])
            raise ShapeError(f"targets within the lengths must lie in 0..{self.classes - 1}, got {wrong}")
        return targets


def _score(
    emissions: Float[Tensor, "B T K"],
    scores: Scores,
    targets: Int[Tensor, "B T"],
    real: Bool[Tensor, "B T"],
    lengths: Int[Tensor, "B"],
) -> Float[Tensor, "B"]:
    """s(y) of each row's targets, as `throughtime.heads.chain` defines it."""
    here = emissions.gather(-1, targets[..., None])[..., 0].masked_fill(~real, 0).sum(1)
    moves = scores.transitions[targets[:, :-1], targets[:, 1:]].masked_fill(~real[:, 1:], 0).sum(1)
    last = targets.gather(1, (lengths - 1).clamp(min=0)[:, None])[:, 0]
    ends = (scores.begin[targets[:, 0]] + scores.end[last]).masked_fill(lengths == 0, 0)
    return here + moves + ends
