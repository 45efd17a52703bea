"""Programs as LLVM IR: for each region a function, and one that runs them over time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import IntEnum

import llvmlite.ir as ir

from throughtime.cells.expression import LAYER_NORM_EPSILON, SOFTPLUS_THRESHOLD, Value
from throughtime.kernels.emit import (
    COLUMNS,
    I8,
    I32,
    I64,
    POINTER,
    VOID,
    Target,
    Tiles,
    by_value,
    counting,
    field,
    flush_to_zero,
    integer,
    least,
    lookup,
    restore_mode,
    row_tiles,
)
from throughtime.kernels.schedule import Kind, Panel, Place, Program, Region


class Field(IntEnum):
    """The fields of the block of 64-bit integers and pointers that a program is called with.

    Each thread takes a ticket and runs the rows from cuts[ticket] to cuts[ticket + 1], of those that a
    step has. What a program reads and writes, then the packed weights of its panels, follow the fields.
    """

    TICKET = 0
    CUTS = 1
    #: The steps from FIRST to before LAST are run.
    FIRST = 2
    LAST = 3
    HIDDEN = 4
    #: B, the rows of buffers that last for a step.
    BATCH = 5
    #: For each step where its rows begin in buffers of N rows, and how many rows it has.
    START = 6
    COUNT = 7
    #: For each of N a byte that is not 0 where the states before are to be zero, RESET_STRIDE apart.
    RESET = 8
    RESET_STRIDE = 9
    #: A row of zeros.
    ZERO = 10
    #: [B, means, width], partial sums for the means of rows.
    PARTIAL = 11
    END = 12


class PackField(IntEnum):
    """The fields of the block that `pack` is called with; the pointers of the panels follow.

    Each thread takes a ticket, and with it its share of the tiles.
    """

    TICKET = 0
    THREADS = 1
    HIDDEN = 2
    WEIGHT = 3
    END = 4


def pointers(program: Program) -> dict[str, int]:
    """The field of each pointer: buffers, initial states as "initial state h", and "panel 0" and so on."""
    names = []
    for name, buffer in program.buffers.items():
        names.append(name)
        if buffer.kind is Kind.STATE:
            names.append(f"initial {name}")
    names += [f"panel {index}" for index in range(len(packs(program)))]
    return {name: Field.END + index for index, name in enumerate(names)}


@dataclass(frozen=True, eq=False)
class Pack:
    """A panel as it is packed: [tiles, operands, H, columns, span, width], zero beyond the last unit.

    The last tile has as many vectors as there are units left, and not `span` of them.
    """

    panel: Panel
    span: int

    def shape(self, hidden: int, width: int) -> tuple[int, ...]:
        """The shape for `hidden` units."""
        tiles = -(-hidden // (self.span * width))
        return (tiles, len(self.panel.operands), hidden, len(self.panel.columns), self.span, width)


def packs(program: Program) -> list[Pack]:
    """Everything that a program multiplies with, in the order of its regions."""
    return [Pack(panel, tile_blocks(region)) for region in program.regions for panel in split(region)]


def split(region: Region) -> list[Panel]:
    """The panels of a region, in pieces of no more than `COLUMNS` columns."""
    pieces = []
    for panel in region.panels:
        count = -(-len(panel.columns) // COLUMNS)
        cuts = [len(panel.columns) * index // count for index in range(count + 1)]
        pieces += [
            Panel(panel.operands, panel.columns[start:stop]) for start, stop in itertools.pairwise(cuts)
        ]
    return pieces


def tile_blocks(region: Region) -> int:
    """How many vectors of units a tile of a region spans."""
    return max(1, COLUMNS // max((len(panel.columns) for panel in split(region)), default=COLUMNS))


def generate(program: Program, target: Target) -> ir.Module:
    """A module with a function of the program's name, to be called with a block."""
    module = ir.Module("throughtime")
    module.triple = target.triple
    tiles = Tiles(module, target)
    regions = [
        _RegionWriter(module, target, program, index, tiles).write() for index in range(len(program.regions))
    ]
    _write_loop(module, program, regions)
    if program.panels:
        _write_pack(module, target, program)
    return module


def means(program: Program) -> int:
    """The most means that a region takes at once."""
    return max(len(region.means) for region in program.regions)


