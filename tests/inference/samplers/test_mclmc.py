"""Unadjusted MCLMC: the order of its bias, its tuning by the variance of the energy, and what is no number."""

import pytest
import torch

from pyroformer.inference.samplers import Chains, MCLMCKernel, collect
from pyroformer.inference.samplers.energy_variance import EnergyCheck, EnergyStepSize, EnergyWarmup
from pyroformer.priors import SettingError


def moved(kernel, density, step_size, together, draws=1, chains=3000):
    """Draws ``[K, S, D]`` of chains that start at draws of the density."""
    run = Chains(density, kernel, density.draws(chains), seed=1, warmup_steps=0, step_size=step_size)
    run.streams = together(1, chains)
    return collect(run, draws).z


def test_a_small_step_leaves_a_density_as_it_is(correlated, together):
    kernel = MCLMCKernel(steps_per_draw=20)
    z = moved(kernel, correlated, 0.4, together)[:, 0]
    assert correlated.kolmogorov(z) and correlated.distance(z) < 5
    assert (z - correlated.draws(3000)).abs().mean() > 0.3  # it did move
    assert not correlated.kolmogorov(moved(kernel, correlated, 4.0, together)[:, 0])  # planted: a large step


def test_without_the_force_at_the_ends_it_is_another_density(correlated, together, monkeypatch):
    monkeypatch.setattr("pyroformer.inference.samplers.isokinetic.SHARE", 0.0)
    assert not correlated.kolmogorov(moved(MCLMCKernel(steps_per_draw=20), correlated, 2.0, together)[:, 0])


def test_its_bias_is_of_second_order_in_the_step_size(correlated, together):
    """Half the step, a quarter of the bias of the squared radius; an eighth of a fourth-order term is allowed for."""
    biases, errors = [], []
    for step_size, steps in ((1.6, 10), (0.8, 20)):  # as far in time
        z = moved(MCLMCKernel(steps_per_draw=steps), correlated, step_size, together, draws=13, chains=2000)
        by_chain = correlated.radius(z[:, 3:]).mean(1) - 3.0
        biases.append(float(by_chain.mean()))
        errors.append(float(by_chain.std()) / 2000**0.5)
    wide, narrow = biases
    assert abs(narrow) > 5 * errors[1]  # it is seen
    allowed = 5 * (errors[0] ** 2 + 16 * errors[1] ** 2) ** 0.5
    assert abs(wide - 4 * narrow) < allowed
    assert abs(wide - 2 * narrow) > 5 * (errors[0] ** 2 + 4 * errors[1] ** 2) ** 0.5  # planted: of first order


def warmed(density, kernel, chains=4, warmup_steps=200):
    run = Chains(density, kernel, density.draws(chains), seed=2, warmup_steps=warmup_steps)
    return run, collect(run, 60)


def realised(samples):
    """The mean square of the errors of the energy by dimension, and its standard error."""
    squares = samples.transitions.energy.square().flatten() / samples.z.shape[-1]
    return float(squares.mean()), float(squares.std()) / len(squares) ** 0.5


def test_the_energy_has_the_variance_that_was_asked_for(stretched):
    run, samples = warmed(stretched, MCLMCKernel())
    found, error = realised(samples)
    assert found < 5e-4 + 5 * error
    assert found > 5e-4 / 2  # the step is not smaller than it need be
    variances = stretched.covariance.diag()
    assert (run.tuning.inverse_mass / variances).log().abs().max() < 1.2
    assert 40**0.5 / 4 <= run.tuning.length <= 4 * 40**0.5
    assert not samples.transitions.divergent.any()
    assert (samples.transitions.steps == 20).all()


def test_its_moments_are_close(stretched, distance):
    """With the bias that its energy allows: variances within a share of 5 %, or 5 standard errors."""
    _, samples = warmed(stretched, MCLMCKernel())
    radius = stretched.radius(samples.z).mean() / 40
    assert abs(radius - 1) < 0.05
    assert distance(samples.z[..., ::13], torch.zeros(4).double(), stretched.covariance[::13, ::13]) < 5
    assert distance(samples.z[..., ::13], torch.zeros(4).double(), 2 * stretched.covariance[::13, ::13]) > 5  # planted


@pytest.mark.parametrize("checked", [True, False])
def test_a_step_that_was_tuned_too_large_is_found_out(stretched, checked, monkeypatch):
    """The adaptation aims at ten times the variance; what measures it at the end makes good, and nothing else does."""
    plain = EnergyStepSize.update
    monkeypatch.setattr(EnergyStepSize, "update", lambda self, square, bad: plain(self, square / 10, bad))
    if not checked:  # planted
        monkeypatch.setattr(EnergyCheck, "factor", lambda *arguments: 1.0)
    found, error = realised(warmed(stretched, MCLMCKernel())[1])
    assert (found < 5e-4 + 5 * error) is checked


def test_the_step_size_by_the_known_law():
    """For errors of a square 3 size^6, the size is (wanted / 3)^(1/6), from whatever beginning."""
    for first in (1e-2, 1.0, 30.0):
        sizes = EnergyStepSize(0.01, first)
        for _ in range(100):
            sizes.update(3 * sizes.step_size**6, False)
        assert abs(sizes.step_size / (0.01 / 3) ** (1 / 6) - 1) < 1e-3


def test_divergences_shrink_the_step_and_spoil_nothing():
    sizes = EnergyStepSize(0.01, 1.0)
    sizes.update(float("nan"), True)
    assert sizes.step_size == 0.8
    sizes.update(0.0, False)  # errors that allow for any step
    assert 0.8 < sizes.step_size < 0.82
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
    chains = Chains(walled, MCLMCKernel(), start, warmup_steps=60, step_size=8.0)
    draws = [chains.step() for _ in range(70)]
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
    for adapt, steps in ((True, 40), (False, 40)):
        run = Chains(
            correlated, MCLMCKernel(length=2.0, adapt_length=adapt), torch.ones(2, 3).double(), warmup_steps=steps
        )
        for _ in range(steps):
            run.step()
        assert (run.tuning.length == 2.0 * 3**0.5) is not adapt
    assert isinstance(run.adaptation, EnergyWarmup)
