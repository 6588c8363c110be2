"""Step sizes by hand, and which steps are kept."""

import math

import pytest
import torch

from pyroformer.inference import SGLD, ConstantSteps, CyclicalSteps, DecreasingSteps
from pyroformer.inference.stochastic_gradient.schedules import evenly
from pyroformer.priors import SettingError


def test_cycles_follow_the_cosine():
    plan = CyclicalSteps(cycles=2, exploration=0.5).plan(8)
    half = 0.5 * (math.sqrt(0.5) + 1)
    one = torch.tensor([1.0, half, 0.5, 1 - half], dtype=torch.float64)
    assert torch.allclose(plan.factors, torch.cat([one, one]))
    assert plan.sampling.tolist() == [False, False, True, True] * 2
    assert torch.equal(plan.noisy, plan.sampling)


def test_draws_are_from_sampling_stages_of_all_cycles():
    schedule = CyclicalSteps(cycles=2, exploration=0.5)
    assert schedule.kept(8, 4) == [2, 3, 6, 7]
    assert schedule.kept(8, 2) == [3, 7]  # the ends of the cycles
    assert schedule.kept(8, 100) == [2, 3, 6, 7]


@pytest.mark.parametrize("steps", [1, 3, 4, 7, 30, 101])
def test_every_cycle_restarts_and_ends_with_sampling(steps):
    plan = CyclicalSteps(cycles=4, exploration=0.9).plan(steps)
    starts = sorted({math.ceil(cycle * steps / 4) for cycle in range(4)} - {steps})
    assert plan.factors[0] == 1 and plan.sampling[-1]
    if steps > 4:  # where each is a cycle of its own, none rises
        rises = (plan.factors.diff() > 0).nonzero().flatten() + 1
        assert [0, *rises.tolist()] == starts
        assert all(plan.sampling[start - 1] for start in starts[1:])
    assert len(plan.factors) == len(plan.sampling) == steps


def test_decreasing_steps_are_a_power_law():
    schedule = DecreasingSteps(power=0.6, final=0.05, burn_in=0.0)
    done = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    found = schedule.factors(done)
    assert found[0] == 1 and found[-1] == pytest.approx(0.05)
    inverse = found ** (-1 / 0.6)  # a straight line in time
    assert torch.allclose(inverse.diff() / done.diff(), inverse.diff()[:1] / 0.25)
    other = found ** (-1 / 0.7)
    assert not torch.allclose(other.diff() / done.diff(), other.diff()[:1] / 0.25)  # planted: another power


def test_draws_are_evenly_spaced_in_time():
    assert evenly(torch.tensor([4.0, 2, 1, 1]).double(), 2) == [0, 3]
    assert evenly(torch.tensor([0.0, 0, 1, 1, 1, 1]).double(), 2) == [3, 5]
    assert evenly(torch.tensor([0.0, 1, 1]).double(), 7) == [1, 2]
    schedule = DecreasingSteps(burn_in=0.5)
    factors, kept = schedule.plan(1000).factors, schedule.kept(1000, 10)
    pieces = [float(factors[low + 1 : high + 1].sum()) for low, high in zip([499, *kept], kept, strict=False)]
    assert len(kept) == 10 and kept[0] >= 500 and kept[-1] == 999
    assert max(pieces) - min(pieces) < 2 * float(factors[500])
    assert kept[1] - kept[0] < kept[-1] - kept[-2]  # planted: evenly spaced in steps


@pytest.mark.parametrize("schedule", [ConstantSteps(), DecreasingSteps(), CyclicalSteps()])
@pytest.mark.parametrize("steps", [1, 2, 5, 97])
def test_there_is_always_a_draw(schedule, steps):
    kept = schedule.kept(steps, 4)
    assert 1 <= len(kept) <= 4 and kept[-1] == steps - 1
    assert all(schedule.plan(steps).sampling[index] for index in kept)


def test_constant_steps_burn_in():
    plan = ConstantSteps(burn_in=0.3).plan(10)
    assert plan.factors.tolist() == [1.0] * 10 and plan.sampling.tolist() == [False] * 3 + [True] * 7
    assert ConstantSteps(burn_in=0.5).kept(12, 3) == [7, 9, 11]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConstantSteps(burn_in=1.0), "burn_in = 1.0: expected a share of the steps"),
        (lambda: DecreasingSteps(power=0.5), "power = 0.5: expected a number above 0.5 and up to 1"),
        (lambda: DecreasingSteps(final=0.0), "final = 0.0: expected a share of the learning rate"),
        (lambda: CyclicalSteps(cycles=0), "cycles = 0"),
        (lambda: CyclicalSteps(exploration=1.0), "exploration = 1.0: expected a share of a cycle"),
        (lambda: SGLD(schedule="cosine"), "schedule = 'cosine': expected constant, decreasing or cyclical steps"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(SettingError, match=message):
        make()
