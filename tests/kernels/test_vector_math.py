"""Elementary functions in LLVM IR: against mpmath, and at its limits, on this machine and a lesser."""

import ctypes
import functools
import math
import re

import mpmath
import numpy as np
import pytest
import torch

pytest.importorskip("llvmlite")

import llvmlite.binding as llvm
import llvmlite.ir as ir

from throughtime.kernels.vector_math import VectorMath

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()

SCALARS = {np.float32: ir.FloatType(), np.float64: ir.DoubleType()}
VECTORS = [(np.float32, 16), (np.float32, 8), (np.float32, 1), (np.float64, 8), (np.float64, 2)]
NAN, INF = math.nan, math.inf

ELEMENTARY = ("exp", "log", "sigmoid", "tanh", "softplus")
UNARY = (*ELEMENTARY, "neg", "relu", "reciprocal_sqrt")
BINARY = ("add", "sub", "mul", "div", "maximum")

# What is emitted for vectors x and y, by the name under which it is compiled.
FUNCTIONS = {
    **{name: lambda m, b, x, y, name=name: getattr(m, name)(b, x) for name in UNARY},
    **{name: lambda m, b, x, y, name=name: getattr(m, name)(b, x, y) for name in BINARY},
    "fma": lambda m, b, x, y: m.fma(b, x, y, m.constant(3.0)),
    "sum": lambda m, b, x, y: m.splat(b, m.sum(b, x)),
}

REFERENCES = {
    "exp": mpmath.exp,
    "log": mpmath.log,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "tanh": mpmath.tanh,
    "softplus": lambda x: x if x > 20 else mpmath.log1p(mpmath.exp(x)),
}


def emit(dtype, width):
    """A module with `void name(x, y, out, vectors)` for each of FUNCTIONS, over arrays of whole vectors."""
    module, integer, pointer = ir.Module(), ir.IntType(64), ir.PointerType()
    vectors = VectorMath(module, SCALARS[dtype], width)
    for name, emitted in FUNCTIONS.items():
        signature = ir.FunctionType(ir.VoidType(), [pointer, pointer, pointer, integer])
        function = ir.Function(module, signature, f"over_{name}")
        entry, loop, done = (function.append_basic_block(block) for block in ("entry", "loop", "done"))
        ir.IRBuilder(entry).branch(loop)
        builder = ir.IRBuilder(loop)
        i = builder.phi(integer)
        places = [builder.gep(argument, [i], source_etype=vectors.type) for argument in function.args[:3]]
        x, y = (builder.load(place, typ=vectors.type, align=dtype().itemsize) for place in places[:2])
        builder.store(emitted(vectors, builder, x, y), places[2], align=dtype().itemsize)
        following = builder.add(i, integer(1))
        i.add_incoming(integer(0), entry)
        i.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, function.args[3]), loop, done)
        ir.IRBuilder(done).ret_void()
    return module


@functools.cache
def compile_for(dtype, width, generic):
    """The engine that holds the machine code, and its assembly; generic: for the least of its kind."""
    cpu = "" if generic else llvm.get_host_cpu_name()
    features = "" if generic else llvm.get_host_cpu_features().flatten()
    machine = llvm.Target.from_default_triple().create_target_machine(cpu, features, opt=2, jit=True)
    module = llvm.parse_assembly(str(emit(dtype, width)))
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    assembly = machine.emit_assembly(module)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine, assembly


