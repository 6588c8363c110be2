"""What a kernel is: it moves chains by one transition that leaves the density as it is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ...priors.settings import check
from .streams import Streams

LogProbAndGrad = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Vectors ``[D]`` or ``[K, D]`` to log-densities ``[]`` or ``[K]`` and their gradients in the shape of the vectors."""

TOO_MUCH = 1000.0
"""An energy this much above that of the start is a divergence (Hoffman and Gelman, 2014, Sec. 3.1)."""


class Position(NamedTuple):
    """Where chains are.

    Args:
        z: ``[K, D]``.
        log_prob: ``[K]``.
        gradient: ``[K, D]``.
    """

    z: Tensor
    log_prob: Tensor
    gradient: Tensor


class Tuning(NamedTuple):
    """What warm-up finds.

    Args:
        step_size: In units of the whitened density.
        inverse_mass: ``[D]``, about the variances of the density.
    """

    step_size: float
    inverse_mass: Tensor


class Transition(NamedTuple):
    """What happened to each chain, ``[K]`` each.

    Args:
        acceptance: Mean acceptance probability of the points that were visited: what step sizes are adapted to.
        energy: The Hamiltonian of the new point with the momentum that it was reached with.
        divergent: Whether the energy of a point was 1000 above that of the start, or no number.
        steps: Leapfrog steps, which are gradient evaluations.
        depth: Doublings of the trajectory, 0 where there are none.
    """

    acceptance: Tensor
    energy: Tensor
    divergent: Tensor
    steps: Tensor
    depth: Tensor


@dataclass(frozen=True, kw_only=True)
class Kernel(ABC):
    """A transition of Markov chains, with its settings.

    Args:
        target_accept: Acceptance that the step size is adapted to, between 0 and 1, default 0.8.

    Raises:
        SettingError: A setting is out of range.
    """

    target_accept: float = 0.8

    def __post_init__(self) -> None:
        check(self, "target_accept", 0 < self.target_accept < 1, "a number between 0 and 1")

    @abstractmethod
    def one_step(
        self, density: LogProbAndGrad, position: Position, streams: Streams, inverse_mass: Tensor
    ) -> Callable[[float], float]:
        """The mean acceptance of one step of the integrator, as a function of its size: step sizes begin by it."""

    @abstractmethod
    def step(
        self, density: LogProbAndGrad, position: Position, streams: Streams, tuning: Tuning
    ) -> tuple[Position, Transition]:
        """Move every chain once.

        Args:
            density: The log-density.
            position: Where the chains are.
            streams: Their random numbers.
            tuning: Step size and masses.
        """


def is_divergent(energy: float, start: float) -> bool:
    """Whether a trajectory has left the surface of its energy."""
    return not energy - start <= TOO_MUCH  # so also where it is no number


def acceptance(energy: float, start: float) -> float:
    r"""The Metropolis probability :math:`\min(1, e^{H_0 - H})`, 0 where the energy is no number."""
    if energy != energy or energy == math.inf:
        return 0.0
    return math.exp(min(0.0, start - energy))
