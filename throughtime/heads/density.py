"""Heads of numbers: a distribution over the next value, as forecasts need it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from throughtime.errors import ConfigError
from throughtime.heads.categorical import Loss
from throughtime.nn.options import check_sizes

#: N predictions: features [N, F], parameters [N, P], or values with their location and scale [N, C].
Rows = Float[Tensor, "N _"]
#: The levels of quantiles where none are named.
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
#: The least spread, so that a value that never changes has a finite density.
LEAST = 1e-4


class Density(nn.Module, ABC):
    """p(y | f) of values y [C] by that of z = (y - loc) / scale, whose parameters are affine in features f.

    `loc` and `scale` [*N, C] are those of the series near y, so that one head serves series of every size.
    What is drawn is in the units of y.

    features    how many features f has.
    dimensions  C. Each has a distribution of its own given f, but for `Mixture`.
    """

    def __init__(self, features: int, dimensions: int, parameters: int) -> None:
        super().__init__()
        check_sizes(features=features, dimensions=dimensions)
        self.features, self.dimensions = features, dimensions
        self.linear = nn.Linear(features, parameters)

    def loss(
        self,
        features: Float[Tensor, "*N F"],
        values: Float[Tensor, "*N C"],
        loc: Float[Tensor, "*N C"],
        scale: Float[Tensor, "*N C"],
    ) -> Loss:
        """What all values cost (`nats`); where one is NaN there is none."""
        there = ~values.isnan().any(-1)
        values, loc, scale = (each[there] for each in (values, loc, scale))
        return Loss(self.nats(features[there], values, loc, scale).sum(), int(there.sum()))

    @abstractmethod
    def nats(self, features: Rows, values: Rows, loc: Rows, scale: Rows) -> Float[Tensor, "N"]:
        """What each value costs."""

    @abstractmethod
    def draw(self, features: Rows, loc: Rows, scale: Rows, generator: torch.Generator | None = None) -> Rows:
        """A value for each row, by chance."""

    @abstractmethod
    def point(self, features: Rows, loc: Rows, scale: Rows) -> Rows:
        """The mean of the distribution; of quantiles the median."""


class Located(Density):
    """A distribution of z alone: y is where its location and scale put it, and costs -log p(y | f)."""

    def nats(self, features: Rows, values: Rows, loc: Rows, scale: Rows) -> Float[Tensor, "N"]:
        """-log p(y | f)."""
        return self.cost(self.linear(features), (values - loc) / scale) + scale.log().sum(-1)

    def draw(self, features: Rows, loc: Rows, scale: Rows, generator: torch.Generator | None = None) -> Rows:
        """A value for each row, by chance."""
        return loc + scale * self.sample(self.linear(features), generator)

    def point(self, features: Rows, loc: Rows, scale: Rows) -> Rows:
        """The mean."""
        return loc + scale * self.mean(self.linear(features))

    @abstractmethod
    def cost(self, parameters: Rows, z: Rows) -> Float[Tensor, "N"]:
        """-log p(z), given the parameters."""

    @abstractmethod
    def sample(self, parameters: Rows, generator: torch.Generator | None) -> Rows:
        """z for each row, by chance."""

    @abstractmethod
    def mean(self, parameters: Rows) -> Rows:
        """E z."""


class Gaussian(Located):
    """z ~ N(μ, σ²), σ > 0 by softplus (Salinas et al. 2020)."""

    def __init__(self, features: int, dimensions: int = 1) -> None:
        super().__init__(features, dimensions, 2 * dimensions)

    def cost(self, parameters: Rows, z: Rows) -> Float[Tensor, "N"]:
        """-log p(z), given the parameters."""
        mean, spread = self._split(parameters)
        return (((z - mean) / spread).square() / 2 + spread.log() + math.log(2 * math.pi) / 2).sum(-1)

    def sample(self, parameters: Rows, generator: torch.Generator | None) -> Rows:
        """z for each row, by chance."""
        mean, spread = self._split(parameters)
        return mean + spread * _normal(mean, generator)

    def mean(self, parameters: Rows) -> Rows:
        """μ."""
        return self._split(parameters)[0]

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = parameters.chunk(2, -1)
        return mean, F.softplus(spread) + LEAST


class StudentT(Located):
    """z = μ + σ t with ν = 2 + softplus(..) degrees of freedom: an outlier costs less than by a Gaussian."""

    def __init__(self, features: int, dimensions: int = 1) -> None:
        super().__init__(features, dimensions, 3 * dimensions)

    def cost(self, parameters: Rows, z: Rows) -> Float[Tensor, "N"]:
        """-log p(z), given the parameters."""
        mean, spread, freedom = self._split(parameters)
        square = ((z - mean) / spread).square()
        norm = torch.lgamma((freedom + 1) / 2) - torch.lgamma(freedom / 2) - (freedom * math.pi).log() / 2
        return (spread.log() - norm + (freedom + 1) / 2 * torch.log1p(square / freedom)).sum(-1)

    def sample(self, parameters: Rows, generator: torch.Generator | None) -> Rows:
        """z for each row, by chance."""
        mean, spread, freedom = self._split(parameters)
        chi_square = 2 * torch._standard_gamma(freedom / 2, generator)
        return mean + spread * _normal(mean, generator) * (freedom / chi_square).sqrt()

    def mean(self, parameters: Rows) -> Rows:
        """μ."""
        return self._split(parameters)[0]

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, spread, freedom = parameters.chunk(3, -1)
        return mean, F.softplus(spread) + LEAST, 2 + F.softplus(freedom)


class NegativeBinomial(Density):
    """Counts: E y = μ = scale · softplus(..), Var y = μ + α μ², α > 0 by softplus (Salinas et al. 2020).

    `loc` is not read. `ConfigError` is raised for values that are no counts.
    """

    def __init__(self, features: int, dimensions: int = 1) -> None:
        super().__init__(features, dimensions, 2 * dimensions)

    def nats(self, features: Rows, values: Rows, loc: Rows, scale: Rows) -> Float[Tensor, "N"]:
        """-log p(y | f)."""
        if ((values < 0) | (values != values.round())).any():
            raise ConfigError("a negative binomial distribution is of counts, and there are other values")
        mean, alpha = self._mean_and_alpha(features, scale)
        r = 1 / alpha
        ways = torch.lgamma(values + r) - torch.lgamma(r) - torch.lgamma(values + 1)
        hit = values * (torch.log(alpha * mean) - torch.log1p(alpha * mean))
        return (r * torch.log1p(alpha * mean) - hit - ways).sum(-1)

    def draw(self, features: Rows, loc: Rows, scale: Rows, generator: torch.Generator | None = None) -> Rows:
        """A count for each row, by chance: Poisson(Gamma), whose mean is μ."""
        mean, alpha = self._mean_and_alpha(features, scale)
        rate = torch._standard_gamma(1 / alpha, generator) * alpha * mean
        return torch.poisson(rate, generator)

    def point(self, features: Rows, loc: Rows, scale: Rows) -> Rows:
        """μ."""
        return self._mean_and_alpha(features, scale)[0]

    def _mean_and_alpha(self, features: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        mean, alpha = self.linear(features).chunk(2, -1)
        return scale * (F.softplus(mean) + LEAST), F.softplus(alpha) + LEAST


class Mixture(Located):
    """z ~ Σ_k π_k N(μ_k, L_k L_kᵀ): the dimensions of a point hang together (Bishop 1994; Graves 2013)."""

    def __init__(self, features: int, dimensions: int = 1, components: int = 5) -> None:
        check_sizes(components=components)
        below = dimensions * (dimensions - 1) // 2
        self.components, self.parts = components, (1, dimensions, dimensions, below)
        super().__init__(features, dimensions, components * sum(self.parts))

    def cost(self, parameters: Rows, z: Rows) -> Float[Tensor, "N"]:
        """-log p(z), given the parameters."""
        weights, means, factors = self._split(parameters)
        whitened = torch.linalg.solve_triangular(factors, (z[:, None] - means)[..., None], upper=False)
        squares = whitened.squeeze(-1).square().sum(-1)
        norm = factors.diagonal(0, -2, -1).log().sum(-1) + self.dimensions * math.log(2 * math.pi) / 2
        return -torch.logsumexp(weights - norm - squares / 2, -1)

    def sample(self, parameters: Rows, generator: torch.Generator | None) -> Rows:
        """z for each row, by chance."""
        weights, means, factors = self._split(parameters)
        chosen = torch.multinomial(weights.exp(), 1, generator=generator)[:, 0]
        rows = torch.arange(len(chosen), device=chosen.device)
        mean, factor = means[rows, chosen], factors[rows, chosen]
        return mean + (factor @ _normal(mean, generator)[..., None]).squeeze(-1)

    def mean(self, parameters: Rows) -> Rows:
        """Σ_k π_k μ_k."""
        weights, means, _ = self._split(parameters)
        return (weights.exp()[..., None] * means).sum(-2)

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights [N, K], means [N, K, C], and L [N, K, C, C]."""
        shaped = parameters.view(*parameters.shape[:-1], self.components, sum(self.parts))
        weights, means, spreads, below = shaped.split(self.parts, -1)
        factors = torch.diag_embed(F.softplus(spreads) + LEAST)
        rows, columns = torch.tril_indices(self.dimensions, self.dimensions, -1)
        factors[..., rows, columns] = below
        return weights.squeeze(-1).log_softmax(-1), means, factors