class Compiled:
    """FUNCTIONS as methods on arrays."""

    def __init__(self, dtype, width, generic):
        self.dtype, self.width = dtype, width
        self.engine, self.assembly = compile_for(dtype, width, generic)

    def __call__(self, name, x, y=None):
        x = np.array(x, self.dtype)
        padded = np.ones((2, -(-len(x) // self.width) * self.width), self.dtype)
        padded[0, : len(x)] = x
        padded[1, : len(x)] = x if y is None else y
        out = np.full_like(padded[0], NAN)
        kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int64)
        call = kind(self.engine.get_function_address(f"over_{name}"))
        call(padded[0].ctypes.data, padded[1].ctypes.data, out.ctypes.data, len(out) // self.width)
        return out[: len(x)]


@pytest.fixture(params=[False, True], ids=["host", "generic"])
def generic(request):
    return request.param


@pytest.fixture(params=VECTORS, ids=lambda vector: f"{vector[0].__name__}x{vector[1]}")
def compiled(request, generic):
    return Compiled(*request.param, generic)


@functools.cache
def points(name, dtype):
    """Arguments where the function is hard: at all scales, near its zeros, and up to where it overflows."""
    scales = np.geomspace(1e-30, 10, 400)
    largest = 0.999 * math.log(np.finfo(dtype).max)
    grids = {
        "exp": [np.linspace(-0.98 * largest, largest, 2000), scales, -scales],
        "log": [
            np.exp(np.linspace(-0.98 * largest, largest, 1000)),
            1 + scales,
            1 - scales,
            np.linspace(0.3, 3, 999),
        ],
        "sigmoid": [np.linspace(-20, 40, 2000), scales, -scales],
        "tanh": [np.linspace(-25, 25, 2000), scales, -scales],
        "softplus": [np.linspace(-0.98 * largest, 30, 2000), np.linspace(-3, 3, 999), scales, -scales],
    }
    values = np.concatenate(grids[name]).astype(dtype)
    return values[values > 0] if name == "log" else values


@functools.cache
def exact(name, dtype):
    """The true values at `points`, rounded to float64, and what the rounding left over."""
    with mpmath.workdps(40):
        true = [REFERENCES[name](mpmath.mpf(float(x))) for x in points(name, dtype)]
        return np.array(true, float), np.array([value - mpmath.mpf(float(value)) for value in true], float)


def errors(name, dtype, values):
    """Absolute and relative errors, in units of the type's epsilon."""
    true, rest = exact(name, dtype)
    absolute = np.abs(values.astype(float) - true - rest) / np.finfo(dtype).eps
    return absolute, absolute / np.where(true == 0, 1, np.abs(true))


@pytest.mark.parametrize(("name", "bound"), [("exp", 1), ("log", 2), ("tanh", 2), ("softplus", 3)])
def test_relative_error(compiled, name, bound):
    _, relative = errors(name, compiled.dtype, compiled(name, points(name, compiled.dtype)))
    assert relative.max() < bound


def test_sigmoid_error(compiled):
    absolute, relative = errors(
        "sigmoid", compiled.dtype, compiled("sigmoid", points("sigmoid", compiled.dtype))
    )
    assert absolute.max() < 1
    assert relative.max() < 16  # e^-20 is off by as much as its argument was rounded


SPECIAL = {
    "exp": [(NAN, NAN), (INF, INF), (-INF, 0), (0.0, 1), (-0.0, 1), (1e30, INF), (-1e30, 0)],
    "log": [(NAN, NAN), (INF, INF), (-INF, NAN), (-1.0, NAN), (0.0, -INF), (-0.0, -INF), (1.0, 0)],
    "sigmoid": [(NAN, NAN), (INF, 1), (-INF, 0), (0.0, 0.5), (-0.0, 0.5), (1e30, 1), (-1e30, 0)],
    "tanh": [
        (NAN, NAN),
        (INF, 1),
        (-INF, -1),
        (0.0, 0.0),
        (-0.0, -0.0),
        (1e30, 1),
        (-1e30, -1),
        (1e-30, 1e-30),
    ],
    "softplus": [(NAN, NAN), (INF, INF), (-INF, 0), (20.5, 20.5), (1e30, 1e30), (-1e30, 0)],
    "relu": [(NAN, NAN), (INF, INF), (-INF, 0), (2.0, 2), (-2.0, 0)],
    "neg": [(NAN, NAN), (INF, -INF), (0.0, -0.0), (2.0, -2)],
    "reciprocal_sqrt": [(NAN, NAN), (INF, 0), (0.0, INF), (-1.0, NAN), (4.0, 0.5)],
}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("flush", [False, True], ids=["denormals", "flushed"])
def test_special_values(compiled, name, flush):
    arguments, wanted = (np.array(column, compiled.dtype) for column in zip(*SPECIAL[name], strict=True))
    torch.set_flush_denormal(flush)
    try:
        values = compiled(name, arguments)
    finally:
        torch.set_flush_denormal(False)
    np.testing.assert_array_equal(values, wanted)
    numbers = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(values[numbers]), np.signbit(wanted[numbers]))


def test_exp_goes_to_infinity_and_to_zero_where_it_should(compiled):
    info = np.finfo(compiled.dtype)
    highest, lowest = np.log(info.max), np.log(info.smallest_subnormal.astype(float))
    step = 4 * highest * info.eps
    values = compiled("exp", [highest - step, highest + step, lowest + 0.5, lowest - 1])
    assert values[0] > info.max / 2 and np.isfinite(values[0])
    assert values[1] == INF
    assert values[2] > 0
    assert values[3] == 0


def test_log_takes_denormals_for_zero(compiled):
    tiny = np.finfo(compiled.dtype).tiny
    np.testing.assert_array_equal(compiled("log", [tiny / 2, -tiny / 2]), [-INF, NAN])


def test_softplus_has_the_threshold_of_torch(compiled):
    x = np.linspace(19.9, 20.1, 201).astype(compiled.dtype)
    wanted = torch.nn.functional.softplus(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(compiled("softplus", x)[x > 20], wanted[x > 20])
    np.testing.assert_allclose(compiled("softplus", x), wanted, rtol=3 * np.finfo(compiled.dtype).eps)


def test_tanh_and_sigmoid_stay_in_their_ranges(compiled):
    x = np.linspace(0, 50, 20_001).astype(compiled.dtype)
    assert compiled("tanh", x).max() == 1
    assert compiled("sigmoid", x).max() == 1
    assert compiled("sigmoid", -x).min() > 0
    np.testing.assert_array_equal(compiled("tanh", -x), -compiled("tanh", x))


def test_arithmetic_is_numpys(compiled):
    x, y = np.random.default_rng(0).normal(size=(2, 64)).astype(compiled.dtype)
    for name, operation in {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}.items():
        np.testing.assert_array_equal(compiled(name, x, y), operation(x, y))
    np.testing.assert_array_equal(compiled("relu", x), np.maximum(x, 0))
    np.testing.assert_array_equal(compiled("reciprocal_sqrt", np.abs(x)), 1 / np.sqrt(np.abs(x)))
    np.testing.assert_array_equal(
        compiled("fma", np.arange(9), np.arange(9) - 4), np.arange(9) * (np.arange(9) - 4) + 3
    )


def test_maximum_is_nan_where_either_is(compiled):
    x, y = [NAN, 1, NAN, 1, 2, -INF, INF, -3], [1, NAN, NAN, 2, 1, 3, 3, -4]
    wanted = torch.maximum(torch.tensor(x), torch.tensor(y)).numpy()
    np.testing.assert_array_equal(compiled("maximum", x, y), wanted)


def test_sum_adds_halves(compiled):
    x = np.random.default_rng(1).normal(size=compiled.width).astype(compiled.dtype)
    folded = x
    while len(folded) > 1:
        folded = folded[: len(folded) // 2] + folded[len(folded) // 2 :]
    np.testing.assert_array_equal(compiled("sum", x), np.repeat(folded, compiled.width))


def test_machine_code_calls_nothing(compiled):
    assert not re.findall(r"^\s+(?:call|bl)\S*\s.*", compiled.assembly, re.MULTILINE)


def test_each_function_is_emitted_once_and_inlined():
    module = ir.Module()
    vectors = VectorMath(module, ir.FloatType(), 8)
    function = ir.Function(module, ir.FunctionType(vectors.type, [vectors.type]), "twice")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(vectors.tanh(builder, vectors.tanh(builder, function.args[0])))
    (tanh,) = (defined for defined in module.functions if defined.linkage == "internal")
    assert "alwaysinline" in tanh.attributes and len(tanh.blocks) == 1
    assert len(module.functions) == 5  # twice, tanh, and the intrinsics fabs, fmuladd, copysign


def test_no_flag_but_contract_lets_llvm_change_a_value():
    text = str(emit(np.float32, 8))
    assert set(re.findall(r"= f(?:add|sub|mul) (\w+) <", text)) == {"contract"}
    assert not re.search(r"\b(fast|nnan|ninf|nsz|arcp|afn|reassoc)\b", text)
