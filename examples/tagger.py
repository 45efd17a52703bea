"""A tagger written for torch: which tokens of a sequence are larger than both of their neighbours?

It runs on ThroughTime's kernels when the line `import torch.nn as nn` says `import throughtime.nn as nn`.
"""
# ruff: noqa: T201 - a script prints

import torch
import torch.nn as nn
from torch import Tensor

TOKENS, LENGTH, BATCH = 12, 10, 32


class Tagger(nn.Module):
    """Logits of two tags for each token, from an LSTM that reads in both directions."""

    def __init__(self, embedding: int = 16, hidden: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, embedding)
        self.rnn = nn.LSTM(embedding, hidden, num_layers=2, batch_first=True, dropout=0.1, bidirectional=True)
        self.head = nn.Linear(2 * hidden, 2)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Logits [batch, time, 2] for tokens [batch, time], of which row b has lengths[b]."""
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embed(tokens), lengths, batch_first=True, enforce_sorted=False
        )
        hidden, _ = nn.utils.rnn.pad_packed_sequence(
            self.rnn(packed)[0], batch_first=True, total_length=tokens.shape[1]
        )
        return self.head(hidden)


def draw_batch(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, how many each row has, and the tags: 1 for a peak, 0 for another token, -100 for padding."""
    tokens = torch.randint(TOKENS, (BATCH, LENGTH), generator=generator)
    lengths = torch.randint(2, LENGTH + 1, (BATCH,), generator=generator)
    real = torch.arange(LENGTH) < lengths[:, None]
    rises = nn.functional.pad(tokens[:, 1:] > tokens[:, :-1], (1, 1))
    falls = nn.functional.pad((tokens[:, 1:] < tokens[:, :-1]) & real[:, 1:], (1, 1))
    peak = rises[:, :-1] & falls[:, 1:]
    return tokens, lengths, torch.where(real, peak.long(), -100)


def train(steps: int = 100, seed: int = 0) -> tuple[Tagger, list[float]]:
    """A trained tagger and its loss at each step."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = Tagger()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        tokens, lengths, tags = draw_batch(generator)
        loss = nn.functional.cross_entropy(model(tokens, lengths).flatten(0, 1), tags.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return model, losses


def main() -> None:
    """Train, and print the loss now and then."""
    _, losses = train()
    for step in range(0, len(losses), 10):
        print(f"step {step:2}  loss {losses[step]:.4f}")
    print(f"last     loss {losses[-1]:.4f}")


if __name__ == "__main__":
    main()
