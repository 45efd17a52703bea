"""Machine code and its cache: what is found again, what is never taken, and what must not stop anyone."""

import gc
import logging
import os
import shutil
import subprocess
import sys
import weakref
from array import array
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from throughtime.kernels import machine

pytest.importorskip("llvmlite")
if machine.unsupported():
    pytest.skip(machine.unsupported(), allow_module_level=True)

pytestmark = pytest.mark.usefixtures("cache")

WEIGHTS = [float(i * i + 1) for i in range(16)]


def scale(factor):
    """LLVM IR that multiplies 16 numbers by WEIGHTS, a vector in the constants, and by `factor`."""
    weights = ", ".join(f"float {weight * factor}" for weight in WEIGHTS)
    return f"""
        define void @scale(ptr %block) {{
            %x = load <16 x float>, ptr %block, align 4
            %y = fmul <16 x float> %x, <{weights}>
            store <16 x float> %y, ptr %block, align 4
            ret void
        }}
        define void @ask(ptr %block) {{
            %pid = call i32 @getpid()
            store i32 %pid, ptr %block
            ret void
        }}
        declare i32 @getpid()
    """


class Source:
    """A `build` that counts how often it is called."""

    def __init__(self, factor=1.0):
        self.factor = factor
        self.key = f"scale by {factor}"
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return scale(self.factor)

    @property
    def file(self):
        return machine._path(self.key)

    def load(self):
        """Through `load`, with a check of what the machine code computes; whether it had to be compiled."""
        before = self.calls
        code = machine.load(self.key, self, ["scale", "ask"])
        assert call(code.function("scale")) == [weight * self.factor for weight in WEIGHTS]
        return self.calls > before


def call(function):
    numbers = array("f", [1.0] * 16)
    function(numbers.buffer_info()[0])
    return list(numbers)


def files(cache):
    return sorted((cache / "throughtime" / "kernels").iterdir())


def test_what_was_compiled_is_found_again(cache):
    source = Source()
    assert source.load()
    assert not source.load()
    assert len(files(cache)) == 1


def test_another_process_finds_it_and_importing_does_not_need_llvmlite(cache):
    program = """if True:
        import sys
        from throughtime.kernels import machine
        assert "llvmlite" not in sys.modules
        machine.load("scale by 1.0", lambda: sys.exit("not in the cache"), ["scale"])
    """
    Source().load()
    subprocess.run([sys.executable, "-c", program], check=True)


def test_another_key_is_another_function(cache):
    assert Source(1.0).load()
    assert Source(2.0).load()
    assert len(files(cache)) == 2


@pytest.mark.parametrize("position", [0, 31, 32, 40, 400, -1])
def test_a_damaged_file_is_made_again(cache, position):
    source = Source()
    source.load()
    whole = source.file.read_bytes()
    content = bytearray(whole)
    content[position] ^= 1
    source.file.write_bytes(content)
    assert source.load()
    assert source.file.read_bytes() == whole
    assert not source.load()


@pytest.mark.parametrize("size", [0, 10, 32, 500])
def test_a_truncated_file_is_made_again(cache, size):
    source = Source()
    source.load()
    os.truncate(source.file, size)
    assert source.load()
    assert not source.load()


def test_the_file_of_another_key_is_not_taken(cache):
    one, two = Source(1.0), Source(2.0)
    one.load()
    two.load()
    shutil.copy(two.file, one.file)
    assert one.load()


@pytest.mark.parametrize("change", [{"cpu": "generic"}, {"features": ""}, {"triple": "other"}])
def test_another_processor_does_not_get_it(cache, monkeypatch, change):
    """Only the name of the file is looked at: what stands for this processor would do on it all the same."""
    source = Source()
    source.load()
    assert source.file.exists()
    other = replace(machine.processor(), **change)
    monkeypatch.setattr(machine, "processor", lambda: other)
    assert not source.file.exists()


def test_code_is_compiled_for_the_processor_it_is_filed_under(cache, monkeypatch):
    source = Source()
    source.load()
    other = replace(machine.processor(), cpu="generic", features="")
    monkeypatch.setattr(machine, "processor", lambda: other)
    assert source.load()
    one, two = (file.read_bytes()[machine.CHECKSUM_BYTES :] for file in files(cache))
    assert one != two


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [("llvmlite", "__version__", "0.0"), ("llvmlite.binding", "llvm_version_info", (1, 0, 0))],
)
def test_another_compiler_does_not_take_it(cache, monkeypatch, module, name, value):
    source = Source()
    source.load()
    monkeypatch.setattr(sys.modules[module], name, value)
    assert source.load()


LOAD_ON_CALL = """if True:
    import sys
    from test_machine import Source
    print("ready", flush=True)
    for line in sys.stdin:
        Source(float(line)).load()
        print("done", flush=True)
"""


