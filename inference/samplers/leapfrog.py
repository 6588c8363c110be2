"""Hamiltonian dynamics, in steps that keep volume and can be taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .kernel import LogProbAndGrad, Position, accepted
from .streams import Streams


class Phase(NamedTuple):
    """Points of phase space, ``[D]`` or ``[K, D]``, with their log-densities ``[]`` or ``[K]`` and gradients."""

    z: Tensor
    momentum: Tensor
    log_prob: Tensor
    gradient: Tensor

    @property
    def position(self) -> Position:
        return Position(self.z, self.log_prob, self.gradient)


def kinetic(momentum: Tensor, inverse_mass: Tensor) -> Tensor:
    r"""The kinetic energy :math:`\tfrac12 r^\top M^{-1} r`, ``[]`` or ``[K]``."""
    return 0.5 * (momentum.square() * inverse_mass).sum(-1)


def energy(phase: Phase, inverse_mass: Tensor) -> Tensor:
    r"""The Hamiltonian :math:`H = \tfrac12 r^\top M^{-1} r - \ln \pi(z)`, in float64."""
    return kinetic(phase.momentum, inverse_mass).double() - phase.log_prob.double()


def leapfrog(density: LogProbAndGrad, phase: Phase, step_size: float, inverse_mass: Tensor, steps: int = 1) -> Phase:
    r"""Steps of the leapfrog integrator, each from half a kick to half a kick.

    .. math:: r \leftarrow r + \tfrac\epsilon2 \nabla \ln \pi(z), \quad z \leftarrow z + \epsilon M^{-1} r, \quad
        r \leftarrow r + \tfrac\epsilon2 \nabla \ln \pi(z)

    Args:
        density: The log-density.
        phase: Where it begins.
        step_size: :math:`\epsilon`; below 0 backwards in time.
        inverse_mass: :math:`M^{-1}`, ``[D]``.
        steps: How many, default 1.

    Reference:
        Neal, 2011, "MCMC using Hamiltonian dynamics", Eqs. 14-16.
    """
    z, momentum, log_prob, gradient = phase
    momentum = torch.add(momentum, gradient, alpha=0.5 * step_size)
    for index in range(steps):
        z = torch.addcmul(z, inverse_mass, momentum, value=step_size)
        log_prob, gradient = density(z)
        momentum = torch.add(momentum, gradient, alpha=step_size if index < steps - 1 else 0.5 * step_size)
    return Phase(z, momentum, log_prob, gradient)


def one_step(
    density: LogProbAndGrad, position: Position, streams: Streams, inverse_mass: Tensor
) -> Callable[[float], float]:
    """The mean acceptance of one leapfrog step as a function of its size; chains keep the momentum that they draw."""
    start = Phase(position.z, streams.normal(position.z) * inverse_mass.rsqrt(), *position[1:])
    before = energy(start, inverse_mass)

    def mean_acceptance(size: float) -> float:
        after = energy(leapfrog(density, start, size, inverse_mass), inverse_mass)
        return float(accepted(after - before)[0].mean())

    return mean_acceptance
