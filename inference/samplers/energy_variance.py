"""Step sizes that lead to a given variance of the error of the energy."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from .adaptation import Adaptation, FirstStepSize, below, part
from .kernel import Moved, Tuning
from .lengths import Watched
from .masses import Masses

ORDER = 6
"""The square of the error of a step of a second-order integrator grows with this power of its size."""


class EnergyStepSize:
    r"""A step size that is adapted until the mean square of the errors of the energy is the wanted one.

    .. math:: \ln \epsilon_{t+1} = \ln \epsilon_t + a_t \Big(\frac1C - s_t\Big), \qquad
        s_t = \min\Big(\frac{\overline{(\Delta E_t)^2}}{C\, v},\, 1\Big), \qquad
        a_t = \Big(1 + \frac{n_t}{5}\Big)^{-0.7}, \qquad
        \ln \bar\epsilon_t = t^{-3/4} \ln \epsilon_t + (1 - t^{-3/4}) \ln \bar\epsilon_{t-1}

    with :math:`C = 5`, and :math:`n_t` the number of times that the bracket has changed its sign. The errors of nets
    come in bursts, whose squares are thousands of times the usual ones and make up nearly all of their mean: a mean of
    logarithms, or weights that leave bursts out of account, would lead to steps that are far too large, and a plain
    mean would follow the last burst. A divergence is a share of 1, and makes the step smaller by a fifth at least.

    Args:
        wanted: The mean square :math:`v`.
        step_size: To begin with.

    Attributes:
        step_size: :math:`\epsilon_t`, for the next transition.
        average: :math:`\bar\epsilon_t`, to go on with.

    Reference:
        Robbins and Monro, 1951, "A stochastic approximation method"; Kesten, 1958, "Accelerated stochastic
        approximation" (gains that fall when the sign changes); what is wanted: Robnik, De Luca, Silverstein and Seljak,
        2023, "Microcanonical Hamiltonian Monte Carlo", Sec. 4.2.
    """

    CAP, SHRUNK = 5.0, 0.8
    DELAY, DECAY, AVERAGED = 5.0, 0.7, 0.75

    def __init__(self, wanted: float, step_size: float):
        self.wanted = wanted
        self.restart(step_size)

    def restart(self, step_size: float) -> None:
        """Begin anew from a step size."""
        self.step_size = self.average = step_size
        self.count, self.changes, self.grew = 0, 0, True

    def update(self, mean_square: float, diverged: bool) -> None:
        """Take the errors of a transition into account.

        Args:
            mean_square: Of those that are numbers.
            diverged: Whether there were others.
        """
        share = 1.0 if diverged else min(mean_square / (self.CAP * self.wanted), 1.0)
        change = (1 / self.CAP - share) * (1 + self.changes / self.DELAY) ** -self.DECAY
        if diverged:
            change = min(change, math.log(self.SHRUNK))
        self.count += 1
        self.changes += (change > 0) != self.grew
        self.grew = change > 0
        log_step = math.log(self.step_size) + change
        weight = self.count**-self.AVERAGED
        self.step_size = math.exp(log_step)
        self.average = math.exp(weight * log_step + (1 - weight) * math.log(self.average))

    def state(self) -> Tensor:
        """Everything that changes, in float64."""
        numbers = [self.step_size, self.average, float(self.count), float(self.changes), float(self.grew)]
        return torch.tensor(numbers, dtype=torch.float64)

    def restore(self, state: Tensor) -> None:
        """Go on from where `state` was taken."""
        self.step_size, self.average, count, changes, grew = state.tolist()
        self.count, self.changes, self.grew = int(count), int(changes), bool(grew)


class EnergyCheck:
    """Measures the mean square of errors with a step size that stays, and makes it smaller where there is too much.

    By a tenth at most at a time: where errors come in bursts, their mean square falls with a far higher power of the
    step size than that of its order, and the step would become much smaller than it need be.

    Args:
        wanted: The mean square.
        block: Transitions of a measurement.
    """

    LEAST = 0.9

    def __init__(self, wanted: float, block: int):
        self.wanted, self.block = wanted, block
        self.total, self.count = 0.0, 0

    def factor(self, mean_square: float, diverged: bool) -> float:
        """What the step size is to be multiplied with after a transition: 1, or less."""
        if diverged:
            self.total, self.count = 0.0, 0
            return EnergyStepSize.SHRUNK
        self.total, self.count = self.total + mean_square, self.count + 1
        if self.count < self.block:
            return 1.0
        realised = self.total / self.count
        self.total, self.count = 0.0, 0
        return min(1.0, max(self.LEAST, (self.wanted / realised) ** (1 / ORDER))) if realised > 0 else 1.0

    def state(self) -> Tensor:
        """Everything that changes, in float64."""
        return torch.tensor([self.total, float(self.count)], dtype=torch.float64)

    def restore(self, state: Tensor) -> None:
        """Go on from where `state` was taken."""
        self.total, count = state.tolist()
        self.count = int(count)


class EnergyWarmup(Adaptation):
    r"""Masses by the variances of all chains, the step size by the errors of the energy, then the length, then a check.

    The windows of variances are in the first half: transitions are short, and bursts of errors are seen in many only.
    After the last one come four tenths of the remaining steps in which the step size alone is adapted, three in which
    draws are watched, :math:`L = 0.4\, \epsilon \tau` with the autocorrelation time :math:`\tau` in steps of the
    integrator, and three in which the mean square of the errors is measured, and the step size made smaller where it is
    more than wanted.

    Args:
        tuning: To begin with.
        steps: Those of warm-up.
        wanted: The mean square of the errors of a step.
        adapt_length: Whether the length is adapted.

    Reference:
        Robnik, De Luca, Silverstein and Seljak, 2023, "Microcanonical Hamiltonian Monte Carlo", Sec. 4.2 and 4.3; a
        reconstruction, but for the step size's way to the wanted square and for the check, which are ours.
    """

    FACTOR, MOST_CHANGE, FEWEST, BLOCKS = 0.4, 4.0, 20, 4

    def __init__(self, tuning: Tuning, steps: int, wanted: float, adapt_length: bool):
        super().__init__(tuning)
        self.adapt_length = adapt_length
        self.masses = Masses(steps // 2, len(tuning.inverse_mass))
        left = steps - self.masses.last
        self.watching, self.checking = steps - int(0.6 * left), steps - int(0.3 * left)
        self.sizes = EnergyStepSize(wanted, tuning.step_size)
        self.check = EnergyCheck(wanted, max(1, (steps - self.checking) // self.BLOCKS))
        self.watched = Watched()

    def update(self, moved: Moved, first_step_size: FirstStepSize) -> None:
        self.count += 1
        step_size, mass, length = self.tuning
        mean_square, diverged = float(moved.transition.energy.square().mean()), bool(moved.transition.divergent.any())
        if self.count <= self.checking:
            self.sizes.update(mean_square, diverged)
            step_size = self.sizes.step_size if self.count < self.checking else self.sizes.average
        else:
            step_size *= self.check.factor(mean_square, diverged)
        self.masses.update(moved.position.z)
        variance = self.masses.found()
        if variance is not None:
            mass = variance.to(mass)
            self.sizes.restart(first_step_size(mass, step_size))
            step_size = self.sizes.step_size
        if self.adapt_length and self.watching < self.count <= self.checking:
            self.watched.rows += moved.evidence["path"].unbind()
            if self.count == self.checking:
                length = self._length(length, step_size)
        self.tuning = Tuning(step_size, mass, length)

    def _length(self, old: float, step_size: float) -> float:
        watched, self.watched = self.watched, Watched()
        if len(watched.rows) < self.FEWEST:
            return old
        found = self.FACTOR * step_size * watched.autocorrelation_time()
        return min(self.MOST_CHANGE * old, max(old / self.MOST_CHANGE, found))

    def state(self) -> dict[str, Tensor]:
        return {
            **super().state(),
            "sizes": self.sizes.state(),
            "check": self.check.state(),
            **below("masses", self.masses.state()),
            **below("watched", self.watched.state()),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        self.sizes.restore(state["sizes"])
        self.check.restore(state["check"])
        self.masses.restore(part("masses", state))
        self.watched.restore(part("watched", state))
