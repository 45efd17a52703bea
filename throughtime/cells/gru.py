"""The gated recurrent unit and its relatives."""

from throughtime.cells.cell import cell
from throughtime.cells.expression import layer_norm, sigmoid, tanh


@cell(state="h")
def gru(x, s, w):
    """Gated recurrent unit, reset after the product (Cho et al. 2014; this form: cuDNN)."""
    r = sigmoid(w.r(x, s.h))
    z = sigmoid(w.z(x, s.h))
    n = tanh(w.n(x) + r * w.m(s.h))
    return (1 - z) * n + z * s.h


@cell(state="h")
def gru_reset_before(x, s, w):
    """Gated recurrent unit, reset before the product (Cho et al. 2014)."""
    z = sigmoid(w.z(x, s.h))
    r = sigmoid(w.r(x, s.h))
    n = tanh(w.n(x, r * s.h))
    return (1 - z) * n + z * s.h


@cell(state="h", vectors={"gain_r": 1.0, "gain_z": 1.0, "gain_n": 1.0, "gain_m": 1.0})
def layer_norm_gru(x, s, w):
    """Layer-normalised GRU (Ba, Kiros & Hinton 2016).

    The paper normalises W_x x and W_h h apart in both gates; here their sum is normalised, gate by
    gate. The two products of the candidate are normalised apart, as in the paper.
    """
    r = sigmoid(w.gain_r * layer_norm(w.r(x, s.h, bias=False)) + w.shift_r)
    z = sigmoid(w.gain_z * layer_norm(w.z(x, s.h, bias=False)) + w.shift_z)
    n = tanh(
        w.gain_n * layer_norm(w.n(x, bias=False))
        + w.shift_n
        + r * (w.gain_m * layer_norm(w.m(s.h, bias=False)) + w.shift_m)
    )
    return (1 - z) * n + z * s.h
