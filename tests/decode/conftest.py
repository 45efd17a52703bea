"""A step function in which each token depends on all before it, for the tests of searches."""

import pytest
import torch


class Chance:
    """Random log-probabilities [classes] for each sentence and each history, always the same ones.

    The state is a list of histories, each beginning with the number of its sentence. `read` is the number
    of rows of each step.
    """

    def __init__(self, classes: int, seed: int, spread: float = 1.5, impossible: float = 0.0) -> None:
        self.classes, self.seed, self.spread, self.impossible = classes, seed, spread, impossible
        self.known: dict[tuple[int, ...], torch.Tensor] = {}
        self.read: list[int] = []

    def log_probs(self, history: tuple[int, ...]) -> torch.Tensor:
        if history not in self.known:
            generator = torch.Generator().manual_seed(hash((self.seed, *history)) % 2**63)
            scores = self.spread * torch.randn(self.classes, generator=generator, dtype=torch.float64)
            missing = torch.rand(self.classes, generator=generator) < self.impossible
            # Where all are missing nothing can follow; the softmax of that would be NaN.
            log_probs = scores.masked_fill(missing & ~missing.all(), -torch.inf).log_softmax(-1)
            self.known[history] = log_probs.masked_fill(missing, -torch.inf)
        return self.known[history]

    def begin(self, *sentences: int):
        """First tokens and a state: the first token of a sentence is its number, and is read as any other."""
        return torch.tensor(sentences, dtype=torch.int64), [() for _ in sentences]

    def step(self, tokens, state):
        assert not torch.is_grad_enabled()
        self.read.append(len(tokens))
        state = [(*history, token) for history, token in zip(state, tokens.tolist(), strict=True)]
        return torch.stack([self.log_probs(history) for history in state]), state

    @staticmethod
    def select(state, rows):
        return [state[row] for row in rows.tolist()]


@pytest.fixture(scope="session")
def chance() -> type[Chance]:
    """The class, as tests make their own."""
    return Chance
