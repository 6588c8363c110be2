"""What a kernel is: it moves chains by one transition that leaves the density as it is, or nearly."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor

from .streams import Streams

if TYPE_CHECKING:
    from .adaptation import Adaptation

LogProbAndGrad = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Vectors ``[D]`` or ``[K, D]`` to log-densities ``[]`` or ``[K]`` and their gradients in the shape of the vectors."""

TOO_MUCH = 1000.0
"""An energy this much above that of the start is a divergence (Hoffman and Gelman, 2014, Sec. 3.1)."""

Memory = Mapping[str, Tensor]
NOTHING: Memory = MappingProxyType({})


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
        length: Of a trajectory, or of the way on which a direction is forgotten, in units of the whitened density; 0
            for kernels without one.
    """

    step_size: float
    inverse_mass: Tensor
    length: float = 0.0


class Transition(NamedTuple):
    """What happened to each chain, ``[K]`` each.

    Args:
        acceptance: Mean acceptance probability of the points that were visited: what step sizes are adapted to.
        energy: The Hamiltonian of the new point with the momentum that it was reached with; `MCLMCKernel` and
            `AdjustedMCLMCKernel` say what it is for them.
        divergent: Whether the energy of a point was 1000 above that of the start, or no number.
        steps: Gradient evaluations.
        depth: Doublings of the trajectory, 0 where there are none.
    """

    acceptance: Tensor
    energy: Tensor
    divergent: Tensor
    steps: Tensor
    depth: Tensor


class Moved(NamedTuple):
    """What a step of a kernel gives.

    Args:
        position: Where the chains are now.
        transition: What happened.
        memory: What the kernel is to be given at the next step.
        evidence: What the adaptation of the kernel learns from, beside the transition.
    """

    position: Position
    transition: Transition
    memory: Memory = NOTHING
    evidence: Memory = NOTHING


@dataclass(frozen=True, kw_only=True)
class Kernel(ABC):
    """A transition of Markov chains, with its settings."""

    hamiltonian: ClassVar[bool] = True
    """Whether the energy of a transition is a Hamiltonian; of others it is an error of the energy."""
    exact: ClassVar[bool] = True
    """Whether a transition leaves the density as it is, whatever the step size."""

    def memory(self, position: Position, streams: Streams) -> Memory:
        """What the kernel carries from step to step beside the position, such as a direction: at the start.

        Raises:
            SettingError: The kernel cannot move chains like these.
        """
        return NOTHING

    @abstractmethod
    def adaptation(self, tuning: Tuning, steps: int) -> Adaptation:
        """What tunes the kernel during warm-up.

        Args:
            tuning: Step size and masses to begin with.
            steps: Those of warm-up.
        """

    @abstractmethod
    def one_step(
        self, density: LogProbAndGrad, position: Position, streams: Streams, inverse_mass: Tensor
    ) -> Callable[[float], float]:
        """The mean acceptance of one step of the integrator, as a function of its size: step sizes begin by it.

        A kernel that is not tuned to an acceptance has another measure, which falls through a half.
        """

    @abstractmethod
    def step(
        self,
        density: LogProbAndGrad,
        position: Position,
        streams: Streams,
        tuning: Tuning,
        memory: Memory = NOTHING,
    ) -> Moved:
        """Move every chain once.

        Args:
            density: The log-density.
            position: Where the chains are.
            streams: Their random numbers.
            tuning: Step size and masses.
            memory: What the kernel left at the last step.
        """


def is_divergent(energy: float, start: float) -> bool:
    """Whether a trajectory has left the surface of its energy."""
    return not (math.isfinite(energy) and energy - start <= TOO_MUCH)


def acceptance(energy: float, start: float) -> float:
    r"""The Metropolis probability :math:`\min(1, e^{H_0 - H})`, 0 where the energy is no number."""
    return math.exp(min(0.0, start - energy)) if math.isfinite(energy) else 0.0


def accepted(error: Tensor) -> tuple[Tensor, Tensor]:
    r"""For errors of the energy ``[K]``: the probabilities :math:`\min(1, e^{-\Delta})`, and which are divergences.

    An error that is no finite number has the probability 0: a density that rises without bound is none.
    """
    finite = error.isfinite()
    probability = torch.where(finite, (-error).clamp(max=0.0).exp(), 0.0)
    return probability, ~(finite & (error <= TOO_MUCH))


def where(taken: Tensor, new: Position, old: Position) -> Position:
    """The new position of the chains that take it, ``[K]``, and the old one of the others."""
    row = taken.unsqueeze(-1)
    return Position(
        torch.where(row, new.z, old.z),
        torch.where(taken, new.log_prob, old.log_prob),
        torch.where(row, new.gradient, old.gradient),
    )
