"""SNAPER: the component it finds, the slope of its criterion, and the best length along one wide direction."""

import math

import pytest
import torch

from pyroformer.inference.samplers import Chains, Moved, SNAPERKernel, Streams, Transition, Tuning, collect
from pyroformer.inference.samplers.chees import ChEESLength
from pyroformer.inference.samplers.kernel import Position
from pyroformer.inference.samplers.snaper import SNAPERLength

WIDE = torch.tensor([4.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
"""Standard deviations of independent numbers."""
ONES = torch.ones(5, dtype=torch.float64)


def flown(start, velocity, time):
    """What exact trajectories of the normal density give, with masses of 1."""
    angle = time / WIDE
    end = start * angle.cos() + WIDE * velocity * angle.sin()
    last = velocity * angle.cos() - start / WIDE * angle.sin()
    certain = torch.ones(len(start)).double()
    transition = Transition(certain, certain, certain > 2, certain, certain)
    evidence = {"start": start, "end": end, "velocity": last, "time": torch.tensor(time, dtype=torch.float64)}
    return Moved(Position(end, certain, last), transition, evidence=evidence)


def drawn(count=64):
    return WIDE * torch.randn(count, 5, dtype=torch.float64), torch.randn(count, 5, dtype=torch.float64)


def test_the_component_is_the_widest_direction():
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    lengths = SNAPERLength(1.0, 5)
    for _ in range(200):
        moved = flown(*drawn(), 1.0)
        z = moved.position.z @ turn + 3.0  # another mean
        lengths.update(moved._replace(position=moved.position._replace(z=z)), Tuning(0.1, ONES))
    assert abs(lengths.direction @ turn[0]) > 0.99
    assert abs(lengths.direction @ turn[1]) < 0.14  # planted: another one
    assert torch.allclose(lengths.mean, torch.full((5,), 3.0).double(), atol=5 * 4 / (64 * 12) ** 0.5)


def test_the_slope_is_that_of_the_criterion():
    (start, velocity), time, lengths = drawn(), 1.7, SNAPERLength(1.0, 5)
    lengths.component = torch.eye(5, dtype=torch.float64)[0]

    def criterion(log_time):
        moved = (start[:, 0] * (log_time.exp() / 4).cos() + 4 * velocity[:, 0] * (log_time.exp() / 4).sin()).square()
        return ((moved - start[:, 0].square()).square() / log_time.exp()).mean()

    expected = torch.autograd.functional.jacobian(criterion, torch.tensor(math.log(time), dtype=torch.float64))
    assert abs(lengths.slope(flown(start, velocity, time), ONES) / expected - 1) < 1e-9
    assert abs(ChEESLength(1.0).slope(flown(start, velocity, time), ONES) / expected - 1) > 0.1  # planted


def best():
    """The mean length that gains most, of lengths uniform up to its double: the squares' change is sin(t / 4)^2."""
    lengths = torch.linspace(0.5, 12.0, 2000, dtype=torch.float64)
    times = 2 * lengths.unsqueeze(-1) * (torch.arange(500) + 0.5) / 500
    return float(lengths[((times / 4).sin().square() / times).mean(-1).argmax()])


def learnt(lengths):
    streams = Streams(0, 1)
    for _ in range(400):
        lengths.update(flown(*drawn(), 2 * lengths.length * streams.halton()), Tuning(1e-3, ONES))
    lengths.finish()
    return abs(math.log(lengths.length / best()))


def test_the_best_length_along_the_widest_direction():
    """Within six steps of Adam, about which it wanders."""
    assert learnt(SNAPERLength(1.5, 5)) < 0.15
    downhill = SNAPERLength(1.5, 5)
    downhill.RATE = -0.025
    assert learnt(downhill) > 0.15  # planted


def test_draws_have_the_moments(correlated, distance):
    chains = Chains(correlated, SNAPERKernel(), correlated.draws(8), warmup_steps=100)
    samples = collect(chains, 100)
    assert distance(samples.z, correlated.mean, correlated.covariance) < 5
    assert distance(samples.z, correlated.mean, 1.7 * correlated.covariance) > 5  # planted: another density
    again = Chains(correlated, SNAPERKernel(), correlated.draws(8), warmup_steps=100, step_size=0.1)
    again.restore(chains.state())
    assert torch.equal(again.step().z, chains.step().z)
    assert torch.equal(again.adaptation.lengths.direction, chains.adaptation.lengths.direction)


def test_it_needs_several_chains(correlated):
    with pytest.raises(ValueError, match="at least two chains"):
        Chains(correlated, SNAPERKernel(), torch.zeros(1, 3).double())
