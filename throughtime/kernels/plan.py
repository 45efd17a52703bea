"""A schedule as text: what is computed where, what is kept, and what is computed again."""

from __future__ import annotations

from collections import Counter

from throughtime.cells.expression import Value
from throughtime.kernels.schedule import Place, Program, Region, Schedule

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


def as_text(schedule: Schedule) -> list[str]:
    """The lines of the plan.

    `h'` is the state h of the step before, `a_i` the value of the map named i, `W_i` its block of
    weight_hh, `b_i` its bias, `i` the gate it leads to; `d` stands before derivatives of the loss.
    """
    return _Plan(schedule).lines()


class _Plan:
    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.graph = schedule, schedule.graph
        lowered = schedule.lowered
        self.names = {value: name for name, value in lowered.named.items()}
        self.names |= {value: name for name, value in zip(self.graph.states, lowered.outputs, strict=True)}
        self.names |= {value: f"d a_{name}" for name, value in lowered.maps.items()}
        self.blocks = [name for name, _ in self.graph.recurrent_blocks]

    def lines(self) -> list[str]:
        """All of it."""
        graph, schedule = self.graph, self.schedule
        lines = []
        if graph.input_blocks:
            lines += [
                "before the loop, one product for all steps",
                f"  W x      {' '.join(graph.input_blocks)}",
            ]
        lines += [""] if lines else []
        lines += self._program(schedule.forward, "forward, at every step")
        kept = [self._text(value) for value in schedule.saved]
        lines += ["", "kept for the backward pass, at every step"]
        lines.append(f"  states   {' '.join(graph.states)}")
        if kept:
            lines.append(f"  saved    {', '.join(kept)}")
        if again := self._computed_again():
            lines.append(f"  again    {', '.join(again)} is computed again")
        lines += ["", *self._program(schedule.backward, "backward, at every step from the last")]
        lines += ["", "after the loop, one product for all steps each"]
        if graph.input_blocks:
            deltas = " ".join(f"d a_{name}" for name in graph.input_blocks)
            lines += [f"  d x      {deltas} times weight_ih", f"  d W_ih   {deltas} times x"]
        for operand in dict.fromkeys(value for _, value in graph.recurrent_blocks):
            names = [name for name, value in graph.recurrent_blocks if value is operand]
            lowered = schedule.lowered.operands[self.blocks.index(names[0])]
            lines.append(
                f"  d W_hh   {' '.join(f'd a_{name}' for name in names)} times {self._text(lowered)}"
            )
        return lines

    def _program(self, program: Program, title: str) -> list[str]:
        lines = [title]
        for index, region in enumerate(program.regions):
            lines.append(f"  region {index + 1} of {len(program.regions)}")
            lines += [f"    {line}" for line in self._region(region)]
        return lines

    def _region(self, region: Region) -> list[str]:
        lines = []
        for panel in region.panels:
            for value in panel.columns:
                lines.append(f"product  {self._text(value)}")
        if region.values:
            counts = Counter(value.op for value in region.values)
            lines.append(f"computes {', '.join(f'{n} {op}' for op, n in counts.most_common())}")
        stores = [(value, place, place.buffer.split()[0]) for value, place in region.stores]
        for verb, kinds in (("writes", {"state", "saved", "deltas", "carry"}), ("adds to", {"gradient"})):
            if texts := [self._store(value, place) for value, place, kind in stores if kind in kinds]:
                lines.append(f"{verb:8} {', '.join(texts)}")
        if passed := sum(kind == "scratch" for _, _, kind in stores):
            lines.append(f"passes   {passed} value{'s' * (passed > 1)} to a later region")
        if region.means:
            lines.append(f"means    {', '.join(self._text(value.args[0]) for value in region.means)}")
        return lines

    def _store(self, value: Value, place: Place) -> str:
        kind, _, name = place.buffer.partition(" ")
        match kind:
            case "state":
                return name
            case "carry":
                return f"d {name}'"
            case "deltas":
                return f"d a_{list(self.schedule.deltas)[place.column]}"
            case "gradient":
                name = name.removeprefix("of ").removeprefix("vector ").removeprefix("probe ")
                if name == "bias":
                    name = f"b_{self.graph.bias_blocks[place.column]}"
                return f"d {name}"
        return self._text(value)

    def _computed_again(self) -> list[str]:
        """The functions that the backward step computes for a second time."""
        forward = {value for region in self.schedule.forward.regions for value in region.values}
        again = [
            value
            for region in self.schedule.backward.regions
            for value in region.values
            if value in forward and value.op not in _INFIX
        ]
        return [self._text(value) for value in again]

    def _text(self, value: Value, depth: int = 3) -> str:
        if value in self.names:
            return self.names[value]
        if (normalised := _normalised(value)) is not None:
            return f"norm({self._text(normalised, depth)})"
        parts = [self._text(arg, depth - 1) if depth else "..." for arg in value.args]
        match value.op:
            case "constant":
                return f"{value.number:g}"
            case "state":
                return f"{value.name}'"
            case "projection":
                return f"W_{value.name} x"
            case "bias":
                return f"b_{value.name}"
            case "adjoint":
                return f"d {value.name}"
            case "output_adjoint":
                return "d y"
            case "product" | "transposed":
                mark = "'" if value.op == "transposed" else ""
                return " + ".join(
                    f"W_{self.blocks[block]}{mark} {self._text(arg, 1)}"
                    for block, arg in zip(value.blocks, value.args, strict=True)
                )
            case "row_mean":
                return f"mean({parts[0]})"
            case "inverse_root":
                return f"1/std({self._text(value.args[0].args[0].args[0].args[0], depth)})"
            case op if op in _INFIX:
                return f"({parts[0]} {_INFIX[op]} {parts[1]})"
        return f"{value.op}({', '.join(parts)})" if parts else value.name


def _normalised(value: Value) -> Value | None:
    """The value whose layer norm this is."""
    if value.op == "mul" and [arg.op for arg in value.args] == ["sub", "inverse_root"]:
        a, mean = value.args[0].args
        if mean.op == "row_mean" and mean.args == (a,):
            return a
    return None
