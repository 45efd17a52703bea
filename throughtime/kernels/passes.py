"""The forward and the backward pass: programs of a cell in pieces, and the products of all steps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from throughtime.cells.expression import Value
from throughtime.cells.trace import CellGraph
from throughtime.kernels.call import Call, Compiled, compiled, forget, packed, plan
from throughtime.kernels.dense import Factor
from throughtime.kernels.layout import Layout
from throughtime.kernels.schedule import Kind, Place

#: The bytes of projections, or of deltas, that are worked on at once: what the cache holds.
FORWARD_BYTES, BACKWARD_BYTES = 2 << 20, 8 << 20
SAVED = ("saved", "saved numbers")


class Problem:
    """What a pass is given, and the layout of its rows."""

    def __init__(
        self,
        cell: str,
        x: Tensor,
        state: Sequence[Tensor],
        weights: Sequence[Tensor],
        lengths: Tensor | None,
        reset: Tensor | None,
        given: Sequence[Tensor],
    ) -> None:
        self.cell, self.plan, self.x = cell, plan(cell), x
        self.graph = self.plan.graph
        self.steps, self.batch, self.inputs = x.shape
        self.hidden = state[0].shape[1]
        self.weights = {
            name: value.contiguous() for name, value in zip(self.graph.weights, weights, strict=True)
        }
        self.layout = Layout.of(self.steps, self.batch, lengths, reset)
        self.initial = [self.layout.by_rank(value).contiguous() for value in state]
        self.given = {
            f"given {name}": self._laid_out(kind, value).contiguous()
            for (name, kind), value in zip(self.graph.given.items(), given, strict=True)
        }

    def _laid_out(self, kind: str, value: Tensor) -> Tensor:
        """What is given, as the layout has its rows."""
        match kind:
            case "table":
                return value
            case "row_mask":
                return self.layout.by_rank(value)
            case "steps":
                return self.layout.pack(value[..., None])
        return self.layout.pack(value)

    def empty(self, *shape: int) -> Tensor:
        """A tensor of x's type."""
        return self.x.new_empty(shape)

    def call(self, code: Compiled, buffers: dict[str, Tensor]) -> Call:
        """A program, with its inputs besides `buffers`."""
        return Call(code, self.layout, self.hidden, self.x, buffers | self._fixed(code))

    def _fixed(self, code: Compiled) -> dict[str, Tensor]:
        """What a program reads at all steps: its weights, and what it is given."""
        weights = {f"vector {name}": self.weights[name] for name in self.graph.vectors}
        if "bias" in self.weights:
            weights["bias"] = self.weights["bias"]
        panels = packed(code, self.weights["weight_hh"], remember=False) if code.packs else {}
        return self.given | weights | panels

    def point_to_states(self, call: Call, history: Sequence[Tensor], start: int) -> None:
        """Where the states before the steps from `start` on are."""
        for name, values, initial in zip(self.graph.states, history, self.initial, strict=True):
            if start:
                call.point(f"initial state {name}", values, self.layout.first_row(start - 1))
            else:
                call.point(f"initial state {name}", initial)


def kept_shapes(cell: str, rows: int, hidden: int) -> list[tuple[int, ...]]:
    """What is kept for the backward pass: the states but the first, which is y, and what is saved."""
    graph, buffers = plan(cell).graph, plan(cell).forward.buffers
    shapes: list[tuple[int, ...]] = [(rows, hidden)] * (len(graph.states) - 1)
    for buffer in (buffers[name] for name in SAVED if name in buffers):
        numbers = buffer.kind is Kind.STEP_NUMBERS
        shapes.append((rows, buffer.columns) if numbers else (rows, buffer.columns, hidden))
    return shapes


