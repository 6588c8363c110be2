"""How the step size of a chain changes, and which of its steps give draws."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...priors.settings import check, check_count


class Plan(NamedTuple):
    """What a schedule says of ``n`` steps.

    Args:
        factors: The learning rate of each as a share of the largest, ``[n]`` in float64.
        noisy: Whether noise is added in it, ``[n]``.
        sampling: Whether what it leads to may be kept, ``[n]``.
    """

    factors: Tensor
    noisy: Tensor
    sampling: Tensor


@dataclass(frozen=True, kw_only=True)
class StepSchedule(ABC):
    """The sizes of the steps of stochastic-gradient MCMC."""

    choice_suffix = "Steps"

    @abstractmethod
    def plan(self, steps: int) -> Plan:
        """What there is to say of so many steps; the last one of them is one of sampling."""

    def kept(self, steps: int, num_samples: int) -> list[int]:
        """The steps after which draws are kept, numbered from 0, at most so many.

        They are evenly spaced in time, which is the sum of the step sizes, so that their plain average is the average
        weighted by step sizes that a decreasing schedule asks for.
        """
        plan = self.plan(steps)
        return evenly(plan.factors * plan.sampling, num_samples)


def evenly(weights: Tensor, count: int) -> list[int]:
    """Where the running sum of weights ``[n]`` reaches each of ``count`` equal parts; places that repeat are one."""
    total = weights.cumsum(0)
    targets = torch.arange(1, count + 1, dtype=torch.float64) / count * total[-1]
    places = torch.searchsorted(total, targets * (1 - 1e-12)).clamp(max=len(weights) - 1)
    return sorted(set(places.tolist()))


@dataclass(frozen=True, kw_only=True)
class BurningIn(StepSchedule):
    """A schedule whose first steps are not kept.

    Args:
        burn_in: Share of the steps before the first draw, at least 0 and below 1, default 0.5.

    Raises:
        SettingError: A setting is out of range.
    """

    burn_in: float = 0.5

    def __post_init__(self) -> None:
        check(self, "burn_in", 0 <= self.burn_in < 1, "a share of the steps, at least 0 and below 1")

    @abstractmethod
    def factors(self, done: Tensor) -> Tensor:
        """The learning rate, as a share of the largest, when shares ``done`` of the steps have been made."""

    def plan(self, steps: int) -> Plan:
        index = torch.arange(steps, dtype=torch.float64)
        everywhere = torch.ones(steps, dtype=torch.bool)
        return Plan(self.factors(index / steps), everywhere, index >= math.floor(self.burn_in * steps))


@dataclass(frozen=True, kw_only=True)
class ConstantSteps(BurningIn):
    r"""Steps of one size, whose bias stays.

    .. math:: \ell_t = \ell

    Args:
        burn_in: See `BurningIn`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Vollmer, Zygalakis and Teh, 2016, "Exploration of the (non-)asymptotic bias and variance of stochastic gradient
        Langevin dynamics".

    Example:
        task: digits
        driver:
          sgld:
            schedule:
              constant:
                burn_in: 0.3
    """

    def factors(self, done: Tensor) -> Tensor:
        return torch.ones_like(done)


@dataclass(frozen=True, kw_only=True)
class DecreasingSteps(BurningIn):
    r"""Steps that shrink by a power law, so that their bias does.

    .. math:: \ell_t = a\, (b + t)^{-\gamma}, \qquad \ell_0 = \ell, \qquad \ell_n = \ell r

    The schedule ends, so a bias is left, as it is of the last steps. Draws are evenly spaced in the sum of the step
    sizes: their plain average is the weighted one of the paper.

    Args:
        power: :math:`\gamma`, above 0.5 and up to 1, default 0.55.
        final: :math:`r`, the share of the learning rate that is left at the end, above 0 and below 1, default 0.01.
        burn_in: See `BurningIn`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Welling and Teh, 2011, "Bayesian learning via stochastic gradient Langevin dynamics", Sec. 3 and Eq. 11 (the
        weights); both defaults are a reconstruction.

    Example:
        task: digits
        driver:
          sgld:
            schedule:
              decreasing:
                power: 0.55
                final: 0.01
    """

    power: float = 0.55
    final: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, "power", 0.5 < self.power <= 1, "a number above 0.5 and up to 1")
        check(self, "final", 0 < self.final < 1, "a share of the learning rate, above 0 and below 1")

    def factors(self, done: Tensor) -> Tensor:
        return (1 + done * (self.final ** (-1 / self.power) - 1)) ** -self.power


@dataclass(frozen=True, kw_only=True)
class CyclicalSteps(StepSchedule):
    r"""Cycles of steps that shrink by a cosine: the first part of each looks for a mode, the second draws from it.

    .. math:: \ell_t = \frac{\ell}{2} \Big(\cos(\pi r_t) + 1\Big), \qquad
              r_t = \frac{\mathrm{mod}(t, n / M)}{n / M}

    While :math:`r_t < \beta` no noise is added, so that the chain descends; then it draws. A new cycle begins with the
    largest steps from where the last one ended. Draws are evenly spaced over the sampling stages of all cycles. Each
    mode counts as often as it is found, however much of the posterior it holds.

    Args:
        cycles: :math:`M`, default 4.
        exploration: :math:`\beta`, the share of a cycle without noise, at least 0 and below 1, default 0.8 (a
            reconstruction). The last step of a cycle is one of sampling in any case.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Zhang, Li, Zhang, Chen and Wilson, 2020, "Cyclical stochastic gradient MCMC for Bayesian deep learning", Eq. 1
        and Algorithm 1.

    Example:
        task: digits
        driver:
          sghmc:
            schedule:
              cyclical:
                cycles: 4
                exploration: 0.8
    """

    cycles: int = 4
    exploration: float = 0.8

    def __post_init__(self) -> None:
        check_count(self, "cycles")
        check(self, "exploration", 0 <= self.exploration < 1, "a share of a cycle, at least 0 and below 1")

    def plan(self, steps: int) -> Plan:
        index = torch.arange(steps)
        done = (index * self.cycles % steps).double() / steps  # of the cycle
        last = (index + 1) * self.cycles // steps > index * self.cycles // steps
        sampling = (done >= self.exploration) | last
        return Plan(0.5 * (torch.cos(math.pi * done) + 1), sampling, sampling)

    def kept(self, steps: int, num_samples: int) -> list[int]:
        return evenly(self.plan(steps).sampling.double(), num_samples)
