"""Adjusted MCLMC: exact draws, trajectories of more than one step, and its acceptance in many dimensions."""

import pytest
import torch

from pyroformer.inference.samplers import AdjustedMCLMCKernel, Chains, Tuning, collect
from pyroformer.inference.samplers import isokinetic as isokinetic_file
from pyroformer.inference.samplers.isokinetic import turned
from pyroformer.inference.samplers.lengths import AutocorrelatedLength, Watched
from pyroformer.priors import SettingError

COARSE = 3.5
"""A step with which many proposals are wrong enough to be rejected: errors show."""


def moved(density, streams):
    """Where 3,000 chains that start at draws of the density are after three steps, and their acceptance."""
    chains = Chains(density, AdjustedMCLMCKernel(), density.draws(3000), warmup_steps=0, step_size=COARSE)
    chains.streams = streams(1, 3000)
    accepted = [chains.step().transition.acceptance for _ in range(3)]
    return chains.position.z, float(torch.stack(accepted).mean())


def test_a_density_stays_as_it_is(correlated, together):
    z, acceptance = moved(correlated, together)
    assert correlated.distance(z) < 5 and correlated.kolmogorov(z)
    assert acceptance < 0.9  # ends are wrong enough
    assert (z - correlated.draws(3000)).abs().mean() > 0.3  # it did move


def test_ends_that_are_all_taken_do_not_leave_it(correlated, together):
    class Accepting(together):
        def uniform(self):
            return torch.zeros(len(self.own), dtype=torch.float64)

    assert not correlated.kolmogorov(moved(correlated, Accepting)[0])


def test_an_energy_without_its_kinetic_part_does_not_leave_it(correlated, together, monkeypatch):
    def still(*arguments):
        return turned(*arguments)[0], torch.zeros(3000).double()

    monkeypatch.setattr(isokinetic_file, "turned", still)
    assert not correlated.kolmogorov(moved(correlated, together)[0])


def test_one_direction_for_ever_does_not_leave_it(correlated, together):
    class Unrefreshed(together):
        def normal(self, like):
            if not hasattr(self, "kept"):
                self.kept = torch.ones_like(like)
            return self.kept

    assert not correlated.kolmogorov(moved(correlated, Unrefreshed)[0])


@pytest.fixture(scope="module")
def wide():
    """Warm-up and draws in 300 dimensions whose standard deviations go from 0.3 to 3."""
    spread = torch.logspace(-0.5, 0.5, 300, dtype=torch.float64)

    def density(z):
        return -0.5 * (z / spread).square().sum(-1), -z / spread**2

    start = spread * torch.randn(8, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chains = Chains(density, AdjustedMCLMCKernel(), start, warmup_steps=200)
    return chains, collect(chains, 60)


def test_its_acceptance_holds_in_many_dimensions(wide, left_over):
    r"""Within 5 standard errors of the mean of draws and of that of the end of warm-up, and what warm-up leaves over.

    Dual averaging of 50 steps leaves `left_over` between the mean acceptance and its target.
    """
    chains, samples = wide
    acceptance = samples.transitions.acceptance
    error = float(acceptance.std()) * (1 / acceptance.numel() + 1 / (8 * 50)) ** 0.5
    left = left_over(chains.adaptation.averaging)
    assert abs(acceptance.mean() - 0.9) < 5 * error + left
    assert abs(acceptance.mean() - 0.65) > 5 * error + left  # planted: another target


def test_it_does_not_become_a_random_walk(wide):
    """Trajectories have at least two steps, of two gradients each, and lengths of about the root of the dimension."""
    chains, samples = wide
    assert (samples.transitions.steps >= 4).all() and samples.transitions.steps.double().mean() > 4
    assert 0.25 < chains.tuning.length / 300**0.5 < 4


def test_its_mean_trajectory_has_two_steps_at_least(correlated, monkeypatch):
    def steps(length):
        kernel = AdjustedMCLMCKernel(length=length, jitter=0.0)
        run = Chains(correlated, kernel, torch.ones(2, 3).double(), warmup_steps=0, step_size=0.5)
        return int(run.step().transition.steps[0])

    assert steps(1e-6) == 4
    assert steps(4.0) == 2 * 14
    monkeypatch.setattr(AutocorrelatedLength, "FEWEST_STEPS", 0)
    assert steps(1e-6) == 2  # planted


def autoregressive(share, chains=64, draws=400):
    """Draws ``[S, K, 1]`` whose autocorrelation time is (1 + share) / (1 - share)."""
    noise = torch.randn(draws, chains, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = [noise[0]]
    for row in noise[1:]:
        rows.append(share * rows[-1] + (1 - share**2) ** 0.5 * row)
    return rows


def test_lengths_follow_the_autocorrelation():
    """By the root of 0.3 tau with tau = 4; chains of other means are not taken for slow ones."""
    rows = [row + 100.0 * torch.arange(64).unsqueeze(-1) for row in autoregressive(0.6)]
    lengths = AutocorrelatedLength(2.0)
    found = []
    for _ in range(2):
        for row in rows:
            lengths.watch(row)
        lengths.renew(torch.ones(1), 0.1)
        found.append(lengths.length)
    assert found[0] == 2.0  # the first window finds masses alone
    assert abs(found[1] / (2.0 * (0.3 * 4) ** 0.5) - 1) < 0.1
    for rows, change in ((autoregressive(0.98), 2.0), (autoregressive(-0.9), 0.5)):  # never more than by two
        for row in rows:
            lengths.watch(row)
        before = lengths.length
        lengths.renew(torch.ones(1), 0.1)
        assert lengths.length == pytest.approx(change * before)


def test_a_chain_that_stays_has_no_autocorrelation():
    watched = Watched()
    watched.rows = [torch.ones(2, 3)] * 30
    assert watched.autocorrelation_time() == 30.0
    assert Watched.entries(torch.zeros(4, 3)).shape == (4, 3)
    some = Watched.entries(torch.zeros(4, 2730))
    assert some.shape[1] <= 128 and some.untyped_storage().nbytes() == 4 * some.numel()  # the others are let go


def test_it_stays_where_the_density_is_no_number():
    def half(z):
        outside = (z < 0).any(-1)
        return torch.where(outside, torch.nan, -0.5 * z.square().sum(-1)), -z

    chains = Chains(half, AdjustedMCLMCKernel(), torch.full((2, 2), 0.1).double(), warmup_steps=0, step_size=0.4)
    samples = collect(chains, 60)
    assert (samples.z >= 0).all() and samples.log_prob.isfinite().all()
    assert samples.transitions.divergent.any() and not samples.transitions.divergent.all()


def test_a_density_without_a_bound_diverges(correlated):
    """An infinite log-density is not a place to stay at."""

    def spiked(z):
        value, gradient = correlated(z)
        return torch.where(z[..., 0] > 0.5, torch.inf, value), gradient

    position = Chains(spiked, AdjustedMCLMCKernel(), torch.full((8, 3), -1.0).double(), step_size=1.0).position
    streams = Chains(correlated, AdjustedMCLMCKernel(), torch.ones(8, 3).double(), step_size=1.0).streams
    tuning = Tuning(1.0, torch.ones(3).double(), 4.0)
    moved = AdjustedMCLMCKernel().step(spiked, position, streams, tuning)
    assert moved.position.log_prob.isfinite().all() and moved.transition.divergent.any()


def test_one_number_has_no_direction():
    def density(z):
        return -0.5 * z.square().sum(-1), -z

    with pytest.raises(SettingError, match="expected a density over at least two numbers"):
        Chains(density, AdjustedMCLMCKernel(), torch.zeros(2, 1))
