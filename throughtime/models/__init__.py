"""Whole models: they know nothing of files, vocabularies or training."""

from throughtime.models.language_model import LanguageModel

__all__ = [
    "LanguageModel",
]
