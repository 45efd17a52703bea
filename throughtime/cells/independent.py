"""Recurrences in which each unit sees, of the step before, itself alone."""

from throughtime.cells.cell import cell
from throughtime.cells.expression import relu, sigmoid


@cell(state="h", vectors={"u": "uniform"})
def indrnn(x, s, w):
    """Independently recurrent neural network with ReLU (Li et al. 2018).

    u begins uniform in [0, 1]. In the paper the end of that is 2^(1/T) for sequences of T steps, beyond
    which u is clipped as it learns; here it is not clipped. The paper's last layer begins near 1.
    """
    return relu(w.h(x) + w.u * s.h)


@cell(state="h c")
def sru(x, s, w):
    """Simple recurrent unit (Lei et al. 2018).

    The highway adds x itself in the paper, times a constant; here x goes through a map of its own, for
    it has another width than c in general.
    """
    f = sigmoid(w.f(x) + w.v_f * s.c)
    r = sigmoid(w.r(x) + w.v_r * s.c)
    c = f * s.c + (1 - f) * w.c(x, bias=False)
    return r * c + (1 - r) * w.p(x, bias=False), c
