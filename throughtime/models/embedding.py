"""Vectors of tokens, as all models begin with them."""

from __future__ import annotations

from torch import nn


def make_embedding(classes: int, features: int, padding: int | None = None) -> nn.Embedding:
    """Vectors that begin normal with variance 1 / features; that of `padding` is not learned."""
    embedding = nn.Embedding(classes, features, padding_idx=padding)
    nn.init.normal_(embedding.weight, std=features**-0.5)
    return embedding
