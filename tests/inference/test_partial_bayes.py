"""A posterior over a part of the weights: what the rest counts as a point with a prior, and as a learned number."""

import pytest
import torch
from torch.distributions import Normal as TorchNormal
from torch.distributions import kl_divergence

from pyroformer.guides import Delta, FullRank, Guide, MeanField
from pyroformer.inference import SVI, OnePassELBO
from pyroformer.models import BayesianModel, Categorical, Features, Output, Transformer
from pyroformer.priors import Learned, Normal

PARTS = {"attention": "*attention*", "mlp": "*.mlp.*", "last layer": "head.*"}
X, Y = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)).double(), torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("part", PARTS)
def test_the_kl_is_that_of_the_part_and_the_log_prior_of_the_rest(part):
    torch.manual_seed(0)
    net = Transformer(Features(2, copies=2), Output(3), width=4, heads=2, depth=2)
    model = BayesianModel(net, Normal(scale=0.5), Categorical()).double()
    guide = Guide(model, {PARTS[part]: MeanField(init_scale=0.3), "*": Delta()}, (X[:2],))
    random = [name for name in guide.sites if isinstance(guide.family_of(name), MeanField)]
    word = {"attention": "attention", "mlp": "mlp", "last layer": "head"}[part]
    assert random == [name for name in model.sites if word in name.split(".")]
    assert 0 < len(random) < len(guide.sites)
    family = guide.family_of(random[0])
    prior = [TorchNormal(site.loc, 0.5) for name, site in model.sites.items() if name in random]
    locs = torch.cat(
        [p.loc.double().expand(model.sites[n].value.shape).flatten() for p, n in zip(prior, random, strict=True)]
    )
    kl = kl_divergence(TorchNormal(family.loc, family.scale), TorchNormal(locs, 0.5)).sum()
    points = {name: site for name, site in model.sites.items() if name not in random}
    rest = sum(TorchNormal(s.loc.double(), 0.5).log_prob(s.value.double()).sum() for s in points.values())
    for objective in (OnePassELBO(), OnePassELBO(num_particles=3)):
        found = objective.terms(guide, X, Y, 60).kl
        torch.testing.assert_close(found, kl - rest)
        assert not torch.allclose(found, kl)  # planted: points without their prior
        assert not torch.allclose(found, kl - 10 * rest)  # planted: scaled with the data
    draws = guide.draw(3, X[:2])
    for name, values in draws.items():
        assert torch.equal(values[0], values[1]) == (name not in random)


def exact(line, prior_precision):
    """Mean and covariance of the weights given the bias, at a prior precision of the bias."""
    precision = line.design.T @ line.design / 0.25 + torch.diag(torch.tensor([1.0, 1.0, 1.0, prior_precision]).double())
    mean = torch.linalg.solve(precision, line.design.T @ line.y.double() / 0.25).squeeze(-1)
    return mean, precision[:3, :3].inverse()


@pytest.mark.parametrize("rest", ["delta", "learned"])
def test_points_are_the_maximum_a_posteriori_and_learned_numbers_that_of_the_likelihood(line, rest):
    """Both at the mean of the weights' posterior, which is the exact one given the bias."""
    prior = {"bias": Normal(scale=0.1) if rest == "delta" else Learned(), "*": Normal()}
    families = {"weight": FullRank(init_scale=0.05), **({"*": Delta()} if rest == "delta" else {})}
    driver = SVI(epochs=300, batch_size=40, learning_rate=0.05, particles=16, dtype="float64")
    posterior = driver.run(line.model(prior), families, line.data)
    family = posterior.guide.family_of("weight")
    bias = posterior.draw(1)["bias"] if rest == "delta" else posterior.model.net.bias
    found = torch.cat([family.loc, bias.flatten()]).detach()
    mean, covariance = exact(line, 100.0 if rest == "delta" else 0.0)
    other, _ = exact(line, 0.0 if rest == "delta" else 100.0)
    assert torch.allclose(found, mean, atol=0.01)
    assert not torch.allclose(found, other, atol=0.01)  # planted: the other treatment
    tril, sd = family.scale_tril.detach(), covariance.diag().sqrt()
    apart = ((tril @ tril.mT - covariance) / (sd[:, None] * sd)).abs().max()
    assert apart < 0.1
    assert ((covariance.diag().diag() - covariance) / (sd[:, None] * sd)).abs().max() > 0.1  # planted: mean field
