"""How weights begin: one function for each name that a cell's `Initial` may give."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from throughtime.cells.cell import Cell
from throughtime.errors import CellError

Matrix = Callable[[int, int, torch.Generator | None], Tensor]
Vector = Callable[[int, torch.Generator | None], Tensor]


def glorot(rows: int, columns: int, generator: torch.Generator | None) -> Tensor:
    """Uniform in ±sqrt(6 / (rows + columns)) (Glorot & Bengio 2010)."""
    return torch.nn.init.xavier_uniform_(torch.empty(rows, columns), generator=generator)


def small(rows: int, columns: int, generator: torch.Generator | None) -> Tensor:
    """Normal with standard deviation 0.001 (Le, Jaitly & Hinton 2015)."""
    return torch.nn.init.normal_(torch.empty(rows, columns), std=0.001, generator=generator)


def orthogonal(rows: int, columns: int, generator: torch.Generator | None) -> Tensor:
    """A random orthogonal matrix (Saxe, McClelland & Ganguli 2013)."""
    return torch.nn.init.orthogonal_(torch.empty(rows, columns), generator=generator)


def identity(rows: int, columns: int, generator: torch.Generator | None) -> Tensor:
    """The identity (Le, Jaitly & Hinton 2015); raises `CellError` where the matrix is not square."""
    _check_square("identity", rows, columns)
    return torch.eye(rows, columns)


def normalized_positive_definite(rows: int, columns: int, generator: torch.Generator | None) -> Tensor:
    """(A + I) / e with A = RᵀR / n, R normal, e the largest eigenvalue of A + I (Talathi & Vartak 2015).

    All eigenvalues lie in (0, 1] and the largest is 1. Raises `CellError` where the matrix is not square.
    """
    _check_square("normalized_positive_definite", rows, columns)
    r = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    a = r.T @ r / columns + torch.eye(columns, dtype=torch.float64)
    return (a / torch.linalg.eigvalsh(a)[-1]).to(torch.get_default_dtype())


def _check_square(name: str, rows: int, columns: int) -> None:
    if rows != columns:
        raise CellError(f'the initialisation "{name}" is for square matrices, not [{rows}, {columns}]')


MATRICES: dict[str, Matrix] = {
    f.__name__: f for f in (glorot, small, orthogonal, identity, normalized_positive_definite)
}


def normal(units: int, generator: torch.Generator | None) -> Tensor:
    """Normal with standard deviation 1."""
    return torch.randn(units, generator=generator)


def uniform(units: int, generator: torch.Generator | None) -> Tensor:
    """Uniform in [0, 1]."""
    return torch.rand(units, generator=generator)


def ring(units: int, generator: torch.Generator | None) -> Tensor:
    """log(-log r) with r² uniform in [0.9², 0.999²] (Orvieto et al. 2023).

    r is the radius of a point that is uniform on the ring between 0.9 and 0.999.
    """
    squared = torch.empty(units, dtype=torch.float64).uniform_(0.9**2, 0.999**2, generator=generator)
    return (-0.5 * squared.log()).log().to(torch.get_default_dtype())


VECTORS: dict[str, Vector] = {f.__name__: f for f in (normal, uniform, ring)}


def initial_weights(
    cell: Cell, input_size: int, hidden_size: int, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """First values of all weights of `cell`, named and shaped as `CellGraph.weight_shapes` says.

    Each block of hidden_size rows is drawn by itself. Without a generator torch's global one is used.
    """
    _check_names(cell)
    graph, initial = cell.graph, cell.initial
    weights: dict[str, Tensor] = {}
    for name, shape in graph.weight_shapes(input_size, hidden_size).items():
        if name == "bias":
            blocks = [torch.full((hidden_size,), initial.bias.get(m, 0.0)) for m in graph.bias_blocks]
        elif len(shape) == 2:
            draw = MATRICES[initial.input if name == "weight_ih" else initial.recurrent]
            blocks = [draw(hidden_size, shape[1], generator) for _ in range(shape[0] // hidden_size)]
        else:
            blocks = [_vector(initial.vectors.get(name, 0.0), hidden_size, generator)]
        weights[name] = torch.cat(blocks)
    return weights


def _vector(begins: float | str, units: int, generator: torch.Generator | None) -> Tensor:
    if isinstance(begins, str):
        return VECTORS[begins](units, generator)
    return torch.full((units,), float(begins))


def _check_names(cell: Cell) -> None:
    initial = cell.initial
    of_vectors = [name for name in initial.vectors.values() if isinstance(name, str)]
    for names, known in (([initial.input, initial.recurrent], MATRICES), (of_vectors, VECTORS)):
        for name in names:
            if name not in known:
                raise CellError(
                    f'cell "{cell.name}": there is no initialisation "{name}": there are {", ".join(known)}'
                )
