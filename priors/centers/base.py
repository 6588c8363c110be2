"""What a center is: the weights of a row's entries, around which a law scatters the row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn


class RowCenter(ABC):
    r"""The weights :math:`m_{ij} > 0` of the valid entries of a row, of which a law makes its distribution.

    .. math:: m_{ij} = m(Z_{ij}, k_j, i, j)

    With all but `SoftmaxCenter` the joint density does not contain the query weights, which then act only through the
    guide.
    """

    choice_suffix: ClassVar[str] = "Center"
    """What `choice_name` leaves out, so that a spec says ``center: flat``."""
    level: ClassVar[bool] = False
    """Whether its only say is how large the weights are, all of a row's being equal, by a number that is learned."""
    vanishing: ClassVar[bool] = True
    """Whether a weight may be too small for its dtype."""
    sees_queries: ClassVar[bool] = False
    """Whether its weights depend on the query: else the joint density of rows and weights does not contain it."""
    within: ClassVar[bool] = False
    """Whether its weights have a meaning only where keys and queries are of one sequence."""

    @abstractmethod
    def build(self, head_dim: int, heads: int) -> RowCenterModule:
        """The center as a module of one attention layer with so many heads of width ``head_dim``."""


class RowCenterModule(nn.Module):
    """Turns the activations of one attention layer into the log-weights of its rows' entries."""

    def forward(self, scores: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        """The log-weights.

        Args:
            scores: ``[..., B, H, T, S]``, the scaled products of ``T`` queries and ``S`` keys.
            keys: ``[..., B, H, S, d]``.
            mask: Valid entries of the rows, broadcastable to the scores, or None when all are.

        Returns:
            Finite numbers, broadcastable to the scores; those of entries that are not valid mean nothing.
        """
        raise NotImplementedError

    def share(self, first: RowCenterModule) -> None:
        """Take over those parameters of another layer's module that all layers of one prior share; here none."""
        return None
