"""The equations of a cell as text and as LaTeX, both made from its graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from throughtime.cells.expression import Value
from throughtime.cells.trace import CellGraph


@dataclass(frozen=True)
class Notation:
    """How one language writes what a graph holds."""

    functions: dict[str, str]
    open: str
    close: str
    times: str
    minus: str
    fraction: Callable[[str, str], str]
    subscript: Callable[[str, str], str]
    tilde: Callable[[str], str]
    batch_norm: str


def _script(name: str, index: str = "") -> str:
    """A name as LaTeX: `p_i` gets a subscript, before the `index` if there is one; a word stands upright."""
    base, _, own = name.partition("_")
    word = base if len(base) == 1 else rf"\mathrm{{{base}}}"
    marks = ([rf"\mathrm{{{own.replace('_', ' ')}}}"] if own else []) + ([index] if index else [])
    return f"{word}_{{{','.join(marks)}}}" if marks else word


TEXT = Notation(
    functions={"sigmoid": "σ", "maximum": "max", "layer_norm": "LN"},
    open="(",
    close=")",
    times=" ⊙ ",
    minus="-",
    fraction=lambda a, b: f"{a} / {b}",
    subscript=lambda name, index: f"{name}_{index}" if len(index) == 1 else f"{name}_{{{index}}}",
    tilde=lambda name: f"{name}~",
    batch_norm="BN",
)
LATEX = Notation(
    functions={
        "sigmoid": r"\sigma",
        "maximum": r"\max",
        "tanh": r"\tanh",
        "exp": r"\exp",
        "log": r"\log",
        "relu": r"\operatorname{relu}",
        "softplus": r"\operatorname{softplus}",
        "layer_norm": r"\operatorname{LN}",
    },
    open=r"\left(",
    close=r"\right)",
    times=r" \odot ",
    minus="-",
    fraction=lambda a, b: rf"\frac{{{a}}}{{{b}}}",
    subscript=lambda name, index: _script(name, index),
    tilde=lambda name: rf"\tilde{{{_script(name)}}}",
    batch_norm=r"\operatorname{BN}",
)

# How tightly each form binds: a sum needs brackets inside a product, a product none inside a sum.
_SUM, _PRODUCT, _ATOM = 1, 2, 3


def as_text(graph: CellGraph) -> list[str]:
    """One line for each gate, each new state and each shared value: `i_t = σ(W_{ix} x_t + ... + b_i)`."""
    return [f"{left} = {right}" for left, right in _equations(graph, TEXT)]


def as_latex(graph: CellGraph) -> str:
    """The same lines as the body of an `aligned` environment."""
    lines = [rf"{left} &= {right}" for left, right in _equations(graph, LATEX)]
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


def _equations(graph: CellGraph, notation: Notation) -> list[tuple[str, str]]:
    names = _names(graph, notation)
    writer = _Writer(graph, names, notation)
    lines = [(names[node], writer.write(node, top=True)[0]) for node in graph.nodes if node in names]
    kept = [pair for pair in zip(graph.states, graph.outputs, strict=True) if pair[1].op == "state"]
    return lines + [(notation.subscript(name, "t"), writer.write(node)[0]) for name, node in kept]


def _names(graph: CellGraph, notation: Notation) -> dict[Value, str]:
    """The left-hand sides: gates, new states, and values that are used more than once."""
    names = {
        node: f"{notation.tilde(name)}_t" if name in graph.states else notation.subscript(name, "t")
        for name, node in graph.gates.items()
    }
    names |= {
        node: notation.subscript(name, "t")
        for name, node in zip(graph.states, graph.outputs, strict=True)
        if node.op != "state"
    }
    shared = [node for node in graph.nodes if node.args and len(graph.users[node]) > 1 and node not in names]
    return names | {node: notation.subscript(f"u{k}", "t") for k, node in enumerate(shared, start=1)}


class _Writer:
    def __init__(self, graph: CellGraph, names: dict[Value, str], notation: Notation) -> None:
        self.graph, self.names, self.notation = graph, names, notation

    def write(self, node: Value, top: bool = False) -> tuple[str, int]:
        """The node as written, and how tightly that binds."""
        n = self.notation
        if node in self.names and not top:
            return self.names[node], _ATOM
        match node.op:
            case "x":
                return n.subscript("x", "t"), _ATOM
            case "state":
                return n.subscript(node.name, "t-1"), _ATOM
            case "vector":
                return node.name if n is TEXT else _script(node.name), _ATOM
            case "constant":
                return f"{node.number:.15g}", _ATOM
            case "map":
                return self._map(node), _SUM
            case "add":
                return self._infix(node, " + ", _SUM)
            case "sub":
                return self._infix(node, f" {n.minus} ", _SUM)
            case "mul" if node.args[1].op == "table":
                normalised = self.write(node.args[0].args[0])[0]
                return f"{n.batch_norm}{n.open}{normalised}{n.close}", _ATOM
            case "mul":
                return self._infix(node, n.times, _PRODUCT)
            case "div":
                a, b = (self._bound(arg, _ATOM if n is TEXT else _SUM) for arg in node.args)
                return n.fraction(a, b), _PRODUCT
            case "neg":
                return n.minus + self._bound(node.args[0], _PRODUCT), _SUM
        arguments = ", ".join(self.write(arg)[0] for arg in node.args)
        return f"{n.functions.get(node.op, node.op)}{n.open}{arguments}{n.close}", _ATOM

    def _infix(self, node: Value, sign: str, binding: int) -> tuple[str, int]:
        left, right = node.args
        tighter = binding + 1 if node.op == "sub" else binding
        return self._bound(left, binding) + sign + self._bound(right, tighter), binding

    def _bound(self, node: Value, binding: int) -> str:
        text, bound = self.write(node)
        return text if bound >= binding else f"{self.notation.open}{text}{self.notation.close}"

    def _map(self, node: Value) -> str:
        n = self.notation
        sources = [self._source(arg) for arg in node.args]
        terms = []
        for k, (source, arg) in enumerate(zip(sources, node.args, strict=True)):
            earlier = sources[:k].count(source)
            index = f"{source}{node.name}" + (f",{earlier + 1}" if earlier else "")
            terms.append(f"{n.subscript('W', index)} {self._bound(arg, _ATOM)}")
        return " + ".join(terms + [n.subscript("b", node.name)] * node.bias)

    def _source(self, arg: Value) -> str:
        """The name of what a matrix multiplies; the first state stands for a value without one."""
        if arg.op in {"x", "state"}:
            return arg.name or "x"
        names = {gate: name for name, gate in self.graph.gates.items()}
        names |= dict(zip(self.graph.outputs, self.graph.states, strict=True))
        return names.get(arg, self.graph.states[0])
