"""LLVM IR to machine code for this processor, kept in a cache on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from throughtime.errors import StorageError
from throughtime.kernels.threads import Function
from throughtime.storage import cache_folder, write

CACHE_BYTES = 64 << 20
"""What the cache may hold. Beyond it, the files that were not used for longest go."""

TRIAL = "define void @trial() {\n  ret void\n}"
CHECKSUM_BYTES = hashlib.sha256().digest_size
AVX512 = {"avx512f", "avx512dq", "avx512vl", "avx512bw"}
AVX2 = {"avx2", "fma"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Processor:
    """What machine code is made for; `cpu`, `features` and `triple` are LLVM's names.

    It has `registers` vector registers of `vector_bits` bits each: 0 of 0 if it has none that we can use.
    """

    cpu: str
    features: str
    triple: str
    vector_bits: int
    registers: int


@cache
def processor() -> Processor:
    """The processor that this process runs on. Needs llvmlite: ask `unsupported` first."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    triple = binding.get_process_triple()
    bits, registers = _vectors(triple, {name for name, present in features.items() if present})
    return Processor(binding.get_host_cpu_name(), features.flatten(), triple, bits, registers)


def is_arm(triple: str) -> bool:
    """Whether this is 64-bit ARM, which Apple calls by a name of its own."""
    return triple.startswith(("aarch64", "arm64"))


def _vectors(triple: str, features: set[str]) -> tuple[int, int]:
    """The bits of a vector register, and how many there are."""
    if is_arm(triple):
        return 128, 32
    if triple.startswith("x86_64") and features >= AVX512:
        return 512, 32
    if triple.startswith("x86_64") and features >= AVX2:
        return 256, 16
    return 0, 0


@cache
def unsupported() -> str | None:
    """Why no machine code can be made here, or None."""
    if sys.maxsize < 1 << 32:
        return "this Python has 32 bits, and machine code is made for 64"
    try:
        import llvmlite
        from llvmlite import binding

        binding.check_jit_execution()
    except ModuleNotFoundError:
        return "llvmlite is not installed: pip install llvmlite"
    except (ImportError, OSError) as error:
        return f"llvmlite does not work here: {error}"
    here = processor()
    if not here.vector_bits:
        return f"{here.cpu} ({here.triple}) is neither x86-64 with AVX2 and FMA nor 64-bit ARM"
    try:
        Code(_compile(TRIAL), ["trial"])
    except (TypeError, AttributeError, RuntimeError) as error:
        return f"llvmlite {llvmlite.__version__} does not work here: {error}"
    return None


class Code:
    """Machine code in memory: it stays for as long as this object, or a function of it, is held."""

    def __init__(self, machine_code: bytes, names: Sequence[str]) -> None:
        from llvmlite import binding

        # JITLink puts a whole object into one piece of memory, so its constants are always within reach of
        # its code; and where MCJIT would end the process, it raises.
        self._linker = binding.create_lljit_compiler(_target_machine(), use_jit_link=True)
        library = binding.JITLibraryBuilder().add_object_img(machine_code)
        for name in names:
            library.export_symbol(name)
        self._library = library.link(self._linker, "kernel")

    def address(self, name: str) -> int:
        """Where the function `name` begins. Raises KeyError if `load` was not asked for it."""
        address: int = self._library[name]
        return address

    def function(self, name: str) -> Any:
        """The function `name`, to be called with the address of its block of arguments."""
        function = Function(self.address(name))
        function.code = self  # type: ignore[attr-defined]
        return function


def load(key: str, build: Callable[[], object], names: Sequence[str]) -> Code:
    """The functions `names` of a module, optimised for this processor and ready to run.

    `build` gives the module; its `str` is LLVM IR. It is called only if the cache on disk has no machine
    code under `key`, which must tell apart whatever can make `build` give another module. A cache that
    cannot be read or written is done without. Raises RuntimeError for IR that is not valid or lacks a name.
    """
    path = _path(key)
    machine_code = _read(path)
    if machine_code is not None:
        return Code(machine_code, names)
    machine_code = _compile(str(build()))
    code = Code(machine_code, names)
    _keep(path, machine_code)
    return code


def _compile(text: str) -> bytes:
    """The object file for a module of LLVM IR."""
    from llvmlite import binding

    module = binding.parse_assembly(text)
    module.verify()
    target = _target_machine()
    options = binding.create_pipeline_tuning_options(speed_level=2)
    # The IR is made of vectors in tiles already: more unrolling takes twice the time and gains nothing.
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    passes = binding.create_pass_builder(target, options)
    passes.getModulePassManager().run(module, passes)
    machine_code: bytes = target.emit_object(module)
    return machine_code


def _target_machine() -> Any:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    here = processor()
    target = binding.Target.from_triple(here.triple)
    return target.create_target_machine(cpu=here.cpu, features=here.features, opt=2, jit=True)


def _path(key: str) -> Path:
    """The file for `key`, this processor, this compiler and this version of our code."""
    import llvmlite
    from llvmlite import binding

    compiler = llvmlite.__version__, binding.llvm_version_info, _sources()
    made_from = [key, astuple(processor()), compiler]
    name = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    return _folder() / name


@cache
def _sources() -> str:
    """A digest of all that decides what code is made of equations: the source of two packages."""
    digest = hashlib.sha256()
    for folder in (Path(__file__).parent, Path(__file__).parents[1] / "cells"):
        for source in sorted(folder.glob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()


def _folder() -> Path:
    """Where the cache is: in a place that cannot be, and so nowhere, for someone who has no home."""
    try:
        return cache_folder() / "kernels"
    except RuntimeError:
        return Path(os.devnull) / "kernels"


def _checksum(path: Path, machine_code: bytes) -> bytes:
    """Covers the name of the file too: one that was copied to another name is not taken for it."""
    return hashlib.sha256(path.name.encode() + machine_code).digest()


def _read(path: Path) -> bytes | None:
    """The machine code that `_keep` left in a file, or None where it is missing or not as it was left."""
    try:
        status = path.stat()
        if os.name == "posix" and status.st_uid != os.getuid():
            logger.debug("%s is another user's, and what stands in it is not run", path)
            return None
        content = path.read_bytes()
    except OSError as error:
        logger.debug("no machine code in the cache: %s", error)
        return None
    checksum, machine_code = content[:CHECKSUM_BYTES], content[CHECKSUM_BYTES:]
    if checksum != _checksum(path, machine_code):
        logger.debug("%s is damaged and will be made again", path)
        return None
    with suppress(OSError):
        os.utime(path)
    return machine_code


def _keep(path: Path, machine_code: bytes) -> None:
    """Put machine code into the cache, if that is possible."""
    content = _checksum(path, machine_code) + machine_code
    try:
        write(path, lambda new: new.write_bytes(content), "machine code will be made again")
        _prune(path.parent)
    except (StorageError, OSError) as error:
        logger.debug("machine code is not kept: %s", error)
        _warn(path.parent)


@cache
def _warn(folder: Path) -> None:
    """Once for a folder."""
    logger.warning(
        "%s cannot be written, so every process compiles its cells again: "
        "set XDG_CACHE_HOME to a folder that can be",
        folder,
    )


def _prune(folder: Path) -> None:
    """Remove the files that were not used for longest, until the others are within `CACHE_BYTES`."""
    files = []
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):  # another process may prune too
            status = entry.stat()
            files.append((status.st_mtime_ns, status.st_size, Path(entry)))
    total = 0
    for _, size, file in sorted(files, reverse=True):
        total += size
        if total > CACHE_BYTES:
            file.unlink(missing_ok=True)
