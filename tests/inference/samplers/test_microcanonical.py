"""Trajectories of constant speed: the exact turn, its volume, and the moments of draws."""

import pytest
import torch

from pyroformer.inference.samplers import Chains, MicrocanonicalKernel, Tuning
from pyroformer.inference.samplers import microcanonical as file
from pyroformer.inference.samplers.kernel import Position
from pyroformer.inference.samplers.microcanonical import turned
from pyroformer.priors import SettingError


def unit(*shape):
    direction = torch.randn(*shape, dtype=torch.float64)
    return direction / direction.norm(dim=-1, keepdim=True)


def test_the_turn_solves_its_equation():
    """Against many small explicit steps of the same differential equation."""
    direction, force, time, count = unit(3, 4), 2 * torch.randn(3, 4, dtype=torch.float64), 0.7, 2000
    exact, gained = turned(direction, force, time)
    small, energy = direction.clone(), torch.zeros(3, dtype=torch.float64)
    for _ in range(count):
        along = (small * force).sum(-1, keepdim=True)
        half = small + 0.5 * time / count * (force - small * along) / 3
        middle = (half * force).sum(-1, keepdim=True)
        small = small + time / count * (force - half * middle) / 3
        energy = energy + time / count * middle.squeeze(-1)
    assert torch.allclose(exact, small, atol=1e-6) and torch.allclose(gained, energy, atol=1e-6)
    assert not torch.allclose(turned(direction, force, 1.1 * time)[0], small, atol=1e-3)  # planted: longer


def test_a_strong_force_does_not_overflow():
    for strength in (0.0, 1e3, 1e6):
        direction, gained = turned(unit(2, 3).float(), strength * torch.ones(2, 3), 10.0)
        assert direction.isfinite().all() and gained.isfinite().all()
        assert torch.allclose(direction.norm(dim=-1), torch.ones(2))


def test_the_energy_gained_is_the_volume_lost():
    """On a circle the turn maps an angle; its derivative is exp(-gain)."""
    force, angle = torch.tensor([0.8, -1.3], dtype=torch.float64), torch.tensor(0.9, dtype=torch.float64)

    def move(angle):
        direction, _ = turned(torch.stack([angle.cos(), angle.sin()]), force, 0.6)
        return torch.atan2(direction[1], direction[0])

    slope = torch.autograd.functional.jacobian(move, angle)
    _, gained = turned(torch.stack([angle.cos(), angle.sin()]), force, 0.6)
    assert torch.allclose(slope, (-gained).exp())
    assert not torch.allclose(slope, gained.exp())  # planted: the sign


def test_the_error_of_the_energy_is_of_second_order(correlated):
    z, direction = torch.randn(4, 3, dtype=torch.float64), unit(4, 3)
    position = Position(z, *correlated(z))

    def error(step, count):
        tuning = Tuning(step, torch.ones(3).double())
        return MicrocanonicalKernel.trajectory(correlated, position, direction, tuning, count)[1].abs()

    ratio = error(0.01, 60) / error(0.005, 120)
    assert (ratio.log2() - 2).abs().max() < 0.1


def test_it_leads_back_when_the_direction_is_turned(correlated):
    z = torch.randn(4, 3, dtype=torch.float64)
    tuning, start = Tuning(0.2, torch.tensor([0.5, 1.0, 2.0]).double()), Position(z, *correlated(z))
    (end, direction), error = MicrocanonicalKernel.trajectory(correlated, start, unit(4, 3), tuning, 8)
    (back, _), other = MicrocanonicalKernel.trajectory(correlated, end, -direction, tuning, 8)
    assert torch.allclose(back.z, z) and torch.allclose(error, -other) and not torch.allclose(end.z, z, atol=0.01)


def moved(kernel, density, step_size=2.0):
    """Where 3,000 chains that start at draws of the density are after four steps."""
    chains = Chains(density, kernel, density.draws(3000), seed=1, warmup_steps=0, step_size=step_size)
    for _ in range(4):
        acceptance = chains.step().transition.acceptance
    return chains.position.z, float(acceptance.mean())


def test_adjusted_it_leaves_a_density_as_it_is(correlated):
    z, acceptance = moved(MicrocanonicalKernel(), correlated)
    assert correlated.distance(z) < 5 and 0.4 < acceptance < 0.9
    assert (z - correlated.draws(3000)).abs().mean() > 0.3  # it did move


def test_unadjusted_it_is_biased_by_large_steps_only(correlated):
    kernel = MicrocanonicalKernel(adjusted=False)
    assert correlated.distance(moved(kernel, correlated)[0]) > 5
    assert correlated.distance(moved(kernel, correlated, step_size=0.3)[0]) < 5


def test_an_energy_without_its_kinetic_part_fails(correlated, monkeypatch):
    monkeypatch.setattr(file, "turned", lambda *arguments: (turned(*arguments)[0], torch.zeros(3000).double()))
    assert correlated.distance(moved(MicrocanonicalKernel(), correlated)[0]) > 5


def test_one_number_has_no_direction():
    def density(z):
        return -0.5 * z.square().sum(-1), -z

    with pytest.raises(SettingError, match="expected a density over at least two numbers"):
        Chains(density, MicrocanonicalKernel(), torch.zeros(2, 1))
