"""NUTS over hyper-sites and one weight, against a grid over the weight, whose prior without them is known."""

import pytest
import torch
from pyro.ops.stats import effective_sample_size
from scipy import stats

from pyroformer.inference import NUTS, Data
from pyroformer.models import BayesianModel, Gaussian
from pyroformer.priors import ARD, Horseshoe, PrecisionGamma

NOISE = 1.0
DRIVER = NUTS(num_samples=80, warmup_steps=40, dtype="float64", max_tree_depth=3)
GRID = torch.linspace(-4, 4, 800, dtype=torch.float64)  # without 0, where a horseshoe has its pole


def student_t(scale):
    return torch.as_tensor(stats.t(6, scale=scale).logpdf(GRID.numpy()))


def horseshoe(slab):
    """The logarithm u of the global times the local scale has the density u / sinh(u), up to a constant."""
    u = torch.linspace(-15, 15, 2000, dtype=torch.float64).unsqueeze(-1)
    scale = u.exp() * (1 + ((u.exp() / slab).square())).rsqrt()
    normal = -0.5 * (GRID / scale).square() - scale.log()
    return (normal + (u / u.sinh()).log()).logsumexp(0)


CASES = {
    "ard": (
        ARD(hyperprior=PrecisionGamma(concentration=3.0, rate=3.0)),
        lambda: student_t(1.0),
        lambda: student_t(0.1),
    ),
    "horseshoe": (Horseshoe(slab=2.0), lambda: horseshoe(2.0), lambda: student_t(0.1)),
}


@pytest.fixture(scope="module")
def data():
    x = torch.linspace(-1, 1, 6).unsqueeze(-1)
    return Data(x, 2.0 * x + 0.3 * x.cos())


def errors(draws, data, log_prior):
    """Distance of the first two moments from those on the grid, in Monte Carlo standard errors."""
    residual = data.y.double() - data.x.double() * GRID
    weights = (log_prior - 0.5 * residual.square().sum(0) / NOISE**2).softmax(0)
    found = {}
    for name, power in (("mean", 1), ("square", 2)):
        values = draws**power
        error = values.std() / effective_sample_size(values.view(1, -1)).sqrt()
        found[name] = float((values.mean() - (weights * GRID**power).sum()).abs() / error)
    return found


@pytest.mark.parametrize("case", CASES)
def test_draws_of_the_weight_have_the_exact_moments(data, case):
    prior, exact, planted = CASES[case]
    torch.manual_seed(0)
    model = BayesianModel(torch.nn.Linear(1, 1, bias=False), prior, Gaussian(scale=NOISE))
    posterior = DRIVER.run(model, None, data, seed=1)
    draws = posterior.model.weights(posterior.draws)["weight"].flatten().double()
    found = errors(draws, data, exact())
    assert max(found.values()) < 5, found
    assert max(errors(draws, data, planted()).values()) > 5  # another prior


def test_the_grid_has_the_moments_of_a_conjugate_prior(data):
    x, y = data.x.double(), data.y.double()
    precision = 1 + (x.T @ x).item() / NOISE**2
    draws = (x.T @ y).item() / NOISE**2 / precision + precision**-0.5 * torch.randn(4000, dtype=torch.float64)
    assert max(errors(draws, data, torch.as_tensor(stats.norm.logpdf(GRID.numpy()))).values()) < 5
    assert max(errors(draws, data, student_t(0.1)).values()) > 5  # planted
