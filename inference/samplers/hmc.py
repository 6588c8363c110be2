"""Hamiltonian Monte Carlo with trajectories of a given length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .kernel import NOTHING, LogProbAndGrad, Memory, Moved, Position, Transition, Tuning, accepted, where
from .leapfrog import Phase, energy, leapfrog, one_step
from .streams import Streams
from .trajectory import TrajectoryKernel


@dataclass(frozen=True, kw_only=True)
class HMCKernel(TrajectoryKernel):
    r"""Hamiltonian trajectories of a jittered length, which all chains follow at once, accepted by their energy.

    .. math:: r \sim \mathcal N(0, M), \qquad
        (z, r) \to (z', r') \text{ with probability } \min\big(1, e^{H(z, r) - H(z', r')}\big)

    Args:
        length, jitter, max_steps: See `TrajectoryKernel`; lengths are in units of the whitened density.
        target_accept: See `MetropolisKernel`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Neal, 2011, "MCMC using Hamiltonian dynamics", Sec. 3.2.
    """

    def one_step(
        self, density: LogProbAndGrad, position: Position, streams: Streams, inverse_mass: Tensor
    ) -> Callable[[float], float]:
        return one_step(density, position, streams, inverse_mass)

    def step(
        self,
        density: LogProbAndGrad,
        position: Position,
        streams: Streams,
        tuning: Tuning,
        memory: Memory = NOTHING,
    ) -> Moved:
        mass = tuning.inverse_mass
        steps = self.steps(streams, tuning.step_size, tuning.length)
        start = Phase(position.z, streams.normal(position.z) * mass.rsqrt(), position.log_prob, position.gradient)
        end = leapfrog(density, start, tuning.step_size, mass, steps)
        before, after = energy(start, mass), energy(end, mass)
        probability, divergent = accepted(after - before)
        taken = streams.uniform().to(probability.device) < probability
        counts = torch.full((len(position.z),), steps)
        transition = Transition(
            acceptance=probability,
            energy=torch.where(taken, after, before),
            divergent=divergent,
            steps=counts,
            depth=torch.zeros_like(counts),
        )
        evidence = {
            "start": start.z,
            "end": end.z,
            "velocity": mass * end.momentum,
            "time": torch.tensor(steps * tuning.step_size, dtype=torch.float64),
        }
        return Moved(where(taken, end.position, position), transition, evidence=evidence)
