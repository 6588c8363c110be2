"""Functions drawn from the prior against what is known of them."""

import pytest
import torch
from torch import nn

from pyroformer.inference.posterior import Posterior
from pyroformer.inference.prior_functions import PriorFunctions, flat_sites
from pyroformer.models import BayesianModel, Categorical, Gaussian
from pyroformer.priors import HalfCauchy, Hierarchical, Improper, Laplace, Learned, Normal, SettingError

X = torch.tensor([[0.5, -1.0], [2.0, 0.3], [0.0, 0.0]], dtype=torch.float64)


def variance_is(values, expected):
    """Whether the variance of draws ``[S, ...]`` is as expected, within 5 standard errors."""
    squares = values.square()
    return bool(((squares.mean(0) - expected).abs() < 5 * squares.std(0) / len(values) ** 0.5).all())


def linear(prior, outputs=2, likelihood=None):
    return BayesianModel(nn.Linear(2, outputs), prior, likelihood or Gaussian()).double()


def test_a_linear_net_has_the_variance_of_its_sum():
    functions = PriorFunctions(linear({"weight": Normal(scale=0.5), "bias": Normal(scale=2.0)}))
    values = functions.outputs(X, 4000, seed=1)
    assert values.shape == (4000, 3, 2)
    by_hand = 0.25 * X.square().sum(-1, keepdim=True) + 4.0
    assert variance_is(values, by_hand)
    assert not variance_is(values, by_hand - 4.0 + 2.0)  # planted: the bias by its scale, not its square
    assert not variance_is(values, 0.5 * X.square().sum(-1, keepdim=True) + 4.0)  # planted: so the weights


def test_the_same_seed_and_chunks_give_the_same_functions():
    functions = PriorFunctions(linear(Laplace(scale=0.3)))
    first = functions.outputs(X, 50, seed=3)
    assert torch.equal(first, functions.outputs(X, 50, seed=3, batch_size=1))
    assert not torch.equal(first, functions.outputs(X, 50, seed=4))


def test_a_hierarchy_draws_its_scales():
    functions = PriorFunctions(linear(Hierarchical(prior=Normal(), hyperprior=HalfCauchy(scale=1.0))))
    drawn = functions.draw(300)
    assert set(drawn) == set(functions.model.initial_values())
    weights = functions.model.weights(drawn)["weight"]
    assert weights.shape == (300, 2, 2)
    assert weights.flatten(1).std(1).log().std() > 0.5  # one scale for all draws would leave about 0.4 in 4 entries


def test_likelihoods_with_sites_predict():
    model = linear(Normal(), 1, Gaussian(noise="random", scale=0.1))
    predicted = PriorFunctions(model).predict(X, 64)
    assert predicted.scale.flatten(1).std(0).max() > 0.01
    assert PriorFunctions(linear(Normal(), 4, Categorical())).predict(X, 8).probabilities.shape == (3, 4)


def test_learned_weights_stay_at_their_start():
    model = linear({"weight": Learned(), "bias": Normal()})
    values = PriorFunctions(model).outputs(X, 20)
    differences = values - values[:, 2:]  # at x = 0 only the bias is left
    expected = X @ model.net.weight.detach().T
    assert torch.allclose(differences, expected.expand(20, 3, 2))


def test_flat_priors_are_named_and_refused():
    model = linear({"weight": Improper(), "bias": Normal()})
    assert flat_sites(model) == ["weight"] and flat_sites(linear(Normal())) == []
    with pytest.raises(SettingError, match=r"a flat prior of weight.*nothing can be drawn"):
        PriorFunctions(model)


def test_it_is_a_posterior_that_can_be_kept(tmp_path):
    functions = PriorFunctions(linear(Normal()))
    functions.save(tmp_path / "prior")
    again = Posterior.load(tmp_path / "prior", linear(Normal()))
    assert isinstance(again, PriorFunctions)
    assert torch.equal(again.outputs(X, 5), functions.outputs(X, 5))
