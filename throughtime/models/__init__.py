"""Whole models: they know nothing of files, vocabularies or training."""

from throughtime.models.captioner import Captioner
from throughtime.models.classifier import Classifier, make_classifier
from throughtime.models.clips import ClipEncoder, FrameEncoder
from throughtime.models.forecaster import Forecaster
from throughtime.models.frame_tagger import FrameTagger
from throughtime.models.language_model import LanguageModel
from throughtime.models.seq2seq import Seq2Seq
from throughtime.models.tagger import Tagger
from throughtime.models.transcriber import Transcriber

__all__ = [
    "Captioner",
    "Classifier",
    "ClipEncoder",
    "Forecaster",
    "FrameEncoder",
    "FrameTagger",
    "LanguageModel",
    "Seq2Seq",
    "Tagger",
    "Transcriber",
    "make_classifier",
]
