"""Weights by the relative position of key and query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..rows import masked_log_softmax
from ..settings import check_count
from .base import RowCenter, RowCenterModule


@dataclass(frozen=True, kw_only=True)
class PositionalCenter(RowCenter):
    r"""Weights from the relative position of key and query, learned by every head.

    .. math:: m_i = \mathrm{softmax}_j\big(r_{\mathrm{clip}(j - i,\, -R,\, R)}\big)

    over valid keys. The logits :math:`r` are hyperparameters: they are trained with the guide, from 0, and carry no
    prior. It is for self attention: in cross attention key and query are of two sequences, and have no distance.

    Args:
        reach: :math:`R`, at least 1, default 8: farther keys weigh as much as those at this distance.

    Raises:
        SettingError: ``reach`` is out of range.

    Reference:
        Shaw et al., 2018, "Self-attention with relative position representations", for the clipping; a center
        made of it is ours.
    """

    within: ClassVar[bool] = True

    reach: int = 8

    def __post_init__(self) -> None:
        check_count(self, "reach")

    def build(self, head_dim: int, heads: int) -> RowCenterModule:
        return _Positional(heads, self.reach)


class _Positional(RowCenterModule):
    def __init__(self, heads: int, reach: int):
        super().__init__()
        self.reach = reach
        self.logits = nn.Parameter(torch.empty(heads, 2 * reach + 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.logits)

    def forward(self, scores: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        queries, seen = (torch.arange(length, device=scores.device) for length in scores.shape[-2:])
        distance = (seen - queries.unsqueeze(-1)).clamp(-self.reach, self.reach)
        return masked_log_softmax(self.logits[:, distance + self.reach], mask)
