"""A program as machine code, and the block of arguments that it is called with."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeVar
from weakref import ref

import torch
from torch import Tensor

from throughtime.cells.trace import CellGraph
from throughtime.kernels import llvm, machine
from throughtime.kernels.emit import Target
from throughtime.kernels.layout import Layout
from throughtime.kernels.llvm import Field, Pack, PackField
from throughtime.kernels.schedule import Kind, Program, Schedule, schedule
from throughtime.kernels.threads import run

#: Before the packed form of a weight is used again its numbers are compared, since its version does not
#: tell of changes through `.data`: all of them up to WHOLE, and of larger ones so many evenly spread.
WHOLE, SAMPLE = 1 << 16, 1 << 10

Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class Compiled:
    """A program as machine code for numbers of a type: its functions, and the fields of its block."""

    program: Program
    function: Any
    pack: Any
    packs: list[Pack]
    fields: dict[str, int]
    width: int
    means: int


@lru_cache(maxsize=1024)
def plan(cell: str) -> Schedule:
    """The schedule of a cell, given as `CellGraph.text`."""
    return schedule(CellGraph.from_text(cell))


@lru_cache(maxsize=1024)
def compiled(cell: str, backwards: bool, dtype: torch.dtype) -> Compiled:
    """The forward or the backward program of a cell."""
    program = plan(cell).backward if backwards else plan(cell).forward
    target = Target.of(machine.processor(), dtype == torch.float64)
    packs = llvm.packs(program)
    names = [program.name, "pack"] if packs else [program.name]
    key = f"{program.name} {target} {cell}"
    code = machine.load(key, lambda: llvm.generate(program, target), names)
    return Compiled(
        program,
        code.function(program.name),
        code.function("pack") if packs else None,
        packs,
        llvm.pointers(program),
        target.width,
        llvm.means(program),
    )


class Call:
    """The arguments of a program, which can be called for one piece of the steps after another.

    `buffers` are the tensors that it reads and writes, by their names in the program; those that the
    program does not have are left out. Scratch is made here.
    """

    def __init__(
        self, code: Compiled, layout: Layout, hidden: int, like: Tensor, buffers: Mapping[str, Tensor]
    ) -> None:
        self.code = code
        self.block = (ctypes.c_int64 * (Field.END + len(code.fields)))()
        self.threads = torch.get_num_threads() if layout.batch > 1 else 1
        self.alive: dict[str, Tensor] = {}
        for name, buffer in code.program.buffers.items():
            if name.startswith("scratch"):
                units = hidden if buffer.kind is Kind.ROWS else 1
                self.point(name, like.new_empty(layout.batch, buffer.columns * units))
        for name, values in buffers.items():
            self.point(name, values)
        zero = like.new_zeros(hidden)
        tables = {
            Field.CUTS: layout.cuts(self.threads),
            Field.START: layout.start,
            Field.COUNT: layout.count,
            Field.RESET: zero if layout.reset is None else layout.reset,
            Field.ZERO: zero,
            Field.PARTIAL: like.new_empty(layout.batch * code.means * code.width),
        }
        for field, table in tables.items():
            self.alive[field.name] = table
            self.block[field] = table.data_ptr()
        self.block[Field.HIDDEN], self.block[Field.BATCH] = hidden, layout.batch
        self.block[Field.RESET_STRIDE] = int(layout.reset is not None)

    def point(self, name: str, values: Tensor, row: int = 0) -> None:
        """Let a pointer show to `row` of a tensor, which may lie before its beginning."""
        if name in self.code.fields:
            self.alive[name] = values
            assert values.is_contiguous()
            width = values.shape[1:].numel() * values.element_size()
            self.block[self.code.fields[name]] = values.data_ptr() + row * width

    def __call__(self, first: int, last: int) -> None:
        """Run the steps from `first` to before `last`."""
        self.block[Field.FIRST], self.block[Field.LAST] = first, last
        run(self.code.function, self.block, self.threads)


@dataclass(frozen=True, eq=False)
class _Packed:
    """What was packed from a weight, and what was true of it then: `numbers` were some of its own.

    `sample` shows what those are now; it is a view, which costs more to make than to compare.
    """

    owner: ref[Tensor]
    version: int
    address: int
    sample: Tensor
    numbers: Tensor
    made: Any

    def holds(self, weight: Tensor) -> bool:
        """Whether it is what would be packed now."""
        if self.owner() is not weight or weight._version != self.version or weight.data_ptr() != self.address:
            return False
        if weight.numel() > WHOLE:
            return torch.equal(self.sample, self.numbers)
        size = weight.nbytes
        return size == self.numbers.nbytes and not _compare(self.address, self.numbers.data_ptr(), size)


def _sample(weight: Tensor) -> Tensor:
    """The numbers of a weight that are compared."""
    size = weight.numel()
    if size <= WHOLE:
        return weight.detach().view(-1)
    every = size // SAMPLE - 1 | 1  # odd: numbers a power of two apart share few places of the cache
    return weight.detach().as_strided((-(-size // every),), (every,))


#: C's memcmp: `torch.equal` looks at one number after the other.
_compare = (ctypes.cdll.msvcrt if os.name == "nt" else ctypes.CDLL(None)).memcmp
_compare.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t

#: For each weight that was run without gradients, while it lives: by its id, and by what it is used for.
_known: dict[int, dict[object, _Packed]] = {}


def remembered(use: object, weight: Tensor, pack: Callable[[Tensor], Made]) -> Made:
    """`pack` of a contiguous weight, kept for a `use` of it until the weight is changed or gone."""
    key = id(weight)
    known = _known.get(key, {}).get(use)
    if known is None or not known.holds(weight):
        owner = ref(weight, lambda _: _known.pop(key, None))  # before the id can be another's
        version, address, sample = weight._version, weight.data_ptr(), _sample(weight)
        known = _Packed(owner, version, address, sample, sample.clone(), pack(weight))
        _known.setdefault(key, {})[use] = known
    return known.made


def forget(weight: Tensor) -> None:
    """Keep nothing of a weight."""
    _known.pop(id(weight), None)


def packed(code: Compiled, weight: Tensor, remember: bool) -> dict[str, Tensor]:
    """The panels of a program, packed from weight_hh; kept with the weight if they are to `remember`."""
    if remember and not weight.is_inference():
        return remembered(code, weight, partial(_pack, code))
    forget(weight)
    return _pack(code, weight)


def _pack(code: Compiled, weight: Tensor) -> dict[str, Tensor]:
    hidden = weight.shape[1]
    panels = [weight.new_empty(pack.shape(hidden, code.width)) for pack in code.packs]
    block = (ctypes.c_int64 * (PackField.END + len(panels)))()
    threads = torch.get_num_threads() if weight.numel() > 2**16 else 1
    block[PackField.THREADS] = threads
    block[PackField.HIDDEN] = hidden
    block[PackField.WEIGHT] = weight.data_ptr()
    block[PackField.END :] = [panel.data_ptr() for panel in panels]
    run(code.pack, block, threads)
    return {f"panel {index}": panel for index, panel in enumerate(panels)}
