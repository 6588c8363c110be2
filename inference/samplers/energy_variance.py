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

    .. math:: \epsilon = \Bigg(\frac{\sum_t \gamma^{-t}\, \overline{(\Delta E_t)^2} / (v\, \epsilon_t^6)}
        {\sum_t \gamma^{-t}}\Bigg)^{-1/6}

    A divergence makes it smaller by a fifth, and forgets what was learnt with larger ones, which may be used again only
    little by little. Errors that are no numbers are no part of the mean, and do not spoil it.

    Args:
        wanted: The mean square :math:`v`.
        step_size: To begin with.

    Reference:
        Robnik, De Luca, Silverstein and Seljak, 2023, "Microcanonical Hamiltonian Monte Carlo", Sec. 4.2, without its
        weights, which leave large errors out of account; a reconstruction.
    """

    KEPT, SHRUNK, GROWTH = 0.93, 0.8, 1.5
    RECOVERY = 1.02

    def __init__(self, wanted: float, step_size: float):
        self.wanted = wanted
        self.restart(step_size)

    def restart(self, step_size: float) -> None:
        """Begin anew from a step size."""
        self.step_size, self.total, self.weight, self.most = step_size, 0.0, 0.0, math.inf

    def update(self, mean_square: float, diverged: bool) -> None:
        """Take the errors of a transition into account.

        Args:
            mean_square: Of those that are numbers.
            diverged: Whether there were others.
        """
        if diverged:
            self.step_size *= self.SHRUNK
            self.total, self.weight, self.most = 0.0, 0.0, self.step_size
            return
        self.total = self.KEPT * self.total + mean_square / (self.wanted * self.step_size**ORDER)
        self.weight = self.KEPT * self.weight + 1
        self.most *= self.RECOVERY
        found = (self.weight / self.total) ** (1 / ORDER) if self.total > 0 else math.inf
        self.step_size = min(found, self.most, self.GROWTH * self.step_size)

    def state(self) -> Tensor:
        """Everything that changes, in float64."""
        return torch.tensor([self.step_size, self.total, self.weight, self.most], dtype=torch.float64)

    def restore(self, state: Tensor) -> None:
        """Go on from where `state` was taken."""
        self.step_size, self.total, self.weight, self.most = state.tolist()


class EnergyCheck:
    """Measures the mean square of errors with a step size that stays, and makes it smaller where there is too much.

    Args:
        wanted: The mean square.
        block: Transitions of a measurement.
    """

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
        return min(1.0, (self.wanted / realised) ** (1 / ORDER)) if realised > 0 else 1.0

    def state(self) -> Tensor:
        """Everything that changes, in float64."""
        return torch.tensor([self.total, float(self.count)], dtype=torch.float64)

    def restore(self, state: Tensor) -> None:
        """Go on from where `state` was taken."""
        self.total, count = state.tolist()
        self.count = int(count)


class EnergyWarmup(Adaptation):
    r"""Masses by the variances of all chains, the step size by the errors of the energy, then the length, then a check.

    After the last window of variances come four tenths of the remaining steps in which the step size alone is adapted,
    three in which draws are watched, :math:`L = 0.4\, \epsilon \tau` with the autocorrelation time :math:`\tau` in
    steps of the integrator, and three in which the mean square of the errors is measured, and the step size made
    smaller where it is more than wanted.

    Args:
        tuning: To begin with.
        steps: Those of warm-up.
        wanted: The mean square of the errors of a step.
        adapt_length: Whether the length is adapted.

    Reference:
        Robnik, De Luca, Silverstein and Seljak, 2023, "Microcanonical Hamiltonian Monte Carlo", Sec. 4.2 and 4.3; a
        reconstruction, but for the check, which is ours.
    """

    FACTOR, MOST_CHANGE, FEWEST, BLOCKS = 0.4, 4.0, 20, 3

    def __init__(self, tuning: Tuning, steps: int, wanted: float, adapt_length: bool):
        super().__init__(tuning)
        self.adapt_length = adapt_length
        self.masses = Masses(steps, len(tuning.inverse_mass))
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
            step_size = self.sizes.step_size
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
