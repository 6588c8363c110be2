r"""Simulation-based calibration: a parameter drawn from the prior has a uniform rank among draws of its posterior.

With data from the drawn parameter, parameter and posterior draws are exchangeable (Cook, Gelman and Rubin, 2006; Talts
et al., 2018). Draws of a chain are not independent; a reversible chain that runs forwards and backwards from the
parameter, which is then at a place in it drawn uniformly, is exchangeable in what ranks need, so they are uniform
exactly, without thinning (Gandy and Scott, 2021, "Unit testing for MCMC and other Monte Carlo methods"). Hundreds of
data sets are chains of one density.
"""

import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch

from pyroformer.inference.density import FlatDensity
from pyroformer.inference.samplers import AdjustedMCLMCKernel, Chains, ChEESKernel, HMCKernel, NUTSKernel, collect
from pyroformer.inference.samplers import adjusted_mclmc as adjusted_file
from pyroformer.inference.samplers import isokinetic as isokinetic_file
from pyroformer.inference.samplers.isokinetic import turned
from pyroformer.inference.samplers.kernel import Position, where
from pyroformer.inference.samplers.nuts import Walk

X = torch.tensor([-1.0, -0.4, 0.3, 1.2], dtype=torch.float64)
SHAPE, RATE = 4.0, 4.0
LEVEL = 1e-4
"""How often ranks of a right sampler are refused."""


def regression(y):
    """The model, in Pyro."""
    intercept = pyro.sample("intercept", dist.Normal(torch.zeros(()).to(y), 1.0))
    slope = pyro.sample("slope", dist.Normal(torch.zeros(()).to(y), 1.0))
    scale = pyro.sample("scale", dist.Gamma(torch.tensor(SHAPE).to(y), RATE))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(intercept + slope * X, scale), obs=y)


class Regressions:
    """Its posterior in intercept, slope and logarithm of the scale: one for each row of the data ``[K, N]``.

    Args:
        prior: How often the prior counts, default 1.
        jacobian: How often the Jacobian of the scale counts, default 1.
    """

    def __init__(self, y, prior=1.0, jacobian=1.0):
        self.y, self.prior, self.jacobian = y, prior, jacobian

    def residuals(self, z):
        y = self.y if z.dim() == 2 else self.y[0]
        return (y - z[..., :1] - z[..., 1:2] * X) / z[..., 2:].exp()

    def log_likelihood(self, z):
        return -0.5 * self.residuals(z).square().sum(-1) - len(X) * z[..., 2]

    def __call__(self, z):
        residuals, scale = self.residuals(z), z[..., 2].exp()
        prior = -0.5 * z[..., :2].square().sum(-1) + (SHAPE - 1) * z[..., 2] - RATE * scale
        value = self.log_likelihood(z) + self.prior * prior + self.jacobian * z[..., 2]
        gradient = [
            residuals.sum(-1) / scale - self.prior * z[..., 0],
            (residuals * X).sum(-1) / scale - self.prior * z[..., 1],
            residuals.square().sum(-1) - len(X) + self.prior * (SHAPE - 1 - RATE * scale) + self.jacobian,
        ]
        return value, torch.stack(gradient, -1)


def joint_draws(count):
    """Parameters of the prior ``[count, 3]``, and data for each ``[count, N]``."""
    generator = torch.Generator().manual_seed(11)
    z = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    # the sum of SHAPE exponential numbers
    parts = torch.rand(count, int(SHAPE), generator=generator, dtype=torch.float64)
    z[:, 2] = (-parts.log().sum(-1) / RATE).log()
    noise = torch.randn(count, len(X), generator=generator, dtype=torch.float64)
    return z, z[:, :1] + z[:, 1:2] * X + z[:, 2:].exp() * noise


def test_the_density_is_that_of_the_model():
    z, y = joint_draws(3)
    value, gradient = Regressions(y)(z)
    offsets = []
    for row in range(3):
        model = FlatDensity(regression, (y[row],), trace=False)
        expected, slope = model.log_prob_and_grad(z[row])
        offsets.append(expected - value[row])
        assert torch.allclose(slope, gradient[row])
    assert torch.allclose(torch.stack(offsets), offsets[0])  # a constant that the prior and the noise have
    assert not torch.allclose(Regressions(y, jacobian=0.0)(z)[0] - value, torch.zeros(3).double())  # planted


def ranks(chains, quantities, steps, generator):
    """Ranks ``[K, Q]``, from 0 to ``steps``, of where chains start among their steps; ties are broken at random.

    A chain goes back to its start after a number of steps that is uniform from 0 to ``steps``: what came before counts
    as the chain backwards in time.
    """
    start = chains.position
    truth = quantities(start.z)
    back = torch.randint(steps + 1, (len(truth),), generator=generator)
    below, equal = torch.zeros_like(truth), torch.zeros_like(truth)
    for index in range(steps):
        chains.position = where(back == index, start, chains.position)
        chains.step()
        found = quantities(chains.position.z)
        below, equal = below + (found < truth), equal + (found == truth)
    ties = torch.rand(truth.shape, generator=generator, dtype=torch.float64)
    return (below + (ties * (equal + 1)).floor()).long()


def p_value(found, steps):
    """Of uniform ranks ``[K, Q]``, by chi-square; the least of all quantities, times their number."""
    counts = [torch.bincount(column, minlength=steps + 1) for column in found.T]
    return min(1.0, len(counts) * min(scipy.stats.chisquare(count.numpy()).pvalue for count in counts))


