"""The same weight for every entry."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .base import RowCenter, RowCenterModule


@dataclass(frozen=True, kw_only=True)
class FlatCenter(RowCenter):
    r"""The weight 1 for every valid entry.

    .. math:: m_{ij} = 1

    A row's total weight grows with the number of its keys. With `DirichletRows`, the concentration 1 and the floor 0
    rows are uniform on the simplex.

    Reference:
        A reconstruction of Cinquin et al., 2021 (arXiv 2110.04020).
    """

    vanishing = False

    def build(self, head_dim: int, heads: int) -> RowCenterModule:
        return _Flat()


class _Flat(RowCenterModule):
    def forward(self, scores: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        return scores.new_zeros(1)
