"""The same total weight for every row."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .base import RowCenter, RowCenterModule


@dataclass(frozen=True, kw_only=True)
class MatchedUniformCenter(RowCenter):
    r"""The same weight for every valid entry of a row, with the total 1 whatever the number of valid keys.

    .. math:: m_{ij} = 1 / n_i, \qquad n_i = \text{valid keys of query } i

    Reference:
        A reconstruction; see Cinquin et al., 2021 (arXiv 2110.04020).
    """

    vanishing = False

    def build(self, head_dim: int, heads: int) -> RowCenterModule:
        return _MatchedUniform()


class _MatchedUniform(RowCenterModule):
    def forward(self, scores: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return scores.new_full((1,), -math.log(scores.shape[-1]))
        valid = mask.expand(*mask.shape[:-1], scores.shape[-1]).sum(-1, keepdim=True)
        return -valid.clamp(min=1).to(scores.dtype).log()
