"""NUTS with a hyper-site against numerical integration over the scale, where the weights are integrated exactly."""

import pytest
import torch
from pyro.ops.stats import effective_sample_size

from pyroformer.inference import NUTS, Data
from pyroformer.models import BayesianModel, Gaussian
from pyroformer.priors import Gamma, Hierarchical

NOISE = 0.5
DRIVER = NUTS(num_samples=200, warmup_steps=100, dtype="float64", max_tree_depth=5)


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(10, 4, generator=generator)
    y = x @ torch.tensor([[1.0], [-0.5], [0.8], [-1.2]]) + NOISE * torch.randn(10, 1, generator=generator)
    return Data(x, y)


def exact(data, concentration=2.0, rate=2.0):
    """Moments of the first weight and of the logarithm of the scale: a sum over a fine grid of scales.

    Given the scale, weights and observations are normal: y has the covariance ``noise^2 I + tau^2 X X^T``.
    """
    x, y = data.x.double(), data.y.double().squeeze(-1)
    tau = torch.linspace(-6, 4, 4001, dtype=torch.float64).exp()
    covariance = NOISE**2 * torch.eye(len(y)).double() + tau.square().view(-1, 1, 1) * (x @ x.T)
    evidence = torch.distributions.MultivariateNormal(torch.zeros(len(y)).double(), covariance).log_prob(y)
    log_prior = (concentration - 1) * tau.log() - rate * tau
    weights = (evidence + log_prior + tau.log()).softmax(0)  # a grid of logarithms: its Jacobian is tau
    solved = torch.linalg.solve(covariance, y.expand(len(tau), -1))
    mean = tau.square() * (solved @ x)[:, 0]
    variance = tau.square() - tau**4 * torch.stack([x[:, 0] @ torch.linalg.solve(c, x[:, 0]) for c in covariance])
    first, log_tau = (weights * mean).sum(), (weights * tau.log()).sum()
    return {
        "w": first,
        "w squared": (weights * (variance + mean.square())).sum(),
        "log tau": log_tau,
        "log tau squared": (weights * tau.log().square()).sum(),
    }


def errors(draws, expected):
    """Distance from what is expected in Monte Carlo standard errors, by quantity."""
    w, log_tau = draws["weight"][:, 0, 0].double(), draws["weight_scale"].double().log()
    found = {"w": w, "w squared": w.square(), "log tau": log_tau, "log tau squared": log_tau.square()}
    return {
        name: float((v.mean() - expected[name]).abs() / (v.std() / effective_sample_size(v.view(1, -1)).sqrt()))
        for name, v in found.items()
    }


@pytest.mark.parametrize("centered", [False, True], ids=["non-centred", "centred"])
def test_draws_have_the_exact_moments(data, centered):
    torch.manual_seed(0)
    model = BayesianModel(
        torch.nn.Linear(4, 1, bias=False), Hierarchical(hyperprior=Gamma(), centered=centered), Gaussian(scale=NOISE)
    )
    posterior = DRIVER.run(model, None, data, seed=1)
    draws = {**posterior.draws, **posterior.model.weights(posterior.draws)}
    assert draws["weight"].shape == (200, 1, 4) and (draws["weight_scale"] > 0).all()
    found = errors(draws, exact(data))
    assert max(found.values()) < 5, found
    planted = errors(draws, exact(data, concentration=12.0, rate=4.0))  # another prior over the scale
    assert planted["log tau"] > 5
    noisier = {**draws, "weight": draws["weight"] + torch.randn(200, 1, 4)}
    assert errors(noisier, exact(data))["w squared"] > 5  # planted: draws too wide
