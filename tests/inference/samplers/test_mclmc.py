"""Unadjusted MCLMC: the order of its bias, its tuning by the variance of the energy, and what is no number."""

import random

import pytest
import torch

from pyroformer.inference.samplers import Chains, MCLMCKernel, collect
from pyroformer.inference.samplers.energy_variance import EnergyCheck, EnergyStepSize
from pyroformer.priors import SettingError


def run(density, kernel, together, step_size, draws=1, chains=3000):
    """Draws of chains that start at draws of the density."""
    chain = Chains(density, kernel, density.draws(chains), seed=1, warmup_steps=0, step_size=step_size)
    chain.streams = together(1, chains)
    return collect(chain, draws)


def test_a_small_step_leaves_a_density_as_it_is(correlated, together):
    kernel = MCLMCKernel(steps_per_draw=20)
    z = run(correlated, kernel, together, 0.4).z[:, 0]
    assert correlated.kolmogorov(z) and correlated.distance(z) < 5
    assert (z - correlated.draws(3000)).abs().mean() > 0.3  # it did move
    assert correlated.distance(run(correlated, kernel, together, 4.0).z[:, 0]) > 5  # planted: a large step


def test_without_the_force_at_the_ends_it_is_another_density(correlated, together, monkeypatch):
    monkeypatch.setattr("pyroformer.inference.samplers.isokinetic.SHARE", 0.0)
    assert correlated.distance(run(correlated, MCLMCKernel(steps_per_draw=20), together, 2.0).z[:, 0]) > 5


def test_its_bias_is_of_second_order_in_the_step_size(correlated, together):
    r"""Half the step, a quarter of the bias of the squared radius.

    From draws of the density the expectation of :math:`f\, e^{-\Delta E}` stays what it is, so that of
    :math:`f (1 - e^{-\Delta E})` is the bias of f; its noise is as small as the errors of the energy.
    """
    biases, errors = [], []
    for step_size, steps in ((0.4, 6), (0.2, 12)):  # as far in time
        samples = run(correlated, MCLMCKernel(steps_per_draw=1), together, step_size, steps, chains=20_000)
        size, sign = samples.transitions.energy, torch.where(samples.transitions.acceptance < 1, 1.0, -1.0)
        weight, radius = (-(sign * size).sum(1)).exp(), correlated.radius(samples.z[:, -1])
        assert abs(weight.mean() - 1) < 5 * weight.std() / 20_000**0.5
        assert abs((radius * weight).mean() - 3.0) < 5 * radius.std() / 20_000**0.5
        bias = radius * (1 - weight)
        biases.append(float(bias.mean()))
        errors.append(float(bias.std()) / 20_000**0.5)
    wide, narrow = biases
    assert abs(narrow) > 5 * errors[1]  # it is seen
    assert abs(wide - 4 * narrow) < 5 * (errors[0] ** 2 + 16 * errors[1] ** 2) ** 0.5
    assert abs(wide - 2 * narrow) > 5 * (errors[0] ** 2 + 4 * errors[1] ** 2) ** 0.5  # planted: of first order


def warmed(density, kernel, warmup_steps, draws):
    chains = Chains(density, kernel, density.draws(4), seed=2, warmup_steps=warmup_steps)
    return chains, collect(chains, draws)


def realised(chains, samples):
    """The mean square of the errors of the energy as a share of what was asked for, and how exact it can be.

    The second is five standard errors of the mean of draws, and of what the check had to go by, as a share.
    """
    squares = samples.transitions.energy.square().flatten() / samples.z.shape[-1]
    measured = 4 * chains.adaptation.check.block
    exactness = float(squares.std() / squares.mean()) * (1 / len(squares) + 1 / measured) ** 0.5
    return float(squares.mean()) / chains.kernel.energy_variance, 5 * exactness


@pytest.fixture(scope="module")
def stretched_run(stretched):
    return warmed(stretched, MCLMCKernel(steps_per_draw=5), 150, 40)


def test_the_energy_has_the_variance_that_was_asked_for(stretched, stretched_run):
    chains, samples = stretched_run
    found, exactness = realised(chains, samples)
    assert 0.5 < found < 1 + exactness  # nor is the step smaller than it need be
    variances = stretched.covariance.diag()
    assert (chains.tuning.inverse_mass / variances).log().abs().max() < 1.2
    assert 40**0.5 / 4 <= chains.tuning.length <= 4 * 40**0.5
    assert not samples.transitions.divergent.any()
    assert (samples.transitions.steps == 10).all()


def test_its_moments_are_close(stretched, stretched_run, distance):
    """Variances are within a share of 5 %, which is more than the bias that the variance of the energy allows."""
    z = stretched_run[1].z
    assert abs(stretched.radius(z).mean() / 40 - 1) < 0.05
    some, zeros = slice(None, None, 13), torch.zeros(4).double()
    assert distance(z[..., some], zeros, stretched.covariance[some, some]) < 5
    assert distance(z[..., some], zeros, 2 * stretched.covariance[some, some]) > 5  # planted


