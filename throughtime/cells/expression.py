"""Symbols and operators: what the equations of a cell are made of, and the graph they build."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from throughtime.errors import CellError

#: Each operator with its number of arguments. All are elementwise but `layer_norm`, which is row-wise.
ARITY = {
    "add": 2,
    "sub": 2,
    "mul": 2,
    "div": 2,
    "neg": 1,
    "sigmoid": 1,
    "tanh": 1,
    "relu": 1,
    "exp": 1,
    "log": 1,
    "softplus": 1,
    "maximum": 2,
    "layer_norm": 1,
}
#: What a step is given besides x, the states and the weights. It has no equation of its own: regularisers
#: and observers add it to a graph. A `row_mask` [B, H] is the same at every step of a row, a `step_mask`
#: [T, B, H] is not, and a `probe` [T, B, H] is one that gradients are computed for. A `table` [S, H] has a
#: row for each of the first S steps, of which a step reads the one that "step" [T, B] names.
GIVEN = frozenset({"row_mask", "step_mask", "probe", "table"})
COMMUTATIVE = frozenset({"add", "mul", "maximum"})
ACTIVATIONS = frozenset({"sigmoid", "tanh", "relu", "exp", "log", "softplus"})
LAYER_NORM_EPSILON = 1e-5
#: Above it softplus(a) is a.
SOFTPLUS_THRESHOLD = 20.0
#: What the elementwise operators make of numbers.
ON_NUMBERS: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "sigmoid": lambda a: 0.5 + 0.5 * math.tanh(0.5 * a),
    "tanh": math.tanh,
    "relu": lambda a: a if a > 0 or a != a else 0.0,
    "exp": math.exp,
    "log": math.log,
    "softplus": lambda a: a if a > SOFTPLUS_THRESHOLD else max(a, 0.0) + math.log1p(math.exp(-abs(a))),
    "maximum": lambda a, b: a if a >= b or a != a else b,
}


@dataclass(eq=False, slots=True)
class Value:
    """A node of a cell's graph, equal only to itself.

    `op` is one of
    - `x`: the input of this step, of width input_size;
    - `state`: a state of the step before, by `name`;
    - `vector`: a learned vector of width hidden_size, by `name`;
    - `constant`: `number`;
    - one of `GIVEN`, by `name`;
    - `map`: the affine map `name` of `args`, with a bias vector if `bias`;
    - an operator of `ARITY` on `args`;
    - what derivatives and schedules add, among it products of `args` with the `blocks` of weight_hh.

    `serial` counts the nodes as they are made, so that it orders arguments before their users.
    """

    op: str
    args: tuple[Value, ...] = field(default=(), repr=False)
    name: str = ""
    number: float = 0.0
    bias: bool = False
    blocks: tuple[int, ...] = ()
    serial: int = field(default_factory=itertools.count().__next__)

    def __add__(self, other: Operand) -> Value:
        return apply("add", self, other)

    def __radd__(self, other: Operand) -> Value:
        return apply("add", other, self)

    def __sub__(self, other: Operand) -> Value:
        return apply("sub", self, other)

    def __rsub__(self, other: Operand) -> Value:
        return apply("sub", other, self)

    def __mul__(self, other: Operand) -> Value:
        return apply("mul", self, other)

    def __rmul__(self, other: Operand) -> Value:
        return apply("mul", other, self)

    def __truediv__(self, other: Operand) -> Value:
        return apply("div", self, other)

    def __rtruediv__(self, other: Operand) -> Value:
        return apply("div", other, self)

    def __neg__(self) -> Value:
        return apply("neg", self)

    def __bool__(self) -> NoReturn:
        raise CellError("an equation cannot branch on a value: write it with maximum(a, b) or a gate")

    @classmethod
    def __torch_function__(cls, function: Any, *_: Any, **__: Any) -> NoReturn:
        raise _unsupported(getattr(function, "__name__", str(function)))

    def __array_ufunc__(self, ufunc: Any, *_: Any, **__: Any) -> NoReturn:
        raise _unsupported(ufunc.__name__)


Operand = Value | float | int


def _unsupported(name: str) -> CellError:
    functions = ", ".join(name for name, _ in _by_function())
    return CellError(
        f'"{name}" is not an operator of equations: use + - * / and the functions '
        f"{functions} of throughtime.cells"
    )


def _by_function() -> Iterator[tuple[str, int]]:
    return ((name, n) for name, n in ARITY.items() if name not in {"add", "sub", "mul", "div", "neg"})


def as_value(operand: Operand) -> Value:
    """The operand as a node; numbers become constants."""
    if isinstance(operand, Value):
        return operand
    if isinstance(operand, int | float) and not isinstance(operand, bool):
        return Value("constant", number=float(operand))
    raise CellError(f"{operand!r} is of type {type(operand).__name__}: equations take values and numbers")


def apply(op: str, *operands: Operand) -> Value:
    """The node of operator `op` on `operands`."""
    args = tuple(as_value(operand) for operand in operands)
    if all(arg.op == "constant" for arg in args):
        return Value("constant", number=_on_numbers(op, *(arg.number for arg in args)))
    if any(arg.op == "x" for arg in args):
        raise CellError(
            "x has input_size elements and cannot meet values of hidden_size: "
            "pass it through a map first, as in w.i(x)"
        )
    return Value(op, args)


def _on_numbers(op: str, *numbers: float) -> float:
    if op not in ON_NUMBERS:
        raise CellError(f"{op} is taken of values, and was given a number: {numbers[0]:g}")
    try:
        return ON_NUMBERS[op](*numbers)
    except (ArithmeticError, ValueError):
        given = ", ".join(f"{number:g}" for number in numbers)
        raise CellError(f"{op} of {given} is not a finite number") from None


def sigmoid(a: Operand) -> Value:
    """1 / (1 + exp(-a))."""
    return apply("sigmoid", a)


def tanh(a: Operand) -> Value:
    """Hyperbolic tangent."""
    return apply("tanh", a)


def relu(a: Operand) -> Value:
    """max(a, 0)."""
    return apply("relu", a)


def exp(a: Operand) -> Value:
    """e to the power a."""
    return apply("exp", a)


def log(a: Operand) -> Value:
    """Natural logarithm."""
    return apply("log", a)


def softplus(a: Operand) -> Value:
    """log(1 + exp(a))."""
    return apply("softplus", a)


def maximum(a: Operand, b: Operand) -> Value:
    """The larger of a and b, elementwise."""
    return apply("maximum", a, b)


def layer_norm(a: Operand) -> Value:
    """(a - mean) / sqrt(variance + 1e-5) over the units of a row (Ba, Kiros & Hinton 2016).

    Gain and bias are learned vectors that the equations write out: `w.gain * layer_norm(a) + w.shift`.
    """
    return apply("layer_norm", a)


def batch_norm(a: Value, name: str) -> Value:
    """(a - mean) / sqrt(variance + 1e-5), of a unit over the rows of a batch (Ioffe & Szegedy 2015).

    Every step has statistics of its own under `name`, the step counted by the state t of the cell, which
    must become s.t + 1 (Cooijmans et al. 2016). These equations read the running statistics, from tables
    that the layer keeps; in training it puts those of the batch in their place. Gain and shift are learned
    vectors that the equations write out.
    """
    return (a - Value("table", name=f"mean {name}")) * Value("table", name=f"scale {name}")
