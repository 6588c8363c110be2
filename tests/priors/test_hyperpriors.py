"""Priors over scales: densities by hand, draws against their law, starts inside the support."""

import math

import pytest
import torch
from scipy import stats

from pyroformer import priors
from pyroformer.priors import Gamma, HalfCauchy, Hyperprior, PrecisionGamma, SettingError, UniformScale

FIVE_SIGMA = 2 * stats.norm.sf(5)
CASES = {
    "half-Cauchy": (
        HalfCauchy(scale=0.7),
        lambda t: 2 / (math.pi * 0.7 * (1 + (t / 0.7) ** 2)),
        stats.halfcauchy(scale=0.7).cdf,
    ),
    "gamma": (
        Gamma(concentration=2.5, rate=3.0),
        lambda t: 3.0**2.5 / math.gamma(2.5) * t**1.5 * math.exp(-3 * t),
        stats.gamma(2.5, scale=1 / 3).cdf,
    ),
    "gamma of the precision": (
        PrecisionGamma(concentration=1.5, rate=0.8),
        lambda t: 2 * 0.8**1.5 / math.gamma(1.5) * t**-4 * math.exp(-0.8 / t**2),
        lambda t: stats.gamma(1.5, scale=1 / 0.8).sf(t**-2),
    ),
    "uniform": (UniformScale(low=0.5, high=2.5), lambda t: 0.5, stats.uniform(0.5, 2).cdf),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", [(), (3,)])
def test_the_density_is_that_by_hand(case, shape):
    prior, density, _ = CASES[case]
    made = prior.distribution(torch.zeros(shape, dtype=torch.float64))
    assert made.batch_shape == () and made.event_shape == shape
    value = 0.6 + torch.rand(shape, dtype=torch.float64)
    by_hand = sum(math.log(density(t)) for t in value.flatten().tolist())
    assert made.log_prob(value).item() == pytest.approx(by_hand, rel=1e-9)
    if case != "uniform":
        wrong = sum(math.log(density(1.05 * t)) for t in value.flatten().tolist())
        assert made.log_prob(value).item() != pytest.approx(wrong, rel=1e-5)  # planted


@pytest.mark.parametrize("case", CASES)
def test_draws_follow_their_law(case):
    prior, _, cdf = CASES[case]
    draws = prior.distribution(torch.zeros(10_000)).sample()
    assert stats.kstest(draws.numpy(), cdf).pvalue > FIVE_SIGMA
    assert stats.kstest((1.15 * draws).numpy(), cdf).pvalue < FIVE_SIGMA  # planted


@pytest.mark.parametrize(
    ("prior", "start"),
    [
        (HalfCauchy(), 1.0),
        (HalfCauchy(scale=0.1), 0.1),
        (Gamma(concentration=3.0, rate=2.0), 1.5),
        (PrecisionGamma(concentration=0.5, rate=2.0), 2.0),
        (UniformScale(), 1.0),
        (UniformScale(low=2.0, high=6.0), 4.0),
        (UniformScale(high=1.0), 0.5),
    ],
)
def test_the_start_is_inside_the_support(prior, start):
    like = torch.zeros(2, dtype=torch.float64)
    assert prior.start(like).tolist() == [start, start] and prior.start(like).dtype == torch.float64
    assert torch.isfinite(prior.distribution(like).log_prob(prior.start(like)))


@pytest.mark.parametrize(
    ("build", "key", "accepted"),
    [
        (lambda: HalfCauchy(scale=0.0), "scale", "a number above 0"),
        (lambda: Gamma(concentration=-1.0), "concentration", "a number above 0"),
        (lambda: Gamma(rate=math.inf), "rate", "a number above 0"),
        (lambda: PrecisionGamma(rate=0.0), "rate", "a number above 0"),
        (lambda: UniformScale(low=-0.1), "low", "a number of at least 0"),
        (lambda: UniformScale(low=3.0, high=3.0), "high", "a number above low = 3.0"),
        (lambda: UniformScale(high=math.inf), "high", "a number above low = 0.0"),
    ],
)
def test_wrong_settings(build, key, accepted):
    with pytest.raises(SettingError) as caught:
        build()
    assert caught.value.key == key and accepted in caught.value.expected


def test_every_hyperprior_is_tested_here():
    exported = [getattr(priors, name) for name in priors.__all__]
    found = {cls for cls in exported if isinstance(cls, type) and issubclass(cls, Hyperprior)} - {Hyperprior}
    assert found == {type(prior) for prior, _, _ in CASES.values()}
