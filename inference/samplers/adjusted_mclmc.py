"""Microcanonical Monte Carlo with Metropolis' adjustment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .isokinetic import EVALUATIONS, fresh_direction, minimal_norm
from .kernel import NOTHING, LogProbAndGrad, Memory, Moved, Position, Transition, Tuning, accepted, where
from .lengths import AutocorrelatedLength, Lengths
from .streams import Streams
from .trajectory import TrajectoryKernel


@dataclass(frozen=True, kw_only=True)
class AdjustedMCLMCKernel(TrajectoryKernel):
    r"""Trajectories of constant speed in a direction that the gradient turns, accepted by the error of their energy.

    .. math:: \dot z = M^{-1/2} u, \qquad
        \dot u = \frac{(1 - u u^\top)\, M^{-1/2} \nabla \ln \pi(z)}{D - 1}, \qquad |u| = 1, \qquad
        z \to z' \text{ with probability } \min\big(1, e^{-\Delta E}\big)

    in steps of the minimal-norm integrator, all chains at once. The direction is drawn anew for each trajectory.
    Warm-up adapts the length of trajectories to how fast draws forget, at the end of every window of variances but the
    first, and then the step size to that length. The mean length is never less than two steps, whatever the tuning. The
    energy of a transition is the error :math:`\Delta E` of the trajectory, 0 where it was rejected.

    Args:
        length: Mean length of a trajectory in units of :math:`D^{1/2}` in the whitened density, above 0, default 2:
            where warm-up begins. A reconstruction: on the posterior of a small net 2 gave more effective draws than 1.
        adapt_length: Whether warm-up adapts it, default True.
        jitter, max_steps: See `TrajectoryKernel`.
        target_accept: See `MetropolisKernel`; default 0.9, as in the paper.

    Raises:
        SettingError: A setting is out of range, or the density is over one number alone.

    Reference:
        Robnik, Cohn-Gordon and Seljak, 2025, "Metropolis adjusted microcanonical Hamiltonian Monte Carlo". A
        reconstruction: windows and pooled variances are those of our other kernels.
    """

    hamiltonian: ClassVar[bool] = False
    length: float = 2.0
    adapt_length: bool = True
    target_accept: float = 0.9

    def lengths(self, tuning: Tuning) -> Lengths:
        length = self.length * len(tuning.inverse_mass) ** 0.5
        return AutocorrelatedLength(length) if self.adapt_length else Lengths(length)

    def memory(self, position: Position, streams: Streams) -> Memory:
        fresh_direction(position, Streams(0, len(position.z)))  # refuses one dimension
        return NOTHING

    def one_step(
        self, density: LogProbAndGrad, position: Position, streams: Streams, inverse_mass: Tensor
    ) -> Callable[[float], float]:
        direction, scale = fresh_direction(position, streams), inverse_mass.sqrt()

        def mean_acceptance(size: float) -> float:
            _, _, error = minimal_norm(density, position, direction, size, scale)
            return float(accepted(error)[0].mean())

        return mean_acceptance

    def step(
        self,
        density: LogProbAndGrad,
        position: Position,
        streams: Streams,
        tuning: Tuning,
        memory: Memory = NOTHING,
    ) -> Moved:
        step_size, scale = tuning.step_size, tuning.inverse_mass.sqrt()
        steps = self.steps(streams, step_size, max(tuning.length, AutocorrelatedLength.FEWEST_STEPS * step_size))
        direction = fresh_direction(position, streams)
        end, _, error = minimal_norm(density, position, direction, step_size, scale, steps)
        probability, divergent = accepted(error)
        taken = streams.uniform().to(probability.device) < probability
        counts = torch.full((len(position.z),), EVALUATIONS * steps)
        transition = Transition(
            acceptance=probability,
            energy=torch.where(taken, error, 0.0),
            divergent=divergent,
            steps=counts,
            depth=torch.zeros_like(counts),
        )
        return Moved(where(taken, end, position), transition)
