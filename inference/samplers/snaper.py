"""Hamiltonian Monte Carlo with trajectories whose length is learnt along the most difficult direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .chees import TINY, ChEESKernel, ChEESLength
from .kernel import Moved, Tuning
from .lengths import Lengths


class SNAPERLength(ChEESLength):
    r"""A length that climbs the change of the squared projection on the first principal component, by unit of time.

    .. math:: \operatorname E\big[\tfrac1t (f(z') - f(z))^2\big], \quad f(z) = \big(p^\top (z - m)\big)^2, \qquad
        c \leftarrow (1 - w)\, c + \frac wK \sum_k (z_k - m)(z_k - m)^\top p, \quad p = \frac{c}{|c|}

    in whitened units, with the running mean :math:`m` of all chains and :math:`w = 8 / (n + 8)` after :math:`n` steps
    with the same masses.

    Args:
        length: To begin with.
        size: ``D``.

    Reference:
        Sountsov and Hoffman, 2022, "Focusing on difficult directions for learning HMC trajectory lengths", Sec. 3 (the
        criterion) and Oja, 1982 (the component). A reconstruction.
    """

    DELAY = 8.0

    def __init__(self, length: float, size: int):
        super().__init__(length)
        self.steps = 0
        self.mean = torch.zeros(size, dtype=torch.float64)
        self.component = torch.full((size,), size**-0.5, dtype=torch.float64)

    def update(self, moved: Moved, tuning: Tuning) -> None:
        super().update(moved, tuning)
        weight = self.DELAY / (self.steps + self.DELAY)
        self.steps += 1
        z = moved.position.z.double().cpu()
        self.mean = self.mean + weight * (z.mean(0) - self.mean)
        centred = (z - self.mean) / tuning.inverse_mass.double().cpu().sqrt()
        pulled = (centred * (centred @ self.direction).unsqueeze(-1)).mean(0)
        component = (1 - weight) * self.component + weight * pulled
        if component.norm() > TINY:
            self.component = component

    @property
    def direction(self) -> Tensor:
        """The first principal component ``[D]`` of the whitened density, with length 1."""
        return self.component / self.component.norm()

    def slope(self, moved: Moved, inverse_mass: Tensor) -> float:
        scale, probability = inverse_mass.double().sqrt(), moved.transition.acceptance
        direction, mean = self.direction.to(scale.device), self.mean.to(scale.device)
        start = (moved.evidence["start"] - mean) / scale @ direction
        end = (moved.evidence["end"] - mean) / scale @ direction
        velocity = moved.evidence["velocity"] / scale @ direction
        gain, time = end.square() - start.square(), moved.evidence["time"]
        rate = 4 * gain * end * velocity - gain.square() / time
        weighted = torch.where(probability > 0, probability * rate, 0.0)  # ends may be no numbers
        return float(weighted.sum() / probability.sum().clamp(min=TINY))

    def renew(self, widths: Tensor, step_size: float) -> None:
        super().renew(widths, step_size)
        self.steps = 0

    def state(self) -> dict[str, Tensor]:
        learnt = {"steps": torch.tensor(self.steps), "mean": self.mean, "component": self.component}
        return {**super().state(), **learnt}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        self.steps, self.mean, self.component = int(state["steps"]), state["mean"], state["component"]


@dataclass(frozen=True, kw_only=True)
class SNAPERKernel(ChEESKernel):
    r"""Hamiltonian trajectories whose mean length warm-up finds, from where chains go along their widest direction.

    .. math:: r \sim \mathcal N(0, M), \qquad
        (z, r) \to (z', r') \text{ with probability } \min\big(1, e^{H(z, r) - H(z', r')}\big)

    As `ChEESKernel`, whose criterion adds all directions up, so that many easy ones outvote a difficult one; here the
    first principal component alone counts.

    Args:
        length, jitter, max_steps, target_accept: See `ChEESKernel`.

    Raises:
        SettingError: A setting is out of range, or there are fewer than two chains.

    Reference:
        Sountsov and Hoffman, 2022, "Focusing on difficult directions for learning HMC trajectory lengths". A
        reconstruction: windows and pooled variances are those of our other kernels.
    """

    def lengths(self, tuning: Tuning) -> Lengths:
        return SNAPERLength(self.length, len(tuning.inverse_mass))
