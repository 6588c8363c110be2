"""HMC, ChEES and NUTS leave densities with known moments as they are; planted errors do not."""

import pytest
import torch

from pyroformer.inference.samplers import Chains, ChEESKernel, HMCKernel, NUTSKernel, Streams, collect
from pyroformer.inference.samplers import hmc as hmc_file
from pyroformer.inference.samplers import nuts as nuts_file
from pyroformer.inference.samplers.leapfrog import kinetic
from pyroformer.priors import SettingError

COARSE = 1.15
"""A step with which many proposals are wrong enough to be rejected: errors show."""
HMC, CHEES, NUTS = HMCKernel(length=2.0), ChEESKernel(), NUTSKernel()
CHAINS = {HMC: 3000, CHEES: 3000, NUTS: 400}


def moved(kernel, density, streams=Streams):
    """Where chains that start at draws of the density are after three steps of a coarse size."""
    count = CHAINS[kernel]
    chains = Chains(density, kernel, density.draws(count), warmup_steps=0, step_size=COARSE)
    chains.streams = streams(1, count)
    for _ in range(3):
        chains.step()
    return chains.position.z


@pytest.fixture(params=[HMC, NUTS], ids=["hmc", "nuts"])
def kernel(request):
    return request.param


@pytest.mark.parametrize("kernel", CHAINS, ids=["hmc", "chees", "nuts"])
def test_a_density_stays_as_it_is(kernel, correlated):
    z = moved(kernel, correlated)
    assert correlated.distance(z) < 5 and correlated.kolmogorov(z)
    assert (z - correlated.draws(len(z))).abs().mean() > 0.3  # it did move
    assert correlated.distance(1.3 * z) > 5 and not correlated.kolmogorov(1.3 * z)  # planted: another density


class Unrefreshed(Streams):
    """Momenta that are drawn once."""

    def normal(self, like):
        if not hasattr(self, "kept"):
            self.kept = super().normal(like)
        return self.kept


class Weak(Streams):
    """Momenta that are too small."""

    def normal(self, like):
        return 0.7 * super().normal(like)


class Accepting(Streams):
    """Every proposal is taken."""

    def uniform(self):
        return torch.zeros(len(self.own), dtype=torch.float64)


@pytest.mark.parametrize("streams", [Unrefreshed, Weak, Accepting])
def test_planted_random_numbers_do_not_leave_it(streams, correlated):
    assert correlated.distance(moved(HMC, correlated, streams)) > 5


def test_planted_momenta_do_not_leave_it_to_nuts(correlated):
    assert correlated.distance(moved(NUTS, correlated, Weak)) > 5


def test_a_wrong_sign_of_the_kinetic_energy_does_not_leave_it(kernel, correlated, monkeypatch):
    def wrong(phase, inverse_mass):
        return -kinetic(phase.momentum, inverse_mass) - phase.log_prob

    plain = nuts_file.Walk.point

    def wrong_point(self, *arguments):
        point = plain(self, *arguments)
        point.energy = float(-kinetic(point.momentum, self.inverse_mass) - point.log_prob)
        return point

    monkeypatch.setattr(hmc_file, "energy", wrong)
    monkeypatch.setattr(nuts_file.Walk, "point", wrong_point)
    assert correlated.distance(moved(kernel, correlated)) > 5


def test_trajectories_without_weights_do_not_leave_it(correlated, monkeypatch):
    plain = nuts_file.Walk.leaf

    def unweighted(self, phase):
        tree = plain(self, phase)
        tree.log_weight = 0.0
        return tree

    monkeypatch.setattr(nuts_file.Walk, "leaf", unweighted)
    assert correlated.distance(moved(NUTS, correlated)) > 5


def test_long_chains_have_the_moments(kernel, correlated, distance):
    start = correlated.draws(4)
    samples = collect(Chains(correlated, kernel, start, seed=1, warmup_steps=0, step_size=0.8), 250)
    assert samples.z.shape == (4, 250, 3) and samples.transitions.steps.shape == (4, 250)
    assert not samples.transitions.divergent.any()
    assert distance(samples.z, correlated.mean, correlated.covariance) < 5
    assert distance(samples.z, correlated.mean, 1.7 * correlated.covariance) > 5  # planted: another density


def test_trees_count_what_they_do(correlated):
    calls = 0

    def counted(z):
        nonlocal calls
        calls += z.dim() == 1
        return correlated(z)

    chains = Chains(counted, NUTSKernel(max_tree_depth=3), correlated.mean.expand(2, 3).clone(), step_size=0.05)
    calls = 0
    transition = chains.step().transition
    assert transition.steps.tolist() == [7, 7] and transition.depth.tolist() == [3, 3] and calls == 14
    transition = collect(Chains(correlated, NUTS, chains.position.z, warmup_steps=0, step_size=0.3), 50).transitions
    assert (transition.steps <= 2**transition.depth - 1).all() and (transition.depth >= 1).all()
    assert transition.depth.float().mean() < 5  # it turns


def test_a_chain_does_not_depend_on_those_beside_it(correlated):
    start = torch.randn(3, 3, dtype=torch.float64)
    two, three = (
        collect(Chains(correlated, NUTS, start[:k], seed=2, warmup_steps=0, step_size=0.3), 5).z for k in (2, 3)
    )
    assert torch.equal(two, three[:2])
    other = collect(Chains(correlated, NUTS, start[:2], seed=3, warmup_steps=0, step_size=0.3), 5).z
    assert not torch.equal(two, other)


@pytest.mark.parametrize("beyond", ["nan", "cliff"])
def test_where_the_density_ends_it_diverges_and_stays(kernel, beyond):
    def half(z):
        outside = (z < 0).any(-1)
        value = torch.where(outside, torch.nan if beyond == "nan" else -1e5, -0.5 * z.square().sum(-1))
        return value, -z

    chains = Chains(half, kernel, torch.full((2, 1), 0.1).double(), warmup_steps=0, step_size=0.4)
    samples = collect(chains, 60)
    assert (samples.z >= 0).all() and samples.log_prob.isfinite().all()
    assert samples.transitions.divergent.any() and not samples.transitions.divergent.all()
    assert (samples.transitions.acceptance >= 0).all() and (samples.transitions.acceptance <= 1).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HMCKernel(length=0.0), "length = 0.0: expected a number above 0"),
        (lambda: HMCKernel(jitter=1.5), "jitter = 1.5: expected a number from 0 to 1"),
        (lambda: HMCKernel(max_steps=0), "max_steps = 0: expected a whole number"),
        (lambda: NUTSKernel(max_tree_depth=0), "max_tree_depth = 0: expected a whole number"),
        (lambda: NUTSKernel(target_accept=1.0), "target_accept = 1.0: expected a number between 0 and 1"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(SettingError) as refused:
        make()
    assert message in str(refused.value)


def test_a_density_without_a_bound_diverges(kernel):
    """An infinite log-density is not a place to stay at."""

    def spiked(z):
        return torch.where(z[..., 0] > 0.5, torch.inf, -0.5 * z.square().sum(-1)), -z

    chains = Chains(spiked, kernel, torch.full((8, 2), -1.0).double(), warmup_steps=0, step_size=0.5)
    samples = collect(chains, 10)
    assert samples.log_prob.isfinite().all() and samples.transitions.divergent.any()
