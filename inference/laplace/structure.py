"""What every structure of the curvature offers: it is gathered over the data, and with a prior it is a normal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..data import Inputs, first, take
from ..errors import InferenceError
from ..prediction import slices
from .functions import Functions, Weights

SINGULAR = 1e-10
"""A precision without a prior is singular when its smallest eigenvalue is this small a share of the largest."""


class StructuredNormal(ABC):
    r"""A normal distribution with mean 0 over some weights, whose precision has a structure.

    .. math:: \delta \sim \mathcal N(0, P^{-1}), \qquad P = \sum_n J_n^\top \Lambda_n J_n + \mathrm{diag}(\lambda)

    All numbers are float64.

    Args:
        shapes: The shapes of the weights, by name.
    """

    def __init__(self, shapes: Mapping[str, torch.Size]):
        self.shapes = dict(shapes)

    @property
    @abstractmethod
    def log_det(self) -> Tensor:
        r"""The log-determinant of the precision, :math:`\log |P|`."""

    @abstractmethod
    def draw(self, num_samples: int) -> Weights:
        """Draws ``[S, *W]`` by weight."""

    @abstractmethod
    def variances(self) -> Weights:
        """The marginal variance of every entry, by weight."""

    @abstractmethod
    def projected(self, jacobian: Mapping[str, Tensor]) -> Tensor:
        r"""The variance of linear functions, :math:`\mathrm{diag}(J P^{-1} J^\top)`.

        Args:
            jacobian: ``[B, O, *W]`` by weight.

        Returns:
            ``[B, O]``.
        """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What a file keeps of it."""

    @classmethod
    @abstractmethod
    def restored(cls, shapes: Mapping[str, torch.Size], tensors: Mapping[str, Tensor]) -> StructuredNormal:
        """The distribution again, from what `tensors` gave."""


class Curvature(ABC):
    r"""The generalised Gauss-Newton matrix of some weights, in a structure.

    .. math:: \sum_n J_n^\top \Lambda_n J_n, \qquad \Lambda_n = -\nabla_f^2 \log p(y_n \mid f_n)

    Args:
        functions: The net around the mode.
    """

    def __init__(self, functions: Functions):
        self.functions = functions
        self.shapes = {name: value.shape for name, value in functions.mode.items()}

    @abstractmethod
    def add(self, x: Inputs, roots: Tensor) -> None:
        """Add some examples ``[B, ...]``, with the square roots ``[K, B, ...]`` of their output Hessians."""

    @abstractmethod
    def normal(self, prior: Mapping[str, Tensor]) -> StructuredNormal:
        """The normal distribution whose precision is this curvature plus that of the prior.

        Args:
            prior: The prior precision of every entry, ``[*W]`` by weight; 0 where the prior is flat.

        Raises:
            InferenceError: The precision is not positive definite.
        """

    def gradients(self, x: Inputs, roots: Tensor) -> Iterator[Weights]:
        """The products of roots and Jacobians, ``[b, K, *W]`` by weight, for a few examples at a time."""
        for where in slices(len(first(x)), self.functions.most(len(roots))):
            yield self.functions.backward(take(x, where), roots[:, where])


def check_positive(name: str, smallest: Tensor, largest: Tensor, prior: Tensor) -> None:
    """Raise an `InferenceError` unless a precision with these eigenvalues is positive definite."""
    least = float(largest) * SINGULAR if float(prior.min()) == 0 else 0.0
    if not float(smallest) > least:
        raise InferenceError(
            f"the posterior precision of {name} is not positive definite (its eigenvalues reach from "
            f"{float(smallest):.3g} to {float(largest):.3g}): expected a prior that is not flat, or more data"
        )