@pytest.mark.parametrize("checked", [True, False])
def test_a_step_that_was_tuned_too_large_is_found_out(stretched, checked, monkeypatch):
    """The adaptation aims at ten times the variance; what measures it at the end makes good, and nothing else does."""
    plain = EnergyStepSize.update
    monkeypatch.setattr(EnergyStepSize, "update", lambda self, square, bad: plain(self, square / 10, bad))
    if not checked:  # planted
        monkeypatch.setattr(EnergyCheck, "factor", lambda *arguments: 1.0)
    found, exactness = realised(*warmed(stretched, MCLMCKernel(steps_per_draw=3), 150, 40))
    assert (found < 1 + exactness) is checked


def test_the_step_size_by_the_known_law():
    """For errors of a square 3 size^6, the size is (wanted / 3)^(1/6), from whatever beginning."""
    for first in (1e-2, 1.0, 30.0):
        sizes = EnergyStepSize(0.01, first)
        for _ in range(100):
            sizes.update(3 * sizes.step_size**6, False)
        assert abs(sizes.step_size / (0.01 / 3) ** (1 / 6) - 1) < 1e-3
        assert abs(sizes.average / sizes.step_size - 1) < 0.03


def test_the_step_size_where_errors_come_in_bursts():
    """One transition in many has all the error, 20 times the wanted square and capped at 5: P(burst) = 1 / 5."""
    chance, sizes = random.Random(0), EnergyStepSize(0.01, 0.3)
    for _ in range(3000):
        burst = chance.random() < 0.1 * sizes.step_size**6
        sizes.update(0.2 if burst else 1e-9, False)
    assert abs(sizes.average / 2 ** (1 / 6) - 1) < 0.02
    assert abs(sizes.step_size / sizes.average - 1) < 0.1


def test_divergences_shrink_the_step_and_spoil_nothing():
    sizes = EnergyStepSize(0.01, 1.0)
    sizes.update(float("nan"), True)
    assert sizes.step_size < 0.8
    sizes.update(0.0, False)  # errors that allow for any step
    assert sizes.step_size < 0.6
    for _ in range(300):  # and as seldom as one in three that are no numbers, however late
        sizes.update(0.0, False)
        sizes.update(0.0, False)
        sizes.update(float("nan"), True)
    assert sizes.step_size < 0.1
    again = EnergyStepSize(0.01, 1.0)
    again.restore(sizes.state())
    assert vars(again) == vars(sizes)


def walled(z):
    """A standard normal density that is no number in a few places, more of which large steps meet."""
    outside = (z.abs() > 2.5).any(-1)
    value = torch.where(outside, torch.nan, -0.5 * z.square().sum(-1))
    return value, torch.where(outside.unsqueeze(-1), torch.nan, -z)


@pytest.mark.parametrize("heard", [True, False])
def test_what_is_no_number_shrinks_the_step_and_does_not_spread(heard, monkeypatch):
    plain = EnergyStepSize.update
    if not heard:  # planted: transitions with divergences are left out
        monkeypatch.setattr(
            EnergyStepSize, "update", lambda self, square, bad: None if bad else plain(self, square, bad)
        )
        monkeypatch.setattr(EnergyCheck, "factor", lambda *arguments: 1.0)
    start = 0.1 * torch.randn(8, 2, dtype=torch.float64)
    chains = Chains(walled, MCLMCKernel(steps_per_draw=3), start, warmup_steps=40, step_size=8.0)
    draws = [chains.step() for _ in range(45)]
    assert all(draw.z.isfinite().all() and draw.log_prob.isfinite().all() for draw in draws)
    assert all(draw.transition.energy.isfinite().all() for draw in draws)
    assert chains.memory["direction"].isfinite().all()
    assert draws[0].transition.divergent.any()
    assert (chains.tuning.step_size < 4.0) is heard


def test_one_number_has_no_direction():
    def density(z):
        return -0.5 * z.square().sum(-1), -z

    with pytest.raises(SettingError, match="expected a density over at least two numbers"):
        Chains(density, MCLMCKernel(), torch.zeros(2, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MCLMCKernel(energy_variance=0.0), "energy_variance = 0.0: expected a number above 0"),
        (lambda: MCLMCKernel(length=0.0), "length = 0.0: expected a number above 0"),
        (lambda: MCLMCKernel(steps_per_draw=0), "steps_per_draw = 0: expected a whole number"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(SettingError) as refused:
        make()
    assert message in str(refused.value)


def test_the_length_can_be_kept(correlated):
    for adapt in (True, False):
        kernel = MCLMCKernel(length=2.0, adapt_length=adapt)
        chains = Chains(correlated, kernel, torch.ones(2, 3).double(), warmup_steps=60)
        for _ in range(60):
            chains.step()
        assert (chains.tuning.length == 2.0 * 3**0.5) is not adapt
