"""Estimates from minibatches against the density on all data."""

from functools import cache
from itertools import combinations

import pytest
import torch
from torch import nn

from pyroformer.inference import Data
from pyroformer.inference.density import FlatDensity
from pyroformer.inference.stochastic_gradient.minibatch_density import MinibatchDensity
from pyroformer.models import BayesianModel, Categorical, Features, Gaussian, Output, Transformer
from pyroformer.priors import Normal

X = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
REAL, LABELS = X.sum(-1, keepdim=True), torch.tensor([0, 2, 1, 1, 0, 2])
INDEX = torch.tensor(list(combinations(range(6), 2)))  # every minibatch of two


def noisy():
    """A positive site, whose Jacobian counts, beside weights."""
    torch.manual_seed(0)
    return BayesianModel(nn.Linear(2, 1), Normal(), Gaussian(noise="random")).double(), Data(X, REAL)


def transformer():
    torch.manual_seed(0)
    net = Transformer(Features(2, copies=2), Output(3), width=4, heads=2, depth=1)
    return BayesianModel(net, Normal(scale=0.5), Categorical()).double(), Data(X, LABELS)


@cache
def density(case, trace, temperature=1.0):
    model, data = case()
    return MinibatchDensity(model, data, batch_size=2, chains=len(INDEX), temperature=temperature, trace=trace)


@pytest.mark.parametrize("trace", [True, False], ids=["traced", "run"])
@pytest.mark.parametrize(("case", "temperature"), [(noisy, 1.0), (noisy, 0.25), (transformer, 1.0)])
def test_the_mean_over_all_minibatches_is_the_density(case, temperature, trace):
    found, (model, data) = density(case, trace, temperature), case()
    assert found.traced == trace
    exact = FlatDensity(model, (data.x, data.y), temperature=temperature, trace=False)
    z = exact.start() + 0.1 * torch.randn(exact.size, dtype=torch.float64)
    value, gradient = exact.log_prob_and_grad(z)
    estimate = found(z.expand(len(INDEX), -1), INDEX)
    assert torch.allclose(estimate.log_prob.mean(), value)
    assert torch.allclose(estimate.gradient.mean(0), gradient)
    prior, _ = FlatDensity(model, (data.x, data.y), temperature=2 * temperature, trace=False).log_prob_and_grad(z)
    assert not torch.allclose(estimate.log_prob.mean(), prior)  # planted: another temperature
    alone = MinibatchDensity(model, data, batch_size=2, chains=15, temperature=temperature, trace=False)
    alone.total = 2
    unscaled = alone(z.expand(len(INDEX), -1), INDEX)
    assert not torch.allclose(unscaled.gradient.mean(0), gradient)  # planted: a minibatch counts as itself
    assert torch.allclose(unscaled.log_likelihood.mean() * 3, estimate.log_likelihood.mean())


def test_each_chain_has_its_own_place_and_minibatch():
    together = density(transformer, True, 1.0)
    z = together.layout.start() + 0.3 * torch.randn(len(INDEX), together.layout.size, dtype=torch.float64)
    estimate = together(z, INDEX)
    for chain in (0, 4, 14):
        value, likelihood, gradient = together._single(z[chain], X[INDEX[chain]], LABELS[INDEX[chain]])
        assert torch.allclose(estimate.log_prob[chain], value)
        assert torch.allclose(estimate.log_likelihood[chain], likelihood)
        assert torch.allclose(estimate.gradient[chain], gradient)


class Looking(nn.Linear):
    def forward(self, x):
        return super().forward(x) * (2.0 if float(x.sum()) > 0 else 1.0)


def looking():
    return BayesianModel(Looking(2, 1), Normal(), Gaussian()).double(), Data(X, REAL)


def test_a_net_that_looks_at_values_is_run_for_each_chain():
    with pytest.warns(RuntimeWarning, match="anew for every gradient of every chain, .* depends on values") as told:
        found = density(looking, True)
    assert len(told) == 1 and not found.traced
    z = found.layout.start().expand(len(INDEX), -1)
    assert found(z, INDEX).gradient.isfinite().all()
