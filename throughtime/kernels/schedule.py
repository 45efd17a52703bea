"""How a step is run: regions, each of matrix products and the arithmetic that follows them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache

from throughtime.cells.expression import ACTIVATIONS, Value
from throughtime.cells.trace import CellGraph
from throughtime.kernels.lower import LEAVES, Lowered, backward_values, lower, postorder, row_values


class Kind(Enum):
    """What a buffer holds, for H units, B rows, and N steps of all rows together."""

    UNITS = "[columns, H], the same for every row"
    TABLE = "[S, columns, H], of which each step of a row reads the row that `given step` says"
    INDEX = "[N] integers"
    STEPS = "[N, columns, H]"
    STEP_NUMBERS = "[N, columns]"
    STATE = "[N, H], the new state of each step; and before the first, [B, H]"
    ROWS = "[B, columns, H], the same at every step or for as long as one lasts"
    ROW_NUMBERS = "[B, columns], for as long as a step lasts"
    CARRY = "[2, B, H], read from one half and written to the other, in turn"
    SUM = "[B, columns, H], which grows by what is stored"


@dataclass(frozen=True)
class Buffer:
    """An array that the machine code reads or writes."""

    kind: Kind
    columns: int = 1


@dataclass(frozen=True)
class Place:
    """A column of a buffer; of a state, `before` this step or after it."""

    buffer: str
    column: int = 0
    before: bool = False


@dataclass(frozen=True, eq=False)
class Panel:
    """Products made together: every column is the sum over `operands` of a product with a block each.

    `columns` are the values of op `product` or `transposed` that share their operands.
    """

    operands: tuple[Place, ...]
    columns: tuple[Value, ...]


@dataclass(frozen=True, eq=False)
class Region:
    """Products, then the arithmetic on them while they are in registers, for each row and unit.

    values       computed in this order.
    stores       what is written, and where to.
    means        the values of op `row_mean` whose arguments are complete after this region.
    row_values   computed then, once for each row.
    row_stores   what of these is written.
    """

    panels: tuple[Panel, ...]
    values: tuple[Value, ...]
    stores: tuple[tuple[Value, Place], ...]
    means: tuple[Value, ...]
    row_values: tuple[Value, ...]
    row_stores: tuple[tuple[Value, Place], ...]


@dataclass(frozen=True, eq=False)
class Program:
    """A step as machine code runs it, for each step in time, `backwards` or not.

    `homes` says where a value is read that the region at hand does not compute.
    """

    name: str
    backwards: bool
    buffers: dict[str, Buffer]
    regions: tuple[Region, ...]
    homes: dict[Value, Place]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The panels of all regions in order."""
        return tuple(panel for region in self.regions for panel in region.panels)


@dataclass(frozen=True, eq=False)
class Schedule:
    """Both programs of a cell, and where the deferred products find their factors.

    operands   for each block of weight_hh the place of the value it multiplies.
    deltas     for each map the column of the buffer `deltas` with the adjoint of its value: maps that
               do not take x come first, the others follow in the order of weight_ih.
    saved      what the forward step keeps for the backward step besides the states, and where.
    """

    graph: CellGraph
    lowered: Lowered
    forward: Program
    backward: Program
    operands: tuple[Place, ...]
    deltas: dict[str, int]
    saved: dict[Value, Place]