BATCHED = {
    "hmc": HMCKernel(length=1.0, jitter=0.0),
    "microcanonical": AdjustedMCLMCKernel(length=0.8, jitter=0.0),
}
"""Without jitter, which all chains share: given its numbers, steps differ, and ranks are uniform on average only."""
LARGE = {HMCKernel: 0.8, AdjustedMCLMCKernel: 1.8}
"""Steps of which many are rejected."""


@pytest.fixture
def calibrated(planted):
    """The p-value of the ranks of parameters and log-likelihood, all data sets at once."""

    def measured(kernel, streams="none", step_size=0.25, count=2000, steps=15, **wrong):
        z, y = joint_draws(count)
        density = Regressions(y, **wrong)
        chains = Chains(density, kernel, z, warmup_steps=0, step_size=step_size)
        chains.streams = getattr(planted, streams)(1, count)

        def quantities(at):
            return torch.cat([at, density.log_likelihood(at).unsqueeze(-1)], -1)

        return p_value(ranks(chains, quantities, steps, torch.Generator().manual_seed(2)), steps)

    return measured


@pytest.fixture(params=BATCHED)
def kernel(request):
    return BATCHED[request.param]


@pytest.mark.parametrize("large", [False, True], ids=["small steps", "large steps"])
def test_ranks_are_uniform(kernel, large, calibrated):
    """Also with a step so large that many ends are rejected."""
    assert calibrated(kernel, step_size=LARGE[type(kernel)] if large else 0.25) > LEVEL


@pytest.mark.parametrize("wrong", [{"prior": 2.0}, {"jacobian": 0.0}], ids=["prior twice", "no Jacobian"])
def test_another_density_is_noticed(kernel, wrong, calibrated):
    assert calibrated(kernel, **wrong) < LEVEL


def test_ends_that_are_always_taken_are_noticed(kernel, calibrated):
    assert calibrated(kernel, "accepting", step_size=LARGE[type(kernel)]) < LEVEL


def test_momenta_that_are_not_drawn_anew_are_noticed(kernel, calibrated):
    assert calibrated(kernel, "unrefreshed") < LEVEL


def test_momenta_that_are_too_small_are_noticed(calibrated):
    assert calibrated(BATCHED["hmc"], "weak") < LEVEL


def test_a_log_density_of_rejected_ends_is_noticed(calibrated, monkeypatch):
    """The place is kept, the log-density and the gradient are those of the end."""

    def kept(taken, new, old):
        return Position(where(taken, new, old).z, *new[1:])

    monkeypatch.setattr(adjusted_file, "where", kept)
    assert calibrated(BATCHED["microcanonical"], step_size=1.2) < LEVEL


def test_an_energy_without_its_kinetic_part_is_noticed(calibrated, monkeypatch):
    def still(*arguments):
        direction, gained = turned(*arguments)
        return direction, torch.zeros_like(gained)

    monkeypatch.setattr(isokinetic_file, "turned", still)
    assert calibrated(BATCHED["microcanonical"]) < LEVEL


def of_nuts(count, steps=7, step_size=0.4, **wrong):
    """The p-value for NUTS, whose chains each have a density of their own."""
    z, y = joint_draws(count)
    generator, found = torch.Generator().manual_seed(2), []
    for row in range(count):
        density = Regressions(y[row : row + 1], **wrong)
        kernel = NUTSKernel(max_tree_depth=4)
        chains = Chains(density, kernel, z[row : row + 1], seed=row, warmup_steps=0, step_size=step_size)

        def quantities(at, density=density):
            return torch.cat([at, density.log_likelihood(at).unsqueeze(-1)], -1)

        found.append(ranks(chains, quantities, steps, generator))
    return p_value(torch.cat(found), steps)


def test_ranks_of_nuts_are_uniform():
    assert of_nuts(160) > LEVEL


def test_nuts_on_another_density_is_noticed():
    """The Jacobian with the wrong sign."""
    assert of_nuts(120, jacobian=-1.0) < LEVEL


def test_nuts_without_weights_is_noticed(monkeypatch):
    plain = Walk.leaf

    def unweighted(self, point):
        tree = plain(self, point)
        tree.log_weight = 0.0
        return tree

    monkeypatch.setattr(Walk, "leaf", unweighted)
    assert of_nuts(120, step_size=0.6) < LEVEL


def thinned(kernel, streams, count=400, warmup_steps=60, every=4, steps=11, **wrong):
    """The p-value as Talts et al. have it: from a start that knows nothing, every so many draws after warm-up."""
    z, y = joint_draws(count)
    density = Regressions(y, **wrong)
    start = 0.5 * torch.randn(count, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    chains = Chains(density, kernel, start, warmup_steps=warmup_steps, step_size=0.1)
    chains.streams = streams(1, count)
    draws = collect(chains, every * steps).z[:, every - 1 :: every]
    found = [torch.cat([at, density.log_likelihood(at).unsqueeze(-1)], -1) for at in draws.unbind(1)]
    truth = torch.cat([z, density.log_likelihood(z).unsqueeze(-1)], -1)
    return p_value((torch.stack(found) < truth).sum(0), steps)


WARMED = [HMCKernel(), AdjustedMCLMCKernel(), ChEESKernel()]


@pytest.mark.parametrize("kernel", WARMED, ids=lambda kernel: type(kernel).__name__)
def test_ranks_after_warm_up_are_uniform(kernel, planted):
    assert thinned(kernel, planted.none) > LEVEL


@pytest.mark.parametrize("kernel", WARMED, ids=lambda kernel: type(kernel).__name__)
def test_another_density_after_warm_up_is_noticed(kernel, planted):
    assert thinned(kernel, planted.none, jacobian=0.0) < LEVEL
