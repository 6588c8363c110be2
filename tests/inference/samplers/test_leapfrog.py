"""The integrator: it can be taken back, keeps volume, and is of second order."""

import pytest
import torch

from pyroformer.inference.samplers.leapfrog import Phase, energy, kinetic, leapfrog

MASS = torch.tensor([0.5, 2.0], dtype=torch.float64)


def banana(z):
    """A curved density with its gradient, both of which autograd can differentiate."""
    x, y = z[..., 0], z[..., 1]
    bend = y - x**2
    return -0.5 * x**2 - 2 * bend**2, torch.stack([-x + 8 * bend * x, -4 * bend], -1)


def phase(z, momentum):
    return Phase(z, momentum, *banana(z))


@pytest.fixture
def start():
    return phase(torch.randn(3, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64))


def test_it_leads_back_when_the_momentum_is_turned(start):
    end = leapfrog(banana, start, 0.1, MASS, 20)
    back = leapfrog(banana, end._replace(momentum=-end.momentum), 0.1, MASS, 20)
    assert torch.allclose(back.z, start.z, atol=1e-10) and torch.allclose(back.momentum, -start.momentum, atol=1e-10)
    in_time = leapfrog(banana, end, -0.1, MASS, 20)
    assert torch.allclose(in_time.z, start.z, atol=1e-10) and (end.z - start.z).abs().max() > 0.1
    onwards = leapfrog(banana, end, 0.1, MASS, 20)
    assert not torch.allclose(onwards.z, start.z, atol=0.1)  # planted: the momentum is not turned


def volume(move):
    joint = torch.randn(4, dtype=torch.float64)
    return torch.autograd.functional.jacobian(move, joint).det()


def test_it_keeps_volume():
    def ours(joint):
        end = leapfrog(banana, phase(*joint.split(2)), 0.3, MASS, 3)
        return torch.cat([end.z, end.momentum])

    def euler(joint):
        z, momentum = joint.split(2)
        return torch.cat([z + 0.3 * MASS * momentum, momentum + 0.3 * banana(z)[1]])

    assert abs(volume(ours) - 1) < 1e-10
    assert abs(volume(euler) - 1) > 1e-3  # planted: both halves moved at once


def test_steps_one_by_one_are_steps_at_once(start):
    end = start
    for _ in range(5):
        end = leapfrog(banana, end, 0.1, MASS)
    for one, other in zip(end, leapfrog(banana, start, 0.1, MASS, 5), strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_the_energy_is_kept_to_second_order(start):
    """Over the same time, half the step makes a quarter of the error."""

    def error(step, count):
        return (energy(leapfrog(banana, start, step, MASS, count), MASS) - energy(start, MASS)).abs()

    ratio = error(0.01, 40) / error(0.005, 80)
    assert (ratio.log2() - 2).abs().max() < 0.1


def test_kinetic_energy_by_hand():
    momentum = torch.tensor([[1.0, 2.0], [0.0, 3.0]], dtype=torch.float64)
    assert torch.equal(kinetic(momentum, MASS), torch.tensor([0.25 + 4.0, 9.0]).double())
