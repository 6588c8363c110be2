"""Every prior with a scale: its density by hand, its draws against their law, and what mixtures add."""

import math

import pytest
import torch
from scipy import stats

from pyroformer.priors import (
    Cauchy,
    EntrywiseMixture,
    ExponentialPower,
    GeneralizedNormal,
    Laplace,
    Mixture,
    Normal,
    ScaleFamily,
    ScaleMixture,
    SettingError,
    Site,
    StudentT,
    Uniform,
)

FIVE_SIGMA = 2 * stats.norm.sf(5)


def normal(z, s):
    return math.exp(-0.5 * (z / s) ** 2) / (s * math.sqrt(2 * math.pi))


def laplace(z, s):
    return math.exp(-abs(z) / s) / (2 * s)


def student_t(z, s, df):
    front = math.gamma((df + 1) / 2) / (math.gamma(df / 2) * math.sqrt(math.pi * df) * s)
    return front * (1 + (z / s) ** 2 / df) ** (-(df + 1) / 2)


def cauchy(z, s):
    return 1 / (math.pi * s * (1 + (z / s) ** 2))


def generalized_normal(z, s, power):
    return power / (2 * s * math.gamma(1 / power)) * math.exp(-((abs(z) / s) ** power))


# the prior, its density at a distance from the centre when every scale is multiplied, and the same law in scipy
CASES = {
    "normal": (Normal(scale=0.7), lambda z, f: normal(z, 0.7 * f), stats.norm(scale=0.7).cdf),
    "laplace": (Laplace(scale=0.7), lambda z, f: laplace(z, 0.7 * f), stats.laplace(scale=0.7).cdf),
    "student t": (StudentT(scale=0.7), lambda z, f: student_t(z, 0.7 * f, 3), stats.t(3, scale=0.7).cdf),
    "student t 5": (StudentT(df=5.5), lambda z, f: student_t(z, f, 5.5), stats.t(5.5).cdf),
    "cauchy": (Cauchy(scale=0.7), lambda z, f: cauchy(z, 0.7 * f), stats.cauchy(scale=0.7).cdf),
    "generalized normal": (
        GeneralizedNormal(scale=0.7),
        lambda z, f: generalized_normal(z, 0.7 * f, 1.5),
        stats.gennorm(1.5, scale=0.7).cdf,
    ),
    "generalized normal 0.5": (
        GeneralizedNormal(power=0.5),
        lambda z, f: generalized_normal(z, f, 0.5),
        stats.gennorm(0.5).cdf,
    ),
    "uniform": (Uniform(scale=3.0), lambda z, f: 1 / (6 * f), stats.uniform(-3, 6).cdf),
    "mixture": (
        Mixture(components=[Normal(scale=2.0), Laplace(scale=0.1), Uniform(scale=0.5)], weights=[2, 1, 1]),
        lambda z, f: 0.5 * normal(z, 2 * f) + 0.25 * laplace(z, 0.1 * f) + 0.25 * (abs(z) <= 0.5 * f) / f,
        lambda x: (
            0.5 * stats.norm.cdf(x, scale=2)
            + 0.25 * stats.laplace.cdf(x, scale=0.1)
            + 0.25 * stats.uniform.cdf(x, -0.5, 1)
        ),
    ),
    "mixture of mixtures": (
        Mixture(components=[ScaleMixture(prior=Cauchy(), factors=[0.5, 2.0]), Normal()]),
        lambda z, f: (cauchy(z, 0.5 * f) + cauchy(z, 2 * f)) / 4 + normal(z, f) / 2,
        lambda x: (stats.cauchy.cdf(x, scale=0.5) + stats.cauchy.cdf(x, scale=2)) / 4 + stats.norm.cdf(x) / 2,
    ),
    "scale mixture": (
        ScaleMixture(),
        lambda z, f: sum(normal(z, f * k) for k in (1 / 9, 1 / 3, 1, 3, 9)) / 5,
        lambda x: sum(stats.norm.cdf(x, scale=k) for k in (1 / 9, 1 / 3, 1, 3, 9)) / 5,
    ),
}
EACH = pytest.mark.parametrize("case", CASES)


def site(*shape, center=0.0, **facts):
    return Site("weight", torch.zeros(shape, dtype=torch.float64), center=center, **facts)


