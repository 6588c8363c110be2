"""Joint families against the exact posterior of a linear regression: each finds its own optimum."""

import pytest
import torch

from pyroformer.guides import Flow, FullRank, LowRank, MatrixNormal, Radial
from pyroformer.inference import SVI, Data
from pyroformer.models import BayesianModel, Gaussian
from pyroformer.priors import Normal

SETTINGS = {"epochs": 300, "batch_size": 40, "learning_rate": 0.05, "particles": 16, "dtype": "float64"}


def kl(mean, covariance, exact_mean, exact_covariance):
    """KL of two normal distributions, in nats."""
    precision, apart = exact_covariance.inverse(), mean - exact_mean
    inner = precision @ covariance
    return 0.5 * float(inner.trace() - torch.logdet(inner) - len(mean) + apart @ precision @ apart)


def fitted(line, family, **settings):
    posterior = SVI(**{**SETTINGS, **settings}).run(line.model(), family, line.data)
    return posterior.guide.families[0]


def conditional(line):
    """What mean field finds."""
    return line.precision().diag().reciprocal().diag()


def covariance(family):
    if isinstance(family, LowRank):
        return (family.scale.square().diag() + family.factor @ family.factor.mT).detach()
    return (family.scale_tril @ family.scale_tril.mT).detach()


@pytest.mark.parametrize(
    ("family", "epochs"),
    [(FullRank(init_scale=0.05), 300), (LowRank(rank=4, init_scale=0.05), 600)],  # factors start slowly
    ids=["full", "low"],
)
def test_enough_rank_finds_the_exact_posterior(line, family, epochs):
    found = fitted(line, family, epochs=epochs)
    assert kl(found.loc.detach(), covariance(found), line.mean(), line.covariance()) < 0.02
    assert kl(line.mean(), conditional(line), line.mean(), line.covariance()) > 0.5  # planted: mean field
    sd = line.covariance().diag().sqrt()
    assert ((found.loc.detach() - line.mean()) / sd).abs().max() < 0.1
    assert ((covariance(found) - line.covariance()) / (sd[:, None] * sd)).abs().max() < 0.1


def test_rank_one_finds_the_best_covariance_of_rank_one(line):
    """The optimum by direct descent on the KL itself."""
    exact = line.covariance()
    scale, factor = (0.1 * torch.ones(4).double()).requires_grad_(), (0.1 * torch.ones(4).double()).requires_grad_()
    optimizer = torch.optim.LBFGS([scale, factor], max_iter=300, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        inner = line.precision() @ (scale.square().diag() + torch.outer(factor, factor))
        value = 0.5 * (inner.trace() - torch.logdet(inner) - 4)
        value.backward()
        return value

    optimizer.step(loss)
    best = float(loss().detach())
    found = fitted(line, LowRank(rank=1, init_scale=0.05), epochs=600)
    reached = kl(found.loc.detach(), covariance(found), line.mean(), exact)
    assert best - 1e-6 < reached < best + 0.015
    assert reached < kl(line.mean(), conditional(line), line.mean(), exact) - 0.1  # planted: rank 0
    assert best > 0.05  # planted: the exact posterior is not of rank one


def test_matrix_normal_finds_the_blocks_of_the_precision(line):
    """Between sites it is independent; within a row of weights its covariance is the exact conditional one."""
    found = fitted(line, MatrixNormal(init_scale=0.05)).covariances()
    (_, weight), (_, bias) = found["weight"], found["bias"]
    block = line.precision()[:3, :3].inverse()
    zero = torch.zeros(3).double()
    assert kl(zero, weight, zero, block) < 0.02
    assert kl(zero, block.diag().diag(), zero, block) > 0.1  # planted: its diagonal alone
    assert float(bias.squeeze()) == pytest.approx(1 / float(line.precision()[3, 3]), rel=0.1)


def test_a_matrix_of_independent_outputs_is_matrix_normal(line):
    """Two outputs that share inputs and noise: the rows are independent with one covariance over the inputs."""
    torch.manual_seed(0)
    model = BayesianModel(torch.nn.Linear(3, 2, bias=False), Normal(), Gaussian(scale=0.5))
    y = torch.cat([line.y, -line.y.flip(0)], 1)
    posterior = SVI(**SETTINGS).run(model, MatrixNormal(init_scale=0.05), Data(line.x, y))
    family = posterior.guide.families[0]
    x = line.x.double()
    exact = (x.T @ x / 0.25 + torch.eye(3)).inverse().contiguous()
    mean = (exact @ x.T @ y.double() / 0.25).T
    u, v = family.covariances()["weight"]
    whole, zero = torch.kron(u, v), torch.zeros(6).double()
    assert kl(family.loc.detach(), whole, mean.flatten(), torch.kron(torch.eye(2).double(), exact)) < 0.03
    assert kl(zero, whole, zero, torch.kron(exact[:2, :2] / exact[0, 0], exact)) > 0.1  # planted: dependent rows
    assert (
        kl(zero, torch.kron(torch.eye(2).double(), exact.diag().diag()), zero, torch.kron(torch.eye(2).double(), exact))
        > 0.1
    )


@pytest.mark.parametrize("structure", ["radial", "diagonal"])
def test_families_without_correlations_find_the_conditional_scales(line, structure):
    """The expected log-posterior depends on variances alone, and the entropy on the sum of log-scales."""
    family = Radial(init_scale=0.1) if structure == "radial" else MatrixNormal(structure=structure, init_scale=0.05)
    found = fitted(line, family, particles=32)
    loc, variance = (each.detach() for each in found.moments())
    sd = conditional(line).diag().sqrt()
    assert ((loc - line.mean()) / sd).abs().max() < 0.1
    assert (variance.sqrt() / sd - 1).abs().max() < 0.05
    assert (variance.sqrt() / line.covariance().diag().sqrt() - 1).abs().max() > 0.05  # planted: marginal scales
    if structure == "radial":
        sizes = torch.tensor([3.0, 3, 3, 1])
        assert ((variance * sizes).sqrt() / sd - 1).abs().max() > 0.05  # planted: the scales as deviations


def test_a_flow_comes_nearer_than_mean_field(line):
    driver = SVI(**{**SETTINGS, "learning_rate": 0.02})
    guide = driver.run(line.model(), Flow(init_scale=0.1), line.data).guide
    draws = guide.draw(4000, line.x[:2].double())
    exact = torch.distributions.MultivariateNormal(line.mean(), line.covariance())
    with torch.no_grad():
        logs = guide.log_prob(draws) - exact.log_prob(line.flat(draws))
    error = float(logs.std() / len(logs) ** 0.5)
    best = kl(line.mean(), conditional(line), line.mean(), line.covariance())
    assert -5 * error < float(logs.mean()) < 0.3 * best
    assert not best < 0.3 * best + 5 * error  # planted: mean field itself
