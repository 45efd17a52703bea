"""The vanilla recurrence, and its ReLU form with the initialisations that make it learn."""

from throughtime.cells.cell import cell
from throughtime.cells.expression import relu, tanh


@cell(state="h")
def rnn(x, s, w):
    """Vanilla RNN (Elman 1990)."""
    return tanh(w.h(x, s.h))


@cell(state="h")
def rnn_relu(x, s, w):
    """Vanilla RNN with ReLU (Nair & Hinton 2010)."""
    return relu(w.h(x, s.h))


irnn = rnn_relu.variant(
    "irnn",
    "ReLU RNN that begins with the identity (Le, Jaitly & Hinton 2015).",
    input="small",
    recurrent="identity",
)

np_rnn = rnn_relu.variant(
    "np_rnn",
    "ReLU RNN that begins positive definite, largest eigenvalue 1 (Talathi & Vartak 2015).",
    recurrent="normalized_positive_definite",
)
