"""Recurrences whose transition depends on something more: an image, or which input it is."""

from throughtime.cells.cell import cell
from throughtime.cells.expression import sigmoid, tanh


@cell(state="h v")
def image_rnn(x, s, w):
    """RNN conditioned on an image (Karpathy & Fei-Fei 2015).

    The state v stays as it is given: begin it with the features of the image, of hidden_size. The paper
    adds their product at the first step alone, here it is added at each.
    """
    return tanh(w.h(x, s.h, s.v)), s.v


@cell(state="h c", bias={"f": 1.0})
def multiplicative_lstm(x, s, w):
    """Multiplicative LSTM (Krause et al. 2016).

    What each gate takes of the state, m, has a transition of its own for each input. The rest is the
    usual LSTM, with its tanh of the candidate and of the cell before the output gate.
    """
    m = w.p(x, bias=False) * w.q(s.h, bias=False)
    i = sigmoid(w.i(x, m))
    f = sigmoid(w.f(x, m))
    g = tanh(w.g(x, m))
    o = sigmoid(w.o(x, m))
    c = f * s.c + i * g
    return o * tanh(c), c