@EACH
@pytest.mark.parametrize("shape", [(), (5,), (3, 4)])
@pytest.mark.parametrize("center", [0.0, 1.0])
def test_the_density_is_that_by_hand(case, shape, center):
    prior, density, _ = CASES[case]
    made = prior.distribution(site(*shape, center=center))
    value = center + 2 * torch.rand(shape, dtype=torch.float64) - 1

    def by_hand(center, factor=1.0):
        return sum(math.log(density(v - center, factor)) for v in value.flatten().tolist())

    assert made.batch_shape == () and made.event_shape == shape
    found = made.log_prob(value).item()
    assert found == pytest.approx(by_hand(center), rel=1e-9, abs=1e-12)
    assert found != pytest.approx(by_hand(center, 1.05), rel=1e-5)  # planted: another scale
    if case != "uniform":
        assert found != pytest.approx(by_hand(1 - center), rel=1e-5)  # planted: another centre


@EACH
def test_draws_follow_their_law(case):
    prior, _, cdf = CASES[case]
    torch.manual_seed(1)
    draws = prior.distribution(site(100, 100, center=1.0)).sample().flatten() - 1
    assert stats.kstest(draws.numpy(), cdf).pvalue > FIVE_SIGMA
    assert stats.kstest((1.25 * draws).numpy(), cdf).pvalue < FIVE_SIGMA  # planted: another scale
    assert stats.kstest((draws + 0.2).numpy(), cdf).pvalue < FIVE_SIGMA  # planted: another centre


@EACH
def test_a_factor_on_the_scale_may_have_sample_dimensions(case):
    prior, density, _ = CASES[case]
    factor = torch.tensor([0.5, 3.0], dtype=torch.float64).view(2, 1, 1, 1)
    made = prior.distribution(site(2, 3, scale=factor))
    assert made.batch_shape == (2, 1) and made.event_shape == (2, 3)
    value = 0.4 * torch.rand(2, 3, dtype=torch.float64)
    expected = [sum(math.log(density(v, f)) for v in value.flatten().tolist()) for f in (0.5, 3.0)]
    assert made.log_prob(value).flatten().tolist() == pytest.approx(expected, rel=1e-9)
    assert made.log_prob(value).flatten().tolist() != pytest.approx(expected[::-1], rel=1e-3)  # planted
    assert made.sample((5,)).shape == (5, 2, 1, 2, 3)


@EACH
def test_it_can_be_expanded_and_scored_with_leading_dimensions(case):
    made = CASES[case][0].distribution(site(3, 4))
    wide = made.expand((6, 1))
    assert wide.batch_shape == (6, 1) and wide.sample((2,)).shape == (2, 6, 1, 3, 4)
    value = wide.sample()
    torch.testing.assert_close(wide.log_prob(value), made.log_prob(value))
    assert len(torch.unique(value)) == value.numel()


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_follows_the_dtype_and_its_density_has_gradients(case, dtype):
    prior, density, _ = CASES[case]
    made = prior.distribution(Site("weight", torch.zeros(2, 3, dtype=dtype)))
    value = (0.1 + 0.3 * torch.rand(2, 3, dtype=dtype)).requires_grad_()
    assert made.sample().dtype == dtype
    (gradient,) = torch.autograd.grad(made.log_prob(value) + 0 * value.sum(), value)
    step = 1e-5
    for v, g in zip(value.flatten().tolist(), gradient.flatten().tolist(), strict=True):
        slope = (math.log(density(v + step, 1.0)) - math.log(density(v - step, 1.0))) / (2 * step)
        assert g == pytest.approx(slope, rel=1e-3, abs=1e-3)


