"""HMC and NUTS leave densities with known moments as they are; planted errors do not."""

import pytest
import torch

from pyroformer.inference.samplers import Chains, HMCKernel, NUTSKernel, Streams, collect
from pyroformer.inference.samplers import hmc as hmc_file
from pyroformer.inference.samplers import nuts as nuts_file
from pyroformer.inference.samplers.leapfrog import kinetic
from pyroformer.priors import SettingError

COARSE = 0.75
"""A step with which about a third of the proposals are wrong enough to be rejected: errors show."""


def draws_of(kernel, density, num_samples=500, step_size=COARSE, streams=None):
    """Draws with a step size that is kept, from chains that start at draws of the density."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    start = density.mean + noise @ torch.linalg.cholesky(density.covariance).T
    chains = Chains(density, kernel, start, seed=1, warmup_steps=0, step_size=step_size)
    if streams is not None:
        chains.streams = streams
    return collect(chains, num_samples)


HMC, NUTS = HMCKernel(length=2.0), NUTSKernel()


@pytest.mark.parametrize("kernel", [HMC, NUTS], ids=["hmc", "nuts"])
def test_moments_of_a_correlated_normal(kernel, correlated, distance):
    samples = draws_of(kernel, correlated)
    assert samples.z.shape == (4, 500, 3)
    assert distance(samples.z, correlated.mean, correlated.covariance) < 5
    assert 0.4 < samples.transitions.acceptance.mean() < 0.95
    assert not samples.transitions.divergent.any()
    assert distance(samples.z, correlated.mean, 1.5 * correlated.covariance) > 5  # planted: another density


class Unrefreshed(Streams):
    """Momenta that are drawn once."""

    def normal(self, like):
        if not hasattr(self, "kept"):
            self.kept = super().normal(like)
        return self.kept


class Accepting(Streams):
    """Every proposal is taken."""

    def uniform(self):
        return torch.zeros(len(self.own), dtype=torch.float64)


@pytest.mark.parametrize(
    ("kernel", "streams"),
    [(HMC, Unrefreshed), (NUTS, Unrefreshed), (HMC, Accepting)],
    ids=["hmc, momenta not refreshed", "nuts, momenta not refreshed", "hmc, accepting always"],
)
def test_planted_streams_fail(kernel, streams, correlated, distance):
    samples = draws_of(kernel, correlated, streams=streams(1, 4))
    assert distance(samples.z, correlated.mean, correlated.covariance) > 5


def _wrong_sign(phase, inverse_mass):
    return -kinetic(phase.momentum, inverse_mass) - phase.log_prob


@pytest.mark.parametrize(("kernel", "file"), [(HMC, hmc_file), (NUTS, nuts_file)], ids=["hmc", "nuts"])
def test_a_wrong_sign_of_the_kinetic_energy_fails(kernel, file, correlated, distance, monkeypatch):
    monkeypatch.setattr(file, "energy", _wrong_sign)
    samples = draws_of(kernel, correlated)
    assert distance(samples.z, correlated.mean, correlated.covariance) > 5


def test_trajectories_without_weights_fail(correlated, distance, monkeypatch):
    plain = nuts_file.Walk.leaf

    def unweighted(self, phase):
        tree = plain(self, phase)
        tree.log_weight = 0.0
        return tree

    monkeypatch.setattr(nuts_file.Walk, "leaf", unweighted)
    samples = draws_of(NUTS, correlated)
    assert distance(samples.z, correlated.mean, correlated.covariance) > 5


def test_points_behind_a_turn_fail(correlated, distance, monkeypatch):
    """A doubling that turned inside may not be taken: from there the start could not have been reached."""
    plain = nuts_file.Walk.joined

    def careless(self, near, far, forward, biased):
        going, far.going = far.going, True
        tree = plain(self, near, far, forward, biased)
        tree.going = tree.going and going
        return tree

    monkeypatch.setattr(nuts_file.Walk, "joined", careless)
    samples = draws_of(NUTS, correlated, num_samples=1500)
    assert distance(samples.z, correlated.mean, correlated.covariance) > 5


def test_trees_count_what_they_do(correlated):
    calls = 0

    def counted(z):
        nonlocal calls
        calls += z.dim() == 1
        return correlated(z)

    chains = Chains(counted, NUTSKernel(max_tree_depth=3), correlated.mean.expand(2, 3).clone(), step_size=0.05)
    calls, transition = 0, chains.step().transition
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


@pytest.mark.parametrize("kernel", [HMC, NUTS], ids=["hmc", "nuts"])
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
        (lambda: HMCKernel(jitter=1.0), "jitter = 1.0: expected a number from 0 to below 1"),
        (lambda: HMCKernel(max_steps=0), "max_steps = 0: expected a whole number"),
        (lambda: NUTSKernel(max_tree_depth=0), "max_tree_depth = 0: expected a whole number"),
        (lambda: NUTSKernel(target_accept=1.0), "target_accept = 1.0: expected a number between 0 and 1"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(SettingError) as refused:
        make()
    assert message in str(refused.value)
