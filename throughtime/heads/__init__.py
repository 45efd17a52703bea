"""Projection, loss and prediction in one object."""

from throughtime.heads.adaptive import Adaptive
from throughtime.heads.categorical import Categorical, Loss
from throughtime.heads.crf import CRF
from throughtime.heads.ctc import CTC
from throughtime.heads.density import Density, Gaussian, Mixture, NegativeBinomial, Quantiles, StudentT
from throughtime.heads.multi_label import MultiLabel
from throughtime.heads.per_step import PerStep

__all__ = [
    "CRF",
    "CTC",
    "Adaptive",
    "Categorical",
    "Density",
    "Gaussian",
    "Loss",
    "Mixture",
    "MultiLabel",
    "NegativeBinomial",
    "PerStep",
    "Quantiles",
    "StudentT",
]