def test_processes_at_once(cache):
    """Each gets the right function; what is left is whole files and nothing else."""
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", LOAD_ON_CALL],
                    cwd=Path(__file__).parent,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(3)
        ]
        assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 3
        for factor in range(8):
            for worker in workers:
                print(factor, file=worker.stdin, flush=True)
            assert [worker.stdout.readline() for worker in workers] == ["done\n"] * 3
    assert [worker.returncode for worker in workers] == [0] * 3
    assert len(files(cache)) == 8
    assert not any(Source(float(factor)).load() for factor in range(8))


def test_the_least_recently_used_goes_first(cache, monkeypatch):
    first, second, third = (Source(float(factor)) for factor in range(3))
    for source, time in (first, 1000), (second, 2000):
        source.load()
        os.utime(source.file, (time, time))
    assert not first.load()  # so it is the one used last
    monkeypatch.setattr(machine, "CACHE_BYTES", sum(file.stat().st_size for file in files(cache)) + 100)
    assert third.load()
    assert files(cache) == sorted([first.file, third.file])


def test_a_single_file_beyond_the_limit_still_runs(cache, monkeypatch):
    monkeypatch.setattr(machine, "CACHE_BYTES", 100)
    assert Source().load()
    assert files(cache) == []


def _file_for_folder(cache):
    cache.write_text("in the way")


def _folder_for_file(cache):
    Source().file.mkdir(parents=True)


def _read_only(cache):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    cache.mkdir()
    cache.chmod(0o500)


def _full_disk(cache):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    path = Source().file
    path.parent.mkdir(parents=True)
    path.with_name(f".{os.getpid()}.{path.name}").symlink_to("/dev/full")


@pytest.mark.parametrize("obstacle", [_file_for_folder, _folder_for_file, _read_only, _full_disk])
def test_a_cache_that_cannot_be_written_is_done_without(cache, caplog, obstacle):
    obstacle(cache)
    source = Source()
    with caplog.at_level(logging.WARNING):
        assert source.load()
        Source(2.0).load()
    assert len(caplog.records) == 1
    assert "set XDG_CACHE_HOME" in caplog.text


def test_no_home_is_no_cache(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert Source().load()


def test_without_xdg_cache_home_the_cache_is_in_the_home(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    Source().load()
    assert len(files(tmp_path / "me" / ".cache")) == 1


def test_functions_of_the_c_library_are_found(cache):
    numbers = array("i", [0])
    machine.load("scale", Source(), ["ask"]).function("ask")(numbers.buffer_info()[0])
    assert numbers[0] == os.getpid()


def test_code_lives_as_long_as_a_function_of_it(cache):
    code = machine.load("scale", Source(), ["scale"])
    held = weakref.ref(code)
    function = code.function("scale")
    assert code.address("scale") == code.address("scale") != 0
    del code
    gc.collect()
    assert held() is not None
    assert call(function) == WEIGHTS
    del function
    gc.collect()
    assert held() is None


def test_what_is_not_right_is_refused_and_not_kept(cache):
    for text, names in [("define nonsense", ["scale"]), (scale(1.0), ["nosuch"])]:
        with pytest.raises(RuntimeError):
            machine.load("wrong", lambda text=text: text, names)
    assert not cache.exists()
    with pytest.raises(KeyError):
        machine.load("scale", Source(), ["scale"]).address("ask")


@pytest.mark.parametrize(
    ("triple", "features", "vectors"),
    [
        (
            "x86_64-unknown-linux-gnu",
            {"avx2", "fma", "avx512f", "avx512dq", "avx512vl", "avx512bw"},
            (512, 32),
        ),
        ("x86_64-unknown-linux-gnu", {"avx2", "fma", "avx512f"}, (256, 16)),
        ("x86_64-unknown-linux-gnu", {"avx2"}, (0, 0)),
        ("arm64-apple-darwin24.0.0", set(), (128, 32)),
        ("aarch64-unknown-linux-gnu", {"neon"}, (128, 32)),
        ("riscv64-unknown-linux-gnu", {"v"}, (0, 0)),
    ],
)
def test_vector_registers(triple, features, vectors):
    assert machine._vectors(triple, features) == vectors


@pytest.fixture
def ask_again():
    machine.unsupported.cache_clear()
    yield
    machine.unsupported.cache_clear()


@pytest.mark.usefixtures("ask_again")
def test_why_it_is_unsupported(monkeypatch):
    old = replace(machine.processor(), cpu="nehalem", vector_bits=0, registers=0)
    with monkeypatch.context() as patch:
        patch.setattr(machine, "processor", lambda: old)
        assert "nehalem" in machine.unsupported()
    machine.unsupported.cache_clear()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "llvmlite", None)
        assert "pip install llvmlite" in machine.unsupported()
    machine.unsupported.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "maxsize", 2**31 - 1)
        assert "32 bits" in machine.unsupported()
    machine.unsupported.cache_clear()
    assert machine.unsupported() is None
