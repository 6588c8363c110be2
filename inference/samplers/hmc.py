"""Hamiltonian Monte Carlo with trajectories of a given length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .kernel import TOO_MUCH, LogProbAndGrad, Position, Transition, Tuning
from .leapfrog import Phase, energy, leapfrog, one_step
from .streams import Streams
from .trajectory import TrajectoryKernel, where


@dataclass(frozen=True, kw_only=True)
class HMCKernel(TrajectoryKernel):
    r"""Hamiltonian trajectories of a jittered length, which all chains follow at once, accepted by their energy.

    .. math:: r \sim \mathcal N(0, M), \qquad
        (z, r) \to (z', r') \text{ with probability } \min\big(1, e^{H(z, r) - H(z', r')}\big)

    Args:
        length, jitter, max_steps: See `TrajectoryKernel`; lengths are in units of the whitened density.
        target_accept: See `Kernel`.

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
        self, density: LogProbAndGrad, position: Position, streams: Streams, tuning: Tuning
    ) -> tuple[Position, Transition]:
        mass = tuning.inverse_mass
        steps = self.steps(streams, tuning.step_size)
        start = Phase(position.z, streams.normal(position.z) * mass.rsqrt(), position.log_prob, position.gradient)
        end = leapfrog(density, start, tuning.step_size, mass, steps)
        before, after = energy(start, mass), energy(end, mass)
        probability = (before - after).clamp(max=0.0).exp().nan_to_num(0.0)
        accepted = streams.uniform().to(probability.device) < probability
        counts = torch.full((len(position.z),), steps)
        return where(accepted, end.position, position), Transition(
            acceptance=probability,
            energy=torch.where(accepted, after, before),
            divergent=~(after - before <= TOO_MUCH),
            steps=counts,
            depth=torch.zeros_like(counts),
        )
