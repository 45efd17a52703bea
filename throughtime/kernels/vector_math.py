"""Elementary functions on vectors as LLVM IR: exp, log, sigmoid, tanh and softplus without a call to libm.

All is made of generic vector operations, which LLVM lowers for any width and any machine. NaN goes through
every function. Numbers below the smallest normal one may be taken for zero, in arguments and in results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import llvmlite.ir as ir

Emit = Callable[[ir.IRBuilder, ir.Value], ir.Value]


@dataclass(frozen=True)
class FloatFormat:
    """The layout of a floating-point type, and the constants its functions are computed with."""

    bits: int
    fraction_bits: int
    bias: int
    ln2_parts: tuple[float, float]  # the first so short that its product with any exponent is exact
    expm1_table: tuple[float, ...]
    atanh_table: tuple[float, ...]


# The polynomials are minimax: fitted by Lawson's reweighted least squares in 160-bit arithmetic on Chebyshev
# points; each coefficient, from the lowest on, was then rounded to the type and those after it fitted again.
#
# expm1_table: P of degree 4 (float32) or 9 (float64), e^r - 1 = r + r² P(r) for |r| <= ln2 / 2,
#              with an error of at most 1.4e-8 or 1.9e-17 of e^r - 1.
# atanh_table: Q of degree 2 or 6, 2 atanh(s) = 2s + s³ Q(s²) for |s| <= 3 - 2√2,
#              with an error of at most 8.1e-10 or 1.3e-18 of 2 atanh(s).

FLOAT32 = FloatFormat(
    bits=32,
    fraction_bits=23,
    bias=127,
    ln2_parts=(0.693145751953125, 1.428606765330187e-06),
    expm1_table=(
        0.4999999701976776,
        0.1666654646396637,
        0.04166743531823158,
        0.008366258814930916,
        0.0013870650436729193,
    ),
    atanh_table=(0.6666677594184875, 0.3997758626937866, 0.29870733618736267),
)

FLOAT64 = FloatFormat(
    bits=64,
    fraction_bits=52,
    bias=1023,
    ln2_parts=(0.6931471805598903, 5.497923018708371e-14),
    expm1_table=(
        0.5000000000000006,
        0.16666666666666638,
        0.04166666666657546,
        0.008333333333364033,
        0.001388888893169641,
        0.00019841269766475984,
        2.4801505245119724e-05,
        2.75573698920828e-06,
        2.7626027625423345e-07,
        2.506461143838873e-08,
    ),
    atanh_table=(
        0.6666666666666733,
        0.39999999999424213,
        0.28571428740369603,
        0.2222219877013296,
        0.18183554583818354,
        0.15314288077493257,
        0.14793682039197814,
    ),
)


class VectorMath:
    """Emits arithmetic and elementary functions on vectors of `width` lanes of a scalar type into a module.

    exp, log, sigmoid, tanh and softplus become one function each, in the module from their first use on, for
    LLVM to inline; everything else is emitted where it stands.
    """

    def __init__(self, module: ir.Module, scalar: ir.Type, width: int) -> None:
        self.module = module
        self.scalar = scalar
        self.width = width
        self.type = ir.VectorType(scalar, width)
        self._format = FLOAT64 if isinstance(scalar, ir.DoubleType) else FLOAT32
        self._integer = ir.IntType(self._format.bits)
        self._integers = ir.VectorType(self._integer, width)

    def constant(self, number: float) -> ir.Constant:
        """The number in all lanes."""
        return _Splat(self.type, ir.Constant(self.scalar, float(number)))

    def splat(self, builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
        """A scalar value in all lanes."""
        undefined = ir.Constant(self.type, ir.Undefined)
        first = builder.insert_element(undefined, value, ir.IntType(32)(0))
        return builder.shuffle_vector(first, undefined, _lanes([0] * self.width))

    def add(self, builder: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
        """x + y, which LLVM may fuse with a product."""
        return builder.fadd(x, y, flags=("contract",))

    def sub(self, builder: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
        """x - y, which LLVM may fuse with a product."""
        return builder.fsub(x, y, flags=("contract",))

    def mul(self, builder: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
        """x y, which LLVM may fuse with a sum."""
        return builder.fmul(x, y, flags=("contract",))

    def div(self, builder: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
        """x / y."""
        return builder.fdiv(x, y)

    def neg(self, builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
        """-x."""
        return builder.fneg(x)

    def fma(self, builder: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
        """x y + z, in two instructions where the machine has not one (llvm.fma would call libm there)."""
        return self._intrinsic(builder, "fmuladd", x, y, z)

    def relu(self, builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
        """max(x, 0)."""
        return self._at_least(builder, x, 0.0)

    def maximum(self, builder: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
        """max(x, y), and NaN where either is NaN."""
        larger = builder.select(builder.fcmp_ordered(">", x, y), x, y)  # y where either is NaN
        return builder.select(builder.fcmp_unordered("uno", x, x), x, larger)

    def reciprocal_sqrt(self, builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
        """1 / √x."""
        return self.div(builder, self.constant(1.0), self._intrinsic(builder, "sqrt", x))

    def exp(self, builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
        """e^x."""
        return self._call(builder, "exp", self._emit_exp, x)

    def log(self, builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
        """The natural logarithm: -inf at 0, NaN below."""
        return self._call(builder, "log", self._emit_log, x)

    def sigmoid(self, builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
        """1 / (1 + e^-x)."""
        return self._call(builder, "sigmoid", self._emit_sigmoid, x)

    def tanh(self, builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
        """(e^2x - 1) / (e^2x + 1), odd to the last bit."""
        return self._call(builder, "tanh", self._emit_tanh, x)

    def softplus(self, builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
        """log(1 + e^x), and x above 20 as in torch."""
        return self._call(builder, "softplus", self._emit_softplus, x)

    def sum(self, builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
        """The sum of the lanes as a scalar: the upper half is added to the lower until one lane is left."""
        lanes = self.width
        while lanes > 1:
            lanes //= 2
            lower = builder.shuffle_vector(value, value, _lanes(range(lanes)))
            upper = builder.shuffle_vector(value, value, _lanes(range(lanes, 2 * lanes)))
            value = builder.fadd(lower, upper)
        return builder.extract_element(value, ir.IntType(32)(0))

    def _emit_exp(self, builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
        """2^n (1 + p), with 2^n in two factors, because n goes beyond the exponents of the type."""
        x = self._within(builder, x, (self._format.bias + self._format.fraction_bits + 1) * math.log(2))
        exponent, p = self._reduced_exp(builder, x, 2 * self._format.bias, self._format.ln2_parts)
        half = builder.lshr(exponent, self._integer_constant(1))
        scale = self._power_of_two(builder, half)
        other_scale = self._power_of_two(builder, builder.sub(exponent, half))
        return self.mul(builder, self.fma(builder, p, scale, scale), other_scale)

    def _emit_sigmoid(self, builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
        """e^x / (e^x + 1)."""
        exp = self._limited_exp(builder, x, (math.log(2),))
        return self.div(builder, exp, self.add(builder, exp, self.constant(1.0)))

    def _emit_tanh(self, builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
        """E / (E + 2) with E = e^2|x| - 1 = 2^n p + (2^n - 1), which is exact to the last bits near 0 too."""
        double = self._intrinsic(builder, "fabs", self.add(builder, x, x))
        double = self._at_most(builder, double, (self._format.fraction_bits + 4) * math.log(2))  # E + 2 is E
        exponent, p = self._reduced_exp(builder, double, self._format.bias, (math.log(2),))
        scale = self._power_of_two(builder, exponent)
        expm1 = self.fma(builder, scale, p, self.sub(builder, scale, self.constant(1.0)))
        magnitude = self.div(builder, expm1, self.add(builder, expm1, self.constant(2.0)))
        return self._intrinsic(builder, "copysign", magnitude, x)

    def _emit_softplus(self, builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
        """n ln2 + log(1 + f), with 1 + e^x = 2^n (1 + f): f is made from e^x, which 1 + e^x may have lost."""
        one = self.constant(1.0)
        exp = self._limited_exp(builder, x, self._format.ln2_parts)
        n = self._exponent(builder, self.add(builder, one, exp))
        scale = self._power_of_two(builder, builder.sub(self._integer_constant(self._format.bias), n))
        f = self.fma(builder, scale, exp, self.sub(builder, scale, one))
        return builder.select(
            builder.fcmp_ordered(">", x, self.constant(20.0)), x, self._log_sum(builder, n, f)
        )

    def _emit_log(self, builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
        """n ln2 + log(m), with x = 2^n m; then what is not a positive normal number is put right."""
        n = self._exponent(builder, x)
        n_bits = builder.shl(n, self._integer_constant(self._format.fraction_bits))
        m = builder.bitcast(builder.sub(builder.bitcast(x, self._integers), n_bits), self.type)
        log = self._log_sum(builder, n, self.sub(builder, m, self.constant(1.0)))
        negative = builder.fcmp_ordered("<", x, self.constant(0.0))
        limit = builder.select(negative, self.constant(math.nan), self.constant(-math.inf))
        tiny = builder.fcmp_ordered("<", x, self.constant(2.0 ** (1 - self._format.bias)))
        finite = builder.fcmp_ordered("<", x, self.constant(math.inf))
        return builder.select(finite, builder.select(tiny, limit, log), x)

    def _limited_exp(self, builder: ir.IRBuilder, x: ir.Value, ln2: tuple[float, ...]) -> ir.Value:
        """e^x = 2^n p + 2^n for x within the largest 2^n: 0 below, and large and finite above."""
        x = self._within(builder, x, self._format.bias * math.log(2))
        exponent, p = self._reduced_exp(builder, x, self._format.bias, ln2)
        scale = self._power_of_two(builder, exponent)
        return self.fma(builder, scale, p, scale)

    def _reduced_exp(
        self, builder: ir.IRBuilder, x: ir.Value, bias: int, ln2: tuple[float, ...]
    ) -> tuple[ir.Value, ir.Value]:
        """n + bias in the low bits of integers, and p = e^r - 1, with x = n ln2 + r and n = round(x / ln2).

        ln2 comes in parts. Where the function is flat at large |x|, as sigmoid and tanh are, one will do.
        """
        # Next to 1.5 times 2^fraction_bits a float has no bits for fractions, so the sum is rounded.
        rounder = self.constant(1.5 * 2**self._format.fraction_bits + bias)
        rounded = self.fma(builder, x, self.constant(1 / math.log(2)), rounder)
        n = builder.fsub(rounded, rounder)
        r = x
        for part in ln2:
            r = self.fma(builder, n, self.constant(-part), r)
        square = self.mul(builder, r, r)
        p = self.fma(builder, square, self._polynomial(builder, r, self._format.expm1_table), r)
        return builder.bitcast(rounded, self._integers), p

    def _power_of_two(self, builder: ir.IRBuilder, exponent: ir.Value) -> ir.Value:
        """The float whose biased exponent is in the low bits of an integer; higher bits are shifted out."""
        fraction_bits = self._integer_constant(self._format.fraction_bits)
        return builder.bitcast(builder.shl(exponent, fraction_bits), self.type)

    def _exponent(self, builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
        """The integer n with x = 2^n m and √½ <= m < √2."""
        root_half = builder.bitcast(self.constant(math.sqrt(0.5)), self._integers)
        above = builder.sub(builder.bitcast(x, self._integers), root_half)
        return builder.ashr(above, self._integer_constant(self._format.fraction_bits))

    def _log_sum(self, builder: ir.IRBuilder, n: ir.Value, f: ir.Value) -> ir.Value:
        """n ln2 + log(1 + f), where log(1 + f) = 2 atanh(s), s = f / (f + 2)."""
        ln2_high, ln2_low = (self.constant(part) for part in self._format.ln2_parts)
        n = builder.sitofp(n, self.type)
        s = self.div(builder, f, self.add(builder, f, self.constant(2.0)))
        square = self.mul(builder, s, s)
        polynomial = self._polynomial(builder, square, self._format.atanh_table)
        small = self.fma(builder, self.mul(builder, s, square), polynomial, self.mul(builder, n, ln2_low))
        return self.fma(builder, n, ln2_high, self.add(builder, self.add(builder, s, s), small))

    def _polynomial(self, builder: ir.IRBuilder, x: ir.Value, table: tuple[float, ...]) -> ir.Value:
        """table[0] + table[1] x + table[2] x² + ..."""
        value: ir.Value = self.constant(table[-1])
        for coefficient in reversed(table[:-1]):
            value = self.fma(builder, value, x, self.constant(coefficient))
        return value

    def _within(self, builder: ir.IRBuilder, x: ir.Value, limit: float) -> ir.Value:
        return self._at_least(builder, self._at_most(builder, x, limit), -limit)

    def _at_least(self, builder: ir.IRBuilder, x: ir.Value, limit: float) -> ir.Value:
        """max(x, limit), and NaN where x is NaN (llvm.maxnum would give the limit)."""
        bound = self.constant(limit)
        return builder.select(builder.fcmp_ordered(">", bound, x), bound, x)

    def _at_most(self, builder: ir.IRBuilder, x: ir.Value, limit: float) -> ir.Value:
        """min(x, limit), and NaN where x is NaN."""
        bound = self.constant(limit)
        return builder.select(builder.fcmp_ordered("<", bound, x), bound, x)

    def _integer_constant(self, number: int) -> ir.Constant:
        return _Splat(self._integers, ir.Constant(self._integer, number))

    def _intrinsic(self, builder: ir.IRBuilder, name: str, *arguments: ir.Value) -> ir.Value:
        """LLVM's own function of that name from vectors to a vector."""
        return builder.call(self._function(f"llvm.{name}", len(arguments)), arguments)

    def _call(self, builder: ir.IRBuilder, name: str, emit: Emit, x: ir.Value) -> ir.Value:
        """A call of the module's function of that name, which is emitted when first wanted."""
        function = self._function(name, 1)
        if function.is_declaration:
            function.linkage = "internal"
            function.attributes.add("alwaysinline")
            body = ir.IRBuilder(function.append_basic_block())
            body.ret(emit(body, function.args[0]))
        return builder.call(function, (x,))

    def _function(self, name: str, arguments: int) -> ir.Function:
        """The module's function of that name on vectors like these, declared where it is not there yet."""
        name = f"{name}.v{self.width}{self.scalar.intrinsic_name}"
        if name in self.module.globals:
            return self.module.globals[name]
        return ir.Function(self.module, ir.FunctionType(self.type, [self.type] * arguments), name)


class _Splat(ir.Constant):
    """One element in all lanes. Written lane by lane, constants would be most of a module's text."""

    def __init__(self, type: ir.VectorType, element: ir.Constant) -> None:
        super().__init__(type, ir.Undefined)
        self._element = element

    def _get_reference(self) -> str:
        return f"splat ({self._element})"


def _lanes(indices: Iterable[int]) -> ir.Constant:
    numbers = list(indices)
    return ir.Constant(ir.VectorType(ir.IntType(32), len(numbers)), numbers)