class Quantiles(Density):
    """The quantiles of z at some levels, without a distribution between them (Wen et al. 2017).

    A value costs the mean over the levels τ of twice the pinball loss, max(τ (z - q), (τ - 1) (z - q)), which
    becomes the continuous ranked probability score with more levels. Quantiles never cross. Values are drawn
    along the line through them, none beyond the outermost.
    """

    def __init__(self, features: int, dimensions: int = 1, levels: Sequence[float] = LEVELS) -> None:
        if not levels or list(levels) != sorted(set(levels)) or not 0 < levels[0] <= levels[-1] < 1:
            raise ConfigError(f"the levels of quantiles must rise between 0 and 1, got {list(levels)}")
        super().__init__(features, dimensions, dimensions * len(levels))
        self.register_buffer("levels", torch.tensor(levels), persistent=False)

    levels: Tensor

    def quantiles(self, features: Rows, loc: Rows, scale: Rows) -> Float[Tensor, "N C Q"]:
        """The quantiles of y at all levels."""
        return loc[..., None] + scale[..., None] * self._quantiles(features)

    def nats(self, features: Rows, values: Rows, loc: Rows, scale: Rows) -> Float[Tensor, "N"]:
        """Twice the mean pinball loss of z, summed over dimensions; no nats."""
        off = ((values - loc) / scale)[..., None] - self._quantiles(features)
        return 2 * torch.maximum(self.levels * off, (self.levels - 1) * off).mean(-1).sum(-1)

    def draw(self, features: Rows, loc: Rows, scale: Rows, generator: torch.Generator | None = None) -> Rows:
        """A value for each row, by chance."""
        u = torch.rand(loc.shape, generator=generator, dtype=loc.dtype, device=loc.device)
        return loc + scale * self._between(self._quantiles(features), u)

    def point(self, features: Rows, loc: Rows, scale: Rows) -> Rows:
        """The median, on the line through the quantiles where it is none of them."""
        return loc + scale * self._between(self._quantiles(features), torch.full_like(loc, 0.5))

    def _between(self, quantiles: Float[Tensor, "N C Q"], u: Rows) -> Rows:
        """The quantiles at levels u, along the line through those that there are."""
        if len(self.levels) == 1:
            return quantiles[..., 0]
        u = u.clamp(float(self.levels[0]), float(self.levels[-1]))
        above = torch.searchsorted(self.levels, u.contiguous()).clamp(1, len(self.levels) - 1)
        low, high = (quantiles.gather(-1, k[..., None])[..., 0] for k in (above - 1, above))
        share = (u - self.levels[above - 1]) / (self.levels[above] - self.levels[above - 1])
        return low + share * (high - low)

    def _quantiles(self, features: Tensor) -> Float[Tensor, "N C Q"]:
        shaped = self.linear(features).view(len(features), self.dimensions, len(self.levels))
        first, steps = shaped[..., :1], F.softplus(shaped[..., 1:])
        return torch.cat([first, first + steps.cumsum(-1)], -1)


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
