"""Stock Pyro inference runs on our model as it is: autoguides, SVI, NUTS, learned parameters."""

import pyro
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoLowRankMultivariateNormal, AutoNormal, init_to_value
from torch import nn

from pyroformer.models import BayesianModel, Gaussian, Output, Series, Transformer
from pyroformer.priors import ContextualCenter, Fixed, Improper, Learned, Normal
from pyroformer.priors import DirichletRows as PriorRows

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(16, 3, 2, generator=GENERATOR)
Y = X.sum((1, 2)).unsqueeze(-1) + 0.1 * torch.randn(16, 1, generator=GENERATOR)


def model_of(prior, **noise):
    torch.manual_seed(0)
    net = Transformer(Series(3, 2), Output(1), width=4, heads=2, depth=1)
    return BayesianModel(net, prior, Gaussian(scale=0.5, **noise))


def losses(model, guide, objective=None, steps=24, lr=0.04, **batch):
    svi = SVI(model, guide, pyro.optim.Adam({"lr": lr}), objective or Trace_ELBO())
    return [svi.step(X, Y, **batch) for _ in range(steps)]


def falls(history):
    return sum(history[-8:]) < 0.9 * sum(history[:8])


PRIORS = {
    "normal": Normal(),
    "improper": Improper(),
    "learned body": {"head.*": Normal(), "*": Learned()},
    "rows": {"*.rows": PriorRows(kl_weight=0.1), "*": Improper()},
    "contextual rows": {"*.rows": PriorRows(center=ContextualCenter(), kl_weight=0.1), "*": Improper()},
}


CASES = [(prior, "fixed") for prior in PRIORS] + [("improper", "learned"), ("improper", "random")]


@pytest.mark.parametrize(("prior", "noise"), CASES)
@pytest.mark.parametrize("kind", [AutoNormal, AutoDelta])
def test_autoguides_learn(prior, noise, kind):
    model = model_of(PRIORS[prior], noise=noise)
    settings = {} if kind is AutoDelta else {"init_scale": 0.02}
    assert falls(losses(model, kind(model, init_loc_fn=init_to_value(values=model.initial_values()), **settings)))


@pytest.mark.parametrize("prior", ["improper", "rows"])
def test_without_steps_the_loss_does_not_fall(prior):
    """The twin of the tests here: what falls above is no noise."""
    model = model_of(PRIORS[prior])
    guide = AutoNormal(model, init_loc_fn=init_to_value(values=model.initial_values()), init_scale=0.02)
    assert not falls(losses(model, guide, lr=0.0))


@pytest.mark.parametrize("objective", [TraceMeanField_ELBO(), Trace_ELBO(num_particles=3, vectorize_particles=True)])
def test_other_objectives(objective):
    model = model_of(Improper())
    guide = AutoNormal(model, init_loc_fn=init_to_value(values=model.initial_values()), init_scale=0.02)
    assert falls(losses(model, guide, objective))


def test_other_autoguides():
    model = model_of({"head.*": Normal(), "*": Learned()})
    guide = AutoLowRankMultivariateNormal(
        model, init_loc_fn=init_to_value(values=model.initial_values()), init_scale=0.02, rank=2
    )
    assert falls(losses(model, guide))


def test_stock_svi_trains_learned_parameters_and_leaves_fixed_ones():
    model = model_of({"head.*": Normal(), "blocks.*": Learned(), "*": Fixed()}, noise="learned")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses(model, AutoDelta(model), steps=10)
    moved = {name for name, p in model.named_parameters() if not torch.equal(before[name], p)}
    # the key's bias shifts all scores of a row alike, which softmax does not see
    frozen = {"net.blocks.0.attention.key.bias"}
    assert set(model.learned) - frozen <= moved <= set(model.learned)


def test_a_second_fit_starts_from_the_second_model():
    first, second = (model_of({"head.*": Normal(), "*": Learned()}) for _ in range(2))
    losses(first, AutoDelta(first), steps=10)
    start = second.net.position.detach().clone()
    losses(second, AutoDelta(second), steps=1, lr=0.0)
    assert torch.equal(second.net.position, start) and not torch.equal(first.net.position, start)


def test_a_fitted_autoguide_predicts():
    model = model_of(Improper())
    guide = AutoNormal(model, init_loc_fn=init_to_value(values=model.initial_values()), init_scale=0.01)
    losses(model, guide, steps=60)
    prediction = Predictive(model, guide=guide, num_samples=50, parallel=True, return_sites=["_RETURN"])(X)["_RETURN"]
    assert (prediction.mean(0) - Y).square().mean() < 0.3 * Y.var()
    untrained = Predictive(model, num_samples=50, parallel=True, return_sites=["_RETURN"])(X)["_RETURN"]
    assert (untrained.mean(0) - Y).square().mean() > 0.3 * Y.var()  # planted


def regression(prior):
    model = BayesianModel(nn.Linear(2, 1, bias=False), prior, Gaussian(scale=0.5)).double()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    return model, x, x @ torch.tensor([[1.0], [-2.0]], dtype=torch.float64)


@pytest.mark.parametrize("prior", [Normal(), Improper()], ids=["normal", "improper"])
def test_nuts_samples_the_exact_posterior(prior, standard_errors):
    """Of a linear regression; the flat prior's posterior is that of least squares."""
    model, x, y = regression(prior)
    kernel = NUTS(model, init_strategy=init_to_value(values=model.initial_values()), max_tree_depth=3)
    mcmc = MCMC(kernel, num_samples=240, warmup_steps=60, disable_progbar=True)
    mcmc.run(x, y)
    draws = mcmc.get_samples()["weight"].squeeze(1)

    def exact(precision):
        covariance = torch.linalg.inv(x.mT @ x / 0.25 + precision * torch.eye(2))
        return covariance @ (x.mT @ y / 0.25).squeeze(1), covariance.diagonal()

    mean, variance = exact(1.0 if isinstance(prior, Normal) else 0.0)
    thinned = draws[::3]  # nearly independent
    assert standard_errors(thinned, mean) < 5
    assert standard_errors((thinned - mean).square(), variance) < 5
    assert standard_errors(thinned, exact(30.0)[0]) > 5  # planted: a prior too tight
    assert standard_errors((thinned - mean).square(), 3 * variance) > 5  # planted


def test_nuts_runs_on_a_transformer():
    model = model_of({"head.*": Normal(), "blocks.*.norm*": Improper(), "*": Fixed()}, noise="random")
    kernel = NUTS(model, max_tree_depth=3, init_strategy=init_to_value(values=model.initial_values()))
    mcmc = MCMC(kernel, num_samples=5, warmup_steps=5, disable_progbar=True)
    mcmc.run(X, Y)
    draws = mcmc.get_samples()
    assert set(draws) == {*model.sites, "noise_scale"} and (draws["noise_scale"] > 0).all()
    assert draws["head.weight"].std(0).min() > 0
    prediction = Predictive(model, draws, parallel=True, return_sites=["_RETURN"])(X)["_RETURN"]
    assert prediction.shape == (5, 16, 1) and torch.isfinite(prediction).all()