@cache
def schedule(graph: CellGraph) -> Schedule:
    """Decide how `graph` is run: what is computed in which region, and what is saved."""
    lowered = lower(graph)
    states = [Place(f"state {name}") for name in graph.states]
    leaves = _leaf_homes(graph, lowered)
    computed: dict[Value, Place] = {}
    for output, place in zip(lowered.outputs, states, strict=True):
        if output.op not in LEAVES:
            computed.setdefault(output, place)
    deltas = [m.name for m in graph.maps if m.name not in graph.input_blocks] + list(graph.input_blocks)
    sinks = _backward_sinks(lowered, deltas)
    lasting = {value: place for value, place in leaves.items() if value.op != "projection"} | computed
    saved = _choose_saved(lowered, frozenset(lasting), [value for value, _ in sinks])
    rows = row_values(postorder(tuple(saved)))
    units = [value for value in saved if value not in rows]
    numbers = [value for value in saved if value in rows]
    kept = {value: Place("saved", column) for column, value in enumerate(units)}
    kept |= {value: Place("saved numbers", column) for column, value in enumerate(numbers)}

    buffers = _buffers(graph)
    if units:
        buffers["saved"] = Buffer(Kind.STEPS, len(units))
    if numbers:
        buffers["saved numbers"] = Buffer(Kind.STEP_NUMBERS, len(numbers))
    forward_sinks = [*zip(lowered.outputs, states, strict=True), *kept.items()]
    forward = _program("forward", buffers, leaves, forward_sinks)
    backward = _program("backward", buffers | _gradient_buffers(graph), lasting | kept, sinks)
    return Schedule(
        graph,
        lowered,
        forward,
        backward,
        operands=tuple((lasting | kept)[operand] for operand in lowered.operands),
        deltas={name: column for column, name in enumerate(deltas)},
        saved={value: kept[value] for value in saved},
    )


def _leaf_homes(graph: CellGraph, lowered: Lowered) -> dict[Value, Place]:
    """Where the leaves of both programs are read; for a state and its adjoint, that before the step."""
    adjoints = (*lowered.states, *lowered.maps.values(), *lowered.vectors.values(), *lowered.probes.values())
    homes = {}
    for leaf in postorder((*lowered.outputs, *adjoints)):
        match leaf.op:
            case "state":
                homes[leaf] = Place(f"state {leaf.name}", before=True)
            case "vector":
                homes[leaf] = Place(f"vector {leaf.name}")
            case "bias":
                homes[leaf] = Place("bias", graph.bias_blocks.index(leaf.name))
            case "projection":
                homes[leaf] = Place("projections", graph.input_blocks.index(leaf.name))
            case "row_mask" | "step_mask" | "probe" | "table":
                homes[leaf] = Place(f"given {leaf.name}")
            case "adjoint":
                homes[leaf] = Place(f"carry {leaf.name}", before=True)
            case "output_adjoint":
                homes[leaf] = Place("output adjoint")
    return homes


def _backward_sinks(lowered: Lowered, deltas: list[str]) -> list[tuple[Value, Place]]:
    """What the backward step computes, and where to."""
    graph = lowered.graph
    sinks = [(lowered.maps[name], Place("deltas", column)) for column, name in enumerate(deltas)]
    sinks += [
        (lowered.maps[name], Place("gradient of bias", column))
        for column, name in enumerate(graph.bias_blocks)
    ]
    sinks += [(adjoint, Place(f"gradient of vector {name}")) for name, adjoint in lowered.vectors.items()]
    sinks += [(adjoint, Place(f"gradient of probe {name}")) for name, adjoint in lowered.probes.items()]
    carries = [Place(f"carry {name}") for name in graph.states]
    return sinks + list(zip(lowered.states, carries, strict=True))


#: How what is given by each operator stands in memory.
GIVEN_KINDS = {
    "row_mask": Kind.ROWS,
    "step_mask": Kind.STEPS,
    "probe": Kind.STEPS,
    "table": Kind.TABLE,
    "steps": Kind.INDEX,
}


def _buffers(graph: CellGraph) -> dict[str, Buffer]:
    """What both programs have."""
    buffers = {f"state {name}": Buffer(Kind.STATE) for name in graph.states}
    if graph.input_blocks:
        buffers["projections"] = Buffer(Kind.STEPS, len(graph.input_blocks))
    if graph.bias_blocks:
        buffers["bias"] = Buffer(Kind.UNITS, len(graph.bias_blocks))
    buffers |= {f"given {name}": Buffer(GIVEN_KINDS[kind]) for name, kind in graph.given.items()}
    return buffers | {f"vector {name}": Buffer(Kind.UNITS) for name in graph.vectors}


