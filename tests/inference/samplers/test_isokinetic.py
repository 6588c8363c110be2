"""Dynamics of constant speed: the exact turn, the integrator's measure, reversal and order, and how directions fade."""

import pytest
import torch

from pyroformer.inference.samplers.isokinetic import SHARE, minimal_norm, refreshed, turned, unit
from pyroformer.inference.samplers.kernel import Position

SCALE = torch.tensor([0.7, 1.4], dtype=torch.float64)


def directions(*shape):
    return unit(torch.randn(*shape, dtype=torch.float64))


def banana(z):
    """A curved density with its gradient, both of which autograd can differentiate."""
    x, y = z[..., 0], z[..., 1]
    bend = y - x**2
    return -0.5 * x**2 - 2 * bend**2, torch.stack([-x + 8 * bend * x, -4 * bend], -1)


@pytest.fixture
def start():
    z = 0.5 * torch.randn(3, 2, dtype=torch.float64)  # strong forces turn all directions into one, to rounding
    return Position(z, *banana(z)), directions(3, 2)


def test_the_turn_solves_its_equation():
    """Against many small explicit steps of the same differential equation."""
    direction, force, time, count = directions(3, 4), 2 * torch.randn(3, 4, dtype=torch.float64), 0.7, 2000
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
        direction, gained = turned(directions(2, 3).float(), strength * torch.ones(2, 3), 10.0)
        assert direction.isfinite().all() and gained.isfinite().all()
        assert torch.allclose(direction.norm(dim=-1), torch.ones(2))


def test_the_error_of_the_energy_is_that_of_the_measure():
    """The density times the volume of what was a unit of (z, angle) is exp(-error) times that at the start."""

    def end(joint):
        direction = torch.stack([joint[2].cos(), joint[2].sin()])
        return minimal_norm(banana, Position(joint[:2], *banana(joint[:2])), direction, 0.4, SCALE, 3)

    def move(joint):
        position, direction, _ = end(joint)
        return torch.cat([position.z, torch.atan2(direction[1], direction[0]).unsqueeze(0)])

    joint = torch.tensor([0.4, -0.3, 0.9], dtype=torch.float64)
    volume = torch.autograd.functional.jacobian(move, joint).det().log()
    position, _, error = end(joint)
    gained = position.log_prob - banana(joint[:2])[0]
    assert torch.allclose(volume + gained, -error, atol=1e-10) and error.abs() > 1e-3
    assert not torch.allclose(volume + gained, error, atol=1e-3)  # planted: the sign
    assert not torch.allclose(gained, -error, atol=1e-3)  # planted: as if volume were kept


def test_it_leads_back_when_the_direction_is_turned(start):
    position, direction = start
    end, towards, error = minimal_norm(banana, position, direction, 0.2, SCALE, 8)
    back, _, other = minimal_norm(banana, end, -towards, 0.2, SCALE, 8)
    assert torch.allclose(back.z, position.z, atol=1e-9) and torch.allclose(error, -other, atol=1e-9)
    onwards, _, _ = minimal_norm(banana, end, towards, 0.2, SCALE, 8)
    assert not torch.allclose(onwards.z, position.z, atol=0.1)  # planted: the direction is not turned


def test_steps_one_by_one_are_steps_at_once(start):
    position, direction = start
    at_once = minimal_norm(banana, position, direction, 0.1, SCALE, 5)
    total = torch.zeros(3, dtype=torch.float64)
    for _ in range(5):
        position, direction, error = minimal_norm(banana, position, direction, 0.1, SCALE)
        total = total + error
    assert torch.allclose(position.z, at_once[0].z, atol=1e-12) and torch.allclose(direction, at_once[1], atol=1e-12)
    assert torch.allclose(total, at_once[2], atol=1e-12)


def errors(start, step, count):
    return minimal_norm(banana, *start, step, SCALE, count)[2].abs()


def test_the_error_of_the_energy_is_of_second_order(start):
    """Over the same time, half the step makes a quarter of the error."""
    ratio = errors(start, 0.01, 40) / errors(start, 0.005, 80)
    assert (ratio.log2() - 2).abs().max() < 0.1


def test_its_share_of_the_force_has_the_smallest_error():
    """By the two terms of third order of its error; a quarter at each end is two leapfrog steps of half the size."""

    def terms(share):
        return ((1 - 6 * share + 6 * share**2) / 12) ** 2 + ((1 - 6 * share) / 24) ** 2

    assert terms(0.25) == ((1 / 12) ** 2 + (1 / 24) ** 2) / 16
    assert all(terms(SHARE) < terms(SHARE + away) for away in (-1e-6, 1e-6, 0.25 - SHARE))
    assert not terms(0.19) < terms(0.191)  # planted: another share


def test_directions_fade_on_the_length():
    r"""For many dimensions :math:`u \cdot u' \approx e^{-\epsilon / L}`, up to a share of 1 / D."""
    direction, size, step_size, length = directions(2000, 400), 400, 0.6, 2.0
    noise = torch.randn(2000, size, dtype=torch.float64)
    new = refreshed(direction, noise, step_size, length)
    assert torch.allclose(new.norm(dim=-1), torch.ones(2000).double())
    cosine = (direction * new).sum(-1)
    expected = torch.tensor(-step_size / length).exp()
    allowed = 5 * cosine.std() / 2000**0.5 + 1 / size
    assert abs(cosine.mean() - expected) < allowed
    assert abs(cosine.mean() - expected**2) > allowed  # planted: on half the length
    assert torch.allclose(refreshed(direction, noise, 1.0, 1e-9), unit(noise), atol=1e-12)
    assert torch.allclose(refreshed(direction, noise, 1.0, 1e12), direction, atol=1e-4)
