"""NUTS against the exact posterior of a linear regression."""

import pytest
import torch
from pyro.ops.stats import effective_sample_size

from pyroformer.inference import NUTS, Monitor
from pyroformer.priors import Fixed, Improper

DRIVER = NUTS(num_samples=120, warmup_steps=60, chains=2, dtype="float64", max_tree_depth=5)


@pytest.fixture(scope="module")
def sampled(line):
    monitor = Monitor()
    return DRIVER.run(line.model(), None, line.data, seed=1, monitor=monitor), monitor


def errors(draws, mean, covariance, chains=2):
    """The largest Monte Carlo standard error of mean and of covariance, in whitened space."""
    lower = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(lower, (draws - mean).T, upper=False).T
    i, j = torch.tril_indices(4, 4)
    products = white[:, i] * white[:, j] - (i == j).double()
    found = []
    for values in (white, products):
        effective = effective_sample_size(values.view(chains, -1, values.shape[-1])).clamp(max=len(draws))
        found.append(float((values.mean(0) / (values.std(0) / effective.sqrt())).abs().max()))
    return found


def test_draws_have_the_exact_mean_and_covariance(line, sampled):
    draws = line.flat(sampled[0].draws)
    assert draws.shape == (240, 4) and draws.dtype == torch.float64
    mean, covariance = errors(draws, line.mean(), line.covariance())
    assert mean < 5 and covariance < 5
    assert errors(draws, line.mean(), line.covariance(noise=0.65))[1] > 5  # planted: another noise
    assert errors(draws, line.mean(), line.precision().diag().reciprocal().diag())[1] > 5  # planted: no correlation
    assert errors(draws, line.mean(prior=0.3), line.covariance())[0] > 5  # planted: another prior


def test_a_flat_prior_gives_least_squares(line):
    driver = NUTS(num_samples=100, warmup_steps=60, dtype="float64", max_tree_depth=5)
    draws = line.flat(driver.run(line.model(Improper()), None, line.data).draws)
    mean, covariance = errors(draws, line.mean(prior=None), line.covariance(prior=None), chains=1)
    assert mean < 5 and covariance < 5
    assert errors(draws, line.mean(noise=1.5), line.covariance(prior=None), chains=1)[0] > 5  # planted: shrunk


def test_a_temperature_scales_the_covariance(line):
    driver = NUTS(num_samples=150, warmup_steps=60, dtype="float64", max_tree_depth=5, temperature=0.25)
    posterior = driver.run(line.model(), None, line.data)
    mean, covariance = errors(line.flat(posterior.draws), line.mean(), line.covariance() / 4, chains=1)
    assert mean < 5 and covariance < 5 and posterior.info["temperature"] == 0.25
    assert errors(line.flat(posterior.draws), line.mean(), line.covariance(), chains=1)[1] > 5  # planted: T = 1


def test_diagnostics_are_reported(line, sampled):
    posterior, monitor = sampled
    info = posterior.info
    assert 0.6 < info["acceptance"] <= 1.0 and info["divergences"] == 0 and info["chains"] == 2
    assert info["log_likelihood"]["r_hat"] < 1.1 and info["log_likelihood"]["effective_samples"] > 50
    exact = torch.distributions.Normal(line.design @ line.flat(posterior.draws).T, 0.5).log_prob(line.y.double()).sum(0)
    assert info["log_likelihood"]["mean"] == pytest.approx(float(exact.mean()))
    assert info["log_likelihood"]["sd"] == pytest.approx(float(exact.std()))
    assert len(monitor.history) == 180
    last = monitor.history[-1]
    assert last["draw"] == 120 and last["stage"] == "sample" and last["step_size"] > 0 and last["ess"] > 20


def test_predictions_average_the_draws(line, sampled):
    posterior, _ = sampled
    predicted = posterior.predict(line.x, 240)
    draws = line.flat(posterior.draws)
    assert torch.allclose(predicted.loc.squeeze(-1), draws @ line.design.T)
    every_fifth = posterior.predict(line.x, 100)
    assert every_fifth.num_samples == 100
    spread = torch.einsum("ni,ij,nj->n", line.design, line.covariance(), line.design)
    assert (predicted.model_variance.squeeze(-1) / spread - 1).abs().max() < 0.35


def test_parameters_without_a_prior_stay(line):
    model = line.model({"bias": Fixed(), "*": Improper()})
    posterior = NUTS(num_samples=5, warmup_steps=5).run(model, None, line.data)
    assert set(posterior.draws) == {"weight"}
    assert torch.equal(posterior.model.net.bias, model.net.bias)


def test_a_positive_site_is_sampled_in_its_own_space(line):
    posterior = NUTS(num_samples=30, warmup_steps=30, max_tree_depth=4).run(
        line.model(noise="random", scale=1.0), None, line.data
    )
    noise = posterior.draws["noise_scale"]
    assert noise.shape == (30,) and (noise > 0).all() and 0.3 < noise.median() < 0.8
