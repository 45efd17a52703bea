"""Recurrences with exponential gates."""

from throughtime.cells.cell import cell
from throughtime.cells.expression import exp, maximum, relu, sigmoid, softplus, tanh


@cell(state="h c n m", bias={"f": 1.0})
def slstm(x, s, w):
    """Scalar LSTM of the xLSTM, exponential input gate, sigmoid forget gate (Beck et al. 2024).

    c and n are kept divided by exp(m), so that no gate overflows. All units are one head.

    The authors' code begins m at the first input gate; here all states begin at 0, which gives the same h.
    Two guards keep every finite input from dividing by 0 and change nothing else in a run that began
    with zeros: n is at least 1e-30 where it divides, so that h is near 0 where every input gate so far
    was below about exp(-69), and what is left of an n that is negative counts as 0.
    """
    i = w.i(x, s.h)
    log_f = -softplus(-w.f(x, s.h))
    z = tanh(w.z(x, s.h))
    o = sigmoid(w.o(x, s.h))
    m = maximum(log_f + s.m, i)
    kept, added = exp(log_f + s.m - m), exp(i - m)
    c = kept * s.c + added * z
    n = kept * relu(s.n) + added
    return o * c / maximum(n, 1e-30), c, n, m
