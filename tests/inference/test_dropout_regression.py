"""Dropout on a linear regression, where the objective has a closed form."""

import pytest
import torch

from pyroformer.guides import ConcreteDropout, MCDropout
from pyroformer.inference import SVI

NOISE, INPUTS, TEMPERATURE = 2.0, 3, 0.1
FULL = {"epochs": 250, "batch_size": 40, "learning_rate": 0.05, "particles": 32, "dtype": "float64"}


def moments(rate, temperature):
    """Mean and variance of ``z / (1 - p)``, by quadrature over the uniform variable when masks are relaxed."""
    if temperature is None:
        return 1.0, rate / (1 - rate)
    u = (torch.arange(4000).double() + 0.5) / 4000
    z = torch.sigmoid(-(rate.logit() + u.logit()) / temperature)
    return z.mean().item() / (1 - rate), z.var(unbiased=False) / (1 - rate) ** 2


def minimum(line, rate, temperature=None, entropy=1.0):
    """The least value of the objective at one rate and the weights and the bias that reach it: a ridge regression.

    The mean of ``|y - X M z / (1 - p) - b|^2`` is ``|y - m X M - b|^2 + v sum_j |x_j|^2 M_j^2`` with the mean ``m`` and
    the variance ``v`` of the factors.
    """
    rate = torch.as_tensor(rate).double()
    mean, variance = moments(rate, temperature)
    factors = torch.tensor([mean] * INPUTS + [1.0]).double()
    x, y = line.design * factors, line.y.double().squeeze(-1)
    prior = torch.ones(INPUTS + 1).double()
    prior[:INPUTS] = 1 / (1 - rate) + variance * line.design[:, :INPUTS].square().sum(0) / NOISE**2
    weights = torch.linalg.solve(x.T @ x / NOISE**2 + prior.diag(), x.T @ y / NOISE**2)
    fit = 0.5 * (y - x @ weights).square().sum() / NOISE**2 + 0.5 * (prior * weights.square()).sum()
    masks = -(rate * rate.log() + (1 - rate) * (-rate).log1p())
    return (fit - entropy * INPUTS * masks).item(), rate.item(), weights


def minimiser(line, **settings):
    """The rate and the weights at the minimum over a grid of rates."""
    _, rate, weights = min(
        (minimum(line, rate, **settings) for rate in torch.linspace(0.002, 0.998, 499)), key=lambda found: found[0]
    )
    return rate, weights


def fitted(line, net, family, estimator="flipout"):
    model = line.model(scale=NOISE, net=net)
    posterior = SVI(**FULL, estimator=estimator).run(model, family, line.data)
    family = posterior.guide.families[0]
    weights = torch.cat([family.points.values[index].detach().flatten() for index in ("0", "1")])
    return family.rate_of("weight").item(), weights, posterior


def reaches(found, expected):
    return abs(found[0] - expected[0]) < 0.01 and bool((found[1] - expected[1]).abs().max() < 0.02)


@pytest.mark.parametrize("estimator", ["shared", "flipout"])
def test_concrete_dropout_reaches_the_minimum(line, one_token, estimator):
    found = fitted(line, one_token, ConcreteDropout(temperature=TEMPERATURE), estimator)
    expected = minimiser(line, temperature=TEMPERATURE)
    assert 0.05 < expected[0] < 0.95  # inside the grid
    assert reaches(found, expected)
    assert not reaches(found, minimiser(line, temperature=TEMPERATURE, entropy=1 / INPUTS))  # planted: without D
    assert not reaches(found, minimiser(line, temperature=TEMPERATURE, entropy=-1.0))  # planted: the wrong sign
    assert not reaches(found, minimiser(line))  # planted: the moments of hard masks
    assert found[2].info["guide"]["concrete_dropout"]["rate"]["weight"] == pytest.approx(found[0], abs=1e-4)


def test_mc_dropout_reaches_the_ridge_regression_of_its_rate(line, one_token):
    found = fitted(line, one_token, MCDropout(rate=0.3))
    assert reaches(found, minimum(line, 0.3)[1:])
    assert not reaches((0.1, found[1]), minimum(line, 0.1)[1:])  # planted: another rate
