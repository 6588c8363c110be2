"""Hamiltonian Monte Carlo with trajectories whose length is learnt from many chains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...priors.settings import SettingError
from .hmc import HMCKernel
from .kernel import NOTHING, Memory, Moved, Position, Transition, Tuning
from .lengths import Lengths
from .streams import Streams

TINY = 1e-10


class ChEESLength(Lengths):
    r"""A length that climbs the change in the estimator of the expected square, by Adam on its logarithm.

    .. math:: \tfrac14 \operatorname E\Big[\big(|z' - \bar z'|^2 - |z - \bar z|^2\big)^2\Big], \qquad
        g = t\, \frac{\sum_k \alpha_k \big(|z'_k - \bar z'|^2 - |z_k - \bar z|^2\big) (z'_k - \bar z')^\top \dot z'_k}
        {\sum_k \alpha_k}

    with the starts :math:`z` and ends :math:`z'` of trajectories of length :math:`t`, in whitened units, their
    velocities and acceptance probabilities :math:`\alpha`; :math:`g` is the slope along :math:`\ln t`.

    Args:
        length: To begin with.

    Reference:
        Hoffman, Radul and Sountsov, 2021, "An adaptive MCMC scheme for setting trajectory lengths in Hamiltonian Monte
        Carlo", Eqs. 7-9 and Sec. 3.2: Adam with rate 0.025 and decays 0 and 0.95, and the average of its iterates.
    """

    RATE, DECAY, AVERAGING = 0.025, 0.95, 0.5

    def __init__(self, length: float):
        super().__init__(length)
        self.count, self.square, self.average = 0, 0.0, math.log(length)

    def update(self, moved: Moved, tuning: Tuning) -> None:
        slope = self.slope(moved, tuning.inverse_mass)
        if not math.isfinite(slope):
            return
        self.count += 1
        self.square = self.DECAY * self.square + (1 - self.DECAY) * slope**2
        size = math.sqrt(self.square / (1 - self.DECAY**self.count))
        log_length = math.log(self.length) + self.RATE * slope / max(size, TINY)
        weight = self.count**-self.AVERAGING
        self.average = weight * log_length + (1 - weight) * self.average
        self.length = math.exp(log_length)

    def slope(self, moved: Moved, inverse_mass: Tensor) -> float:
        """The slope of the criterion along the logarithm of the length."""
        gain, direction = self.change(moved, inverse_mass)
        probability = moved.transition.acceptance
        weighted = torch.where(probability > 0, probability * gain * direction, 0.0)  # ends may be no numbers
        return float(moved.evidence["time"] * weighted.sum() / probability.sum().clamp(min=TINY))

    def change(self, moved: Moved, inverse_mass: Tensor) -> tuple[Tensor, Tensor]:
        """By how much the squared distance from the center has changed, and half its slope in time, ``[K]`` each."""
        scale, probability = inverse_mass.sqrt(), moved.transition.acceptance
        start, end, velocity = (moved.evidence[name] / scale for name in ("start", "end", "velocity"))
        weights = (probability / probability.sum().clamp(min=TINY)).to(end).unsqueeze(-1)
        center = torch.where(weights > 0, weights * end, 0.0).sum(0)
        after, before = end - center, start - start.mean(0)
        gain = after.square().sum(-1) - before.square().sum(-1)
        return gain.double(), (after * velocity).sum(-1).double()

    def renew(self, widths: Tensor, step_size: float) -> None:
        shift = math.log(float(widths.max()))  # trajectories reach as far as before where that is hardest
        self.length, self.average = self.length * math.exp(-shift), self.average - shift

    def finish(self) -> None:
        self.length = math.exp(self.average)

    def state(self) -> dict[str, Tensor]:
        numbers = torch.tensor([float(self.count), self.square, self.average], dtype=torch.float64)
        return {**super().state(), "adam": numbers}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        count, self.square, self.average = state["adam"].tolist()
        self.count = int(count)


@dataclass(frozen=True, kw_only=True)
class ChEESKernel(HMCKernel):
    r"""Hamiltonian trajectories whose mean length warm-up finds, from the ends that many chains reach.

    .. math:: r \sim \mathcal N(0, M), \qquad
        (z, r) \to (z', r') \text{ with probability } \min\big(1, e^{H(z, r) - H(z', r')}\big)

    with lengths that follow Halton's sequence, the same for all chains. The criterion is the change in the estimator of
    the expected square; the step size is adapted to the harmonic mean of the acceptance of all chains, which the worst
    of them decides.

    Args:
        length: Mean length of a trajectory where warm-up begins, in units of the whitened density, default 1.5.
        jitter: As for `TrajectoryKernel`; default 1, as in the paper: from 0 to twice the mean.
        max_steps: See `TrajectoryKernel`.
        target_accept: See `MetropolisKernel`; default 0.651, as in the paper.

    Raises:
        SettingError: A setting is out of range, or there are fewer than two chains.

    Reference:
        Hoffman, Radul and Sountsov, 2021, "An adaptive MCMC scheme for setting trajectory lengths in Hamiltonian Monte
        Carlo". A reconstruction: windows and pooled variances are those of our other kernels.
    """

    jitter: float = 1.0
    target_accept: float = 0.651

    def memory(self, position: Position, streams: Streams) -> Memory:
        if len(position.z) < 2:
            raise SettingError("kernel", "ChEESKernel", "at least two chains, from which lengths are learnt")
        return NOTHING

    def uniform(self, streams: Streams) -> float:
        return streams.halton()

    def lengths(self, tuning: Tuning) -> Lengths:
        return ChEESLength(self.length)

    @staticmethod
    def mean_acceptance(transition: Transition) -> float:
        return float(1 / (1 / transition.acceptance.clamp(min=TINY)).mean())