def _write_loop(module: ir.Module, program: Program, regions: list[ir.Function]) -> None:
    """`program(block)`: take a ticket, then run every region for its rows at every step."""
    function = ir.Function(module, ir.FunctionType(VOID, [POINTER]), program.name)
    (block,) = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    mode = flush_to_zero(module, builder)
    ticket = builder.atomic_rmw("add", block, integer(1), "monotonic")
    cuts = builder.gep(field(builder, block, Field.CUTS, POINTER), [ticket], source_etype=I64)
    begin, end = lookup(builder, cuts, integer(0)), lookup(builder, cuts, integer(1))
    first, last = field(builder, block, Field.FIRST), field(builder, block, Field.LAST)
    counts = field(builder, block, Field.COUNT, POINTER)
    steps = builder.sub(last, first)
    with counting(builder, steps) as index:
        step = builder.add(first, index)
        if program.backwards:
            step = builder.sub(builder.sub(last, integer(1)), index)
        count = lookup(builder, counts, step)
        stop = builder.select(builder.icmp_signed("<", count, end), count, end)
        rows = builder.sub(stop, begin)
        with builder.if_then(builder.icmp_signed(">", rows, integer(0))):
            for region in regions:
                builder.call(region, [block, step, begin, rows])
    restore_mode(module, builder, mode)
    builder.ret_void()


def _write_pack(module: ir.Module, target: Target, program: Program) -> None:
    """`pack(block)`: copy the blocks of weight_hh to where and how the products read them."""
    function = ir.Function(module, ir.FunctionType(VOID, [POINTER]), "pack")
    (block,) = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    ticket = builder.atomic_rmw("add", block, integer(1), "monotonic")
    threads, hidden = field(builder, block, PackField.THREADS), field(builder, block, PackField.HIDDEN)
    weight = field(builder, block, PackField.WEIGHT, POINTER)
    for index, pack in enumerate(packs(program)):
        units = integer(pack.span * target.width)
        tiles = builder.sdiv(builder.add(hidden, builder.sub(units, integer(1))), units)
        first = builder.sdiv(builder.mul(tiles, ticket), threads)
        last = builder.sdiv(builder.mul(tiles, builder.add(ticket, integer(1))), threads)
        out = field(builder, block, PackField.END + index, POINTER)
        with counting(builder, builder.sub(last, first)) as tile:
            _pack_tile(builder, target, pack, weight, out, hidden, builder.add(first, tile))
    builder.ret_void()


def _pack_tile(
    builder: ir.IRBuilder,
    target: Target,
    pack: Pack,
    weight: ir.Value,
    out: ir.Value,
    hidden: ir.Value,
    tile: ir.Value,
) -> None:
    """One tile of a panel; memory is read in the order in which it stands."""
    columns, operands = pack.panel.columns, len(pack.panel.operands)
    transposed, width = columns[0].op == "transposed", integer(target.width)
    first_block = builder.mul(tile, integer(pack.span))
    blocks = builder.sdiv(builder.add(hidden, integer(target.width - 1)), width)
    lanes = builder.mul(least(builder, integer(pack.span), builder.sub(blocks, first_block)), width)
    depth = builder.mul(integer(operands * len(columns) * pack.span * target.width), hidden)
    out = builder.gep(out, [builder.mul(tile, depth)], source_etype=target.scalar)
    for term in range(operands):
        for column, value in enumerate(columns):
            outer, inner = (hidden, lanes) if transposed else (lanes, hidden)
            with counting(builder, outer) as i, counting(builder, inner) as j:
                k, lane = (i, j) if transposed else (j, i)
                unit = builder.add(builder.mul(first_block, width), lane)
                there = builder.icmp_signed("<", unit, hidden)
                unit = builder.select(there, unit, integer(0))
                row, at = (k, unit) if transposed else (unit, k)
                row = builder.add(builder.mul(integer(value.blocks[term]), hidden), row)
                source = builder.add(builder.mul(row, hidden), at)
                number = builder.load(
                    builder.gep(weight, [source], source_etype=target.scalar), typ=target.scalar
                )
                number = builder.select(there, number, ir.Constant(target.scalar, 0.0))
                place = builder.add(builder.mul(integer(term), hidden), k)
                place = builder.add(builder.mul(place, integer(len(columns))), integer(column))
                place = builder.add(builder.mul(place, lanes), lane)
                builder.store(number, builder.gep(out, [place], source_etype=target.scalar))


