"""The table of experiments."""

from __future__ import annotations

import difflib

from throughtime.errors import ConfigError
from throughtime.lab.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    row.name: row
    for row in (
        Experiment(
            "vanishing",
            "How the gradient of the loss shrinks on its way back through time, cell by cell.",
            "Hochreiter 1991; Bengio, Simard & Frasconi 1994",
            ("rnn", "irnn", "lstm", "gru"),
        ),
        Experiment(
            "exploding-and-clipping",
            "Steps off the cliff of an exploding gradient, and what clipping its norm does.",
            "Pascanu, Mikolov & Bengio 2013",
        ),
        Experiment(
            "eigenvalues",
            "A linear recurrence to the tenth power: what the eigenvalues of its matrix decide.",
            "Pascanu, Mikolov & Bengio 2013",
        ),
        Experiment(
            "two-sums",
            "Backpropagation through time as two sums, over steps of the loss and steps of the state.",
            "Werbos 1990",
            ("rnn", "lstm", "gru"),
        ),
        Experiment(
            "truncation",
            "What is lost where backpropagation through time is cut after so many steps.",
            "Williams & Peng 1990",
            ("rnn", "lstm", "gru"),
        ),
        Experiment(
            "activations",
            "The derivatives of tanh, the sigmoid and ReLU, and what is left of them over many steps.",
            "Glorot & Bengio 2010; Nair & Hinton 2010",
        ),
        Experiment(
            "initialisation",
            "A ReLU recurrence that begins random, as the identity, or positive definite (np-RNN).",
            "Le, Jaitly & Hinton 2015; Talathi & Vartak 2015",
            ("rnn_relu", "irnn", "np_rnn"),
        ),
        Experiment(
            "copy",
            "Symbols that have to be said again after a delay: how long a cell can keep them.",
            "Hochreiter & Schmidhuber 1997; Gers, Schmidhuber & Cummins 2000",
            ("rnn", "lstm", "gru"),
        ),
        Experiment(
            "adding",
            "The sum of two marked numbers in a long sequence: how far back a cell can look.",
            "Hochreiter & Schmidhuber 1997; Le, Jaitly & Hinton 2015",
            ("rnn", "irnn", "lstm", "gru"),
        ),
        Experiment(
            "order",
            "Sentences that differ only in the order of their words: a bag of words and a recurrence.",
            "Le & Mikolov 2014; Mikolov et al. 2010",
            ("lstm", "gru"),
        ),
        Experiment(
            "window",
            "Agreement at a distance: a fixed window of words and a recurrence.",
            "Bengio et al. 2003; Mikolov et al. 2010",
            ("rnn", "lstm"),
        ),
        Experiment(
            "agreement",
            "Which noun the verb agrees with: the subject, the first one, or the one said last.",
            "Linzen, Dupoux & Goldberg 2016; McCoy, Frank & Linzen 2018",
            ("rnn", "lstm", "gru"),
        ),
        Experiment(
            "bottleneck",
            "A sequence through one vector: how well long ones arrive, with and without attention.",
            "Cho et al. 2014; Bahdanau, Cho & Bengio 2015",
        ),
        Experiment(
            "gated-highway",
            "Gates as a way through: how much of a state is left after many steps, by the forget gate.",
            "Gers, Schmidhuber & Cummins 2000; Srivastava et al. 2015; Tallec & Ollivier 2018",
        ),
        Experiment(
            "temperature",
            "Drawing from a language model: what temperature does to variety and to mistakes.",
            "Ackley, Hinton & Sejnowski 1985; Graves 2013",
        ),
        Experiment(
            "teacher-forcing",
            "Trained on the truth, used on its own outputs: how mistakes grow, and what helps.",
            "Williams & Zipser 1989; Bengio et al. 2015",
        ),
    )
}


def find_experiment(name: str) -> Experiment:
    """The experiment with this name; raises `ConfigError` with the nearest names where there is none."""
    if name in EXPERIMENTS:
        return EXPERIMENTS[name]
    near = difflib.get_close_matches(name, EXPERIMENTS, n=3)
    meant = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(EXPERIMENTS)}"
    raise ConfigError(f'there is no experiment "{name}": {meant}')
