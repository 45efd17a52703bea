"""Steps of a stream, one call each: what does not change from step to step is made once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from throughtime.kernels.call import Call, compiled
from throughtime.kernels.dense import Factor
from throughtime.kernels.passes import SAVED, Problem, kept_shapes

#: Of steps with more rows nothing is kept: it would be large, and save little of their work.
MOST_ROWS = 64


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
    problem = Problem(cell, x, state, weights, None, None, given)
    try:
        ready = idle.pop()  # so that no other thread takes it
    except IndexError:
        ready = _Step(problem)
    new = ready(problem)
    if problem.batch <= MOST_ROWS:
        idle.append(ready)
    return [new[0].clone().unsqueeze_(0), *new]


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
        self.before = [code.fields[f"initial state {name}"] for name in graph.states]
        self.after = [code.fields[f"state {name}"] for name in graph.states]

    def __call__(self, problem: Problem) -> list[Tensor]:
        """The new states."""
        if problem.graph.input_blocks:
            self._project(problem.x, problem.weights["weight_ih"])
        block, fields = self.call.block, self.call.code.fields
        fixed = problem.fixed(self.call.code, remember=True)
        for name, values in fixed.items():
            block[fields[name]] = values.data_ptr()
        new = []
        for before, after, old in zip(self.before, self.after, problem.initial, strict=True):
            new.append(torch.empty_like(old))
            block[before], block[after] = old.data_ptr(), new[-1].data_ptr()
        self.call(0, 1)
        return new

    def _project(self, x: Tensor, weight: Tensor) -> None:
        """The products of x for all maps."""
        if x.shape[1] == 1:
            torch.mv(weight, x.view(-1), out=self.only_row)
        else:
            Factor(weight.T).multiply(x.squeeze(0), self.projections)
