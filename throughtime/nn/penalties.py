"""Penalties on what a recurrent layer puts out, to be added to the loss (Merity, McCann & Socher 2017).

    loss + alpha * activation_penalty(y, lengths) + beta * temporal_activation_penalty(y, lengths)

The paper writes norms; these are means of squares, so that alpha and beta mean the same for every batch
size, length and width. It penalises the activations after dropout and the differences before it.
Whatever stands in padding, NaN too, reaches no value and no gradient.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

from throughtime.nn.masks import real_steps


def activation_penalty(
    y: Float[Tensor, "B T F"], lengths: Int[Tensor, "B"] | None = None
) -> Float[Tensor, ""]:
    """Activation regularisation (AR): the mean of y² over real steps and features; 0 without steps."""
    return _mean_of_squares(y, real_steps(y, lengths))


def temporal_activation_penalty(
    y: Float[Tensor, "B T F"], lengths: Int[Tensor, "B"] | None = None
) -> Float[Tensor, ""]:
    """Temporal activation regularisation (TAR): the mean of (y_t+1 - y_t)² over neighbouring real steps.

    It is 0 where no row has two steps.
    """
    real = real_steps(y, lengths)
    return _mean_of_squares(y[:, 1:] - y[:, :-1], real[:, 1:])


def _mean_of_squares(values: Float[Tensor, "B T F"], real: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
    total = values.masked_fill(~real[..., None], 0).square().sum()
    return total / (real.sum() * values.shape[2]).clamp(min=1)
