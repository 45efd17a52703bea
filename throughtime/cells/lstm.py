"""The long short-term memory and its relatives."""

from throughtime.cells.cell import cell
from throughtime.cells.expression import batch_norm, layer_norm, sigmoid, tanh


@cell(state="h c", bias={"f": 1.0})
def lstm(x, s, w):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000)."""
    i = sigmoid(w.i(x, s.h))
    f = sigmoid(w.f(x, s.h))
    g = tanh(w.g(x, s.h))
    o = sigmoid(w.o(x, s.h))
    c = f * s.c + i * g
    return o * tanh(c), c


@cell(state="h c")
def lstm_1997(x, s, w):
    """LSTM without a forget gate (Hochreiter & Schmidhuber 1997).

    The paper squashes the candidate to (-2, 2) and the cell to (-1, 1) with scaled sigmoids; tanh
    stands for both here, as it has in the field since.
    """
    i = sigmoid(w.i(x, s.h))
    g = tanh(w.g(x, s.h))
    o = sigmoid(w.o(x, s.h))
    c = s.c + i * g
    return o * tanh(c), c


@cell(state="h c", bias={"f": 1.0})
def peephole_lstm(x, s, w):
    """LSTM with peepholes (Gers, Schraudolph & Schmidhuber 2002)."""
    i = sigmoid(w.i(x, s.h) + w.p_i * s.c)
    f = sigmoid(w.f(x, s.h) + w.p_f * s.c)
    g = tanh(w.g(x, s.h))
    c = f * s.c + i * g
    o = sigmoid(w.o(x, s.h) + w.p_o * c)
    return o * tanh(c), c


@cell(state="h c", bias={"f": 1.0})
def coupled_lstm(x, s, w):
    """LSTM with coupled input and forget gates (Greff et al. 2015)."""
    f = sigmoid(w.f(x, s.h))
    g = tanh(w.g(x, s.h))
    o = sigmoid(w.o(x, s.h))
    c = f * s.c + (1 - f) * g
    return o * tanh(c), c


@cell(
    state="h c",
    vectors={"gain_i": 1.0, "gain_f": 1.0, "gain_g": 1.0, "gain_o": 1.0, "gain_c": 1.0, "shift_f": 1.0},
)
def layer_norm_lstm(x, s, w):
    """Layer-normalised LSTM (Ba, Kiros & Hinton 2016).

    The paper normalises W_x x and W_h h apart, each over all four gates together; here each gate's
    W_x x + W_h h is normalised over its own units, so that one gate cannot drown another.
    """
    i = sigmoid(w.gain_i * layer_norm(w.i(x, s.h, bias=False)) + w.shift_i)
    f = sigmoid(w.gain_f * layer_norm(w.f(x, s.h, bias=False)) + w.shift_f)
    g = tanh(w.gain_g * layer_norm(w.g(x, s.h, bias=False)) + w.shift_g)
    o = sigmoid(w.gain_o * layer_norm(w.o(x, s.h, bias=False)) + w.shift_o)
    c = f * s.c + i * g
    return o * tanh(w.gain_c * layer_norm(c) + w.shift_c), c


_NORMED = ("i", "hi", "f", "hf", "g", "hg", "o", "ho", "c")


@cell(state="h c t", vectors={f"gain_{name}": 0.1 for name in _NORMED} | {"shift_f": 1.0})
def batch_norm_lstm(x, s, w):
    """Batch-normalised LSTM (Cooijmans et al. 2016).

    W_x x and W_h h of each gate, and the cell state where it meets the output gate, are normalised apart,
    over the rows of the batch in training and by running statistics in use; gains begin at 0.1. t counts
    the steps, for the statistics are those of a step.
    """

    def normed(name, value):
        return getattr(w, f"gain_{name}") * batch_norm(value, name)

    def gate(name):
        from_x = normed(name, getattr(w, name)(x, bias=False))
        from_h = normed(f"h{name}", getattr(w, f"h{name}")(s.h, bias=False))
        return from_x + from_h + getattr(w, f"shift_{name}")

    i, f, g, o = sigmoid(gate("i")), sigmoid(gate("f")), tanh(gate("g")), sigmoid(gate("o"))
    c = f * s.c + i * g
    return o * tanh(normed("c", c) + w.shift_c), c, s.t + 1