@EACH
def test_the_gradient_at_the_centre_is_finite(case):
    """Biases and gains of normalisation layers start there."""
    value = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(CASES[case][0].distribution(site(3)).log_prob(value) + 0 * value.sum(), value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("power", [0.7, 1.0, 2.0, 6.0])
def test_moments_of_the_exponential_power_distribution(power, standard_errors):
    made = ExponentialPower(torch.tensor([0.5, -1.0]), torch.tensor(2.0), power)
    exact = 4 * math.gamma(3 / power) / math.gamma(1 / power)
    assert made.mean.tolist() == [0.5, -1.0]
    assert made.variance.tolist() == pytest.approx([exact, exact], rel=1e-5)
    draws = made.sample((20_000,))
    assert standard_errors(draws, made.mean) < 5 and standard_errors((draws - made.mean).square(), exact) < 5
    assert standard_errors((draws - made.mean).square(), 1.15 * exact) > 5  # planted


def test_draws_of_the_exponential_power_distribution_are_reparameterised():
    loc, scale = torch.tensor(0.5, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    draw = ExponentialPower(loc, scale, 1.5).rsample((7,))
    by_loc, by_scale = torch.autograd.grad(draw.sum(), [loc, scale])
    assert by_loc == 7
    torch.testing.assert_close(by_scale, ((draw - loc) / scale).sum().detach())


def test_moments_of_a_mixture_are_those_of_its_draws(standard_errors):
    made = EntrywiseMixture(
        torch.tensor([0.3, 0.7]), [torch.distributions.Normal(-1.0, 0.5), torch.distributions.Normal(2.0, 1.0)]
    )
    draws = made.sample((20_000,)).unsqueeze(-1)
    assert float(made.mean) == pytest.approx(0.3 * -1 + 0.7 * 2)
    assert float(made.variance) == pytest.approx(0.3 * (0.25 + 1) + 0.7 * (1 + 4) - float(made.mean) ** 2)
    assert standard_errors(draws, made.mean) < 5 and standard_errors((draws - made.mean).square(), made.variance) < 5
    assert standard_errors(draws, made.mean + 0.1) > 5  # planted


def test_entries_of_a_mixture_are_independent():
    """One component a tensor would give whole tensors of the same size; the twin draws such."""
    prior = Mixture(components=[Normal(scale=1e-3), Normal(scale=1e3)])
    small = prior.distribution(site(4, 50)).sample().abs() < 1
    assert 0.2 < small.double().mean() < 0.8 and small.any(1).all() and not small.all(1).any()
    whole = torch.stack([torch.full((50,), bool(k)) for k in (0, 1, 1, 0)])  # planted
    assert whole.all(1).any()


def test_a_uniform_prior_ends_at_its_bounds():
    made = Uniform(scale=0.5).distribution(site(2, center=1.0))
    for value, expected in {(0.5, 1.5): 0.0, (0.6, 1.0): 0.0, (0.49, 1.0): -math.inf, (1.0, 1.51): -math.inf}.items():
        assert made.log_prob(torch.tensor(value, dtype=torch.float64)) == expected
    support = made.support.base_constraint
    assert support.lower_bound.tolist() == [0.5, 0.5] and support.upper_bound.tolist() == [1.5, 1.5]


def test_a_mixture_is_bounded_where_all_of_its_components_are():
    bounded = Mixture(components=[Uniform(scale=0.5), Uniform(scale=2.0)]).distribution(site(3))
    assert bounded.support.base_constraint.upper_bound.tolist() == [2.0] * 3
    assert bounded.log_prob(torch.full((3,), 1.0, dtype=torch.float64)).item() == pytest.approx(3 * math.log(0.125))
    real = Mixture(components=[Uniform(), Normal()]).distribution(site(3))
    assert real.support.base_constraint is torch.distributions.constraints.real


class Stiff(ScaleFamily):
    """A prior over entries that are not independent."""

    def distribution(self, site):
        import pyro.distributions as dist

        return dist.MultivariateNormal(site.loc, torch.eye(len(site.loc), dtype=site.value.dtype))


def test_a_mixture_wants_independent_entries():
    with pytest.raises(ValueError, match=r"MultivariateNormal has the event shape \(3,\): expected \(\)"):
        Mixture(components=[Stiff()]).distribution(site(3))


@pytest.mark.parametrize(
    ("build", "key", "accepted"),
    [
        (lambda: StudentT(df=0), "df", "a number above 0"),
        (lambda: GeneralizedNormal(power=-1.0), "power", "a number above 0"),
        (lambda: Laplace(scale=0), "scale", "a number above 0"),
        (lambda: Mixture(components=[]), "components", "a list of priors"),
        (lambda: Mixture(components=Normal()), "components", "a list of priors"),
        (lambda: Mixture(components=[Normal(), 3]), "components.1", "a prior with a scale"),
        (lambda: Mixture(weights=[1.0]), "weights", "2 numbers above 0"),
        (lambda: Mixture(weights=[1.0, 0.0]), "weights.1", "a number above 0"),
        (lambda: Mixture(weights=[True, 1.0]), "weights.0", "a number above 0"),
        (lambda: ScaleMixture(prior=None), "prior", "a prior with a scale"),
        (lambda: ScaleMixture(factors=()), "factors", "a list of numbers above 0"),
        (lambda: ScaleMixture(factors=3.0), "factors", "a list of numbers above 0"),
        (lambda: ScaleMixture(factors=(1.0, math.nan)), "factors.1", "a number above 0"),
        (lambda: ScaleMixture(weights=(1.0,)), "weights", "5 numbers above 0"),
    ],
)
def test_wrong_settings(build, key, accepted):
    with pytest.raises(SettingError) as caught:
        build()
    assert caught.value.key == key and accepted in caught.value.expected
