"""Products over the steps of all rows, with the tiles that the recurrence itself is made of."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import cache, cached_property
from typing import Any

import llvmlite.ir as ir
import torch
from torch import Tensor

from throughtime.kernels import machine
from throughtime.kernels.emit import (
    COLUMNS,
    POINTER,
    VOID,
    Target,
    Tiles,
    by_value,
    counting,
    field,
    integer,
    least,
    row_tiles,
)
from throughtime.kernels.threads import run

#: From how many rows, and how deep a product, packing pays.
ROWS, DEPTH = 64, 8
#: Rows that are worked on at once, so that they stay in the cache.
CHUNK = 128


class Field(IntEnum):
    """The fields of the block that the functions below are called with."""

    TICKET = 0
    THREADS = 1
    ROWS = 2
    DEPTH = 3
    COLUMNS = 4
    LEFT = 5
    LEFT_STRIDE = 6
    RIGHT = 7
    RIGHT_STRIDE = 8
    OUT = 9
    OUT_STRIDE = 10
    END = 11


class Factor:
    """The right side of products: a matrix [D, C], packed when it is first used for many rows."""

    def __init__(self, right: Tensor) -> None:
        self.right = right

    def multiply(self, left: Tensor, out: Tensor) -> None:
        """out [N, C] = left [N, D] @ right."""
        depth, columns = self.right.shape
        if len(left) < ROWS or depth < DEPTH:
            torch.mm(left, self.right, out=out)
            return
        left = _rows(left)
        _call("multiply", len(left), depth, columns, left, self._packed, out)

    @cached_property
    def _packed(self) -> Tensor:
        (depth, columns), right = self.right.shape, self.right
        _, target = functions(right.dtype == torch.float64)
        tile = COLUMNS * target.width
        packed = right.new_empty(-(-columns // tile), depth, tile)
        order, right = ("columns", right.T) if right.stride(0) == 1 else ("rows", _rows(right))
        _call(f"pack_{order}", len(packed), depth, columns, right, right, packed)
        return packed


class RowTimes:
    """Products of a single row with the transpose of a matrix [C, D], which is packed."""

    def __init__(self, matrix: Tensor) -> None:
        columns, depth = matrix.shape
        made, _ = functions(matrix.dtype == torch.float64)
        self._function, self._packed = made["multiply"], Factor(matrix.T)._packed
        self._block = (0, 1, 1, depth, columns, 0, depth, self._packed.data_ptr(), 0, 0, columns)

    def multiply(self, left: int, out: int) -> None:
        """out [C] = left [D] @ matrix.T, both given by their addresses."""
        block = (ctypes.c_int64 * Field.END)(*self._block)
        block[Field.LEFT], block[Field.OUT] = left, out
        run(self._function, block, 1)


def _rows(values: Tensor) -> Tensor:
    """The same numbers with those of a row side by side."""
    return values if values.stride(1) == 1 else values.contiguous()


def _call(
    name: str,
    rows: int,
    depth: int,
    columns: int,
    left: Tensor,
    right: Tensor,
    out: Tensor,
) -> None:
    threads = torch.get_num_threads() if rows > 1 else 1
    block = (ctypes.c_int64 * Field.END)()
    block[Field.THREADS] = threads
    block[Field.ROWS], block[Field.DEPTH], block[Field.COLUMNS] = rows, depth, columns
    block[Field.LEFT], block[Field.LEFT_STRIDE] = left.data_ptr(), left.stride(0)
    block[Field.RIGHT], block[Field.RIGHT_STRIDE] = right.data_ptr(), right.stride(0)
    block[Field.OUT], block[Field.OUT_STRIDE] = out.data_ptr(), out.stride(0)
    made, _ = functions(out.dtype == torch.float64)
    run(made[name], block, threads)


@cache
def functions(double: bool) -> tuple[dict[str, Any], Target]:
    """The functions of this file for float64 or float32, and what they were made for."""
    target = Target.of(machine.processor(), double)
    names = ["pack_rows", "pack_columns", "multiply"]
    code = machine.load(f"dense {target}", lambda: generate(target), names)
    return {name: code.function(name) for name in names}, target


def generate(target: Target) -> ir.Module:
    """A module with the functions of this file."""
    module = ir.Module("dense")
    module.triple = target.triple
    tiles = Tiles(module, target)
    for name, write in (
        ("pack_rows", _write_pack_rows),
        ("pack_columns", _write_pack_columns),
        ("multiply", _write_multiply),
    ):
        function = ir.Function(module, ir.FunctionType(VOID, [POINTER]), name)
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        write(_Writer(builder, tiles, function.args[0]))
        builder.ret_void()
    return module


class _Writer:
    """What the functions share: the fields, and the share of the work that a ticket gives."""

    def __init__(self, builder: ir.IRBuilder, tiles: Tiles, block: ir.Value) -> None:
        self.b, self.tiles, self.vectors, self.target = builder, tiles, tiles.vectors, tiles.target
        self.width = integer(self.target.width)
        self.ticket = builder.atomic_rmw("add", block, integer(1), "monotonic")
        pointers = {Field.LEFT, Field.RIGHT, Field.OUT}
        self.fields = {
            f: field(builder, block, f, POINTER) if f in pointers else field(builder, block, f)
            for f in list(Field)[1:-1]
        }

    def __getitem__(self, name: Field) -> ir.Value:
        return self.fields[name]

    def share(self, step: int) -> tuple[ir.Value, ir.Value]:
        """The first of the ROWS of this ticket, and how many they are; cut at multiples of `step`."""
        b = self.b
        blocks = self.ceil(self[Field.ROWS], step)
        first, last = (
            b.mul(b.sdiv(b.mul(blocks, at), self[Field.THREADS]), integer(step))
            for at in (self.ticket, b.add(self.ticket, integer(1)))
        )
        return first, b.sub(least(b, last, self[Field.ROWS]), first)

    def ceil(self, value: ir.Value, step: int) -> ir.Value:
        """value / step, upwards."""
        return self.b.sdiv(self.b.add(value, integer(step - 1)), integer(step))

    def at(self, base: ir.Value, *index: ir.Value) -> ir.Value:
        """`base` moved by the sum of `index` numbers."""
        total = index[0]
        for term in index[1:]:
            total = self.b.add(total, term)
        return self.b.gep(base, [total], source_etype=self.target.scalar)

    def wide(self, tile: ir.Value) -> ir.Value:
        """How many vectors of columns a tile has: the last one has what is left."""
        vectors = self.ceil(self[Field.COLUMNS], self.target.width)
        return least(self.b, integer(COLUMNS), self.b.sub(vectors, self.b.mul(tile, integer(COLUMNS))))

    def product(
        self, left: ir.Value, packed: ir.Value, sums: ir.Value, size: ir.Value, wide: ir.Value
    ) -> None:
        """sums = the rows that `left` points to times `packed`."""
        arguments = [left, packed, integer(1), self[Field.DEPTH], sums]
        for rows in by_value(self.b, size, self.target.rows):
            for columns in by_value(self.b, wide, range(COLUMNS, 0, -1)):
                self.b.call(self.tiles.product(rows, columns), arguments)

    @contextmanager
    def vectors_of(self, tile: ir.Value) -> Iterator[tuple[ir.Value, ir.Value]]:
        """A loop over the vectors of a tile; gives the vector and its first column."""
        with counting(self.b, self.wide(tile)) as span:
            column = self.b.mul(self.b.add(self.b.mul(tile, integer(COLUMNS)), span), self.width)
            yield span, column

    def masked(self, column: ir.Value, write: Callable[[ir.Value | None], None]) -> None:
        """`write(mask)` for the vector at `column`, with a mask if it goes beyond the last column."""
        left = self.b.sub(self[Field.COLUMNS], column)
        with self.b.if_else(self.b.icmp_signed(">=", left, self.width)) as (whole, part):
            with whole:
                write(None)
            with part:
                write(self.tiles.mask(self.b, left))


def _write_pack_rows(w: _Writer) -> None:
    """packed[tile][k][vector] = right[k], zero beyond the last column."""
    b, full = w.b, integer(COLUMNS * w.target.width)
    first, count = w.share(1)
    with counting(b, count) as i:
        tile = b.add(first, i)
        start, lanes = b.mul(b.mul(tile, w[Field.DEPTH]), full), b.mul(w.wide(tile), w.width)
        with counting(b, w[Field.DEPTH]) as k, w.vectors_of(tile) as (span, column):
            source = w.at(w[Field.RIGHT], b.mul(k, w[Field.RIGHT_STRIDE]), column)
            target = w.at(w[Field.OUT], start, b.mul(k, lanes), b.mul(span, w.width))
            w.masked(
                column,
                lambda mask: w.tiles.store(b, w.tiles.load(b, source, mask), target),
            )


def _write_pack_columns(w: _Writer) -> None:
    """The same for a right side whose columns, and not its rows, stand side by side."""
    b, full = w.b, integer(COLUMNS * w.target.width)
    first, count = w.share(1)
    with counting(b, count) as i:
        tile = b.add(first, i)
        start, lanes = b.mul(b.mul(tile, w[Field.DEPTH]), full), b.mul(w.wide(tile), w.width)
        with counting(b, lanes) as lane, counting(b, w[Field.DEPTH]) as k:
            column = b.add(b.mul(tile, full), lane)
            there = b.icmp_signed("<", column, w[Field.COLUMNS])
            column = b.select(there, column, integer(0))
            source = w.at(w[Field.RIGHT], b.mul(column, w[Field.RIGHT_STRIDE]), k)
            number = b.load(source, typ=w.target.scalar)
            number = b.select(there, number, ir.Constant(w.target.scalar, 0.0))
            b.store(number, w.at(w[Field.OUT], start, b.mul(k, lanes), lane))


def _write_multiply(w: _Writer) -> None:
    """out = left @ packed, for a share of the rows; a chunk of them for every tile of columns."""
    b, full = w.b, integer(COLUMNS * w.target.width)
    first, count = w.share(w.target.rows[0])
    sums = b.alloca(w.vectors.type, COLUMNS * w.target.rows[0])
    sums.align = 64
    left = b.alloca(POINTER, w.target.rows[0])
    tiles = w.ceil(w[Field.COLUMNS], COLUMNS * w.target.width)
    with counting(b, w.ceil(count, CHUNK)) as chunk, counting(b, tiles) as tile:
        begin, wide = b.mul(chunk, integer(CHUNK)), w.wide(tile)
        packed = w.at(w[Field.RIGHT], b.mul(b.mul(tile, w[Field.DEPTH]), full))
        rows = least(b, integer(CHUNK), b.sub(count, begin))
        with row_tiles(b, rows, w.target.rows) as (row, size):
            row = b.add(b.add(first, begin), row)
            with counting(b, size) as i:
                source = w.at(w[Field.LEFT], b.mul(b.add(row, i), w[Field.LEFT_STRIDE]))
                b.store(source, b.gep(left, [i], source_etype=POINTER))
            w.product(left, packed, sums, size, wide)
            with counting(b, size) as i, w.vectors_of(tile) as (span, column):
                place = b.gep(sums, [b.add(b.mul(i, wide), span)], source_etype=w.vectors.type)
                target = w.at(w[Field.OUT], b.mul(b.add(row, i), w[Field.OUT_STRIDE]), column)
                w.masked(
                    column,
                    lambda mask: w.tiles.store(b, w.tiles.load(b, place), target, mask),
                )
