"""Hamiltonian Monte Carlo with trajectories of a given length."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...priors.settings import check, check_count, check_positive
from .kernel import TOO_MUCH, Kernel, LogProbAndGrad, Position, Transition, Tuning
from .leapfrog import Phase, energy, leapfrog, one_step
from .streams import Streams


@dataclass(frozen=True, kw_only=True)
class HMCKernel(Kernel):
    r"""Hamiltonian trajectories of a jittered length, which all chains follow at once, accepted by their energy.

    .. math:: r \sim \mathcal N(0, M), \qquad
        (z, r) \to (z', r') \text{ with probability } \min\big(1, e^{H(z, r) - H(z', r')}\big)

    Args:
        length: Mean length of a trajectory in units of the whitened density, above 0, default 1.5.
        jitter: Lengths are uniform within this share of it, from 0 (all the same) to below 1, default 0.5. All chains
            take the same number of steps.
        max_steps: Most leapfrog steps of a trajectory, default 1000.
        target_accept: See `Kernel`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Neal, 2011, "MCMC using Hamiltonian dynamics", Sec. 3.2; jitter: Sec. 4.2.
    """

    length: float = 1.5
    jitter: float = 0.5
    max_steps: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "length")
        check(self, "jitter", 0 <= self.jitter < 1, "a number from 0 to below 1")
        check_count(self, "max_steps")

    def one_step(
        self, density: LogProbAndGrad, position: Position, streams: Streams, inverse_mass: Tensor
    ) -> Callable[[float], float]:
        return one_step(density, position, streams, inverse_mass)

    def step(
        self, density: LogProbAndGrad, position: Position, streams: Streams, tuning: Tuning
    ) -> tuple[Position, Transition]:
        mass = tuning.inverse_mass
        length = self.length * (1 + self.jitter * (2 * streams.shared_uniform() - 1))
        steps = max(1, min(self.max_steps, math.ceil(length / tuning.step_size)))
        start = Phase(position.z, streams.normal(position.z) * mass.rsqrt(), position.log_prob, position.gradient)
        end = leapfrog(density, start, tuning.step_size, mass, steps)
        before, after = energy(start, mass), energy(end, mass)
        probability = (before - after).clamp(max=0.0).exp().nan_to_num(0.0)
        accepted = streams.uniform().to(probability.device) < probability
        chosen = [
            torch.where(accepted if new.dim() == 1 else accepted.unsqueeze(-1), new, old)
            for new, old in zip(end.position, position, strict=True)
        ]
        counts = torch.full((len(position.z),), steps)
        return Position(*chosen), Transition(
            acceptance=probability,
            energy=torch.where(accepted, after, before),
            divergent=~(after - before <= TOO_MUCH),
            steps=counts,
            depth=torch.zeros_like(counts),
        )
