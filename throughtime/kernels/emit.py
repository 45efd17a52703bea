"""What every piece of generated code is made of: loops, fields of a block, tiles of matrix products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import llvmlite.ir as ir

from throughtime.kernels.machine import Processor, is_arm
from throughtime.kernels.vector_math import VectorMath

I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
POINTER = ir.PointerType()
VOID = ir.VoidType()
#: How many vectors of units a matrix product takes at once, at most.
COLUMNS = 4


@dataclass(frozen=True)
class Target:
    """What the code is made for: float32 or float64, and how many of them a vector holds.

    `rows` says how many rows a matrix product takes at once: the largest number that is left. With the
    vectors of the weights, its sums have to fit in the registers.
    """

    triple: str
    double: bool
    width: int
    rows: tuple[int, ...]

    @classmethod
    def of(cls, processor: Processor, double: bool) -> Target:
        """Numbers of a type on a processor."""
        width = processor.vector_bits // (64 if double else 32)
        return cls(processor.triple, double, width, (4, 2, 1) if processor.registers >= 32 else (2, 1))

    @property
    def scalar(self) -> ir.Type:
        """The type of a number."""
        return ir.DoubleType() if self.double else ir.FloatType()


def integer(value: int) -> ir.Constant:
    """The number as a 64-bit constant."""
    return ir.Constant(I64, value)


def least(builder: ir.IRBuilder, one: ir.Value, other: ir.Value) -> ir.Value:
    """The smaller of two integers."""
    return builder.select(builder.icmp_signed("<", one, other), one, other)


@contextmanager
def counting(builder: ir.IRBuilder, stop: ir.Value, step: int = 1) -> Iterator[ir.Value]:
    """Write a loop around what the body writes; gives the counter, from 0 to before `stop`."""
    before = builder.block
    head, body, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    counter = builder.phi(I64)
    counter.add_incoming(integer(0), before)
    builder.cbranch(builder.icmp_signed("<", counter, stop), body, after)
    builder.position_at_end(body)
    yield counter
    counter.add_incoming(builder.add(counter, integer(step)), builder.block)
    builder.branch(head)
    builder.position_at_end(after)


@contextmanager
def row_tiles(
    builder: ir.IRBuilder, rows: ir.Value, sizes: tuple[int, ...]
) -> Iterator[tuple[ir.Value, ir.Value]]:
    """A loop over rows; gives the first row and their number, the largest of `sizes` that is left."""
    before = builder.block
    head, body, after = (builder.append_basic_block(name) for name in ("rows", "tile", "rows_done"))
    builder.branch(head)
    builder.position_at_end(head)
    row = builder.phi(I64)
    row.add_incoming(integer(0), before)
    left = builder.sub(rows, row)
    builder.cbranch(builder.icmp_signed(">", left, integer(0)), body, after)
    builder.position_at_end(body)
    size: ir.Value = integer(sizes[-1])
    for tile in reversed(sizes[:-1]):
        size = builder.select(builder.icmp_signed(">=", left, integer(tile)), integer(tile), size)
    yield row, size
    row.add_incoming(builder.add(row, size), builder.block)
    builder.branch(head)
    builder.position_at_end(after)


def by_value(builder: ir.IRBuilder, value: ir.Value, options: Sequence[int]) -> Iterator[int]:
    """For each of `options`, write what is done where `value` is that; go on after all of them."""
    ends = []
    for option in options:
        then, otherwise = (builder.append_basic_block(name) for name in (f"by_{option}", "otherwise"))
        builder.cbranch(builder.icmp_signed("==", value, integer(option)), then, otherwise)
        builder.position_at_end(then)
        yield option
        ends.append(builder.block)
        builder.position_at_end(otherwise)
    builder.unreachable()
    after = builder.append_basic_block("after")
    for end in ends:
        ir.IRBuilder(end).branch(after)
    builder.position_at_end(after)


def field(builder: ir.IRBuilder, block: ir.Value, index: int, kind: ir.Type = I64) -> ir.Value:
    """A field of the block."""
    return builder.load(builder.gep(block, [integer(index)], source_etype=I64), typ=kind)


def lookup(builder: ir.IRBuilder, table: ir.Value, index: ir.Value) -> ir.Value:
    """An entry of a table of 64-bit integers."""
    return builder.load(builder.gep(table, [index], source_etype=I64), typ=I64)


def flush_to_zero(module: ir.Module, builder: ir.IRBuilder) -> ir.Value | None:
    """Have denormal numbers read and written as zero, which are many times slower; returns the old mode."""
    if is_arm(module.triple):
        get = intrinsic(module, "llvm.aarch64.get.fpcr", I64, [])
        put = intrinsic(module, "llvm.aarch64.set.fpcr", VOID, [I64])
        mode = builder.call(get, [])
        builder.call(put, [builder.or_(mode, integer(1 << 24))])
        return mode
    slot = builder.alloca(I32, 2)
    builder.call(intrinsic(module, "llvm.x86.sse.stmxcsr", VOID, [POINTER]), [slot])
    new = builder.gep(slot, [integer(1)], source_etype=I32)
    builder.store(builder.or_(builder.load(slot, typ=I32), ir.Constant(I32, 0x8040)), new)
    builder.call(intrinsic(module, "llvm.x86.sse.ldmxcsr", VOID, [POINTER]), [new])
    return slot


def restore_mode(module: ir.Module, builder: ir.IRBuilder, mode: ir.Value) -> None:
    """Undo `flush_to_zero`."""
    if is_arm(module.triple):
        builder.call(intrinsic(module, "llvm.aarch64.set.fpcr", VOID, [I64]), [mode])
    else:
        builder.call(intrinsic(module, "llvm.x86.sse.ldmxcsr", VOID, [POINTER]), [mode])


def intrinsic(module: ir.Module, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
    """An intrinsic of LLVM, declared once for a module."""
    known = module.globals.get(name)
    return known if known is not None else ir.Function(module, ir.FunctionType(result, arguments), name)


class Tiles:
    """Vectors in memory, and products of a few rows with a few packed columns of vectors."""

    def __init__(self, module: ir.Module, target: Target) -> None:
        self.module, self.target = module, target
        self.vectors = VectorMath(module, target.scalar, target.width)

    def product(self, rows: int, columns: int) -> ir.Function:
        """`product(left, packed, terms, depth, out)`: out[rows, columns, width] = sum of left @ packed.

        `left` points to `terms` times `rows` pointers to `depth` numbers each; `packed` holds, for each
        term and each of depth, a vector for each column.
        """
        name = f"product_{rows}x{columns}"
        if name in self.module.globals:
            return self.module.globals[name]
        kind = ir.FunctionType(VOID, [POINTER, POINTER, I64, I64, POINTER])
        function = ir.Function(self.module, kind, name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        left, packed, terms, depth, out = function.args
        entry, term, inner, next_term, done = (
            function.append_basic_block(name) for name in ("entry", "term", "inner", "next", "done")
        )
        builder = ir.IRBuilder(entry)
        zero = self.vectors.constant(0.0)
        builder.branch(term)

        builder.position_at_end(term)
        index = builder.phi(I64)
        index.add_incoming(integer(0), entry)
        outer = [builder.phi(self.vectors.type) for _ in range(rows * columns)]
        for phi in outer:
            phi.add_incoming(zero, entry)
        base = builder.mul(index, depth)
        starts = [
            builder.load(
                builder.gep(
                    left,
                    [builder.add(builder.mul(index, integer(rows)), integer(row))],
                    source_etype=POINTER,
                ),
                typ=POINTER,
            )
            for row in range(rows)
        ]
        builder.branch(inner)

        builder.position_at_end(inner)
        k = builder.phi(I64)
        k.add_incoming(integer(0), term)
        sums = [builder.phi(self.vectors.type) for _ in range(rows * columns)]
        for phi, start in zip(sums, outer, strict=True):
            phi.add_incoming(start, term)
        at = builder.mul(builder.add(base, k), integer(columns))
        weights = [
            self.load(
                builder, builder.gep(packed, [builder.add(at, integer(c))], source_etype=self.vectors.type)
            )
            for c in range(columns)
        ]
        totals = []
        for row in range(rows):
            number = builder.load(
                builder.gep(starts[row], [k], source_etype=self.target.scalar), typ=self.target.scalar
            )
            wide = self.vectors.splat(builder, number)
            totals += [
                self.vectors.fma(builder, wide, weights[c], sums[row * columns + c]) for c in range(columns)
            ]
        following = builder.add(k, integer(1))
        k.add_incoming(following, inner)
        for phi, total in zip(sums, totals, strict=True):
            phi.add_incoming(total, inner)
        builder.cbranch(builder.icmp_signed("<", following, depth), inner, next_term)

        builder.position_at_end(next_term)
        following = builder.add(index, integer(1))
        index.add_incoming(following, next_term)
        for phi, total in zip(outer, totals, strict=True):
            phi.add_incoming(total, next_term)
        builder.cbranch(builder.icmp_signed("<", following, terms), term, done)

        builder.position_at_end(done)
        for i, total in enumerate(totals):
            builder.store(
                total, builder.gep(out, [integer(i)], source_etype=self.vectors.type), align=self.align
            )
        builder.ret_void()
        return function

    def mask(self, builder: ir.IRBuilder, count: ir.Value) -> ir.Value:
        """The first `count` lanes of a vector."""
        width = self.vectors.width
        lanes = ir.Constant(ir.VectorType(I32, width), list(range(width)))
        one = builder.insert_element(
            ir.Constant(lanes.type, ir.Undefined), builder.trunc(count, I32), ir.Constant(I32, 0)
        )
        every = builder.shuffle_vector(one, one, ir.Constant(lanes.type, [0] * width))
        return builder.icmp_unsigned("<", lanes, every)

    def load(self, builder: ir.IRBuilder, pointer: ir.Value, mask: ir.Value | None = None) -> ir.Value:
        """The vector at `pointer`, with zero in the lanes that a `mask` leaves out."""
        vector = self.vectors.type
        if mask is None:
            return builder.load(pointer, typ=vector, align=self.align)
        name = f"llvm.masked.load.{self._suffix}"
        load = intrinsic(self.module, name, vector, [POINTER, mask.type, vector])
        return builder.call(load, [pointer, mask, self.vectors.constant(0.0)])

    def store(
        self, builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value, mask: ir.Value | None = None
    ) -> None:
        """Write a vector to `pointer`, but not the lanes that a `mask` leaves out."""
        if mask is None:
            builder.store(value, pointer, align=self.align)
            return
        name = f"llvm.masked.store.{self._suffix}"
        store = intrinsic(self.module, name, VOID, [self.vectors.type, POINTER, mask.type])
        builder.call(store, [value, pointer, mask])

    @property
    def align(self) -> int:
        """The bytes of a number, to which memory is aligned."""
        return 8 if self.target.double else 4

    @property
    def _suffix(self) -> str:
        return f"v{self.vectors.width}f{8 * self.align}.p0"
