"""What a step of stochastic-gradient MCMC is made of."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Motion(NamedTuple):
    """How ``K`` chains move, beside where they are.

    Args:
        momentum: ``[K, D]``, of unit mass.
        friction: The share of the momentum that a step takes away, ``[K]``.
    """

    momentum: Tensor
    friction: Tensor


class Surroundings(NamedTuple):
    r"""What chains meet in one step.

    Args:
        force: The estimate of :math:`-\nabla U`, ``[K, D]``.
        noise: Standard normal numbers ``[K, D]``.
        rate: The learning rate over the number of examples, :math:`\ell_t / N`.
        temperature: :math:`T`, or 0 where the schedule wants no noise.
        excess: The variance of the force by minibatches, ``[K, D]``, where it is estimated; else 0.
    """

    force: Tensor
    noise: Tensor
    rate: float
    temperature: float
    excess: Tensor | float


def left_of(wanted: float, there: Tensor | float) -> Tensor | float:
    r"""The standard deviation of the noise to add: :math:`\sqrt{\max(v - \hat v, 0)}`.

    Args:
        wanted: The variance that a step is to have, :math:`v`.
        there: The part of it that minibatches bring already, :math:`\hat v`.
    """
    if isinstance(there, Tensor):
        return (wanted - there).clamp(min=0.0).sqrt()
    return float(max(wanted - there, 0.0) ** 0.5)
