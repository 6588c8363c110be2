"""Kernels whose chains all follow a trajectory of one jittered length."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...priors.settings import check, check_count, check_positive
from .dual_averaging import DualAveraging
from .kernel import Tuning
from .lengths import Lengths
from .metropolis import MetropolisKernel
from .streams import Streams


@dataclass(frozen=True, kw_only=True)
class TrajectoryKernel(MetropolisKernel):
    """A kernel with trajectories of a given mean length, which all chains follow at once.

    Args:
        length: Mean length of a trajectory, above 0, default 1.5.
        jitter: Lengths are uniform within this share of it, from 0 (all the same) to 1, default 0.5. All chains take
            the same number of steps.
        max_steps: Most steps of a trajectory, default 1000.
        target_accept: See `MetropolisKernel`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Neal, 2011, "MCMC using Hamiltonian dynamics", Sec. 4.2 (jitter). That the step size is adapted with small gains
        is a reconstruction.
    """

    length: float = 1.5
    jitter: float = 0.5
    max_steps: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "length")
        check(self, "jitter", 0 <= self.jitter <= 1, "a number from 0 to 1")
        check_count(self, "max_steps")

    def lengths(self, tuning: Tuning) -> Lengths:
        return Lengths(self.length)

    def averaging(self, step_size: float) -> DualAveraging:
        """Small gains: NUTS averages acceptances along a trajectory; here each is of one end, often all or nothing."""
        return DualAveraging(self.target_accept, step_size, shrinkage=0.2, boldness=1.0)

    def uniform(self, streams: Streams) -> float:
        """The number in [0, 1) that decides how long the next trajectory is."""
        return streams.shared_uniform()

    def steps(self, streams: Streams, step_size: float, length: float) -> int:
        """How many steps the next trajectory takes, for a mean length."""
        jittered = length * (1 + self.jitter * (2 * self.uniform(streams) - 1))
        return max(1, min(self.max_steps, math.ceil(jittered / step_size)))
