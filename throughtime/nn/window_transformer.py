"""A Transformer over streams without end: each step sees the last few of its document, carried as a state."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from throughtime.errors import ConfigError, ShapeError
from throughtime.nn.multi_head import Turns, angles
from throughtime.nn.options import check_sizes
from throughtime.nn.state import State
from throughtime.nn.transformer import EncoderLayer, TransformerStack


class WindowTransformer(TransformerStack):
    """y = norm(layers(√F x)): each step sees itself and the `context` - 1 steps before it in its document.

    It is called as `Recurrent` is, `y, state = layer(x, state, lengths, reset)`, and keeps the same promises:
    the answer depends neither on padding nor on the pieces that a sequence is fed in. Between calls it
    carries the keys and values of the last `context` - 1 steps (Dai et al. 2019). Positions are rotary
    (Su et al. 2021): only the distance of two steps counts, so that a stream may go on for ever. Each layer
    sees steps in which the one below has seen others: a step hears of layers * (context - 1) steps before it.

    features   of each step; a multiple of the heads with an even quotient.
    hidden     width between the two linear maps of a layer; 4 features where it is None.
    dropout    on √F x, weights of attention, between the linear maps and on what each part adds to x.
    """

    def __init__(
        self,
        features: int,
        layers: int,
        heads: int = 4,
        hidden: int | None = None,
        dropout: float = 0.0,
        *,
        context: int = 256,
    ) -> None:
        super().__init__(EncoderLayer, features, layers, heads, hidden, dropout)
        check_sizes(context=context)
        if features // heads % 2:
            raise ConfigError(
                f"rotary positions turn pairs of features: a head must have an even number, got {features} "
                f"features in {heads} heads"
            )
        self.context = context

    def begin(self, batch: int) -> State:
        """The state before the first step.

        For each layer it holds keys and values of the past steps, [B, heads, P, d]; last comes how many of
        the P steps are of the document that goes on, [B].
        """
        lived = torch.zeros(batch, dtype=torch.long, device=self.norm.weight.device)
        return *(self.nothing(batch) for _ in self.layers), (lived,)

    def forward(
        self,
        x: Float[Tensor, "B T F"],
        state: State | None = None,
        lengths: Int[Tensor, "B"] | None = None,
        reset: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T F"], State]:
        """y of all steps, zero in padding, and the state after the last real one of each row.

        Where `reset` is True a document begins. Raises `ShapeError` where x, its state, `lengths` or `reset`
        do not fit each other.
        """
        real = self.real(x, lengths)
        reset = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device) if reset is None else reset
        state = self.begin(len(x)) if state is None else state
        if reset.shape != x.shape[:2] or reset.dtype != torch.bool:
            raise ShapeError(
                f"reset must be booleans of shape {list(x.shape[:2])}, "
                f"got {reset.dtype} of shape {list(reset.shape)}"
            )
        if len(state) != len(self.layers) + 1 or len(state[-1][0]) != len(x):
            raise ShapeError(f"state must be what begin({len(x)}) or a call on {len(x)} rows returned")
        if not x.shape[1]:
            return x, state
        x, reset, ys = x.masked_fill(~real[..., None], 0), reset & real, []
        # More steps at a time would see nothing more, and their masks grow with the square of the steps.
        for piece in zip(*(each.split(self.context, 1) for each in (x, real, reset)), strict=True):
            y, state = self._piece(state, *piece)
            ys.append(y)
        return torch.cat(ys, 1).masked_fill(~real[..., None], 0), state

    def _piece(
        self,
        state: State,
        x: Float[Tensor, "B T F"],
        real: Bool[Tensor, "B T"],
        reset: Bool[Tensor, "B T"],
    ) -> tuple[Float[Tensor, "B T F"], State]:
        *pasts, (lived,) = state
        past = pasts[0][0].shape[2]
        total = past + x.shape[1]
        kept = min(total, self.context - 1)
        ends = past + real.sum(1)
        first = _document_starts(past, lived, reset)
        mask, turns = self._seen(past, first), self._turns(total, x)
        z, after = self.dropout(self.scaled(x)), []
        for layer, keys_values in zip(self.layers, pasts, strict=True):
            z, (keys, values) = layer(z, keys_values, mask, turns=turns)
            after.append((_before(ends, kept, keys), _before(ends, kept, values)))
        return self.norm(z), (*after, ((ends - first[:, -1]).clamp(max=kept),))

    def _seen(self, past: int, first: Int[Tensor, "B T"]) -> Bool[Tensor, "B 1 T S"]:
        """Which of the past and present steps each present one sees."""
        total = past + first.shape[1]
        keys = torch.arange(total, device=first.device)
        queries = keys[past:, None]
        window = (keys <= queries) & (keys > queries - self.context)
        return (window & (keys >= first[..., None]))[:, None]

    def _turns(self, total: int, x: Tensor) -> Turns:
        turns = angles(total, self.features // self.heads)
        return turns.cos().to(x), turns.sin().to(x)


def _document_starts(past: int, lived: Int[Tensor, "B"], reset: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Where, counted from the first past step, the document of each present step begins."""
    here = torch.arange(past, past + reset.shape[1], device=reset.device)
    return torch.where(reset, here, (past - lived)[:, None]).cummax(1).values


def _before(ends: Int[Tensor, "B"], kept: int, steps: Float[Tensor, "B N S d"]) -> Float[Tensor, "B N P d"]:
    """The last `kept` steps before the end of each row; where there are fewer, the first fills the rest."""
    places = (ends[:, None] - kept + torch.arange(kept, device=ends.device)).clamp(min=0)
    return steps.transpose(1, 2)[torch.arange(len(ends), device=ends.device)[:, None], places].transpose(1, 2)
