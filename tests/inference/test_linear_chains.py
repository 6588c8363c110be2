"""Drivers of Markov chains against the exact posterior of a linear regression, and NUTS against that of Pyro."""

import pyro
import pytest
import torch
from pyro.infer import MCMC as PyroMCMC
from pyro.infer import NUTS as PyroNUTS
from pyro.infer.autoguide.initialization import init_to_value
from pyro.ops.stats import effective_sample_size

from pyroformer.inference import HMC, MCLMC, NUTS, CheesHMC

SETTINGS = {"num_samples": 100, "warmup_steps": 80, "chains": 4, "dtype": "float64"}
DRIVERS = {
    "hmc": HMC(**SETTINGS),
    "chees_hmc": CheesHMC(**SETTINGS),
    "chees_hmc by snaper": CheesHMC(criterion="snaper", **SETTINGS),
    "mclmc": MCLMC(**SETTINGS),
    "mclmc, unadjusted": MCLMC(**SETTINGS, adjusted=False, steps_per_draw=5),
}


def errors(draws, mean, covariance):
    """The largest Monte Carlo standard error of mean and of covariance of ``[K, S, 4]``, in whitened space."""
    lower = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(lower, (draws - mean).flatten(0, 1).T, upper=False).T.view(draws.shape)
    i, j = torch.tril_indices(4, 4)
    products = white[..., i] * white[..., j] - (i == j).double()
    found = []
    for values in (white, products):
        effective = effective_sample_size(values).clamp(max=values.shape[0] * values.shape[1])
        flat = values.flatten(0, 1)
        found.append(float((flat.mean(0) / (flat.std(0) / effective.sqrt())).abs().max()))
    return found


@pytest.mark.parametrize("name", DRIVERS)
def test_draws_have_the_exact_mean_and_covariance(line, name):
    posterior = DRIVERS[name].run(line.model(), None, line.data, seed=1)
    draws = line.flat(posterior.draws).view(4, -1, 4)
    assert draws.shape[1] == 100 and posterior.info["divergences"] == 0 and posterior.info["acceptance"] > 0.6
    mean, covariance = errors(draws, line.mean(), line.covariance())
    assert mean < 5 and covariance < 5
    assert errors(draws, line.mean(), line.covariance(noise=0.7))[1] > 5  # planted: another noise
    assert errors(draws, line.mean(prior=0.2), line.covariance())[0] > 5  # planted: another prior


def test_nuts_agrees_with_that_of_pyro(line):
    """With a scale of the noise that is random, so that a site is drawn in other numbers than its own."""
    built = line.model(noise="random", scale=1.0).double()
    x, y = line.x.double(), line.y.double()
    kernel = PyroNUTS(built, max_tree_depth=3, init_strategy=init_to_value(values=built.initial_values()))
    oracle = PyroMCMC(kernel, num_samples=80, warmup_steps=40, disable_progbar=True)
    with pyro.validation_enabled(False):
        oracle.run(x, y)
    theirs = oracle.get_samples()
    driver = NUTS(num_samples=100, warmup_steps=60, chains=2, dtype="float64", max_tree_depth=3)
    posterior = driver.run(built, None, line.data, seed=2)

    def apart(one, other):
        """Distance of two means ``[K, S]`` in standard errors of their difference."""
        error = sum(v.var() / effective_sample_size(v).clamp(max=v.numel()) for v in (one, other)).sqrt()
        return float((one.mean() - other.mean()).abs() / error)

    def numbers(draws, chains):
        values = {"noise": draws["noise_scale"], **{f"w{i}": draws["weight"][:, 0, i] for i in range(3)}}
        return {name: value.view(chains, -1) for name, value in values.items()}

    ours, known = numbers(posterior.draws, 2), numbers(theirs, 1)
    for name in known:
        assert apart(ours[name], known[name]) < 5
        assert apart(ours[name] ** 2, known[name] ** 2) < 5
    assert apart(ours["noise"].log(), known["noise"]) > 5  # planted: not taken back to the support