def _gradient_buffers(graph: CellGraph) -> dict[str, Buffer]:
    """What the backward program has besides."""
    buffers = {"output adjoint": Buffer(Kind.STEPS)}
    if graph.maps:
        buffers["deltas"] = Buffer(Kind.STEPS, len(graph.maps))
    if graph.bias_blocks:
        buffers["gradient of bias"] = Buffer(Kind.SUM, len(graph.bias_blocks))
    buffers |= {f"gradient of vector {name}": Buffer(Kind.SUM) for name in graph.vectors}
    probes = [name for name, op in graph.given.items() if op == "probe"]
    buffers |= {f"gradient of probe {name}": Buffer(Kind.STEPS) for name in probes}
    return buffers | {f"carry {name}": Buffer(Kind.CARRY) for name in graph.states}


#: Worth keeping: to compute them again takes a product, a division or a polynomial.
DEAR = ACTIVATIONS - {"relu"} | {"product", "projection", "div", "row_mean", "inverse_root"}


def _choose_saved(lowered: Lowered, stored: frozenset[Value], sinks: list[Value]) -> list[Value]:
    """The values of the forward step that the backward step finds saved, besides those of `stored`.

    What the backward step needs directly is saved if it is dear, and computed again if it is cheap or
    follows from a stored state by one activation, as tanh(c). A cheap value that would need two saved
    ones is saved itself. Multiplied values are always saved: the weights' gradients need them.
    """
    saved = dict.fromkeys(operand for operand in lowered.operands if operand not in stored)
    rows = row_values(postorder(tuple(sinks)))
    for value in _needed(sinks, stored):
        missing = _missing(value, stored | saved.keys())
        units = [value for value in missing if value not in rows]
        saved |= dict.fromkeys(missing if len(units) < 2 else [value])
    return list(saved)


def _needed(sinks: list[Value], stored: frozenset[Value]) -> list[Value]:
    """The values of the forward step in the equations of the backward step, dear ones first."""
    values = postorder(tuple(sinks), stored)
    backward, needed = backward_values(values), dict.fromkeys(sinks)
    for value in values:
        if value in backward and value not in stored:
            needed |= dict.fromkeys(value.args)
    return sorted((v for v in needed if v not in backward), key=lambda value: value.op not in DEAR)


def _missing(value: Value, known: frozenset[Value] | set[Value]) -> list[Value]:
    """The dear values that must be saved for `value` to be had, if no more than `known` is."""
    missing: dict[Value, dict[Value, None]] = {}
    for node in postorder((value,), frozenset(known)):
        below: dict[Value, None] = {}
        if node not in known:
            for arg in node.args:
                below |= missing[arg]
            if node.op in DEAR and (below or node.op not in ACTIVATIONS):
                below = {node: None}
        missing[node] = below
    return list(missing[value])


#: The buffers of one number for each row.
NUMBERS = frozenset({"saved numbers", "scratch numbers"})


def _program(
    name: str, buffers: dict[str, Buffer], homes: dict[Value, Place], sinks: list[tuple[Value, Place]]
) -> Program:
    """Order what `sinks` need in regions, and give a home to what outlives its region."""
    values = postorder(tuple(value for value, _ in sinks), frozenset(homes))
    read = {value: homes[value] for value in values if value in homes}
    level = _levels(values, homes)
    rows = row_values(values)
    per_row = frozenset(value for value in values if level[value] > 0 and value in rows)
    homes, scratch = _find_homes(values, level, per_row, read, sinks)
    buffers = buffers | {
        buffer: Buffer(kind, columns)
        for buffer, kind, columns in (
            ("scratch", Kind.ROWS, scratch[0]),
            ("scratch numbers", Kind.ROW_NUMBERS, scratch[1]),
        )
        if columns
    }
    regions = []
    for index in range(1 + max(level[value] for value, _ in sinks)):
        regions.append(_region(index, values, level, per_row, homes, frozenset(read), sinks))
    used = {place.buffer for place in homes.values()} | {place.buffer for _, place in sinks}
    if any(buffers[buffer].kind is Kind.TABLE for buffer in used):
        used.add("given step")
    return Program(
        name, name == "backward", {n: b for n, b in buffers.items() if n in used}, tuple(regions), homes
    )


