"""Kernels that accept what they propose with a probability, and are tuned by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ...priors.settings import check
from .adaptation import Adaptation, FirstStepSize, below, part
from .dual_averaging import DualAveraging
from .kernel import Kernel, Moved, Transition, Tuning
from .lengths import Lengths
from .masses import Masses


@dataclass(frozen=True, kw_only=True)
class MetropolisKernel(Kernel):
    """A kernel whose step size is adapted to an acceptance.

    Args:
        target_accept: Acceptance that the step size is adapted to, between 0 and 1, default 0.8.

    Raises:
        SettingError: A setting is out of range.
    """

    target_accept: float = 0.8

    def __post_init__(self) -> None:
        check(self, "target_accept", 0 < self.target_accept < 1, "a number between 0 and 1")

    def lengths(self, tuning: Tuning) -> Lengths:
        """How the length of trajectories is found, for kernels that have one."""
        return Lengths(tuning.length)

    def averaging(self, step_size: float) -> DualAveraging:
        """How the step size is found, from a first one on."""
        return DualAveraging(self.target_accept, step_size)

    @staticmethod
    def mean_acceptance(transition: Transition) -> float:
        """The acceptance of all chains as one number."""
        return float(transition.acceptance.mean())

    def adaptation(self, tuning: Tuning, steps: int) -> Adaptation:
        return AcceptanceWarmup(self, tuning, steps)


class AcceptanceWarmup(Adaptation):
    """One step size by the acceptance of all chains, masses by their variances, lengths as the kernel finds them.

    Args:
        kernel: What is tuned.
        tuning: To begin with.
        steps: Those of warm-up.

    Attributes:
        averaging: The step size.

    Reference:
        Carpenter et al., 2017, "Stan: a probabilistic programming language", Sec. 2.8; pooled over chains here.
    """

    def __init__(self, kernel: MetropolisKernel, tuning: Tuning, steps: int):
        self.kernel, self.steps = kernel, steps
        self.averaging = kernel.averaging(tuning.step_size)
        self.masses = Masses(steps, len(tuning.inverse_mass))
        self.lengths = kernel.lengths(tuning)
        super().__init__(tuning._replace(length=self.lengths.length))

    def update(self, moved: Moved, first_step_size: FirstStepSize) -> None:
        self.count += 1
        mass = self.tuning.inverse_mass
        self.averaging.update(self.kernel.mean_acceptance(moved.transition))
        self.lengths.update(moved, self.tuning)
        if self.masses.update(moved.position.z):
            self.lengths.watch(moved.position.z)
        variance = self.masses.found()
        if variance is not None:
            variance = variance.to(mass)
            self.lengths.renew((variance / mass).sqrt(), self.averaging.average)
            mass = variance
            self.averaging.restart(first_step_size(mass, self.averaging.step_size))
        step_size = self.averaging.step_size
        if self.count == self.steps:
            step_size = self.averaging.average
            self.lengths.finish()
        self.tuning = Tuning(step_size, mass, self.lengths.length)

    def state(self) -> dict[str, Tensor]:
        return {
            **super().state(),
            "averaging": self.averaging.state(),
            **below("masses", self.masses.state()),
            **below("lengths", self.lengths.state()),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        self.averaging.restore(state["averaging"])
        self.masses.restore(part("masses", state))
        self.lengths.restore(part("lengths", state))
