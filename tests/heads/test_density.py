"""Distributions of numbers against torch's and scipy's, and their draws against themselves."""

import pytest
import torch
from scipy import stats
from torch import distributions as D
from torch.nn import functional as F

from throughtime.errors import ConfigError
from throughtime.heads.density import LEAST, Gaussian, Mixture, NegativeBinomial, Quantiles, StudentT

FEATURES, ROWS = 5, 7


def problem(dimensions, seed=0):
    torch.manual_seed(seed)
    features = torch.randn(ROWS, FEATURES, dtype=torch.float64)
    loc = torch.randn(ROWS, dimensions, dtype=torch.float64) * 3
    scale = torch.rand(ROWS, dimensions, dtype=torch.float64) + 0.5
    values = loc + scale * torch.randn(ROWS, dimensions, dtype=torch.float64)
    return features, values, loc, scale


def make(kind, dimensions=1, **options):
    torch.manual_seed(1)
    return kind(FEATURES, dimensions, **options).double()


def draws(head, features, loc, scale, count=20_000):
    """Many values for the first row."""
    generator = torch.Generator().manual_seed(0)
    rows = [each[:1].expand(count, -1) for each in (features, loc, scale)]
    return head.draw(*rows, generator)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_a_gaussian_is_torchs(dimensions):
    head, (features, values, loc, scale) = make(Gaussian, dimensions), problem(dimensions)
    mean, spread = head.linear(features).chunk(2, -1)
    truth = D.Normal(loc + scale * mean, scale * (F.softplus(spread) + LEAST))
    torch.testing.assert_close(head.nats(features, values, loc, scale), -truth.log_prob(values).sum(-1))
    torch.testing.assert_close(head.point(features, loc, scale), truth.mean)
    found = draws(head, features, loc, scale)
    torch.testing.assert_close(found.mean(0), truth.mean[0], rtol=0.05, atol=0.05)
    torch.testing.assert_close(found.std(0), truth.stddev[0], rtol=0.05, atol=0)


def test_a_student_t_is_torchs():
    head, (features, values, loc, scale) = make(StudentT), problem(1)
    mean, spread, freedom = head.linear(features).chunk(3, -1)
    truth = D.StudentT(2 + F.softplus(freedom), loc + scale * mean, scale * (F.softplus(spread) + LEAST))
    torch.testing.assert_close(head.nats(features, values, loc, scale), -truth.log_prob(values).sum(-1))
    torch.testing.assert_close(head.point(features, loc, scale), truth.mean)
    found = draws(head, features, loc, scale)[:, 0]
    own = stats.t(truth.df[0].item(), truth.loc[0].item(), truth.scale[0].item())
    assert stats.kstest(found.detach().numpy(), own.cdf).pvalue > 1e-3


def test_a_negative_binomial_is_scipys_and_of_counts():
    head, (features, _, loc, scale) = make(NegativeBinomial), problem(1)
    scale = 20 * scale
    counts = torch.arange(ROWS, dtype=torch.float64)[:, None]
    mean, alpha = head._mean_and_alpha(features, scale)
    r = 1 / alpha
    truth = stats.nbinom(r.detach().numpy(), (r / (r + mean)).detach().numpy())
    found = head.nats(features, counts, loc, scale)
    torch.testing.assert_close(found.detach(), torch.tensor(-truth.logpmf(counts.numpy())[:, 0]))
    assert head.point(features, loc, scale).detach().numpy() == pytest.approx(truth.mean())
    values = draws(head, features, loc, scale).detach()
    assert (values == values.round()).all() and (values >= 0).all()
    assert values.mean().item() == pytest.approx(mean[0].item(), rel=0.05)
    variance = (mean + alpha * mean**2)[0].item()
    assert values.var().item() == pytest.approx(variance, rel=0.1)
    for wrong in (-1.0, 0.5):
        with pytest.raises(ConfigError, match="is of counts"):
            head.nats(features, torch.full_like(counts, wrong), loc, scale)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_mixture_is_torchs(dimensions):
    head, (features, values, loc, scale) = make(Mixture, dimensions, components=3), problem(dimensions)
    weights, means, factors = head._split(head.linear(features))
    assert not factors.triu(1).any()
    truth = D.MixtureSameFamily(
        D.Categorical(logits=weights), D.MultivariateNormal(means, scale_tril=factors)
    )
    expected = -truth.log_prob((values - loc) / scale) + scale.log().sum(-1)
    torch.testing.assert_close(head.nats(features, values, loc, scale), expected)
    found = draws(head, features, loc, scale).detach()
    torch.testing.assert_close(head.point(features, loc, scale), loc + scale * truth.mean)
    torch.testing.assert_close(found.mean(0), (loc + scale * truth.mean)[0].detach(), rtol=0.05, atol=0.1)
    if dimensions > 1:  # the dimensions hang together
        standard = (found - loc[0]) / scale[0]
        own = truth.sample((20_000,))[:, 0]
        torch.testing.assert_close(torch.cov(standard.T), torch.cov(own.T), rtol=0.1, atol=0.1)


def test_quantiles_rise_and_cost_twice_the_pinball_loss():
    levels = (0.1, 0.5, 0.9)
    head, (features, values, loc, scale) = make(Quantiles, 1, levels=levels), problem(1)
    quantiles = head.quantiles(features, loc, scale)
    assert (quantiles.diff(dim=-1) > 0).all()
    off = (values - quantiles[:, 0]) / scale
    pinball = sum(
        torch.where(off[:, k] >= 0, level * off[:, k], (level - 1) * off[:, k])
        for k, level in enumerate(levels)
    )
    torch.testing.assert_close(head.nats(features, values, loc, scale), 2 * pinball / 3, rtol=1e-6, atol=1e-6)
    found = draws(head, features, loc, scale)[:, 0].detach()
    low, middle, high = quantiles[0, 0].tolist()
    assert (head.point(features, loc, scale) == quantiles[..., 1]).all()
    assert low <= found.min() and found.max() <= high
    assert (found <= middle).double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert (found <= low + 1e-9).double().mean().item() == pytest.approx(0.1, abs=0.02)
    one = make(Quantiles, 1, levels=(0.5,))
    assert (draws(one, features, loc, scale, 3) == one.quantiles(features, loc, scale)[0, 0, 0]).all()
    for wrong in ((), (0.5, 0.1), (0.0, 0.5), (0.5, 1.0)):
        with pytest.raises(ConfigError, match="must rise between 0 and 1"):
            Quantiles(FEATURES, 1, wrong)


@pytest.mark.parametrize("kind", [Gaussian, StudentT, Mixture, Quantiles])
def test_what_is_not_there_costs_nothing_and_scale_is_counted(kind):
    head, (features, values, loc, scale) = make(kind, 2), problem(2)
    values[2, 1] = torch.nan
    loss = head.loss(features.view(1, ROWS, -1), *(each.view(1, ROWS, 2) for each in (values, loc, scale)))
    rows = [k for k in range(ROWS) if k != 2]
    expected = head.nats(features[rows], values[rows], loc[rows], scale[rows]).sum()
    torch.testing.assert_close(loss.total, expected)
    assert loss.count == ROWS - 1
    loss.total.backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize("kind", [Gaussian, StudentT, NegativeBinomial, Mixture, Quantiles])
def test_gradients_are_right(kind):
    head, (features, values, loc, scale) = make(kind), problem(1)
    values = values.abs().round()
    assert torch.autograd.gradcheck(
        lambda f, *_: head.nats(f, values, loc, scale), (features.requires_grad_(), *head.parameters())
    )
