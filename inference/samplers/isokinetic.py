"""Dynamics of constant speed, in steps of the minimal-norm integrator, and how directions are forgotten."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...priors.settings import SettingError
from .kernel import LogProbAndGrad, Position
from .streams import Streams

SHARE = 0.1931833275037836
"""Of the force at the ends of a step: the real root of the minimum of the error (McLachlan, 1995, Eq. 4.2)."""
EVALUATIONS = 2
"""Gradient evaluations of a step."""


def unit(directions: Tensor) -> Tensor:
    """Vectors ``[..., D]`` with length 1."""
    return directions / directions.norm(dim=-1, keepdim=True)


def fresh_direction(position: Position, streams: Streams) -> Tensor:
    """Directions ``[K, D]``, uniform on the sphere.

    Raises:
        SettingError: There is but one dimension.
    """
    if position.z.shape[-1] < 2:
        raise SettingError("kernel", "microcanonical", "a density over at least two numbers, or another kernel")
    return unit(streams.normal(position.z))


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
    inverse = size.clamp(min=torch.finfo(force.dtype).tiny).reciprocal()
    angle = size * (time / freedom)
    shrunk, cosine = torch.exp(-angle), (direction * force).sum(-1, keepdim=True) * inverse
    lost = 1 - shrunk
    # all multiplied by 2 exp(-angle), since hyperbolic functions overflow
    moved = torch.addcmul(2 * shrunk * direction, force, lost * (1 + shrunk + cosine * lost) * inverse)
    scale = 1 + cosine + (1 - cosine) * shrunk * shrunk
    return unit(moved), freedom * (angle + torch.log(0.5 * scale)).squeeze(-1).double()


def refreshed(direction: Tensor, noise: Tensor, step_size: float, length: float) -> Tensor:
    r"""Directions ``[K, D]`` that have forgotten a part of themselves.

    .. math:: u' = \frac{u + \nu \xi}{|u + \nu \xi|}, \qquad \nu = \sqrt{\frac{e^{2 \epsilon / L} - 1}{D}}

    Args:
        direction: Unit vectors :math:`u`.
        noise: Standard normal :math:`\xi`.
        step_size: :math:`\epsilon`.
        length: :math:`L`, the way on which a direction is forgotten.

    Reference:
        Robnik and Seljak, 2023, "Fluctuation without dissipation: microcanonical Langevin Monte Carlo", Sec. 3.
    """
    exponent = min(2 * step_size / length, 100.0)  # beyond, nothing of the old direction is left
    return unit(direction + math.sqrt(math.expm1(exponent) / direction.shape[-1]) * noise)


def minimal_norm(
    density: LogProbAndGrad, position: Position, direction: Tensor, step_size: float, scale: Tensor, steps: int = 1
) -> tuple[Position, Tensor, Tensor]:
    r"""Steps of constant speed: where they lead, in which direction, and the error of the energy ``[K]``.

    .. math:: B_{\lambda\epsilon} A_{\epsilon/2} B_{(1 - 2\lambda)\epsilon} A_{\epsilon/2} B_{\lambda\epsilon}, \qquad
        A_\epsilon: z \leftarrow z + \epsilon M^{-1/2} u, \qquad
        B_\epsilon: \dot u = \frac{(1 - u u^\top)\, M^{-1/2} \nabla \ln \pi(z)}{D - 1}, \qquad
        \Delta E = \sum \Delta K - \Delta \ln \pi

    with :math:`\lambda \approx 0.193`. The error is also minus the logarithm of how much denser the measure
    :math:`\pi(z)\, dz\, du` has become, so it takes the place of that of the Hamiltonian.

    Args:
        density: The log-density.
        position: Where they begin.
        direction: Unit vectors ``[K, D]``.
        step_size: :math:`\epsilon`.
        scale: :math:`M^{-1/2}`, ``[D]``.
        steps: How many, default 1; of two gradients each.

    Reference:
        McLachlan, 1995, "On the numerical integration of ordinary differential equations by symmetric composition
        methods", Eq. 4.2; Omelyan, Mryglod and Folk, 2002.
    """
    z, log_prob, gradient = position
    drift = 0.5 * step_size * scale
    direction, gained = turned(direction, scale * gradient, SHARE * step_size)
    for index in range(steps):
        z = z + drift * direction
        gradient = density(z)[1]
        direction, inside = turned(direction, scale * gradient, (1 - 2 * SHARE) * step_size)
        z = z + drift * direction
        log_prob, gradient = density(z)
        time = SHARE * step_size * (2.0 if index < steps - 1 else 1.0)  # with the beginning of the next
        direction, outside = turned(direction, scale * gradient, time)
        gained = gained + inside + outside
    error = gained - (log_prob.double() - position.log_prob.double())
    return Position(z, log_prob, gradient), direction, error
