"""Steps of a stream, one call each: what does not change from step to step is made once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from throughtime.kernels.call import WHOLE, Call, compiled, packed, remembered
from throughtime.kernels.dense import Factor, RowTimes
from throughtime.kernels.passes import SAVED, Problem, kept_shapes

#: Of steps with more rows nothing is kept: it would be large, and save little of their work.
MOST_ROWS = 64
#: Weights of x with up to so many numbers, and more than `WHOLE`, are packed for single rows: smaller ones
#: gain nothing beyond what comparing all their numbers costs, larger ones are worth several threads.
LARGEST = 1 << 20


def step(
    cell: str, x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], given: Sequence[Tensor]
) -> list[Tensor]:
    """What `passes.forward` returns, for a single step that all rows have and that keeps nothing."""
    return _run(_idle(_form(cell, x, *state, *weights, *given)), cell, x, state, weights, given)


def again(
    cell: str, x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], given: Sequence[Tensor]
) -> list[Tensor] | None:
    """`step`, if there was one with tensors of the same shapes and types; else None."""
    idle = _idle(_form(cell, x, *state, *weights, *given))
    return _run(idle, cell, x, state, weights, given) if idle else None


def _form(cell: str, *tensors: Tensor) -> tuple[Any, ...]:
    """What steps have to have in common to be run by the same `_Step`."""
    form: list[Any] = [cell, torch.get_num_threads(), len(tensors)]
    for tensor in tensors:
        form += tensor.shape, tensor.dtype
    return tuple(form)


@lru_cache(maxsize=64)
def _idle(form: tuple[Any, ...]) -> list[_Step]:
    """The steps of a form that are ready and that nobody is running."""
    return []


def _run(
    idle: list[_Step],
    cell: str,
    x: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    given: Sequence[Tensor],
) -> list[Tensor]:
    try:
        ready = idle.pop()  # so that no other thread takes it
    except IndexError:
        ready = _Step(Problem(cell, x, state, weights, None, None, given))
    new = ready(x, state, weights, given)
    if x.shape[1] <= MOST_ROWS:
        idle.append(ready)
    return [torch.stack(new[:1]), *new]


class _Step:
    """The block of arguments of a step of B rows, and its scratch.

    It holds no tensor of a caller: where those stand is written anew at each call.
    """

    def __init__(self, problem: Problem) -> None:
        code = compiled(problem.cell, False, problem.x.dtype)
        graph, rows = problem.graph, problem.batch
        names = [name for name in SAVED if name in code.program.buffers]
        shapes = kept_shapes(problem.cell, rows, problem.hidden)[len(graph.states) - 1 :]
        with torch.inference_mode(False):  # what is made in it could not be written outside of it
            self.projections = problem.empty(rows, len(graph.input_blocks) * problem.hidden)
            self.only_row = self.projections.view(-1)
            scratch = dict(zip(names, map(problem.x.new_empty, shapes), strict=True))
            scratch["projections"] = self.projections
            self.call = Call(code, problem.layout, problem.hidden, problem.x, scratch)
        self.place, self.rows = self.projections.data_ptr(), rows
        self.after = [code.fields[f"state {name}"] for name in graph.states]
        self.fields: list[int | None] = [code.fields[f"initial state {name}"] for name in graph.states]
        vectors = [f"vector {name}" if name in graph.vectors else name for name in graph.weights]
        self.fields += [code.fields.get(name) for name in (*vectors, *problem.given)]
        weights = list(graph.weights)
        self.input = weights.index("weight_ih") if graph.input_blocks else None
        self.hidden = weights.index("weight_hh") if code.packs else None
        self.panels = [code.fields[f"panel {index}"] for index in range(len(code.packs))]

    def __call__(
        self, x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], given: Sequence[Tensor]
    ) -> list[Tensor]:
        """The new states. What is given at a single step that all rows have is laid out as it is."""
        call = self.call
        block = call.block
        if self.input is not None:
            self._project(x, weights[self.input].contiguous())
        alive: list[Any] = []
        for field, value in zip(self.fields, (*state, *weights, *given), strict=True):
            if field is not None:
                alive.append(value := value.contiguous())
                block[field] = value.data_ptr()
        new = [torch.empty_like(value) for value in alive[: len(state)]]
        for field, value in zip(self.after, new, strict=True):
            block[field] = value.data_ptr()
        if self.hidden is not None:
            alive.append(panels := packed(call.code, weights[self.hidden].contiguous(), remember=True))
            for field, value in zip(self.panels, panels.values(), strict=True):
                block[field] = value.data_ptr()
        call(0, 1)
        return new

    def _project(self, x: Tensor, weight: Tensor) -> None:
        """The products of x for all maps."""
        if self.rows > 1:
            Factor(weight.T).multiply(x.squeeze(0), self.projections)
        elif WHOLE < weight.numel() <= LARGEST and not weight.is_inference():
            x = x.contiguous()
            remembered(RowTimes, weight, RowTimes).multiply(x.data_ptr(), self.place)
        else:
            torch.mv(weight, x.view(-1), out=self.only_row)
