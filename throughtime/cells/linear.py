"""Recurrences that are linear in the state: the gates are of x alone, or constants."""

from throughtime.cells.cell import cell
from throughtime.cells.expression import exp, log, maximum, sigmoid, tanh


@cell(state="h")
def min_gru(x, s, w):
    """Minimal GRU (Feng et al. 2024).

    The form in which the candidate is linear in x, not the one that computes in logarithms.
    """
    z = sigmoid(w.z(x))
    return (1 - z) * s.h + z * w.n(x)


@cell(state="h")
def min_lstm(x, s, w):
    """Minimal LSTM, gates normalised to a sum of 1 (Feng et al. 2024).

    The form in which the candidate is linear in x, not the one that computes in logarithms. The sum of
    the gates is held above 1e-30, so that two gates that round to 0 leave 0 and not NaN.
    """
    f = sigmoid(w.f(x))
    i = sigmoid(w.i(x))
    total = maximum(f + i, 1e-30)
    return f / total * s.h + i / total * w.g(x)


@cell(state="h re im", vectors={"nu": "ring", "u": "normal", "v": "normal"})
def lru(x, s, w):
    """Linear recurrent unit (Orvieto et al. 2023).

    The complex state re + i im is multiplied by λ = exp(-exp(nu)) (u + i v) / |u + i v| and takes in
    sqrt(1 - |λ|²) B x; the output h is Re(C (re + i im)) + D x. It begins as in the paper with |λ|²
    uniform in [0.9², 0.999²] and the angle of λ uniform.

    The paper learns the angle itself and takes the factor of B x as weights that begin at
    sqrt(1 - |λ|²); here the angle is that of the learned pair (u, v), and the factor follows λ. D is a
    matrix, for x has another width than h in general. B and C begin as all matrices here do.
    """
    decay = exp(w.nu)
    radius = exp(-decay)
    # 1 - radius², which would round to 0 where the radius is nearly 1, is tanh(decay) (1 + radius²).
    gamma = exp(0.5 * log(tanh(decay) * (1 + radius * radius)))
    scale = radius * exp(-0.5 * log(w.u * w.u + w.v * w.v))
    a, b = scale * w.u, scale * w.v
    re = a * s.re - b * s.im + gamma * w.re(x, bias=False)
    im = b * s.re + a * s.im + gamma * w.im(x, bias=False)
    return w.y(x, re, im, bias=False), re, im
