"""Recurrences that are deep in each step."""

from throughtime.cells.cell import cell
from throughtime.cells.expression import sigmoid, tanh


@cell(state="h")
def deep_transition_rnn(x, s, w):
    """RNN with a deep transition of two layers (Pascanu et al. 2013)."""
    z = tanh(w.z(x, s.h))
    return tanh(w.h(z))


@cell(state="h", bias={"t1": -2.0, "t2": -2.0, "t3": -2.0})
def recurrent_highway(x, s, w):
    """Recurrent highway network of depth 3, coupled gates (Zilly et al. 2016).

    Each micro-step carries 1 - t of what it is given, and x enters the first alone. The biases of the
    transform gates t begin at -2, so that at first a step carries most of its state.
    """
    t1 = sigmoid(w.t1(x, s.h))
    s1 = tanh(w.h1(x, s.h)) * t1 + s.h * (1 - t1)
    t2 = sigmoid(w.t2(s1))
    s2 = tanh(w.h2(s1)) * t2 + s1 * (1 - t2)
    t3 = sigmoid(w.t3(s2))
    return tanh(w.h3(s2)) * t3 + s2 * (1 - t3)
