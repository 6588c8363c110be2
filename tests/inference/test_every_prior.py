"""Every weight prior that is exported builds, draws, scores, is fitted, saved and loaded, and predicts the same."""

import math

import pytest
import torch
from pyro import poutine

from pyroformer import priors
from pyroformer.guides import Delta, MeanField
from pyroformer.inference import SVI, Data, Posterior
from pyroformer.models import BayesianModel, Features, Gaussian, Output, Transformer, sample_sites
from pyroformer.priors import HierarchicalPrior, LogNormal, Normal, Prior

X = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
Y = X.sum(-1, keepdim=True)
EXPORTED = [cls for name in priors.__all__ if isinstance(cls := getattr(priors, name), type)]
CHOICES = {
    cls.__name__: cls for cls in EXPORTED if issubclass(cls, Prior | HierarchicalPrior) and not cls.__abstractmethods__
}


def model_of(prior):
    torch.manual_seed(0)
    net = Transformer(Features(2, copies=1), Output(1), width=2, heads=1, depth=1)
    if isinstance(prior, LogNormal):  # which is for gains alone
        prior = {"*norm*.weight": prior, "*": Normal()}
    return BayesianModel(net, prior, Gaussian(scale=0.5))


def test_there_are_such_priors():
    assert {"Laplace", "StudentT", "Cauchy", "GeneralizedNormal", "Uniform", "Mixture", "ScaleMixture"} < set(CHOICES)
    assert {"Normal", "Improper", "Hierarchical", "Horseshoe", "ARD", "EmpiricalBayes", "SpikeAndSlab"} < set(CHOICES)
    assert {"MatrixNormal", "MultivariateT", "Pretrained", "PerHead", "HeadBlocks", "LogNormal"} < set(CHOICES)


@pytest.mark.parametrize("family", [MeanField, Delta])
@pytest.mark.parametrize("name", CHOICES)
def test_every_prior_goes_all_the_way(name, family, tmp_path):
    model = model_of(CHOICES[name]())
    with torch.no_grad():
        trace = poutine.trace(model).get_trace(X, Y)
        assert math.isfinite(trace.log_prob_sum())
    sites = sample_sites(model)
    assert {site: trace.nodes[site]["value"].shape for site in sites} == {n: s.shape for n, s in sites.items()}
    start = model.initial_values()
    assert set(start) == set(sites)
    with torch.no_grad():
        assert math.isfinite(poutine.trace(poutine.condition(model, data=start)).get_trace(X, Y).log_prob_sum())

    posterior = SVI(epochs=2, batch_size=4, particles=2).run(model, family(), Data(X, Y))
    draws, predicted = posterior.draw(3), posterior.predict(X, 3)
    for site, values in draws.items():
        support = sites[site].distribution.support
        assert values.shape[1:] == sites[site].shape and support.check(values.squeeze(0)).all()
    posterior.save(tmp_path / "posterior")
    again = Posterior.load(tmp_path / "posterior", model_of(CHOICES[name]()))
    assert torch.equal(again.predict(X, 3).loc, predicted.loc)
    assert not torch.equal(model_of(CHOICES[name]())(X), predicted.loc[0])  # planted: the prior in its place
