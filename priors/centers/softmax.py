"""Weights that are softmax attention itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..rows import masked_log_softmax
from .base import RowCenter, RowCenterModule


@dataclass(frozen=True, kw_only=True)
class SoftmaxCenter(RowCenter):
    r"""Softmax attention: the only one of the centers whose prior can generate rows for a new input.

    .. math:: m_i = \mathrm{softmax}(Z_i), \qquad Z = QK^\top/\sqrt{d}

    over valid keys.

    Reference:
        Vaswani et al., 2017, "Attention is all you need", Eq. 1; rows scattered around it are ours.
    """

    sees_queries: ClassVar[bool] = True

    def build(self, head_dim: int, heads: int) -> RowCenterModule:
        return _Softmax()


class _Softmax(RowCenterModule):
    def forward(self, scores: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        return masked_log_softmax(scores, mask)
