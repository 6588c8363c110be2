"""ChEES: the slope of its criterion, the best length of a known density, and how chains are pooled."""

import math

import pytest
import torch

from pyroformer.inference.samplers import Chains, ChEESKernel, Moved, Streams, Transition, Tuning, collect
from pyroformer.inference.samplers.chees import ChEESLength
from pyroformer.inference.samplers.kernel import Position
from pyroformer.priors import SettingError

BEST = 4.493409 / 4
"""Where sin(4 T) / 4 T is smallest: the best mean length for a normal density, lengths being uniform up to twice it."""


def flown(start, velocity, time, probability=None):
    """What exact trajectories of a standard normal density give."""
    end = start * math.cos(time) + velocity * math.sin(time)
    last = velocity * math.cos(time) - start * math.sin(time)
    probability = torch.ones(len(start)).double() if probability is None else probability
    transition = Transition(probability, probability, probability > 2, probability, probability)
    evidence = {"start": start, "end": end, "velocity": last, "time": torch.tensor(time, dtype=torch.float64)}
    return Moved(Position(end, probability, end), transition, evidence=evidence)


def centred(count, size):
    drawn = torch.randn(count, size, dtype=torch.float64)
    return drawn - drawn.mean(0)


def test_the_slope_is_that_of_the_criterion():
    start, velocity, time = centred(50, 3), centred(50, 3), 0.8

    def criterion(log_time):
        end = start * log_time.exp().cos() + velocity * log_time.exp().sin()
        return 0.25 * (end.square().sum(-1) - start.square().sum(-1)).square().mean()

    expected = torch.autograd.functional.jacobian(criterion, torch.tensor(math.log(time), dtype=torch.float64))
    lengths, ones = ChEESLength(1.0), torch.ones(3).double()
    found = lengths.slope(flown(start, velocity, time), ones)
    assert abs(found / expected - 1) < 1e-9
    # in other units it is the same
    mass = torch.tensor([4.0, 1.0, 0.25], dtype=torch.float64)
    plain = flown(start, velocity, time)
    scaled = {name: value * mass.sqrt() if name != "time" else value for name, value in plain.evidence.items()}
    assert abs(lengths.slope(plain._replace(evidence=scaled), mass) / expected - 1) < 1e-9
    assert abs(lengths.slope(plain._replace(evidence=scaled), ones) / expected - 1) > 0.1  # planted: not whitened


def test_ends_that_are_no_numbers_have_no_part():
    start, velocity = centred(6, 3), centred(6, 3)
    probability = torch.tensor([1.0, 0.5, 0.0, 1.0, 1.0, 1.0]).double()
    whole = flown(start, velocity, 0.5, probability)
    end = whole.evidence["end"].clone()
    end[2] = torch.nan
    broken = whole._replace(evidence={**whole.evidence, "end": end})
    lengths = ChEESLength(1.0)
    assert lengths.slope(broken, torch.ones(3)) == lengths.slope(whole, torch.ones(3))
    end[0] = torch.nan  # one that was accepted: not learnt from
    lengths.update(broken, Tuning(0.1, torch.ones(3)))
    assert lengths.length == 1.0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_best_length_of_a_normal_density(sign, monkeypatch):
    """Within six steps of Adam, about which it wanders."""
    plain = ChEESLength.slope
    monkeypatch.setattr(ChEESLength, "slope", lambda *arguments: sign * plain(*arguments))  # planted: downhill
    lengths, streams = ChEESLength(0.4), Streams(0, 1)
    for _ in range(400):
        start, velocity = torch.randn(2, 200, 10, dtype=torch.float64)
        moved = flown(start, velocity, 2 * lengths.length * streams.halton())
        lengths.update(moved, Tuning(1e-3, torch.ones(10)))
    lengths.finish()
    assert (abs(math.log(lengths.length / BEST)) < 0.15) is (sign > 0)


def test_warm_up_finds_lengths_masses_and_acceptance(stretched, distance, left_over):
    chains = Chains(stretched, ChEESKernel(), stretched.draws(16), seed=1, warmup_steps=200)
    samples = collect(chains, 40)
    assert (chains.tuning.inverse_mass / stretched.covariance.diag()).log().abs().max() < 0.7
    assert 0.5 < chains.tuning.length / BEST < 2
    acceptance = samples.transitions.acceptance
    left = left_over(chains.adaptation.averaging)
    harmonic = 1 / (1 / acceptance.clamp(min=1e-10)).mean(0)
    allowed = 5 * float(harmonic.std()) * (1 / 40 + 1 / 50) ** 0.5 + left
    assert harmonic.mean() > 0.651 - allowed
    double = {"step_size": 2 * chains.tuning.step_size, "inverse_mass": chains.tuning.inverse_mass}
    coarse = collect(Chains(stretched, ChEESKernel(), chains.position.z, warmup_steps=0, **double), 40)
    assert 1 / (1 / coarse.transitions.acceptance.clamp(min=1e-10)).mean() < 0.651 - allowed
    assert distance(samples.z[..., ::13], torch.zeros(4).double(), stretched.covariance[::13, ::13]) < 5


def test_the_worst_chain_decides():
    found = ChEESKernel.mean_acceptance(Transition(*[torch.tensor([1.0, 0.25]).double()] * 5))
    assert found == pytest.approx(0.4)
    assert ChEESKernel.mean_acceptance(Transition(*[torch.zeros(2).double()] * 5)) < 1e-9


def test_halton_by_hand():
    streams = Streams(0, 2)
    assert [streams.halton() for _ in range(7)] == [0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875]
    going_on = Streams(5, 2)
    going_on.restore(streams.state())
    assert going_on.halton() == 1 / 16 and torch.equal(going_on.uniform(), streams.uniform())


def test_one_chain_is_refused(correlated):
    with pytest.raises(SettingError, match="expected at least two chains"):
        Chains(correlated, ChEESKernel(), torch.zeros(1, 3).double())
