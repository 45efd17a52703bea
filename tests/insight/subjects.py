"""Small models to look into, whose numbers can be worked out by hand."""

from dataclasses import dataclass

import torch
from torch import nn

from throughtime.cells.cell import cell
from throughtime.cells.expression import sigmoid, tanh
from throughtime.heads.categorical import Loss
from throughtime.insight.view import Subject
from throughtime.nn.recurrent import Recurrent


@cell(state="h")
def linear(x, s, w):
    """Linear recurrence (by hand)."""
    return w.h(x, s.h, bias=False)


@cell(state="h", bias={"z": -1.0})
def minimal_gated(x, s, w):
    """Minimal gated unit (Zhou et al. 2016)."""
    z = sigmoid(w.z(x, s.h))
    return (1 - z) * s.h + z * tanh(w.n(x, z * s.h))


@dataclass(frozen=True)
class Batch:
    """Numbers [B, T, I], and at which steps the loss looks: -100 where it does not."""

    x: torch.Tensor
    targets: torch.Tensor
    lengths: torch.Tensor | None = None

    @property
    def inputs(self):
        return self.targets


class Sum(nn.Module):
    """The sum of what a recurrence puts out at the steps that have a target."""

    def __init__(self, cell, inputs=2, hidden=3, **options):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.recurrence = Recurrent(cell, inputs, hidden, generator=generator, **options)

    def loss(self, batch, state=None):
        y, state = self.recurrence(batch.x, state, batch.lengths)
        wanted = (batch.targets != -100).to(y.dtype)
        return Loss((y.sum(-1) * wanted).sum(), int(wanted.sum()), state)


def subject_of(cell, rows=2, steps=6, inputs=2, names=True, **options):
    """A subject whose tokens are letters, and its model in double precision."""
    generator = torch.Generator().manual_seed(1)
    model = Sum(cell, inputs, **options).double().eval()
    x = torch.randn(rows, steps, inputs, generator=generator, dtype=torch.float64)
    batch = Batch(x, torch.zeros(rows, steps, dtype=torch.long))
    letters = [[chr(97 + (row + step) % 26) for step in range(steps)] for row in range(rows)]
    return Subject(model, batch, letters if names else ())
