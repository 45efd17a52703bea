"""torch's LSTM, GRU and RNN under their own names, run by our machine code wherever it can do the job."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from throughtime.cells.cell import Cell
from throughtime.cells.elman import rnn, rnn_relu
from throughtime.cells.gru import gru
from throughtime.cells.lstm import lstm
from throughtime.kernels.unroll import Choice, unroll
from throughtime.kernels.unroll import explain as explain_cell
from throughtime.nn.time import reverse

#: The cell that each mode of torch's layers computes.
CELLS: dict[str, Cell] = {"LSTM": lstm, "GRU": gru, "RNN_TANH": rnn, "RNN_RELU": rnn_relu}


class DropIn(nn.RNNBase):
    """What the three layers share: `forward` by our kernels, or by torch where `explain` says so.

    Everything else is torch's: constructor, parameters, `state_dict`, `repr`, copying, pickling.
    `torch.compile` leaves torch's recurrent layers and all that inherit from them out of its graphs, unless
    `torch._dynamo.config.allow_rnn` is set; `torch.export` takes them.
    """

    #: "auto", or a name of `throughtime.kernels.unroll.BACKENDS`: "reference" has derivatives of every order.
    backend: str = "auto"
    weight_ih_l0: Tensor

    def forward(self, input: Any, hx: Any = None) -> Any:
        """What torch's layer returns for `input` and `hx`, and the errors it raises."""
        if self.explain(input, hx).refused:
            return super().forward(input, hx)
        if isinstance(input, PackedSequence):
            return self._packed(input, hx)
        if input.dim() == 2:
            y, after = self._stack(input[:, None], _map(lambda value: value[:, None], hx))
            return y[:, 0], _map(lambda value: value[:, 0], after)
        y, after = self._stack(input.transpose(0, 1) if self.batch_first else input, hx)
        return y.transpose(0, 1) if self.batch_first else y, after

    def explain(self, input: Tensor | PackedSequence | None = None, hx: Any = None) -> Choice:
        """Whether our kernels ("llvm") or torch's own code run this layer on `input`, and why not ours.

        Where `input` is left out, the answer is for any that fits the layer.
        """
        if input is None:
            input = self.weight_ih_l0.new_zeros(1, 1, self.input_size)
        reason = self._refusal(input, hx)
        ours = "llvm" if self.backend == "auto" else self.backend
        return Choice(ours, {}) if reason is None else Choice("torch", {ours: reason})

    def _refusal(self, input: Any, hx: Any) -> str | None:
        """Why our kernels cannot run the layer on `input`, or None."""
        if self.proj_size:
            return f"proj_size is {self.proj_size}, and our LSTM does not project its output"
        if torch.is_autocast_enabled("cpu"):
            return "under autocast torch's layer computes in a lower precision"
        if not torch.compiler.is_compiling() and torch.jit.is_tracing():
            return "tracing needs operators that torch knows"
        if not self._fits(input, hx):
            return "input or hx does not fit this layer, and torch's own checks say what is wrong"
        x = input.data if isinstance(input, PackedSequence) else input
        reason: str | None = explain_cell(CELLS[self.mode], x, self.backend).refused.get("llvm")
        return reason

    def _fits(self, input: Any, hx: Any) -> bool:
        """Whether torch's layer would take `input` and `hx` without complaint."""
        packed = isinstance(input, PackedSequence)
        x = input.data if packed else input
        if x.dim() not in ((2,) if packed else (2, 3)) or x.shape[-1] != self.input_size:
            return False
        if not _alike(x, self.weight_ih_l0):
            return False
        if hx is None:
            return True
        shape = [self.num_layers * self._directions, self.hidden_size]
        if packed:
            shape.insert(1, int(input.batch_sizes[0]))
        elif x.dim() == 3:
            shape.insert(1, x.shape[0 if self.batch_first else 1])
        if self.mode != "LSTM":
            return _is_state(hx, shape, x)
        return (
            isinstance(hx, tuple | list) and len(hx) == 2 and all(_is_state(value, shape, x) for value in hx)
        )

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _packed(self, input: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        """`forward` for a packed sequence, padded in the order of its rows and packed again."""
        x, lengths = pad_packed_sequence(PackedSequence(input.data, input.batch_sizes))
        state = None if hx is None else self.permute_hidden(hx, input.sorted_indices)
        y, after = self._stack(x, state, lengths)
        packed = input._replace(data=pack_padded_sequence(y, lengths).data)
        return packed, self.permute_hidden(after, input.unsorted_indices)

    def _stack(self, x: Tensor, hx: Any, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        """Every layer over x [T, B, I]: y [T, B, O] and the final states as torch stacks them."""
        before = hx if hx is None or self.mode == "LSTM" else (hx,)
        after: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            if layer:
                x = self._drop(x, lengths)
            outputs = []
            for way in range(self._directions):
                state = None if before is None else tuple(value[len(after)] for value in before)
                weights = self._weights(f"_l{layer}" + ("_reverse" if way else ""))
                turned = reverse(x, lengths) if way else x
                y, final = unroll(CELLS[self.mode], weights, turned, state, lengths, backend=self.backend)
                outputs.append(reverse(y, lengths) if way else y)
                after.append(final)
            x = torch.cat(outputs, -1) if self.bidirectional else outputs[0]
        finals = tuple(torch.stack(values) for values in zip(*after, strict=True))
        return x, finals if self.mode == "LSTM" else finals[0]

    def _drop(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Dropout on what passes between two layers, with the random numbers that torch would draw.

        They are drawn for steps that are real: packed, where lengths differ.
        """
        if not self.training or self.dropout == 0:
            return x
        if lengths is None:
            return F.dropout(x, self.dropout)
        packed = pack_padded_sequence(x, lengths)
        return pad_packed_sequence(packed._replace(data=F.dropout(packed.data, self.dropout)))[0]

    def _weights(self, suffix: str) -> dict[str, Tensor]:
        """The weights of one layer and direction as our cell names them."""
        names = ("weight_ih", "weight_hh")
        weights: dict[str, Tensor] = {name: getattr(self, name + suffix) for name in names}
        return weights | {"bias": self._bias(suffix, weights["weight_ih"])}

    def _bias(self, suffix: str, like: Tensor) -> Tensor:
        """One bias for each map: the sum of torch's two, save for the n and m of the GRU, which has both."""
        if not self.bias:
            (size,) = CELLS[self.mode].graph.weight_shapes(1, self.hidden_size)["bias"]
            return like.new_zeros(size)
        from_x: Tensor = getattr(self, "bias_ih" + suffix)
        from_h: Tensor = getattr(self, "bias_hh" + suffix)
        if self.mode != "GRU":
            return from_x + from_h
        gates = 2 * self.hidden_size
        return torch.cat([from_x[:gates] + from_h[:gates], from_x[gates:], from_h[gates:]])


class LSTM(DropIn, nn.LSTM):
    """`torch.nn.LSTM`, run by our kernels where they can do the job."""


class GRU(DropIn, nn.GRU):
    """`torch.nn.GRU`, run by our kernels where they can do the job."""


class RNN(DropIn, nn.RNN):
    """`torch.nn.RNN`, run by our kernels where they can do the job."""


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.device == other.device


def _is_state(value: Any, shape: list[int], like: Tensor) -> bool:
    return isinstance(value, Tensor) and list(value.shape) == shape and _alike(value, like)


def _map(function: Any, hx: Any) -> Any:
    """`function` of a state of torch's: of a tensor, of each of two, or None of None."""
    if hx is None:
        return None
    return function(hx) if isinstance(hx, Tensor) else tuple(function(value) for value in hx)