class _RegionWriter:
    """Writes `region(block, step, begin, rows)`: one region of a step for some rows."""

    def __init__(self, module: ir.Module, target: Target, program: Program, index: int, tiles: Tiles) -> None:
        self.module, self.target, self.program, self.tiles = module, target, program, tiles
        self.region = program.regions[index]
        self.vectors = tiles.vectors
        self.pieces = split(self.region)
        self.spans = tile_blocks(self.region)
        self.first_panel = sum(len(split(region)) for region in program.regions[:index])
        kind = ir.FunctionType(VOID, [POINTER, I64, I64, I64])
        self.function = ir.Function(module, kind, f"{program.name}_{index}")
        self.function.linkage = "internal"
        self.function.attributes.add("noinline")
        self.block, self.step, self.begin, self.rows = self.function.args
        self.entry = self.function.append_basic_block("entry")
        self.builder = ir.IRBuilder(self.entry)
        self.fields = pointers(program)

    def write(self) -> ir.Function:
        """The function."""
        self._prepare()
        if self.pieces:
            self._write_tiles()
        else:
            self._write_rows()
        if self.region.means or self.region.row_values:
            with counting(self.builder, self.rows) as index:
                self._write_row_values(self.builder.add(self.begin, index))
        self.builder.ret_void()
        return self.function

    def _prepare(self) -> None:
        """What is read once: sizes, and where the rows of this step begin."""
        b = self.builder
        self.hidden = field(b, self.block, Field.HIDDEN)
        self.batch = field(b, self.block, Field.BATCH)
        first = field(b, self.block, Field.FIRST)
        starts = field(b, self.block, Field.START, POINTER)
        self.start = lookup(b, starts, self.step)
        self.at_first = b.icmp_signed("==", self.step, first)
        before = b.select(self.at_first, self.step, b.sub(self.step, integer(1)))
        self.start_before = lookup(b, starts, before)
        self.full = b.sdiv(self.hidden, integer(self.target.width))
        self.left_over = b.srem(self.hidden, integer(self.target.width))
        self.blocks = b.sdiv(b.add(self.hidden, integer(self.target.width - 1)), integer(self.target.width))
        gone = b.sub(self.step, first)
        if self.program.backwards:
            gone = b.sub(b.sub(field(b, self.block, Field.LAST), integer(1)), self.step)
        self.parity = b.and_(gone, integer(1))
        self.mask = self.tiles.mask(b, self.left_over)
        self.base: dict[str, ir.Value] = {}
        for name in self.fields:
            self.base[name] = field(b, self.block, self.fields[name], POINTER)
        self.zero = field(b, self.block, Field.ZERO, POINTER)
        self.reset = field(b, self.block, Field.RESET, POINTER)
        self.reset_stride = field(b, self.block, Field.RESET_STRIDE)
        self.partial = field(b, self.block, Field.PARTIAL, POINTER)

    # Tiles: a few rows times a few vectors of units.

    def _write_tiles(self) -> None:
        b, spans = self.builder, integer(self.spans)
        columns = sum(len(piece.columns) for piece in self.pieces)
        sums = b.alloca(self.vectors.type, columns * self.spans * self.target.rows[0])
        sums.align = 64
        lefts = [b.alloca(POINTER, len(piece.operands) * self.target.rows[0]) for piece in self.pieces]
        tiles = b.sdiv(b.add(self.blocks, b.sub(spans, integer(1))), spans)
        with counting(b, tiles) as tile, row_tiles(b, self.rows, self.target.rows) as (row, size):
            self.wide = least(b, spans, b.sub(self.blocks, b.mul(tile, spans)))
            first = b.add(self.begin, row)
            for piece, left in zip(self.pieces, lefts, strict=True):
                self._point(piece, left, first, size)
            self._multiply(tile, lefts, sums, size)
            with counting(b, size) as i, counting(b, self.wide) as span:
                unit_block = b.add(b.mul(tile, spans), span)
                products = self._products(sums, i, span, size)
                self._write_block(b.add(first, i), unit_block, products)

    def _point(self, piece: Panel, left: ir.Value, first: ir.Value, size: ir.Value) -> None:
        """Fill `left` with the pointers to the rows of each operand."""
        b = self.builder
        with counting(b, size) as i:
            for term, operand in enumerate(piece.operands):
                slot = b.add(b.mul(integer(term), size), i)
                b.store(
                    self._row_pointer(operand, b.add(first, i)), b.gep(left, [slot], source_etype=POINTER)
                )

    def _multiply(self, tile: ir.Value, lefts: list[ir.Value], sums: ir.Value, size: ir.Value) -> None:
        """Call the products of the tile for its number of rows."""
        b = self.builder
        for rows in by_value(b, size, self.target.rows):
            for span in by_value(b, self.wide, range(self.spans, 0, -1)):
                offset = 0
                for index, (piece, left) in enumerate(zip(self.pieces, lefts, strict=True)):
                    columns, terms = len(piece.columns), integer(len(piece.operands))
                    area = b.mul(b.mul(terms, self.hidden), integer(columns * self.spans))
                    packed = b.gep(
                        self.base[f"panel {self.first_panel + index}"],
                        [b.mul(tile, area)],
                        source_etype=self.vectors.type,
                    )
                    out = b.gep(sums, [integer(offset * rows * span)], source_etype=self.vectors.type)
                    product = self.tiles.product(rows, columns * span)
                    b.call(product, [left, packed, terms, self.hidden, out])
                    offset += columns

    def _products(
        self, sums: ir.Value, row: ir.Value, span: ir.Value, size: ir.Value
    ) -> dict[Value, ir.Value]:
        """Where each product of the tile stands for a row and a vector of units."""
        b, places, offset = self.builder, {}, 0
        for piece in self.pieces:
            columns = len(piece.columns)
            start = b.add(b.mul(integer(offset), size), b.mul(row, integer(columns)))
            for column, value in enumerate(piece.columns):
                index = b.add(b.mul(b.add(start, integer(column)), self.wide), span)
                places[value] = b.gep(sums, [index], source_etype=self.vectors.type)
            offset += columns
        return places

    def _write_rows(self) -> None:
        """A region without products: every row, then every vector of its units."""
        with counting(self.builder, self.rows) as i, counting(self.builder, self.blocks) as unit_block:
            self._write_block(self.builder.add(self.begin, i), unit_block, {})

    def _write_block(self, row: ir.Value, unit_block: ir.Value, products: dict[Value, ir.Value]) -> None:
        """The arithmetic on a vector of units: whole, or the part before the last unit."""
        b = self.builder
        whole = b.icmp_signed("<", unit_block, self.full)
        with b.if_else(whole) as (then, otherwise):
            with then:
                _Arithmetic(self, row, unit_block, products, None).write()
            with otherwise:
                _Arithmetic(self, row, unit_block, products, self.mask).write()

    # Rows.

    def _write_row_values(self, row: ir.Value) -> None:
        """Finish the means of a row, and compute what follows from them."""
        b, vectors = self.builder, self.vectors
        arithmetic = _Arithmetic(self, row, integer(0), {}, None)
        scale = b.sitofp(self.hidden, self.target.scalar)
        for index, value in enumerate(self.region.means):
            total = self.tiles.load(b, self._partial(row, index))
            mean = b.fdiv(vectors.sum(b, total), scale)
            arithmetic.known[value] = vectors.splat(b, mean)
        for value in self.region.row_values:
            arithmetic.known[value] = arithmetic.compute(value)
        for value, place in self.region.row_stores:
            number = b.extract_element(arithmetic.get(value), ir.Constant(I32, 0))
            b.store(number, self._row_pointer(place, row))

    def _partial(self, row: ir.Value, index: int) -> ir.Value:
        b = self.builder
        slot = b.add(b.mul(row, integer(means(self.program))), integer(index))
        return b.gep(self.partial, [slot], source_etype=self.vectors.type)

    def _row_pointer(self, place: Place, row: ir.Value) -> ir.Value:
        """Where a column of a row begins."""
        b = self.builder
        buffer = self.program.buffers[place.buffer]
        base = self.base[place.buffer]
        columns, column = integer(buffer.columns), integer(place.column)
        match buffer.kind:
            case Kind.UNITS:
                index = b.mul(column, self.hidden)
            case Kind.TABLE:
                table_row = lookup(b, self.base["given step"], b.add(self.start, row))
                index = b.mul(b.add(b.mul(table_row, columns), column), self.hidden)
            case Kind.STEPS:
                index = b.mul(b.add(b.mul(b.add(self.start, row), columns), column), self.hidden)
            case Kind.STEP_NUMBERS:
                index = b.add(b.mul(b.add(self.start, row), columns), column)
            case Kind.ROWS | Kind.SUM:
                index = b.mul(b.add(b.mul(row, columns), column), self.hidden)
            case Kind.ROW_NUMBERS:
                index = b.add(b.mul(row, columns), column)
            case Kind.CARRY:
                half = self.parity if place.before else b.sub(integer(1), self.parity)
                index = b.mul(b.add(b.mul(half, self.batch), row), self.hidden)
            case Kind.STATE if not place.before:
                index = b.mul(b.add(self.start, row), self.hidden)
            case Kind.STATE:
                base = b.select(self.at_first, self.base[f"initial {place.buffer}"], base)
                step_row = b.select(self.at_first, row, b.add(self.start_before, row))
                index = b.mul(step_row, self.hidden)
        pointer = b.gep(base, [index], source_etype=self.target.scalar)
        if buffer.kind is Kind.STATE and place.before:
            return b.select(self.is_reset(row), self.zero, pointer)
        return pointer

    def is_reset(self, row: ir.Value) -> ir.Value:
        """Whether the states of a row are zero before this step."""
        b = self.builder
        index = b.mul(b.add(self.start, row), self.reset_stride)
        flag = b.load(b.gep(self.reset, [index], source_etype=I8), typ=I8)
        return b.icmp_unsigned("!=", flag, ir.Constant(I8, 0))