def _levels(values: list[Value], homes: dict[Value, Place]) -> dict[Value, int]:
    """For each value the first region that can use it."""
    level: dict[Value, int] = {}
    for value in values:
        if value in homes or not value.args:
            level[value] = 0
        elif value.op in {"product", "transposed"}:
            level[value] = max(0 if arg in homes else level[arg] + 1 for arg in value.args)
        elif value.op == "row_mean":
            level[value] = level[value.args[0]] + 1
        else:
            level[value] = max(level[arg] for arg in value.args)
    return level


def _find_homes(
    values: list[Value],
    level: dict[Value, int],
    per_row: frozenset[Value],
    read: dict[Value, Place],
    sinks: list[tuple[Value, Place]],
) -> tuple[dict[Value, Place], tuple[int, int]]:
    """A place for every value that is used after its region; and how many columns of scratch that takes.

    Those of `per_row` are computed once for each row, between two regions.
    """
    homes, units, numbers = dict(read), 0, 0
    written: dict[Value, Place] = {}
    for value, place in sinks:
        if place.buffer.split()[0] in {"state", "saved", "deltas"}:
            written.setdefault(value, place)
    outlives: dict[Value, None] = {}
    for value in values:
        if value in read:
            continue
        for arg in value.args:
            at_once = level[arg] == level[value] and (arg in per_row) == (value in per_row)
            if value.op in {"product", "transposed"} or not (at_once or value.op == "row_mean"):
                outlives[arg] = None
    outlives |= dict.fromkeys(value for value, place in sinks if value in per_row)
    for value in outlives:
        if value in homes or value.op == "constant":
            continue
        if value in written:
            homes[value] = written[value]
        elif value in per_row:
            homes[value], numbers = Place("scratch numbers", numbers), numbers + 1
        else:
            homes[value], units = Place("scratch", units), units + 1
    return homes, (units, numbers)


def _region(
    index: int,
    values: list[Value],
    level: dict[Value, int],
    per_row: frozenset[Value],
    homes: dict[Value, Place],
    read: frozenset[Value],
    sinks: list[tuple[Value, Place]],
) -> Region:
    here = [v for v in values if level[v] == index and v not in read and v.args and v not in per_row]
    rows = [v for v in values if level[v] == index + 1 and v not in read and v in per_row]
    groups: dict[tuple[Place, ...], list[Value]] = {}
    for value in here:
        if value.op in {"product", "transposed"}:
            groups.setdefault(tuple(homes[arg] for arg in value.args), []).append(value)
    stores = [
        (value, place) for value, place in sinks if level[value] == index and place.buffer not in NUMBERS
    ]
    row_stores = [(v, place) for v, place in sinks if v in rows and place.buffer in NUMBERS]
    stores += [(v, homes[v]) for v in here if homes.get(v, Place("")).buffer == "scratch"]
    row_stores += [(v, homes[v]) for v in rows if homes.get(v, Place("")).buffer == "scratch numbers"]
    return Region(
        panels=tuple(
            Panel(operands, tuple(sorted(columns, key=lambda value: value.blocks)))
            for operands, columns in groups.items()
        ),
        values=tuple(v for v in here if v.op not in {"product", "transposed"}),
        stores=tuple(stores),
        means=tuple(v for v in rows if v.op == "row_mean"),
        row_values=tuple(v for v in rows if v.op != "row_mean"),
        row_stores=tuple(row_stores),
    )
