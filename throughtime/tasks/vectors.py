"""Pretrained word vectors in the embedding of a model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from throughtime.data.tokens import RESERVED
from throughtime.data.vectors import read_vectors
from throughtime.errors import ConfigError

logger = logging.getLogger(__name__)


@torch.no_grad()
def put_vectors(
    embedding: nn.Embedding, words: Sequence[str], path: Path, option: str = "--embedding"
) -> None:
    """Give each of `words`, number 2 and on in the embedding, its vector in a file, where it has one.

    Raises `ConfigError` where the embedding has other dimensions than the file; `option` decides them.
    """
    vectors = read_vectors(path, words)
    if vectors.dimensions != embedding.embedding_dim:
        raise ConfigError(
            f"{path} has vectors of {vectors.dimensions} numbers and the model reads "
            f"{embedding.embedding_dim}: add {option} {vectors.dimensions}"
        )
    rows = [k for k, word in enumerate(words, start=RESERVED) if word in vectors.words]
    chosen = [vectors.words[word] for word in words if word in vectors.words]
    embedding.weight[rows] = torch.from_numpy(vectors.matrix[chosen]).to(embedding.weight)
    logger.warning("%s: %.1f %% of %d words have a vector", path, 100 * vectors.coverage, len(words))
