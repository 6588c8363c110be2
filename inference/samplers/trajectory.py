"""Kernels whose chains all follow a trajectory of one jittered length."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...priors.settings import check, check_count, check_positive
from .kernel import Kernel, Position
from .streams import Streams


@dataclass(frozen=True, kw_only=True)
class TrajectoryKernel(Kernel):
    """A kernel with trajectories of a given mean length, which all chains follow at once.

    Args:
        length: Mean length of a trajectory, above 0, default 1.5.
        jitter: Lengths are uniform within this share of it, from 0 (all the same) to below 1, default 0.5. All chains
            take the same number of steps.
        max_steps: Most steps of a trajectory, default 1000.
        target_accept: See `Kernel`.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Neal, 2011, "MCMC using Hamiltonian dynamics", Sec. 4.2 (jitter).
    """

    length: float = 1.5
    jitter: float = 0.5
    max_steps: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "length")
        check(self, "jitter", 0 <= self.jitter < 1, "a number from 0 to below 1")
        check_count(self, "max_steps")

    def steps(self, streams: Streams, step_size: float, unit: float = 1.0) -> int:
        """How many steps the next trajectory takes, with lengths in this unit."""
        length = self.length * (1 + self.jitter * (2 * streams.shared_uniform() - 1)) * unit
        return max(1, min(self.max_steps, math.ceil(length / step_size)))


def where(taken: Tensor, new: Position, old: Position) -> Position:
    """The new position of the chains that take it, ``[K]``, and the old one of the others."""
    return Position(
        *(torch.where(taken if a.dim() == 1 else taken.unsqueeze(-1), a, b) for a, b in zip(new, old, strict=True))
    )