class _Arithmetic:
    """Writes the values of a region for one row and one vector of units, masked where that is not whole."""

    def __init__(
        self,
        region: _RegionWriter,
        row: ir.Value,
        unit_block: ir.Value,
        products: dict[Value, ir.Value],
        mask: ir.Value | None,
    ) -> None:
        self.region, self.row, self.products, self.mask = region, row, products, mask
        self.builder, self.vectors, self.tiles = region.builder, region.vectors, region.tiles
        self.first_block = self.builder.icmp_signed("==", unit_block, integer(0))
        self.unit = self.builder.mul(unit_block, integer(region.target.width))
        self.known: dict[Value, ir.Value] = {}

    def write(self) -> None:
        """Compute, store, and add to the means."""
        for value in self.region.region.values:
            self.known[value] = self.compute(value)
        for value, place in self.region.region.stores:
            self._store(self.get(value), place)
        for index, value in enumerate(self.region.region.means):
            self._add_to_mean(index, self.get(value.args[0]))

    def get(self, value: Value) -> ir.Value:
        """The value: computed before, a product, a number, or read from where it is kept."""
        if value not in self.known:
            if value in self.products:
                self.known[value] = self.tiles.load(self.builder, self.products[value])
            elif value.op == "constant":
                self.known[value] = self.vectors.constant(value.number)
            else:
                self.known[value] = self._load(self.region.program.homes[value])
        return self.known[value]

    def compute(self, value: Value) -> ir.Value:
        """An operator on values that are known or can be read."""
        b, vectors = self.builder, self.vectors
        args = [self.get(arg) for arg in value.args]
        match value.op:
            case "inverse_root":
                return vectors.reciprocal_sqrt(
                    b, vectors.add(b, args[0], vectors.constant(LAYER_NORM_EPSILON))
                )
            case "relu_backward":
                gradient, y = args
                stopped = b.fcmp_ordered("<=", y, vectors.constant(0.0))
                return b.select(stopped, vectors.constant(0.0), gradient)
            case "softplus_backward":  # beyond the threshold softplus is the identity, as in torch
                gradient, a, slope = args
                linear = b.fcmp_ordered(">", a, vectors.constant(SOFTPLUS_THRESHOLD))
                return b.select(linear, gradient, vectors.mul(b, gradient, slope))
            case "maximum_backward":
                gradient, one, other = args
                half = vectors.mul(b, gradient, vectors.constant(0.5))
                shared = b.select(b.fcmp_ordered("==", one, other), half, gradient)
                return b.select(b.fcmp_ordered("<", one, other), vectors.constant(0.0), shared)
        return getattr(vectors, value.op)(b, *args)

    def _pointer(self, place: Place) -> ir.Value:
        start = self.region._row_pointer(place, self.row)
        return self.builder.gep(start, [self.unit], source_etype=self.region.target.scalar)

    def _load(self, place: Place) -> ir.Value:
        b, region = self.builder, self.region
        if region.program.buffers[place.buffer].kind in {Kind.STEP_NUMBERS, Kind.ROW_NUMBERS}:
            number = b.load(region._row_pointer(place, self.row), typ=region.target.scalar)
            return self.vectors.splat(b, number)
        return self.tiles.load(b, self._pointer(place), self.mask)

    def _store(self, value: ir.Value, place: Place) -> None:
        pointer, kind = self._pointer(place), self.region.program.buffers[place.buffer].kind
        if kind is Kind.SUM:
            value = self.vectors.add(self.builder, self.tiles.load(self.builder, pointer, self.mask), value)
        elif kind is Kind.CARRY:  # nothing flows back through a reset
            b = self.builder
            value = b.select(self.region.is_reset(self.row), self.vectors.constant(0.0), value)
        self.tiles.store(self.builder, value, pointer, self.mask)

    def _add_to_mean(self, index: int, value: ir.Value) -> None:
        b = self.builder
        if self.mask is not None:
            value = b.select(self.mask, value, self.vectors.constant(0.0))
        pointer = self.region._partial(self.row, index)
        old = self.tiles.load(b, pointer)
        total = b.select(self.first_block, value, self.vectors.add(b, old, value))
        self.tiles.store(b, total, pointer)
