"""Whole models: they know nothing of files, vocabularies or training."""

from throughtime.models.classifier import Classifier, make_classifier
from throughtime.models.forecaster import Forecaster
from throughtime.models.language_model import LanguageModel
from throughtime.models.seq2seq import Seq2Seq
from throughtime.models.tagger import Tagger

__all__ = [
    "Classifier",
    "Forecaster",
    "LanguageModel",
    "Seq2Seq",
    "Tagger",
    "make_classifier",
]
