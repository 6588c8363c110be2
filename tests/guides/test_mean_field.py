"""Mean field: closed forms, transformed sites, draws."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch.distributions import LogNormal as TorchLogNormal
from torch.distributions import Normal as TorchNormal
from torch.distributions import kl_divergence

from pyroformer.guides import Guide, MeanField
from pyroformer.inference import OnePassELBO
from pyroformer.models import BayesianModel, Gaussian
from pyroformer.priors import Improper, Normal

X = torch.linspace(-1, 1, 8).unsqueeze(-1).double()
Y = 0.5 * X + 0.2


def line(prior, **likelihood):
    torch.manual_seed(0)
    model = BayesianModel(torch.nn.Linear(1, 1), prior, Gaussian(**{"scale": 0.5, **likelihood})).double()
    return model, Guide(model, MeanField(init_scale=0.3), (X[:2],))


def spread(guide, generator=None):
    """Give every entry of the posterior a mean and a scale of its own."""
    family = guide.family_of(guide.sites[0])
    with torch.no_grad():
        family.loc.copy_(torch.linspace(-1, 1, len(family.loc)))
        family.log_scale.copy_(torch.linspace(-2, 0.2, len(family.loc)))
    return family


def normal(scale=1.0):
    return TorchNormal(*torch.tensor([0.0, scale], dtype=torch.float64))


def entropy(family):
    return TorchNormal(family.loc, family.scale).entropy()


def close(a, b):
    return torch.allclose(torch.as_tensor(a).double(), torch.as_tensor(b).double(), rtol=1e-10)


def test_kl_to_a_normal_prior_is_that_of_torch():
    _, guide = line(Normal(scale=0.7))
    family = spread(guide)
    by_torch = kl_divergence(TorchNormal(family.loc, family.scale), normal(0.7)).sum()
    kl = OnePassELBO().terms(guide, X, Y, 100).kl
    assert close(kl, by_torch)
    assert not close(kl, by_torch * 100 / 8)  # planted: global sites count once, whatever the size of the data


def test_kl_to_a_flat_prior_is_minus_the_entropy():
    _, guide = line(Improper())
    family = spread(guide)
    terms = OnePassELBO(temperature=0.5).terms(guide, X, Y)
    assert close(terms.kl, -entropy(family).sum())
    assert close(terms.entropy, entropy(family).sum())
    assert not close(terms.kl, kl_divergence(TorchNormal(family.loc, family.scale), normal()).sum())


def test_priors_may_differ_from_site_to_site():
    _, guide = line({"bias": Improper(), "*": Normal(scale=2.0)})
    family = spread(guide)
    q = TorchNormal(family.loc[0], family.scale[0])  # the weight
    by_hand = kl_divergence(q, normal(2.0)) - entropy(family)[1]
    assert close(OnePassELBO().terms(guide, X, Y).kl, by_hand)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_temperature_multiplies_the_entropy_alone(temperature):
    _, guide = line(Normal(scale=0.7))
    family = spread(guide)
    objective = OnePassELBO(temperature=temperature)
    terms = objective.terms(guide, X, Y)
    expected_log_prior = -(terms.kl + entropy(family).sum())
    by_hand = -terms.log_likelihood - expected_log_prior - temperature * entropy(family).sum()
    assert close(objective.loss_of(terms), by_hand)
    assert close(objective.loss_of(terms, beta=0.0), -terms.log_likelihood)
    assert not close(objective.loss_of(terms), by_hand + 0.1 * entropy(family).sum())  # planted


class TestPositiveSite:
    """``noise_scale`` is lognormal under the posterior: normal in log space, with the Jacobian of the exponential."""

    def fitted(self):
        model, guide = line(Normal(), noise="random", scale=0.5)
        family = spread(guide)
        with torch.no_grad():
            family.log_scale.copy_(torch.tensor([-2.0, -1.5, -1.2]))
            family.loc[2] = -0.3
        return model, guide, TorchLogNormal(family.loc[2], family.scale[2])

    def test_draws_are_lognormal(self):
        _, guide, q = self.fitted()
        torch.manual_seed(0)
        draws = guide.draw(4000, X[:2])["noise_scale"]
        assert draws.shape == (4000,) and (draws > 0).all()
        error = (draws.log().mean() - q.loc).abs() / (q.scale / math.sqrt(4000))
        assert error < 5
        assert abs(draws.log().std() / q.scale - 1) < 5 / math.sqrt(8000)

    def test_kl_is_that_of_two_lognormals_in_expectation(self):
        _, guide, q = self.fitted()
        family = guide.family_of("weight")
        prior = TorchLogNormal(torch.tensor(math.log(0.5)).double(), torch.tensor(1.0).double())
        weights = kl_divergence(TorchNormal(family.loc[:2], family.scale[:2]), normal()).sum()
        torch.manual_seed(0)
        drawn = torch.stack([OnePassELBO().terms(guide, X, Y).kl for _ in range(500)]).detach()
        exact, error = weights + kl_divergence(q, prior), drawn.std() / math.sqrt(500)
        assert (drawn.mean() - exact).abs() / error < 5
        assert (drawn.mean() - exact - q.loc).abs() / error > 5  # planted: without the Jacobian's mean

    def test_the_bound_equals_monte_carlo_with_the_jacobian(self):
        model, guide, _ = self.fitted()
        family = guide.family_of("weight")
        torch.manual_seed(0)
        w = family.loc + family.scale * torch.randn(100_000, 3, dtype=torch.float64)
        s = w[:, 2].exp()
        mean = X.T * w[:, :1] + w[:, 1:2]
        log_joint = TorchNormal(mean, s.unsqueeze(-1)).log_prob(Y.T).sum(-1)
        log_joint += normal().log_prob(w[:, :2]).sum(-1)
        log_joint += TorchLogNormal(math.log(0.5), 1.0).log_prob(s)
        in_log_space = TorchNormal(family.loc, family.scale).log_prob(w).sum(-1)
        bound = log_joint - (in_log_space - w[:, 2])
        error = bound.std() / math.sqrt(len(bound))

        def apart(objective, count):
            values = torch.tensor([-objective.loss(model, guide, X, Y) for _ in range(count)])
            return (values.mean() - bound.mean()).abs() / (values.var() / count + error**2).sqrt()

        for objective in (OnePassELBO(), Trace_ELBO()):
            assert apart(objective, 250) < 5
        assert apart(OnePassELBO(num_particles=20), 100) < 5
        planted = (log_joint - in_log_space).mean()  # without the Jacobian
        assert (planted - bound.mean()).abs() / error > 5


def test_draws_have_the_moments_of_the_posterior():
    _, guide = line(Normal())
    family = spread(guide)
    torch.manual_seed(0)
    draws = guide.draw(3000, X[:2])
    assert {name: tuple(value.shape) for name, value in draws.items()} == {"weight": (3000, 1, 1), "bias": (3000, 1)}
    flat = torch.cat([draws["weight"].flatten(1), draws["bias"]], 1)
    assert ((flat.mean(0) - family.loc) / (family.scale / math.sqrt(3000))).abs().max() < 5
    assert (flat.std(0) / family.scale - 1).abs().max() < 5 / math.sqrt(6000)
    assert (flat.std(0) / family.log_scale.exp().square() - 1).abs().max() > 5 / math.sqrt(6000)  # planted
    assert not flat.requires_grad
    correlation = torch.corrcoef(flat.T)[0, 1]
    assert correlation.abs() < 5 / math.sqrt(3000)


def test_a_single_draw_keeps_its_axis():
    _, guide = line(Normal(), noise="random")
    assert {tuple(value.shape) for value in guide.draw(1, X[:2]).values()} == {(1, 1, 1), (1, 1), (1,)}


def test_part_of_the_sites_under_scale_or_mask_is_counted_as_pyro_does():
    def model(x):
        a = pyro.sample("a", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.poutine.scale(scale=3.0):
            b = pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.poutine.mask(mask=False):
            c = pyro.sample("c", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        return a + b + c

    guide = Guide(model, MeanField(init_scale=0.5), (X,))
    family = spread(guide)
    kl = kl_divergence(TorchNormal(family.loc, family.scale), normal())
    by_hand = kl[:2].sum() + 3 * kl[2:4].sum()
    assert torch.allclose(OnePassELBO().terms(guide, X).kl, by_hand)
    tempered = OnePassELBO(temperature=0.5).terms(guide, X).entropy
    assert torch.allclose(tempered, entropy(family)[:2].sum() + 3 * entropy(family)[2:4].sum())
    assert not torch.allclose(by_hand, kl[:4].sum())  # planted


def test_summary_tells_the_scales():
    _, guide = line(Normal())
    spread(guide)
    summary = guide.summary()["mean_field"]["scale"]
    assert summary["min"] == pytest.approx(math.exp(-2)) and summary["max"] == pytest.approx(math.exp(0.2))
