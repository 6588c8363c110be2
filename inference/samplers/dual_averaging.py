"""Step sizes that lead to a given acceptance."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

MOST_DOUBLINGS = 60
LARGEST_LOG = 700.0
"""Of a step size, up or down: a density without an end never refuses a step, and exponentials overflow beyond."""


class DualAveraging:
    r"""A step size that is adapted by dual averaging until the mean acceptance is the wanted one.

    .. math:: \bar h_t = \Big(1 - \frac1{t + t_0}\Big) \bar h_{t-1} + \frac{\delta - \alpha_t}{t + t_0}, \qquad
        \ln \epsilon_t = \mu - \frac{\sqrt t}{\gamma} \bar h_t, \qquad
        \ln \bar\epsilon_t = t^{-\kappa} \ln \epsilon_t + (1 - t^{-\kappa}) \ln \bar\epsilon_{t-1}

    with :math:`t_0 = 10`, :math:`\kappa = 0.75` and :math:`\mu = \ln(b\, \epsilon_0)`.

    Args:
        target: The acceptance :math:`\delta`.
        step_size: :math:`\epsilon_0`.
        shrinkage: :math:`\gamma`, default 0.05: how little acceptances move the step. After ``t`` transitions
            their mean is above the target by :math:`\gamma\, (1 + t_0 / t) \ln(\epsilon_t / b\, \epsilon_0) / \sqrt t`.
        boldness: :math:`b`, default 10.

    Attributes:
        step_size: :math:`\epsilon_t`, for the next transition.
        average: :math:`\bar\epsilon_t`, to sample with.

    Reference:
        Hoffman and Gelman, 2014, "The no-U-turn sampler", Eq. 6 and Sec. 3.2.
    """

    DELAY, DECAY = 10.0, 0.75

    def __init__(self, target: float, step_size: float, shrinkage: float = 0.05, boldness: float = 10.0):
        self.target, self.shrinkage, self.boldness = target, shrinkage, boldness
        self.restart(step_size)

    def restart(self, step_size: float) -> None:
        """Begin anew from a step size."""
        self.center, self.error, self.count = math.log(self.boldness * step_size), 0.0, 0
        self.step_size = self.average = step_size

    def update(self, acceptance: float) -> None:
        """Take the mean acceptance of a transition into account."""
        self.count += 1
        share = 1 / (self.count + self.DELAY)
        self.error = (1 - share) * self.error + share * (self.target - acceptance)
        log_step = self.center - self.count**0.5 / self.shrinkage * self.error
        log_step = max(-LARGEST_LOG, min(LARGEST_LOG, log_step))
        weight = self.count**-self.DECAY
        self.average = math.exp(weight * log_step + (1 - weight) * math.log(self.average))
        self.step_size = math.exp(log_step)

    def state(self) -> Tensor:
        """Everything that changes, in float64."""
        numbers = [self.center, self.error, float(self.count), self.step_size, self.average]
        return torch.tensor(numbers, dtype=torch.float64)

    def restore(self, state: Tensor) -> None:
        """Go on from where `state` was taken."""
        self.center, self.error, count, self.step_size, self.average = state.tolist()
        self.count = int(count)


def reasonable_step_size(accepted: Callable[[float], float], step_size: float) -> float:
    """A step size to begin with: doubled or halved until one step crosses an acceptance of a half.

    Args:
        accepted: The mean acceptance of one step of a given size.
        step_size: The first guess.

    Reference:
        Hoffman and Gelman, 2014, Algorithm 4.
    """
    growing = accepted(step_size) > 0.5
    for _ in range(MOST_DOUBLINGS):
        following = step_size * (2.0 if growing else 0.5)
        if (accepted(following) > 0.5) != growing:
            return step_size if growing else following
        step_size = following
    return step_size