def forward(problem: Problem, keep: bool) -> list[Tensor]:
    """y, the final states, and, to `keep` for the backward pass, tensors of `kept_shapes`."""
    graph, layout, hidden = problem.graph, problem.layout, problem.hidden
    code = compiled(problem.cell, False, problem.x.dtype)
    blocks, rows = len(graph.input_blocks), problem.steps * problem.batch
    pieces = layout.pieces(FORWARD_BYTES // (max(blocks, 1) * hidden * problem.x.element_size()))
    longest = max(layout.first_row(stop) - layout.first_row(start) for start, stop in pieces)
    history = [problem.empty(rows, hidden) for _ in graph.states]
    shapes = kept_shapes(problem.cell, rows if keep else longest, hidden)[len(history) - 1 :]
    names = [name for name in SAVED if name in code.program.buffers]
    saved = dict(zip(names, map(problem.x.new_empty, shapes), strict=True))
    states = {f"state {name}": values for name, values in zip(graph.states, history, strict=True)}
    call = problem.call(code, states | saved)
    projections = problem.empty(longest, blocks * hidden)
    x, weight = layout.pack(problem.x), Factor(problem.weights["weight_ih"].T) if blocks else None
    if keep and blocks:
        forget(problem.weights["weight_ih"])
    for start, stop in pieces:
        first, last = layout.first_row(start), layout.first_row(stop)
        if weight is not None:
            weight.multiply(x[first:last], projections[: last - first])
            call.point("projections", projections, -first)
        if not keep:
            for name, values in saved.items():
                call.point(name, values, -first)
        problem.point_to_states(call, history, start)
        call(start, stop)
    y = layout.unpack(history[0][: layout.rows])
    finals = [layout.finals(values, before) for values, before in zip(history, problem.initial, strict=True)]
    return [y, *finals, *((*history[1:], *saved.values()) if keep else ())]


def kept_values(
    graph: CellGraph, x: Tensor, lengths: Tensor | None, outputs: Sequence[Tensor]
) -> tuple[dict[str, Tensor], dict[Value, Tensor]]:
    """Of what `forward` kept for `graph`, the states after each step by name, and the saved values by node.

    Each is [T, B, H], without gradients; a view where all rows are full.
    """
    made, (steps, batch, _) = plan(graph.text), x.shape
    layout = Layout.of(steps, batch, lengths, None)
    y, kept = outputs[0], [value.detach()[: layout.rows] for value in outputs[1 + len(graph.states) :]]
    states = [y.detach(), *(layout.unpack(value) for value in kept[: len(graph.states) - 1])]
    values = {
        output: state for output, state in zip(graph.outputs, states, strict=True) if output.op != "state"
    }
    names = [name for name in SAVED if name in made.forward.buffers]
    saved = dict(zip(names, kept[len(graph.states) - 1 :], strict=True))
    for node, twin in zip(graph.nodes, made.graph.nodes, strict=True):  # the plan has made its nodes anew
        place = made.saved.get(made.lowered.of.get(twin, twin))
        if place is not None and place.buffer == "saved":
            values[node] = layout.unpack(saved["saved"][:, place.column])
    return dict(zip(graph.states, states, strict=True)), values


def backward(
    problem: Problem,
    kept: Sequence[Tensor],
    y: Tensor,
    adjoints: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor]:
    """The gradients of x, the initial states, the weights and what is given; empty for one not `wanted`.

    `adjoints` are the derivatives of the loss by y and the final states.
    """
    return _Backward(problem, kept, y, adjoints, wanted).run()


class _Backward:
    def __init__(
        self,
        problem: Problem,
        kept: Sequence[Tensor],
        y: Tensor,
        adjoints: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> None:
        self.problem, self.graph, self.layout = problem, problem.graph, problem.layout
        states = len(self.graph.states)
        self.x_wanted, self.states_wanted = wanted[0], wanted[1 : 1 + states]
        of_weights = wanted[1 + states : 1 + states + len(problem.weights)]
        self.wanted = dict(zip(problem.weights, of_weights, strict=True))
        self.x = self.layout.pack(problem.x)
        kept = [value.contiguous() for value in kept]
        self.history = [self.layout.pack(y).contiguous(), *kept[: states - 1]]
        self.saved = dict(
            zip((n for n in SAVED if n in problem.plan.forward.buffers), kept[states - 1 :], strict=True)
        )
        self.by_y = self._adjoint_of_y(adjoints[0])
        self.carries = [self._carry(adjoint) for adjoint in adjoints[1:]]
        self.sums = {
            name: problem.x.new_zeros(problem.batch, problem.weights[name].numel())
            for name in ("bias", *self.graph.vectors)
            if name in problem.weights
        }
        shapes = {name: weight.shape for name, weight in problem.weights.items() if name not in self.sums}
        self.products = {name: problem.empty(*s) for name, s in shapes.items() if self.wanted[name]}
        self.by_given = [
            problem.empty(self.layout.rows, problem.hidden) if kind == "probe" else problem.empty(0)
            for kind in self.graph.given.values()
        ]
        inputs = self.graph.input_blocks
        self.by_x = problem.empty(self.layout.rows, problem.inputs) if self.x_wanted and inputs else None
        self.inputs = slice((len(self.graph.maps) - len(inputs)) * problem.hidden, None)

    def _adjoint_of_y(self, adjoint: Tensor | None) -> Tensor:
        problem = self.problem
        if adjoint is None:
            return problem.x.new_zeros(self.layout.rows, problem.hidden)
        return self.layout.pack(adjoint).contiguous()

    def _carry(self, adjoint: Tensor | None) -> Tensor:
        carry = self.problem.empty(2, self.problem.batch, self.problem.hidden)
        carry[:] = 0.0 if adjoint is None else self.layout.by_rank(adjoint)
        return carry

    def run(self) -> list[Tensor]:
        """From the last piece of the steps to the first, then what is left to sum."""
        problem, layout, graph = self.problem, self.layout, self.graph
        code = compiled(problem.cell, True, problem.x.dtype)
        width = max(len(graph.maps), 1) * problem.hidden
        pieces = layout.pieces(BACKWARD_BYTES // (width * problem.x.element_size()), from_end=True)
        longest = max(layout.first_row(stop) - layout.first_row(start) for start, stop in pieces)
        deltas = problem.empty(longest, width)
        call = problem.call(code, self.saved | self._buffers())
        weight = Factor(problem.weights["weight_ih"]) if self.by_x is not None else None
        for start, stop in reversed(pieces):
            first, last = layout.first_row(start), layout.first_row(stop)
            call.point("deltas", deltas, -first)
            problem.point_to_states(call, self.history, start)
            call(start, stop)
            part = deltas[: last - first]
            if weight is not None and self.by_x is not None:
                weight.multiply(part[:, self.inputs], self.by_x[first:last])
            if "weight_ih" in self.products:
                left, right = part[:, self.inputs], self.x[first:last]
                self._add(self.products["weight_ih"], left, right, stop == problem.steps)
            if "weight_hh" in self.products:
                self._add_weight_hh(part, start, stop)
        return self._gradients()

    def _buffers(self) -> dict[str, Tensor]:
        names = self.graph.states
        return {
            "output adjoint": self.by_y,
            **{f"state {name}": values for name, values in zip(names, self.history, strict=True)},
            **{f"carry {name}": carry for name, carry in zip(names, self.carries, strict=True)},
            **{
                "gradient of bias" if name == "bias" else f"gradient of vector {name}": total
                for name, total in self.sums.items()
            },
            **{
                f"gradient of probe {name}": values
                for name, values in zip(self.graph.given, self.by_given, strict=True)
            },
        }

    def _gradients(self) -> list[Tensor]:
        problem, layout, gradients = self.problem, self.layout, []
        if not self.x_wanted:
            gradients.append(problem.empty(0))
        else:
            by_x = self.by_x
            gradients.append(problem.x.new_zeros(problem.x.shape) if by_x is None else layout.unpack(by_x))
        half = problem.steps & 1
        for carry, wanted in zip(self.carries, self.states_wanted, strict=True):
            gradients.append(layout.from_rank(carry[half]) if wanted else problem.empty(0))
        for name, wanted in self.wanted.items():
            if not wanted:
                gradients.append(problem.empty(0))
            elif name in self.sums:
                gradients.append(self.sums[name].sum(0))
            else:
                gradients.append(self.products[name])
        probes = (op == "probe" for op in self.graph.given.values())
        return gradients + [
            layout.unpack(values) if probe else values
            for values, probe in zip(self.by_given, probes, strict=True)
        ]

    @staticmethod
    def _add(total: Tensor, left: Tensor, right: Tensor, first: bool) -> None:
        """total += left' right, the first of the sum or one more."""
        if first:
            torch.mm(left.T, right, out=total)
        else:
            total.addmm_(left.T, right)

    def _add_weight_hh(self, deltas: Tensor, start: int, stop: int) -> None:
        """For each run of blocks that multiply the same value with neighbouring deltas, one product."""
        hidden, total = self.problem.hidden, self.products["weight_hh"]
        places = self.problem.plan.operands
        columns = [self.problem.plan.deltas[name] for name, _ in self.graph.recurrent_blocks]
        runs = itertools.groupby(
            range(len(columns)), key=lambda block: (places[block], columns[block] - block)
        )
        for (place, _), group in runs:
            blocks = list(group)
            left = deltas[:, columns[blocks[0]] * hidden : (columns[blocks[-1]] + 1) * hidden]
            part = total[blocks[0] * hidden : (blocks[-1] + 1) * hidden]
            self._add_product(part, left, place, start, stop)

    def _add_product(self, total: Tensor, deltas: Tensor, place: Place, start: int, stop: int) -> None:
        """total += deltas' v, with v the multiplied value of the steps from `start` to before `stop`."""
        problem, layout = self.problem, self.layout
        first, last, is_first = layout.first_row(start), layout.first_row(stop), stop == problem.steps
        kind, _, name = place.buffer.partition(" ")
        if kind == "saved":
            self._add(total, deltas, self.saved["saved"][first:last, place.column], is_first)
        elif kind == "vector":
            vector = problem.weights[name].expand(last - first, -1)
            self._add(total, deltas, vector, is_first)
        else:
            index = self.graph.states.index(name)
            values, before = self.history[index], problem.initial[index]
            if not place.before:
                self._add(total, deltas, values[first:last], is_first)
            elif not layout.regular:
                self._add(total, deltas, layout.before(values, before, start, stop), is_first)
            else:
                at_start = problem.batch if start == 0 else 0  # rows whose state before is the initial one
                right = values[first + at_start - problem.batch : last - problem.batch]
                self._add(total, deltas[at_start:], right, is_first)
                if at_start:
                    total.addmm_(deltas[:at_start].T, before)
