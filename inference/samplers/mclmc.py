"""Microcanonical Langevin Monte Carlo, unadjusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...priors.settings import check_count, check_positive
from .adaptation import Adaptation
from .energy_variance import EnergyWarmup
from .isokinetic import EVALUATIONS, fresh_direction, minimal_norm, refreshed, unit
from .kernel import NOTHING, TOO_MUCH, Kernel, LogProbAndGrad, Memory, Moved, Position, Transition, Tuning, where
from .lengths import Watched
from .streams import Streams


@dataclass(frozen=True, kw_only=True)
class MCLMCKernel(Kernel):
    r"""Steps of constant speed in a direction that the gradient turns, and that is forgotten little by little.

    .. math:: dz = M^{-1/2} u\, dt, \qquad
        du = (1 - u u^\top) \Big(\frac{M^{-1/2} \nabla \ln \pi(z)}{D - 1}\, dt + \eta\, dW\Big), \qquad
        |u| = 1, \quad \eta = \sqrt{\frac{2}{L D}}

    in steps of the minimal-norm integrator, after each of which the direction is refreshed in part. Every step is
    taken, so draws have a bias, of second order in the step size. The step size follows from the variance of the error
    of the energy of a step, :math:`\operatorname{Var}[\Delta E] = D \sigma^2`, which is measured once more when all
    else is tuned, and made smaller until that holds; the length :math:`L` follows from how fast draws forget. A step
    whose error is no number or above 1000 is a divergence, and is not taken: the chain goes on in a new direction.

    The acceptance of a transition is the mean of :math:`\min(1, e^{-\Delta E})`, and its energy the root of the mean
    of :math:`(\Delta E)^2`, over its steps: ``transition.energy.square().mean() / D`` is the variance that was asked
    for.

    Args:
        energy_variance: :math:`\sigma^2`, above 0, default 5e-4, as in the paper.
        length: Mean :math:`L` in units of :math:`D^{1/2}` in the whitened density, above 0, default 1: where warm-up
            begins.
        adapt_length: Whether warm-up adapts it, default True.
        steps_per_draw: Steps of a transition, default 10, of two gradients each.

    Raises:
        SettingError: A setting is out of range, or the density is over one number alone.

    Reference:
        Robnik and Seljak, 2023, "Fluctuation without dissipation: microcanonical Langevin Monte Carlo"; the tuning:
        Robnik, De Luca, Silverstein and Seljak, 2023, "Microcanonical Hamiltonian Monte Carlo", Sec. 4. A
        reconstruction: windows and pooled variances are those of our other kernels, the measurement at the end is ours.
    """

    hamiltonian: ClassVar[bool] = False
    exact: ClassVar[bool] = False
    energy_variance: float = 5e-4
    length: float = 1.0
    adapt_length: bool = True
    steps_per_draw: int = 10

    def __post_init__(self) -> None:
        check_positive(self, "energy_variance", "length")
        check_count(self, "steps_per_draw")

    def memory(self, position: Position, streams: Streams) -> Memory:
        return {"direction": fresh_direction(position, streams)}

    def adaptation(self, tuning: Tuning, steps: int) -> Adaptation:
        size = len(tuning.inverse_mass)
        tuning = tuning._replace(length=self.length * size**0.5)
        return EnergyWarmup(tuning, steps, size * self.energy_variance, self.adapt_length)

    def one_step(
        self, density: LogProbAndGrad, position: Position, streams: Streams, inverse_mass: Tensor
    ) -> Callable[[float], float]:
        direction, scale = fresh_direction(position, streams), inverse_mass.sqrt()
        wanted = position.z.shape[-1] * self.energy_variance

        def share(size: float) -> float:
            _, _, error = minimal_norm(density, position, direction, size, scale)
            return float((wanted / (wanted + error.square())).nan_to_num(0.0).mean())

        return share

    def step(
        self,
        density: LogProbAndGrad,
        position: Position,
        streams: Streams,
        tuning: Tuning,
        memory: Memory = NOTHING,
    ) -> Moved:
        direction, scale = memory["direction"], tuning.inverse_mass.sqrt()
        squares = torch.zeros_like(position.log_prob, dtype=torch.float64)
        probability, taken, path = squares, squares, []
        for _ in range(self.steps_per_draw):
            new, towards, error = minimal_norm(density, position, direction, tuning.step_size, scale)
            noise = streams.normal(position.z)
            sound = error.abs() <= TOO_MUCH  # so not where it is no number
            direction = refreshed(towards, noise, tuning.step_size, tuning.length)
            if sound.all():
                position = new
            else:
                position = where(sound, new, position)
                direction = torch.where(sound.unsqueeze(-1), direction, unit(noise))
            squares = squares + torch.where(sound, error.square(), 0.0)
            probability = probability + torch.where(sound, (-error).clamp(max=0.0).exp(), 0.0)
            taken = taken + sound
            path.append(Watched.entries(position.z))
        counts = torch.full((len(position.z),), EVALUATIONS * self.steps_per_draw)
        transition = Transition(
            acceptance=probability / self.steps_per_draw,
            energy=(squares / taken.clamp(min=1.0)).sqrt(),
            divergent=taken < self.steps_per_draw,
            steps=counts,
            depth=torch.zeros_like(counts),
        )
        return Moved(position, transition, {"direction": direction}, {"path": torch.stack(path)})
