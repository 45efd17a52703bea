"""Expressions in their simplest form: equal ones are one node, and constants are worked out."""

from __future__ import annotations

from typing import TypeGuard

from throughtime.cells.expression import COMMUTATIVE, ON_NUMBERS, Value


class Algebra:
    """Makes nodes. What it made, or was given, before is found again by its operator and arguments."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Value] = {}

    def constant(self, number: float) -> Value:
        """The number as a node."""
        return self._node("constant", number=number)

    def leaf(self, op: str, name: str) -> Value:
        """A named quantity that is read and not computed."""
        return self._node(op, name=name)

    def product(self, op: str, args: tuple[Value, ...], blocks: tuple[int, ...]) -> Value:
        """The sum over `args` of each one's product with its block of weight_hh."""
        return self._node(op, args, blocks=blocks)

    def make(self, op: str, *args: Value) -> Value:
        """Operator `op` on `args`, simplified."""
        if op in ON_NUMBERS and all(arg.op == "constant" for arg in args):
            try:
                return self.constant(ON_NUMBERS[op](*(arg.number for arg in args)))
            except (ArithmeticError, ValueError):  # a pole: left to be found when it is run
                return self._node(op, args)
        simple = self._simplified(op, *args)
        return self._node(op, args) if simple is None else simple

    def add(self, a: Value, b: Value) -> Value:
        """a + b."""
        return self.make("add", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        """a - b."""
        return self.make("sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        """a b."""
        return self.make("mul", a, b)

    def div(self, a: Value, b: Value) -> Value:
        """a / b."""
        return self.make("div", a, b)

    def neg(self, a: Value) -> Value:
        """-a."""
        return self.make("neg", a)

    def _simplified(self, op: str, *args: Value) -> Value | None:
        """What `op` on `args` comes to, where that is simpler."""
        match op, args:
            case "add", (a, b):
                if _is(a, 0):
                    return b
                if _is(b, 0):
                    return a
                if b.op == "neg":
                    return self.sub(a, b.args[0])
                if a.op == "neg":
                    return self.sub(b, a.args[0])
            case "sub", (a, b):
                if _is(b, 0):
                    return a
                if _is(a, 0):
                    return self.neg(b)
                if b.op == "neg":
                    return self.add(a, b.args[0])
            case "mul", (a, b):
                if _is(a, 1):
                    return b
                if _is(b, 1):
                    return a
                for one, other in ((a, b), (b, a)):
                    if one.op == "neg":
                        return self.neg(self.mul(one.args[0], other))
                    if _is(one, -1):
                        return self.neg(other)
            case "div", (a, b):
                if _is(b, 1):
                    return a
                if a.op == "neg":
                    return self.neg(self.div(a.args[0], b))
            case "neg", (a,):
                if a.op == "neg":
                    return a.args[0]
        return None

    def _node(
        self,
        op: str,
        args: tuple[Value, ...] = (),
        *,
        name: str = "",
        number: float = 0.0,
        blocks: tuple[int, ...] = (),
    ) -> Value:
        order = sorted(args, key=lambda arg: arg.serial) if op in COMMUTATIVE else args
        key = (op, *order, name, str(number), blocks)
        if key not in self._known:
            self._known[key] = Value(op, args, name=name, number=number, blocks=blocks)
        return self._known[key]


def _is(a: Value, number: float) -> TypeGuard[Value]:
    return a.op == "constant" and a.number == number
