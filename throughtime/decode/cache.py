"""The continuous neural cache: words that stood near come again, with no training for it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from throughtime.errors import ConfigError, ShapeError

#: Steps that look at the cache at once, each at the window behind it.
BLOCK = 256


class Cache(NamedTuple):
    """The last steps that were read: their features [N, H], and the token that followed each, [N]."""

    features: Tensor
    targets: Tensor


@torch.no_grad()
def with_cache(
    features: Float[Tensor, "T H"],
    targets: Int[Tensor, "T"],
    log_probs: Float[Tensor, "T"],
    *,
    size: int = 2000,
    theta: float = 0.3,
    interpolation: float = 0.1,
    cache: Cache | None = None,
) -> tuple[Float[Tensor, "T"], Cache]:
    """Log-probabilities of the targets by a model and a cache together (Grave, Joulin & Usunier 2017).

        p(y_t) = (1 - λ) p_model(y_t) + λ p_cache(y_t)
        p_cache(y) = Σ_i 1{y_i = y} exp(θ h_t·h_i) / Σ_i exp(θ h_t·h_i),   i = t - size .. t - 1

    Only what stands before y_t tells about it, so that these are probabilities as good as the model's own.

    features       h_t, from which the model predicts y_t.
    targets        y_t, none of them left out.
    log_probs      of the targets by the model.
    size           how many steps back are looked at.
    theta          θ: 0 counts words, a larger one trusts similar states more.
    interpolation  λ, the share of the cache. The first step of all has none, and is the model's.
    cache          what an earlier call returned, where a text is read piece by piece: no answer depends on
                   the pieces. Leave it out where a new document begins.

    Returns the mixture and the cache after it. Raises `ConfigError` for a size below 1, a negative θ or a λ
    outside of [0, 1), and `ShapeError` where the three, or the cache, do not fit each other.
    """
    _check(size, theta, interpolation)
    before = Cache(features[:0], targets[:0]) if cache is None else cache
    _check_shapes(features, targets, log_probs, before)
    keys, values = torch.cat([before.features, features]), torch.cat([before.targets, targets])
    mixed = [log_probs[:0]]
    for start in range(0, len(targets), BLOCK):
        stop = min(start + BLOCK, len(targets))
        first, last = max(start + len(before.targets) - size, 0), stop + len(before.targets)
        looked_up = _look_up(
            features[start:stop], targets[start:stop], keys[first:last], values[first:last], size, theta
        )
        mixed.append(_mix(log_probs[start:stop], looked_up, interpolation))
    after = torch.cat(mixed)
    if not len(before.targets):
        after[:1] = log_probs[:1]
    return after, Cache(keys[-size:].clone(), values[-size:].clone())


def _look_up(
    queries: Tensor, targets: Tensor, keys: Tensor, values: Tensor, size: int, theta: float
) -> Tensor:
    """log p_cache of the targets. The last keys are the queries'; NaN where none stands before."""
    own = torch.arange(len(keys) - len(queries), len(keys), device=keys.device)[:, None]
    back = own - torch.arange(len(keys), device=keys.device)
    scores = (theta * queries @ keys.T).masked_fill((back < 1) | (back > size), -math.inf)
    found = scores.masked_fill(values != targets[:, None], -math.inf)
    return found.logsumexp(-1) - scores.logsumexp(-1)


def _mix(log_probs: Tensor, looked_up: Tensor, interpolation: float) -> Tensor:
    """log((1 - λ) p_model + λ p_cache)."""
    share = math.log(interpolation) if interpolation else -math.inf
    return torch.logaddexp(log_probs + math.log1p(-interpolation), looked_up + share)


def _check(size: int, theta: float, interpolation: float) -> None:
    if size < 1:
        raise ConfigError(f"the size of the cache must be 1 or more, got {size}")
    if not 0 <= theta < math.inf:
        raise ConfigError(f"theta must be 0 or more and finite, got {theta:g}")
    if not 0 <= interpolation < 1:
        raise ConfigError(f"interpolation must lie in [0, 1), got {interpolation:g}")


def _check_shapes(features: Tensor, targets: Tensor, log_probs: Tensor, cache: Cache) -> None:
    if features.dim() != 2 or not len(features) == len(targets) == len(log_probs) == log_probs.numel():
        raise ShapeError(
            "the cache wants features [T, H] with targets [T] and their log-probabilities [T], got "
            f"{list(features.shape)}, {list(targets.shape)} and {list(log_probs.shape)}"
        )
    if cache.features.shape != (len(cache.targets), features.shape[1]):
        raise ShapeError(
            f"the cache holds features {list(cache.features.shape)} and {len(cache.targets)} targets, which "
            f"does not fit features {list(features.shape)}: give the one that the call before returned"
        )
