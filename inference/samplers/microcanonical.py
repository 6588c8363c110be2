"""Microcanonical Hamiltonian Monte Carlo: trajectories of constant speed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...priors.settings import SettingError
from .kernel import TOO_MUCH, LogProbAndGrad, Position, Transition, Tuning
from .streams import Streams
from .trajectory import TrajectoryKernel, where


def turned(direction: Tensor, force: Tensor, time: float) -> tuple[Tensor, Tensor]:
    r"""The direction ``[K, D]`` after a force has acted, and the kinetic energy ``[K]`` gained, both exact.

    .. math:: \delta = \frac{\epsilon |g|}{D - 1}, \quad e = \frac g{|g|}, \qquad
        u' = \frac{u + (\sinh\delta + (e \cdot u)(\cosh\delta - 1))\, e}{\cosh\delta + (e \cdot u) \sinh\delta}, \qquad
        \Delta K = (D - 1) \ln(\cosh\delta + (e \cdot u) \sinh\delta)

    Args:
        direction: Unit vectors :math:`u`.
        force: The gradient :math:`g` of the log-density.
        time: :math:`\epsilon`.

    Reference:
        Robnik, De Luca, Silverstein and Seljak, 2023, "Microcanonical Hamiltonian Monte Carlo", Sec. 3.1 (the case of
        constant speed); Ver Steeg and Galstyan, 2021, "Hamiltonian dynamics with non-Newtonian momentum".
    """
    freedom = direction.shape[-1] - 1
    size = force.norm(dim=-1, keepdim=True)
    along = force / size.clamp(min=torch.finfo(force.dtype).tiny)
    angle, shrunk = time * size / freedom, torch.exp(-time * size / freedom)
    cosine = (direction * along).sum(-1, keepdim=True)
    # all multiplied by 2 exp(-angle), since hyperbolic functions overflow
    scale = 1 + cosine + (1 - cosine) * shrunk.square()
    moved = 2 * shrunk * direction + (1 - shrunk) * (1 + shrunk + cosine * (1 - shrunk)) * along
    moved = moved / moved.norm(dim=-1, keepdim=True)
    return moved, freedom * (angle + torch.log(scale / 2)).squeeze(-1).double()


@dataclass(frozen=True, kw_only=True)
class MicrocanonicalKernel(TrajectoryKernel):
    r"""Trajectories of constant speed, in a direction that the gradient turns; at the start of each it is drawn anew.

    .. math:: \dot z = M^{-1/2} u, \qquad
        \dot u = \frac{(1 - u u^\top)\, M^{-1/2} \nabla \ln \pi(z)}{D - 1}, \qquad |u| = 1

    in leapfrog steps, all chains at once. With ``adjusted`` the end is accepted with the probability
    :math:`\min(1, e^{-\Delta E})` of the error of the energy :math:`E = K - \ln \pi`, and draws are those of the
    density. Without, every end is taken, and draws have a bias that grows with the step.

    Args:
        length, jitter, max_steps: See `TrajectoryKernel`; lengths are in units of :math:`D^{1/2}` in the whitened
            density, step sizes in its own.
        adjusted: Whether ends are accepted by their energy, default True.
        target_accept: See `Kernel`. Steps are adapted to this acceptance even where every end is taken.

    Raises:
        SettingError: A setting is out of range, or the density is over one number alone.

    Reference:
        Robnik, De Luca, Silverstein and Seljak, 2023, "Microcanonical Hamiltonian Monte Carlo" (directions drawn anew
        after a length); adjusted: Robnik, Cohn-Gordon and Seljak, 2025, "Metropolis adjusted microcanonical
        Hamiltonian Monte Carlo". The warm-up is ours, not theirs.
    """

    adjusted: bool = True

    def one_step(
        self, density: LogProbAndGrad, position: Position, streams: Streams, inverse_mass: Tensor
    ) -> Callable[[float], float]:
        direction = self._direction(position, streams)

        def accepted(size: float) -> float:
            _, error = self.trajectory(density, position, direction, Tuning(size, inverse_mass), 1)
            return float((-error).clamp(max=0.0).exp().nan_to_num(0.0).mean())

        return accepted

    @staticmethod
    def _direction(position: Position, streams: Streams) -> Tensor:
        if position.z.shape[-1] < 2:
            raise SettingError("kernel", "MicrocanonicalKernel", "a density over at least two numbers, or another one")
        direction = streams.normal(position.z)
        return direction / direction.norm(dim=-1, keepdim=True)

    @staticmethod
    def trajectory(
        density: LogProbAndGrad, position: Position, direction: Tensor, tuning: Tuning, steps: int
    ) -> tuple[tuple[Position, Tensor], Tensor]:
        """Steps of constant speed: where they lead, in which direction, and the error of the energy ``[K]``."""
        scale = tuning.inverse_mass.sqrt()
        z, log_prob, gradient = position
        direction, gained = turned(direction, scale * gradient, 0.5 * tuning.step_size)
        for index in range(steps):
            z = z + tuning.step_size * scale * direction
            log_prob, gradient = density(z)
            time = tuning.step_size * (1.0 if index < steps - 1 else 0.5)
            direction, more = turned(direction, scale * gradient, time)
            gained = gained + more
        error = gained - (log_prob.double() - position.log_prob.double())
        return (Position(z, log_prob, gradient), direction), error

    def step(
        self, density: LogProbAndGrad, position: Position, streams: Streams, tuning: Tuning
    ) -> tuple[Position, Transition]:
        steps = self.steps(streams, tuning.step_size, position.z.shape[-1] ** 0.5)
        direction = self._direction(position, streams)
        (end, _), error = self.trajectory(density, position, direction, tuning, steps)
        probability = (-error).clamp(max=0.0).exp().nan_to_num(0.0)
        sound = error <= TOO_MUCH
        taken = streams.uniform().to(probability.device) < probability if self.adjusted else sound
        counts = torch.full((len(position.z),), steps)
        return where(taken, end, position), Transition(
            acceptance=probability,
            energy=torch.where(taken, error, 0.0),
            divergent=~sound,
            steps=counts,
            depth=torch.zeros_like(counts),
        )
